//! What the log is made of.

use bytes::Bytes;

use crate::Membership;

/// What kind of entry the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A command of the application; empty when a new leader opened its term.
    Normal,
    /// A membership change; `data` is the context given to `propose_membership`.
    Membership,
}

/// One log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log, from 1.
    pub index: u64,
    /// Term of the leader that appended it.
    pub term: u64,
    /// What `data` is.
    pub kind: EntryKind,
    /// The application's bytes. Empty in the entry with which a leader opens its term.
    pub data: Bytes,
    /// The encoded membership change; empty in normal entries. Stores keep it as it is.
    pub change: Bytes,
}

impl Entry {
    /// A normal entry.
    pub fn normal(index: u64, term: u64, data: Bytes) -> Entry {
        Entry {
            index,
            term,
            kind: EntryKind::Normal,
            data,
            change: Bytes::new(),
        }
    }

    /// Payload bytes that this entry holds in memory.
    pub fn size_bytes(&self) -> u64 {
        (self.data.len() + self.change.len()) as u64
    }
}

/// What a member must never forget: its term, its vote, and how far it knows the log to be committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HardState {
    /// Newest term seen.
    pub term: u64,
    /// Member voted for in that term; 0 if none.
    pub vote: u64,
    /// Highest index known to be committed. May lag on disk without harm.
    pub commit: u64,
}

/// Where a snapshot sits in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Last index whose effect the snapshot contains.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Membership in force at that index.
    pub membership: Membership,
}

/// The application's state at one index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Position and membership.
    pub meta: SnapshotMeta,
    /// The application's bytes.
    pub data: Bytes,
}
