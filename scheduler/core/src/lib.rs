//! Everything that decides: the replicated state and its transitions, the log codec, the planner, and the glue between
//! Raft, state, planner and agents.
//!
//! PURE: no I/O, no clock, no unseeded randomness, no threads, ordered containers only. Time is an argument.
//!
//! Must not know: gRPC, disks, processes, and which policies exist (the policy is asked through [`Effect::AskPolicy`]).
//!
//! Start reading at [`replica`] (one deterministic step), then [`state`] and [`apply`] (what a committed command does),
//! then [`planner`] (how a proposal becomes a plan).

pub mod apply;
pub mod check;
pub mod codec;
pub mod command;
pub mod goodput;
pub mod health;
pub mod insight;
pub mod planner;
pub mod policy;
pub mod query;
pub mod replica;
pub mod state;

pub use command::{Bundle, Command, Eviction, LogEntry, Start};
pub use policy::{Action, Backfill, Pool, Proposal, Rest, View};
pub use replica::{Effect, Input, Replica, ReplicaConfig};
pub use state::State;
