//! The agent daemon: feeds facts into the core and carries out its effects. One thread; what may block goes to
//! tokio's blocking pool and comes back as a fact.
//!
//! Start reading at [`run`] in `event_loop.rs`, then `effects.rs`.

mod agent;
mod check;
mod checkpoints;
mod effects;
mod event_loop;
mod fence_file;
mod gpus;
mod happening;
mod hooks;
mod logs;
mod master;
mod masters_file;
pub mod metrics;
mod prepare;
mod program;
mod retention;
mod task_socket;
mod watchdog;

pub use event_loop::{DaemonError, run};
