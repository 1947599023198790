//! berth-tests: real processes on one host.
//!
//! Owns the harness that starts, kills, freezes and cuts off masters and agents ([`cluster`]), the failures that Berth
//! must survive ([`scenario`], [`rounds`], [`kills`]), and two programs: `nemesis` runs them and prints tables, `demo`
//! trains a network while a leader and a node die.
//!
//! Must not know: anything inside a daemon. It uses what users use (programs, files, gRPC, `/proc`), so it can be wrong
//! only about what users can be wrong about.
//!
//! Start reading at [`cluster`], then at any file of [`scenario`].

pub mod client;
pub mod cluster;
mod config;
pub mod dice;
pub mod figures;
pub mod kills;
pub mod ledger;
pub mod ports;
pub mod process;
pub mod procfs;
pub mod programs;
pub mod proxy;
pub mod rounds;
pub mod scenario;
pub mod scratch;
pub mod spec;
pub mod wait;

pub use client::Client;
pub use cluster::{Cluster, Plan};
pub use config::Settings;
pub use ledger::Ledger;
