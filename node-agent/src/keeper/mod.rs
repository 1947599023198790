//! The keeper: one small process per node, the parent of all tasks, which outlives the agent and its upgrades.
//!
//! Owns the processes of tasks, their log files' creation, and a durable record of how each ended. Must not know:
//! masters, jobs, leases' meaning, or anything that would need an upgrade often. Single-threaded: one `epoll` over the
//! agent's connection and a pidfd per task.
//!
//! What holds:
//! - an end is announced only after its record is durable; ends that come together share one flush;
//! - a record stays until it is forgotten, over any number of restarts;
//! - the incarnation is drawn anew at each start of a keeper, and only after every task of the one before is gone: a
//!   new incarnation says that no older task can be alive.
//!
//! Start reading at [`server`], then [`records`]. The agent's side is [`client`].

pub mod client;
pub mod confinement;
pub mod connection;
pub mod orphans;
pub mod protocol;
pub mod records;
mod requests;
pub mod server;
pub mod spawn;
pub mod stop;
