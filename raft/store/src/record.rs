//! Bytes of journal records and of the engine's values. Every stored value carries a checksum over its key and itself.

use berth_raft::{Entry, EntryKind, HardState, Membership, Persist, Snapshot, SnapshotMeta};
use bytes::Bytes;
use prost::Message;

/// One `persist` call: all its batches.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct JournalRecord {
    #[prost(message, repeated, tag = "1")]
    pub(crate) batches: Vec<BatchRecord>,
}

/// One batch. Snapshot payloads are in files of their own.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BatchRecord {
    #[prost(bool, tag = "1")]
    pub(crate) reset_log: bool,
    #[prost(message, repeated, tag = "2")]
    pub(crate) entries: Vec<EntryRecord>,
    #[prost(message, optional, tag = "3")]
    pub(crate) hard_state: Option<HardStateRecord>,
    #[prost(message, optional, tag = "4")]
    pub(crate) membership: Option<MembershipRecord>,
    #[prost(message, optional, tag = "5")]
    pub(crate) snapshot: Option<SnapshotRecord>,
    #[prost(uint64, optional, tag = "6")]
    pub(crate) compact_to: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EntryRecord {
    #[prost(uint64, tag = "1")]
    pub(crate) index: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) term: u64,
    #[prost(bool, tag = "3")]
    pub(crate) membership: bool,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) data: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) change: Bytes,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct HardStateRecord {
    #[prost(uint64, tag = "1")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) vote: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) commit: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MembershipRecord {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) learners: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotRecord {
    #[prost(uint64, tag = "1")]
    pub(crate) index: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) term: u64,
    #[prost(message, optional, tag = "3")]
    pub(crate) membership: Option<MembershipRecord>,
}

impl From<&Entry> for EntryRecord {
    fn from(e: &Entry) -> EntryRecord {
        EntryRecord {
            index: e.index,
            term: e.term,
            membership: e.kind == EntryKind::Membership,
            data: e.data.clone(),
            change: e.change.clone(),
        }
    }
}

impl From<EntryRecord> for Entry {
    fn from(e: EntryRecord) -> Entry {
        let kind = if e.membership {
            EntryKind::Membership
        } else {
            EntryKind::Normal
        };
        Entry {
            index: e.index,
            term: e.term,
            kind,
            data: e.data,
            change: e.change,
        }
    }
}

impl From<HardState> for HardStateRecord {
    fn from(h: HardState) -> HardStateRecord {
        HardStateRecord {
            term: h.term,
            vote: h.vote,
            commit: h.commit,
        }
    }
}

impl From<HardStateRecord> for HardState {
    fn from(h: HardStateRecord) -> HardState {
        HardState {
            term: h.term,
            vote: h.vote,
            commit: h.commit,
        }
    }
}

impl From<&Membership> for MembershipRecord {
    fn from(m: &Membership) -> MembershipRecord {
        MembershipRecord {
            voters: m.voters.clone(),
            learners: m.learners.clone(),
        }
    }
}

impl From<MembershipRecord> for Membership {
    fn from(m: MembershipRecord) -> Membership {
        Membership::new(m.voters, m.learners)
    }
}

impl From<&SnapshotMeta> for SnapshotRecord {
    fn from(s: &SnapshotMeta) -> SnapshotRecord {
        SnapshotRecord {
            index: s.index,
            term: s.term,
            membership: Some((&s.membership).into()),
        }
    }
}

impl From<SnapshotRecord> for SnapshotMeta {
    fn from(s: SnapshotRecord) -> SnapshotMeta {
        let membership = s.membership.unwrap_or_default().into();
        SnapshotMeta {
            index: s.index,
            term: s.term,
            membership,
        }
    }
}

impl From<&Persist> for BatchRecord {
    fn from(p: &Persist) -> BatchRecord {
        BatchRecord {
            reset_log: p.reset_log,
            entries: p.entries.iter().map(EntryRecord::from).collect(),
            hard_state: p.hard_state.map(HardStateRecord::from),
            membership: p.membership.as_ref().map(MembershipRecord::from),
            snapshot: p.snapshot.as_ref().map(|s| SnapshotRecord::from(&s.meta)),
            compact_to: p.compact_to,
        }
    }
}

impl BatchRecord {
    /// The batch again, its snapshot without payload.
    pub(crate) fn into_persist(self) -> Persist {
        Persist {
            number: 0,
            reset_log: self.reset_log,
            entries: self.entries.into_iter().map(Entry::from).collect(),
            hard_state: self.hard_state.map(HardState::from),
            membership: self.membership.map(Membership::from),
            snapshot: self.snapshot.map(|s| Snapshot {
                meta: s.into(),
                data: Bytes::new(),
            }),
            compact_to: self.compact_to,
            must_sync: true,
        }
    }

    /// Payload bytes, for deciding when a group of batches is large.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.entries
            .iter()
            .map(|e| e.data.len() + e.change.len() + 32)
            .sum::<usize>()
            + 64
    }
}

/// Puts a checksum over key and value in front of the value.
pub(crate) fn seal(key: &[u8], value: &impl Message) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.reserve(value.encoded_len());
    value.encode_raw(&mut out);
    let crc = checksum(key, &out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Takes a sealed value apart; `None` if it is not as it was written.
pub(crate) fn unseal<M: Message + Default>(key: &[u8], sealed: Bytes) -> Option<M> {
    let crc = sealed.get(..4)?;
    let value = sealed.slice(4..);
    (checksum(key, &value).to_le_bytes() == crc)
        .then(|| M::decode(value).ok())
        .flatten()
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}
