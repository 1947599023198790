//! The agent daemon and its keeper: the shell around `berth-agent-core` that touches the real machine.
//!
//! Owns processes, files, sockets, clocks and the stream to a master. Must not know: what any of it means; every
//! decision is `berth-agent-core`'s.
//!
//! Start reading at [`keeper`] (the parent of all tasks, which outlives the agent), then [`daemon`] (the event loop).

pub mod cgroup;
pub mod config;
pub mod daemon;
pub mod gpu;
pub mod inherited;
pub mod keeper;
pub mod layout;
