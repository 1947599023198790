//! The in-memory tail of the log: what raft-rs reads its entries, terms and snapshots from.

use std::collections::VecDeque;

use raft::eraftpb as pb;
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::eraft;
use crate::status::LogSize;
use crate::{Membership, Recovered, SnapshotMeta};

/// Entries from `base_index + 1`, the newest snapshot, and the memberships in force since the base.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The entry before the first one; its term is kept for matching.
    base_index: u64,
    base_term: u64,
    entries: VecDeque<pb::Entry>,
    bytes: u64,
    /// Newest snapshot, kept whole: it is what a peer that lags past the tail gets.
    snapshot: Option<pb::Snapshot>,
    /// Payload bytes of entries up to the snapshot's index.
    bytes_covered: u64,
    initial: RaftState,
    /// Memberships by the index from which they hold, oldest first. The first one holds at the snapshot's index.
    memberships: VecDeque<(u64, Membership)>,
}

impl Tail {
    pub(crate) fn new(recovered: &Recovered) -> Tail {
        let membership = recovered
            .snapshot
            .as_ref()
            .map_or(&recovered.membership, |s| &s.meta.membership);
        let (snapshot_index, snapshot_term) = recovered
            .snapshot
            .as_ref()
            .map_or((0, 0), |s| (s.meta.index, s.meta.term));
        let mut hard_state = recovered.hard_state;
        hard_state.commit = hard_state.commit.max(snapshot_index);
        let mut entries: VecDeque<pb::Entry> =
            recovered.entries.iter().map(eraft::entry_to).collect();
        let (mut base_index, mut base_term) = (snapshot_index, snapshot_term);
        // A retained tail begins before the snapshot: its first entry becomes the one that is kept for matching only.
        if entries
            .front()
            .is_some_and(|first| first.index <= snapshot_index)
            && let Some(first) = entries.pop_front()
        {
            (base_index, base_term) = (first.index, first.term);
        }
        let bytes = entries.iter().map(payload).sum();
        let bytes_covered = entries
            .iter()
            .filter(|e| e.index <= snapshot_index)
            .map(payload)
            .sum();
        Tail {
            base_index,
            base_term,
            entries,
            bytes,
            snapshot: recovered.snapshot.as_ref().map(eraft::snapshot_to),
            bytes_covered,
            initial: RaftState::new(
                eraft::hard_state_to(&hard_state),
                eraft::conf_state_of(membership),
            ),
            memberships: VecDeque::from([(snapshot_index, membership.clone())]),
        }
    }

    pub(crate) fn first(&self) -> u64 {
        self.base_index + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }

    pub(crate) fn snapshot_index(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |s| s.get_metadata().index)
    }

    pub(crate) fn size(&self) -> LogSize {
        let covered = self
            .snapshot_index()
            .saturating_sub(self.base_index)
            .min(self.entries.len() as u64);
        LogSize {
            entries: self.entries.len() as u64,
            bytes: self.bytes,
            entries_since_snapshot: self.entries.len() as u64 - covered,
            bytes_since_snapshot: self.bytes.saturating_sub(self.bytes_covered),
        }
    }

    /// Appends consecutive entries, replacing what is there from the first one's index.
    pub(crate) fn append(&mut self, new: Vec<pb::Entry>) {
        let Some(first) = new.first() else { return };
        assert!(
            first.index > self.base_index && first.index <= self.last() + 1,
            "entries must follow the log"
        );
        while self.last() >= first.index {
            if let Some(gone) = self.entries.pop_back() {
                self.bytes -= payload(&gone);
            }
        }
        self.bytes += new.iter().map(payload).sum::<u64>();
        self.entries.extend(new);
    }

    /// A snapshot from the leader replaces everything.
    pub(crate) fn reset_to(&mut self, snapshot: pb::Snapshot) {
        let meta = snapshot.get_metadata();
        (self.base_index, self.base_term) = (meta.index, meta.term);
        self.memberships =
            VecDeque::from([(meta.index, eraft::membership_from(meta.get_conf_state()))]);
        self.entries.clear();
        (self.bytes, self.bytes_covered) = (0, 0);
        self.snapshot = Some(snapshot);
    }

    /// Takes a newer local snapshot and drops entries that it covers: all but `keep_entries`, and more of them while
    /// they hold more than `max_bytes`. Returns the new base.
    pub(crate) fn compact(
        &mut self,
        snapshot: pb::Snapshot,
        keep_entries: u64,
        max_bytes: u64,
    ) -> u64 {
        let meta = snapshot.get_metadata();
        let index = meta.index;
        let membership = eraft::membership_from(meta.get_conf_state());
        self.memberships.retain(|(from, _)| *from > index);
        self.memberships.push_front((index, membership));
        self.snapshot = Some(snapshot);
        self.bytes_covered = self
            .entries
            .iter()
            .take_while(|e| e.index <= index)
            .map(payload)
            .sum();
        let target = index.saturating_sub(keep_entries);
        while self.base_index < index
            && (self.base_index < target || self.bytes_covered > max_bytes)
        {
            let Some(gone) = self.entries.pop_front() else {
                break;
            };
            (self.base_index, self.base_term) = (gone.index, gone.term);
            self.bytes -= payload(&gone);
            self.bytes_covered -= payload(&gone);
        }
        self.base_index
    }

    /// Records that `membership` holds from `index` on.
    pub(crate) fn record_membership(&mut self, index: u64, membership: Membership) {
        self.memberships.push_back((index, membership));
    }

    /// Index of the newest membership change that was applied.
    pub(crate) fn membership_index(&self) -> u64 {
        self.memberships.back().map_or(0, |(from, _)| *from)
    }

    /// Position and membership of a snapshot taken at `index`.
    pub(crate) fn meta_at(&self, index: u64) -> Option<SnapshotMeta> {
        let term = self.term_at(index).filter(|_| index > 0)?;
        let membership = self
            .memberships
            .iter()
            .rev()
            .find(|(from, _)| *from <= index)?
            .1
            .clone();
        Some(SnapshotMeta {
            index,
            term,
            membership,
        })
    }

    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base_index {
            return Some(self.base_term);
        }
        if index == self.snapshot_index() {
            return self.snapshot.as_ref().map(|s| s.get_metadata().term);
        }
        let offset = index.checked_sub(self.base_index + 1)?;
        self.entries
            .get(usize::try_from(offset).ok()?)
            .map(|e| e.term)
    }
}

fn payload(e: &pb::Entry) -> u64 {
    (e.data.len() + e.context.len()) as u64
}

impl Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<pb::Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let from = (low - self.first()) as usize;
        let mut size = 0;
        let fits = |e: &&pb::Entry| {
            let first = size == 0;
            size += payload(e) + ENTRY_OVERHEAD_BYTES;
            first || size <= max_size
        };
        Ok(self
            .entries
            .range(from..from + (high - low) as usize)
            .take_while(fits)
            .cloned()
            .collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_at(index) {
            Some(term) => Ok(term),
            None if index < self.base_index => Err(Error::Store(StorageError::Compacted)),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<pb::Snapshot> {
        self.snapshot
            .clone()
            .filter(|s| s.get_metadata().index >= request_index)
            .ok_or(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

/// What raft-rs reckons per entry besides its payload.
const ENTRY_OVERHEAD_BYTES: u64 = 12;
