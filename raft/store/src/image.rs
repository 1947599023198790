//! What the engine holds of the log, and how a batch changes it.
//!
//! ```text
//! 0x00           one value: applied record, bounds of the log, hard state, membership, snapshot position
//! 0x01 | index   entries, consecutive from floor + 1 to last
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use berth_raft::{Entry, HardState, Membership, PeerId, Recovered, Snapshot, SnapshotMeta};
use bytes::Bytes;
use prost::Message;

use crate::StoreError;
use crate::engine::{Change, Engine, Range, Space};
use crate::record::{
    BatchRecord, EntryRecord, HardStateRecord, MembershipRecord, SnapshotRecord, seal, unseal,
};

const HEAD_KEY: &[u8] = &[0x00];
const ENTRY_TAG: u8 = 0x01;

/// Entries that a compaction removes from the engine at a time: sled stalls for hundreds of milliseconds on larger ones.
pub(crate) const SWEEP_ENTRIES: u64 = 2_000;

/// Entries read at a time when a store is opened.
const LOAD_ENTRIES: usize = 4_096;

/// Everything about the log but its entries.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Head {
    /// Last journal record that is applied here.
    #[prost(uint64, tag = "1")]
    pub(crate) applied: u64,
    /// Entries up to here are no longer needed; those still there are swept.
    #[prost(uint64, tag = "2")]
    pub(crate) floor: u64,
    /// Last entry; equal to `floor` without entries.
    #[prost(uint64, tag = "3")]
    pub(crate) last: u64,
    #[prost(message, optional, tag = "4")]
    pub(crate) hard_state: Option<HardStateRecord>,
    #[prost(message, optional, tag = "5")]
    pub(crate) membership: Option<MembershipRecord>,
    #[prost(message, optional, tag = "6")]
    pub(crate) snapshot: Option<SnapshotRecord>,
    /// Entries from here to `floor` may still be there.
    #[prost(uint64, tag = "7")]
    pub(crate) swept: u64,
}

fn entry_key(index: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    key.push(ENTRY_TAG);
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// Collects batches for the engine, so that what a later one replaces is never written.
#[derive(Debug)]
pub(crate) struct Image {
    head: Head,
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Image {
    /// Reads the head. `None` from a database that never was a store.
    pub(crate) fn load(
        engine: &dyn Engine,
        path: &Path,
        member: PeerId,
    ) -> Result<Option<Image>, StoreError> {
        let Some(sealed) = engine.get(Space::Log, HEAD_KEY)? else {
            return Ok(None);
        };
        let head = unseal(HEAD_KEY, Bytes::from(sealed)).ok_or_else(|| {
            StoreError::corrupt("vote and log bounds are unreadable", path, member)
        })?;
        Ok(Some(Image {
            head,
            changes: BTreeMap::new(),
        }))
    }

    /// The image of a new store, to be written.
    pub(crate) fn blank() -> Image {
        Image {
            head: Head::default(),
            changes: BTreeMap::new(),
        }
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Everything the engine holds, its snapshot without payload.
    pub(crate) fn recovered(
        &self,
        engine: &dyn Engine,
        path: &Path,
        member: PeerId,
    ) -> Result<Recovered, StoreError> {
        let head = &self.head;
        let membership = head
            .membership
            .clone()
            .map_or_else(Membership::default, Membership::from);
        let snapshot = head.snapshot.clone().map(SnapshotMeta::from);
        Ok(Recovered {
            hard_state: head
                .hard_state
                .map_or_else(HardState::default, HardState::from),
            snapshot: snapshot.map(|meta| Snapshot {
                meta,
                data: Bytes::new(),
            }),
            membership,
            entries: self.entries(engine, path, member)?,
        })
    }

    fn entries(
        &self,
        engine: &dyn Engine,
        path: &Path,
        member: PeerId,
    ) -> Result<Vec<Entry>, StoreError> {
        let head = &self.head;
        let mut entries = Vec::new();
        let mut next = head.floor + 1;
        while next <= head.last {
            let (from, to) = (entry_key(next), entry_key(head.last + 1));
            let range = Range {
                from: &from,
                to: &to,
                limit: LOAD_ENTRIES,
                backwards: false,
            };
            let pairs = engine.range(Space::Log, range)?;
            if pairs.is_empty() {
                let what = format!("log entries {next} to {} are missing", head.last);
                return Err(StoreError::corrupt(what, path, member));
            }
            for (key, sealed) in pairs {
                if key != entry_key(next) {
                    return Err(StoreError::corrupt(
                        format!("log entry {next} is missing"),
                        path,
                        member,
                    ));
                }
                let record =
                    unseal::<EntryRecord>(&key, Bytes::from(sealed)).filter(|e| e.index == next);
                let record = record.ok_or_else(|| {
                    StoreError::corrupt(format!("log entry {next} is unreadable"), path, member)
                })?;
                entries.push(Entry::from(record));
                next += 1;
            }
        }
        Ok(entries)
    }

    /// Takes a batch in. Applied in the order of `Recovered::apply`.
    pub(crate) fn stage(&mut self, batch: &BatchRecord) {
        let head = &mut self.head;
        if batch.reset_log {
            let keep_to = batch.snapshot.as_ref().map_or(head.last, |s| s.index);
            // Older entries are swept later; newer ones would be taken for part of the new log.
            for index in keep_to.max(head.floor) + 1..=head.last {
                self.changes.insert(entry_key(index), None);
            }
            head.floor = keep_to;
            head.last = keep_to;
        }
        if let (Some(first), Some(last)) = (batch.entries.first(), batch.entries.last()) {
            for index in last.index + 1..=head.last {
                self.changes.insert(entry_key(index), None);
            }
            for e in &batch.entries {
                let key = entry_key(e.index);
                let sealed = seal(&key, e);
                self.changes.insert(key, Some(sealed));
            }
            // A log that starts anew (restored, or joined by snapshot) starts where its first entry is.
            if head.last == head.floor {
                head.floor = first.index - 1;
            }
            head.last = last.index;
        }
        head.hard_state = batch.hard_state.or(head.hard_state);
        head.membership = batch.membership.clone().or(head.membership.take());
        head.snapshot = batch.snapshot.clone().or(head.snapshot.take());
        if let Some(to) = batch.compact_to {
            head.floor = head.floor.max(to);
            head.last = head.last.max(head.floor);
        }
    }

    /// Writes what is staged, as of journal record `applied`.
    pub(crate) fn write(&mut self, engine: &dyn Engine, applied: u64) -> Result<(), StoreError> {
        self.head.applied = applied;
        let staged = std::mem::take(&mut self.changes);
        let mut changes: Vec<Change> = staged.into_iter().collect();
        changes.push((HEAD_KEY.to_vec(), Some(seal(HEAD_KEY, &self.head))));
        engine.apply(Space::Log, changes)
    }

    /// Removes some entries that are no longer needed; returns whether there are more.
    pub(crate) fn sweep(&mut self, engine: &dyn Engine) -> Result<bool, StoreError> {
        let from = self.head.swept;
        let to = self.head.floor.min(from + SWEEP_ENTRIES);
        if from >= to {
            return Ok(false);
        }
        let mut changes: Vec<Change> = (from + 1..=to)
            .map(|index| (entry_key(index), None))
            .collect();
        self.head.swept = to;
        changes.push((HEAD_KEY.to_vec(), Some(seal(HEAD_KEY, &self.head))));
        engine.apply(Space::Log, changes)?;
        Ok(to < self.head.floor)
    }
}
