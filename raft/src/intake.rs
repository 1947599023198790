//! Checks every message from a peer before raft-rs sees it, because raft-rs answers nonsense with a panic.

use raft::StateRole;

use crate::eraft::CONF_CHANGE_V2;
use crate::message::{Message, MessageKind, WireSnapshot};
use crate::{Membership, PeerId, RaftError};

/// Larger numbers are nonsense; below it, no sum of two of them overflows.
const MAX_NUMBER: u64 = 1 << 62;

/// What the checks need to know about the replica.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    pub(crate) id: PeerId,
    pub(crate) term: u64,
    pub(crate) role: StateRole,
    pub(crate) leader: PeerId,
    pub(crate) last_index: u64,
    /// Entries of the log are not durable yet.
    pub(crate) unpersisted: bool,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Hand it to raft-rs.
    Accept,
    /// Legitimate but of no use; drop it.
    Ignore,
}

/// Judges a message.
///
/// # Errors
/// [`RaftError::Refused`] for nonsense, [`RaftError::LostLog`] when the leader proves that this member lost entries.
pub(crate) fn judge(m: &Message, s: &Situation) -> Result<Verdict, RaftError> {
    check_form(m, s).map_err(|reason| RaftError::Refused {
        from: m.from,
        reason,
    })?;
    let current = m.term >= s.term;
    match m.kind() {
        MessageKind::Heartbeat if current && m.commit > s.last_index => Err(RaftError::LostLog {
            leader: m.from,
            acknowledged: m.commit,
            last_index: s.last_index,
        }),
        MessageKind::AppendResponse
            if m.term == s.term && s.role == StateRole::Leader && m.index > s.last_index =>
        {
            Err(RaftError::Refused {
                from: m.from,
                reason: "acknowledges entries that were never sent",
            })
        }
        // Only the leader itself hands over, and raft-rs must not stand for election over an unflushed log.
        MessageKind::TimeoutNow if m.from != s.leader || s.unpersisted => Ok(Verdict::Ignore),
        MessageKind::RequestVoteResponse | MessageKind::RequestPreVoteResponse if s.unpersisted => {
            Ok(Verdict::Ignore)
        }
        _ => Ok(Verdict::Accept),
    }
}

/// Checks that hold whatever the replica's situation.
fn check_form(m: &Message, s: &Situation) -> Result<(), &'static str> {
    if m.to != s.id {
        return Err("addressed to another member");
    }
    if m.from == 0 || m.from == s.id {
        return Err("no valid sender");
    }
    let numbers = [
        m.term,
        m.log_term,
        m.index,
        m.commit,
        m.commit_term,
        m.reject_hint,
    ];
    if m.term == 0 || numbers.iter().any(|n| *n >= MAX_NUMBER) {
        return Err("number out of range");
    }
    if m.request_snapshot != 0 {
        return Err("asks for a snapshot, which this version never does");
    }
    let (entries, snapshot) = (!m.entries.is_empty(), m.snapshot.is_some());
    match m.kind() {
        MessageKind::Unspecified => Err("unknown kind of message"),
        MessageKind::Append if snapshot => Err("carries a snapshot"),
        MessageKind::Append => check_entries(m),
        MessageKind::Snapshot if entries => Err("carries entries"),
        MessageKind::Snapshot => check_snapshot(m.snapshot.as_ref(), m.term),
        MessageKind::AppendResponse
        | MessageKind::RequestVote
        | MessageKind::RequestVoteResponse
        | MessageKind::Heartbeat
        | MessageKind::HeartbeatResponse
        | MessageKind::TimeoutNow
        | MessageKind::RequestPreVote
        | MessageKind::RequestPreVoteResponse
            if entries || snapshot =>
        {
            Err("carries what its kind never carries")
        }
        MessageKind::AppendResponse
        | MessageKind::RequestVote
        | MessageKind::RequestVoteResponse
        | MessageKind::Heartbeat
        | MessageKind::HeartbeatResponse
        | MessageKind::TimeoutNow
        | MessageKind::RequestPreVote
        | MessageKind::RequestPreVoteResponse => Ok(()),
    }
}

fn check_entries(m: &Message) -> Result<(), &'static str> {
    // raft-rs takes any index beyond its log for one of term 0.
    if (m.index == 0) != (m.log_term == 0) || m.log_term > m.term {
        return Err("a position that no log has");
    }
    let (mut index, mut term) = (m.index, m.log_term);
    for e in &m.entries {
        if e.index != index + 1 {
            return Err("entries are not consecutive");
        }
        if e.term < term || e.term > m.term || e.term == 0 {
            return Err("entries are not in the order of their terms");
        }
        if e.entry_type != 0 && e.entry_type != CONF_CHANGE_V2 {
            return Err("unknown kind of entry");
        }
        (index, term) = (e.index, e.term);
    }
    Ok(())
}

fn check_snapshot(snapshot: Option<&WireSnapshot>, term: u64) -> Result<(), &'static str> {
    let meta = snapshot
        .and_then(|s| s.metadata.as_ref())
        .ok_or("snapshot without metadata")?;
    if meta.index == 0 || meta.index >= MAX_NUMBER || meta.term == 0 || meta.term > term {
        return Err("snapshot position out of range");
    }
    let conf = meta
        .conf_state
        .as_ref()
        .ok_or("snapshot without membership")?;
    if !conf.voters_outgoing.is_empty() || !conf.learners_next.is_empty() {
        return Err("snapshot in a joint membership, which this version never uses");
    }
    let membership = Membership::new(conf.voters.iter().copied(), conf.learners.iter().copied());
    let whole = membership.voters.len() == conf.voters.len()
        && membership.learners.len() == conf.learners.len();
    if !whole || !membership.is_sound() || membership.voters.is_empty() {
        return Err("snapshot with an invalid membership");
    }
    Ok(())
}
