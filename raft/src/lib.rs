//! Raft consensus for Berth: tikv's raft-rs behind a small, deterministic facade.
//!
//! **Owns** the in-memory tail of the log, the order in which effects may leave a replica (what a leader may send at once,
//! what must wait for the disk), the election timeouts, membership changes, and the wire form of peer messages.
//!
//! **Must not know** what an entry means, how bytes reach a disk or a peer, or what time it is. It does no I/O, reads no
//! clock, starts no thread and draws no unseeded randomness: ticks, messages and "this batch is durable" are inputs,
//! [`Ready`] is the output.
//!
//! Nothing of raft-rs is visible outside: its generated protobuf types never parse bytes from the network ([`Message`] is
//! our own), and a panic inside it is caught and becomes [`RaftError::Fatal`].
//!
//! Start reading at [`Raft`], then [`Ready`] and [`Persist`]; [`Recovered::apply`] is the reference of what a log store
//! has to do.

mod config;
mod election;
mod eraft;
mod error;
mod facade;
mod intake;
mod log;
mod member_change;
mod membership;
mod message;
mod pipeline;
mod queries;
mod ready;
mod recovered;
mod status;
mod tail;

pub use config::Config;
pub use error::{ProposeError, RaftError};
pub use facade::Raft;
pub use log::{Entry, EntryKind, HardState, Snapshot, SnapshotMeta};
pub use membership::{Membership, MembershipChange};
pub use message::{Message, MessageKind};
pub use ready::{Persist, ReadReady, Ready};
pub use recovered::Recovered;
pub use status::{LogSize, PeerProgress, ProgressKind, Role, Status};

/// Identifies a member of the replicated group. Never 0, and never used again for another disk.
pub type PeerId = u64;
