//! The glue: Raft, the replicated state, the planner, clients and agents in one deterministic step.
//!
//! [`Replica::step`] takes `now` and one [`Input`] and appends [`Effect`]s.

mod io;
mod peer;

pub use io::{Effect, HistoryLookup, Input};
pub use peer::{PeerDecodeError, PeerMessage};
