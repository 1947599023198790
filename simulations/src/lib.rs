//! The tool `berth-sim`: runs Berth's simulated world from the command line.
//!
//! Owns files, threads, terminals and the choice of policies around `berth-world`, which stays pure. Must not know: how a
//! world works, real clusters, networks.
//!
//! Start reading at [`chaos`] (many seeds of faults), [`experiment`] (one workload under one policy), [`load`]
//! (workloads that others recorded), then [`cli`].

pub mod chaos;
pub mod cli;
pub mod cluster;
pub mod compare;
pub mod describe;
pub mod experiment;
pub mod generate;
pub mod input;
pub mod load;
pub mod output;
pub mod report;
pub mod reproduce;
pub mod whatif;
