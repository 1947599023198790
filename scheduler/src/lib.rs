//! The master daemon: the shell around `berth_core`'s replica.
//!
//! Owns the event loop that feeds the replica and carries out its effects, the threads for what may block (storage,
//! policy, snapshots, history), the gRPC services, the streams to other masters, the configuration file, and making a
//! master's files from a backup. Must not know how anything is decided: that is `berth_core`'s.
//!
//! ```text
//! gRPC services, peers, agents --Inbox--> event loop (replica) --+--> storage thread --Persisted--> Inbox
//!                                              |                 +--> policy thread --PolicyAnswer--> Inbox
//!                          replies, directives,|peers' streams   +--> history, snapshot threads --> Inbox
//! ```
//!
//! Start reading at [`Master::start`], then `event_loop`, then `service`.

mod clock;
pub mod config;
mod event_loop;
mod history;
mod history_gap;
mod inbox;
mod master;
mod peers;
mod planning;
pub mod restore;
mod service;
mod sessions;
mod shared;
mod snapshots;
mod storage;
mod watchdog;

pub use config::{Config, ConfigError, LogFormat};
pub use master::{Master, RunError, StartError};
