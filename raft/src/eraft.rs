//! Conversions between our types and those of raft-rs. Payload bytes are shared, never copied.

use bytes::Bytes;
use raft::eraftpb as pb;

use crate::log::{Entry, EntryKind, HardState, Snapshot, SnapshotMeta};
use crate::message::{Message, WireConfState, WireEntry, WireSnapshot, WireSnapshotMetadata};
use crate::{Membership, RaftError};

/// `eraftpb.EntryType` of a membership change.
pub(crate) const CONF_CHANGE_V2: i32 = pb::EntryType::EntryConfChangeV2 as i32;

pub(crate) fn entry_from(e: &pb::Entry) -> Entry {
    match e.entry_type {
        pb::EntryType::EntryNormal => Entry::normal(e.index, e.term, e.data.clone()),
        pb::EntryType::EntryConfChange | pb::EntryType::EntryConfChangeV2 => Entry {
            index: e.index,
            term: e.term,
            kind: EntryKind::Membership,
            data: e.context.clone(),
            change: e.data.clone(),
        },
    }
}

pub(crate) fn entry_to(e: &Entry) -> pb::Entry {
    let mut out = pb::Entry {
        index: e.index,
        term: e.term,
        ..Default::default()
    };
    match e.kind {
        EntryKind::Normal => out.data = e.data.clone(),
        EntryKind::Membership => {
            out.entry_type = pb::EntryType::EntryConfChangeV2;
            out.data = e.change.clone();
            out.context = e.data.clone();
        }
    }
    out
}

pub(crate) fn hard_state_from(h: &pb::HardState) -> HardState {
    HardState {
        term: h.term,
        vote: h.vote,
        commit: h.commit,
    }
}

pub(crate) fn hard_state_to(h: &HardState) -> pb::HardState {
    pb::HardState {
        term: h.term,
        vote: h.vote,
        commit: h.commit,
        ..Default::default()
    }
}

pub(crate) fn membership_from(c: &pb::ConfState) -> Membership {
    Membership::new(c.voters.iter().copied(), c.learners.iter().copied())
}

pub(crate) fn conf_state_of(m: &Membership) -> pb::ConfState {
    pb::ConfState {
        voters: m.voters.clone(),
        learners: m.learners.clone(),
        ..Default::default()
    }
}

pub(crate) fn snapshot_from(s: &pb::Snapshot) -> Snapshot {
    let meta = s.get_metadata();
    Snapshot {
        meta: SnapshotMeta {
            index: meta.index,
            term: meta.term,
            membership: membership_from(meta.get_conf_state()),
        },
        data: s.data.clone(),
    }
}

pub(crate) fn snapshot_to(s: &Snapshot) -> pb::Snapshot {
    let mut meta = pb::SnapshotMetadata {
        index: s.meta.index,
        term: s.meta.term,
        ..Default::default()
    };
    meta.set_conf_state(conf_state_of(&s.meta.membership));
    let mut out = pb::Snapshot {
        data: s.data.clone(),
        ..Default::default()
    };
    out.set_metadata(meta);
    out
}

/// The wire form of what raft-rs wants sent.
pub(crate) fn message_from(mut m: pb::Message) -> Message {
    let snapshot = m.snapshot.take().map(|s| {
        let meta = s.get_metadata();
        let conf = meta.get_conf_state();
        WireSnapshot {
            data: s.data.clone(),
            metadata: Some(WireSnapshotMetadata {
                conf_state: Some(WireConfState {
                    voters: conf.voters.clone(),
                    learners: conf.learners.clone(),
                    ..WireConfState::default()
                }),
                index: meta.index,
                term: meta.term,
            }),
        }
    });
    let entries = m.take_entries().into_iter().map(|e| WireEntry {
        entry_type: e.entry_type as i32,
        term: e.term,
        index: e.index,
        data: e.data,
        context: e.context,
    });
    Message {
        msg_type: m.msg_type as i32,
        to: m.to,
        from: m.from,
        term: m.term,
        log_term: m.log_term,
        index: m.index,
        entries: entries.collect(),
        commit: m.commit,
        snapshot,
        reject: m.reject,
        reject_hint: m.reject_hint,
        context: m.context,
        request_snapshot: m.request_snapshot,
        commit_term: m.commit_term,
        priority: m.priority,
    }
}

/// What raft-rs shall read. Only for messages that the intake has checked.
pub(crate) fn message_to(m: Message) -> Result<pb::Message, RaftError> {
    use protobuf::ProtobufEnum;

    let refused = |reason| RaftError::Refused {
        from: m.from,
        reason,
    };
    let msg_type =
        pb::MessageType::from_i32(m.msg_type).ok_or_else(|| refused("unknown kind of message"))?;
    let mut out = pb::Message {
        msg_type,
        to: m.to,
        from: m.from,
        term: m.term,
        log_term: m.log_term,
        index: m.index,
        commit: m.commit,
        commit_term: m.commit_term,
        request_snapshot: m.request_snapshot,
        reject: m.reject,
        reject_hint: m.reject_hint,
        context: m.context,
        priority: m.priority,
        ..Default::default()
    };
    let entries: Vec<pb::Entry> = m.entries.into_iter().map(wire_entry_to).collect();
    out.set_entries(entries.into());
    if let Some(snapshot) = m.snapshot {
        out.set_snapshot(wire_snapshot_to(snapshot));
    }
    Ok(out)
}

fn wire_entry_to(e: WireEntry) -> pb::Entry {
    let mut out = pb::Entry {
        index: e.index,
        term: e.term,
        data: e.data,
        context: e.context,
        ..Default::default()
    };
    if e.entry_type == CONF_CHANGE_V2 {
        out.entry_type = pb::EntryType::EntryConfChangeV2;
    }
    out
}

fn wire_snapshot_to(s: WireSnapshot) -> pb::Snapshot {
    let meta = s.metadata.unwrap_or_default();
    let conf = meta.conf_state.unwrap_or_default();
    snapshot_to(&Snapshot {
        meta: SnapshotMeta {
            index: meta.index,
            term: meta.term,
            membership: Membership {
                voters: conf.voters,
                learners: conf.learners,
            },
        },
        data: Bytes::clone(&s.data),
    })
}
