//! What a replica has to do next.

use crate::{Entry, HardState, Membership, Message, PeerId, Role, Snapshot};

/// Everything that is due. The parts may be executed in any order, except that `install` comes before `committed` and
/// that batches are made durable in the order of their numbers.
#[derive(Debug, Default, PartialEq)]
pub struct Ready {
    /// May be sent now; what has to wait for the disk is not in here yet.
    pub messages: Vec<Message>,
    /// To be made durable; answer with `persisted(number)`.
    pub persist: Option<Persist>,
    /// Committed entries, to be applied in order.
    pub committed: Vec<Entry>,
    /// A snapshot from the leader, durable already: it replaces the application's state before `committed`.
    pub install: Option<Snapshot>,
    /// Reads that may be served once the state has applied their index.
    pub reads: Vec<ReadReady>,
    /// The new role, term and leader, when one of them changed. Reads and proposals of an earlier role are void.
    pub role_changed: Option<(Role, u64, Option<PeerId>)>,
}

impl Ready {
    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.persist.is_none()
            && self.committed.is_empty()
            && self.install.is_none()
            && self.reads.is_empty()
            && self.role_changed.is_none()
    }
}

/// A read that the group has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadReady {
    /// What the caller gave to `read_index`.
    pub context: u64,
    /// The read is current once this index has been applied.
    pub index: u64,
}

/// One atomic batch for the log store. [`crate::Recovered::apply`] says exactly what it does to a log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Persist {
    /// Grows by one with every batch.
    pub number: u64,
    /// The log received is void (a snapshot replaces it): drop every entry first.
    pub reset_log: bool,
    /// Consecutive; entries at or after `entries[0].index` that are stored already are replaced.
    pub entries: Vec<Entry>,
    /// The new hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// The membership at the start of the log, if it changed. Later changes are entries of the log.
    pub membership: Option<Membership>,
    /// The newest snapshot, if it changed.
    pub snapshot: Option<Snapshot>,
    /// Entries up to and including this index are no longer needed.
    pub compact_to: Option<u64>,
    /// False when losing the batch in a crash would do no harm.
    pub must_sync: bool,
}
