//! Membership changes: one member at a time, in force when applied.
//!
//! The entry carries the membership that results, besides the change itself. A member that was added while its log is
//! empty starts without any membership; it takes over the first recorded one, so a group needs no snapshot before it can
//! grow. Everybody else compares, and stops instead of going on with a membership that the leader did not mean.
//!
//! Why a change may take effect when it is applied, and from the start of the log again after a restart: a batch with
//! entries always carries the newest commit index, so whoever durably holds the next change also durably knows that the
//! previous one is committed, and raft-rs does not stand for election before it has applied what it knows to be
//! committed.

use prost::Message as _;
use raft::eraftpb as pb;

use crate::facade::Raft;
use crate::message::WireConfState;
use crate::{Entry, EntryKind, Membership, MembershipChange, ProposeError, RaftError, Role};
use bytes::Bytes;

/// `eraftpb.ConfChangeV2`, of which only single changes are used.
#[derive(Clone, PartialEq, prost::Message)]
struct WireChange {
    #[prost(message, repeated, tag = "2")]
    changes: Vec<WireSingleChange>,
    /// The encoded membership after the change.
    #[prost(bytes = "bytes", tag = "3")]
    context: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireSingleChange {
    #[prost(int32, tag = "1")]
    change_type: i32,
    #[prost(uint64, tag = "2")]
    node_id: u64,
}

const ADD_VOTER: i32 = pb::ConfChangeType::AddNode as i32;
const REMOVE: i32 = pb::ConfChangeType::RemoveNode as i32;
const ADD_LEARNER: i32 = pb::ConfChangeType::AddLearnerNode as i32;

fn encode(change: MembershipChange, after: &Membership) -> Vec<u8> {
    let (change_type, node_id) = match change {
        MembershipChange::AddLearner(id) => (ADD_LEARNER, id),
        MembershipChange::Promote(id) => (ADD_VOTER, id),
        MembershipChange::Remove(id) => (REMOVE, id),
    };
    let after = WireConfState {
        voters: after.voters.clone(),
        learners: after.learners.clone(),
        ..WireConfState::default()
    };
    WireChange {
        changes: vec![WireSingleChange {
            change_type,
            node_id,
        }],
        context: Bytes::from(after.encode_to_vec()),
    }
    .encode_to_vec()
}

fn decode(entry: &Entry) -> Option<(MembershipChange, Membership)> {
    let wire = WireChange::decode(entry.change.clone()).ok()?;
    let after = WireConfState::decode(wire.context).ok()?;
    let [single] = wire.changes.as_slice() else {
        return None;
    };
    let change = match single.change_type {
        ADD_LEARNER => MembershipChange::AddLearner(single.node_id),
        ADD_VOTER => MembershipChange::Promote(single.node_id),
        REMOVE => MembershipChange::Remove(single.node_id),
        _ => return None,
    };
    let after = Membership {
        voters: after.voters,
        learners: after.learners,
    };
    (after.is_sound() && !after.voters.is_empty() && single.node_id != 0).then_some((change, after))
}

impl Raft {
    /// Proposes a membership change. It is committed as an entry of kind `Membership` whose `data` is `context`; the caller
    /// then calls [`Raft::apply_membership`].
    ///
    /// # Errors
    /// [`ProposeError::Busy`] while another change is pending, [`ProposeError::NotReady`] until the leader has committed an
    /// entry of its term, [`ProposeError::Invalid`] for a change that makes no sense, or for the leader's own removal
    /// (transfer leadership first).
    pub fn propose_membership(
        &mut self,
        change: MembershipChange,
        context: Bytes,
    ) -> Result<(), ProposeError> {
        self.ensure_leader()?;
        if !self.node.raft.commit_to_current_term() {
            return Err(ProposeError::NotReady);
        }
        if self.node.raft.has_pending_conf() {
            return Err(ProposeError::Busy);
        }
        let after = self
            .membership()
            .after(change)
            .map_err(ProposeError::Invalid)?;
        if change == MembershipChange::Remove(self.id()) {
            return Err(ProposeError::Invalid(format!(
                "{} leads; transfer leadership before removing it",
                self.id()
            )));
        }
        let mut entry = pb::Entry {
            context,
            ..Default::default()
        };
        entry.entry_type = pb::EntryType::EntryConfChangeV2;
        entry.data = Bytes::from(encode(change, &after));
        self.propose_entries(vec![entry])
    }

    /// Puts a committed membership entry into force and returns the membership that results. To be called for every one,
    /// in its turn, also when the caller ignores the context. Entries that are in force already change nothing.
    ///
    /// # Errors
    /// [`RaftError::Fatal`] when the entry contradicts the membership in force: the replica has stopped.
    pub fn apply_membership(&mut self, entry: &Entry) -> Result<Membership, RaftError> {
        self.ensure_running()?;
        if entry.index <= self.node.store().membership_index() {
            return Ok(self.membership());
        }
        let decoded = (entry.kind == EntryKind::Membership)
            .then(|| decode(entry))
            .flatten();
        let Some((change, after)) = decoded else {
            return Err(self.stop(format!(
                "entry {} is no membership change that can be read",
                entry.index
            )));
        };
        let before = self.membership();
        let changes = if before.is_empty() {
            adopt(&after)
        } else if before.after(change).as_ref() == Ok(&after) {
            vec![(single_change_type(change), change.peer())]
        } else {
            return Err(self.stop(format!(
                "membership entry {} says {change:?} gives {after:?}, but {before:?} is in force",
                entry.index
            )));
        };
        let removed = !after.contains(self.id());
        self.guarded(|node| {
            if removed && node.raft.state == raft::StateRole::Leader {
                // An earlier leader proposed this one's removal. Tell everybody that it is committed, then step down.
                node.raft.bcast_append();
            }
            for (change_type, node_id) in changes {
                node.raft.apply_conf_change(&single(change_type, node_id))?;
            }
            if removed && node.raft.state == raft::StateRole::Leader {
                let term = node.raft.term;
                node.raft.become_follower(term, raft::INVALID_ID);
            }
            raft::Result::Ok(())
        })?
        .map_err(|e| self.stop(format!("membership entry {}: {e}", entry.index)))?;
        self.node
            .mut_store()
            .record_membership(entry.index, after.clone());
        self.membership = after.clone();
        self.settle();
        Ok(after)
    }

    /// True when this member leads and may start a membership change now.
    pub fn may_change_membership(&self) -> bool {
        self.role() == Role::Leader
            && self.node.raft.commit_to_current_term()
            && !self.node.raft.has_pending_conf()
            && self.node.raft.lead_transferee.is_none()
    }
}

/// The steps from no membership at all to `after`. Nobody acts on those in between.
fn adopt(after: &Membership) -> Vec<(i32, u64)> {
    let voters = after.voters.iter().map(|v| (ADD_VOTER, *v));
    voters
        .chain(after.learners.iter().map(|l| (ADD_LEARNER, *l)))
        .collect()
}

fn single_change_type(change: MembershipChange) -> i32 {
    match change {
        MembershipChange::AddLearner(_) => ADD_LEARNER,
        MembershipChange::Promote(_) => ADD_VOTER,
        MembershipChange::Remove(_) => REMOVE,
    }
}

fn single(change_type: i32, node_id: u64) -> pb::ConfChangeV2 {
    let mut one = pb::ConfChangeSingle {
        node_id,
        ..Default::default()
    };
    one.change_type = match change_type {
        ADD_LEARNER => pb::ConfChangeType::AddLearnerNode,
        REMOVE => pb::ConfChangeType::RemoveNode,
        _ => pb::ConfChangeType::AddNode,
    };
    let mut cc = pb::ConfChangeV2::default();
    cc.set_changes(vec![one].into());
    cc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(change: Vec<u8>) -> Entry {
        Entry {
            change: change.into(),
            kind: EntryKind::Membership,
            ..Entry::normal(1, 1, Bytes::new())
        }
    }

    #[test]
    fn a_change_survives_the_log() {
        let after = Membership::new([1, 2, 3], [4]);
        let change = MembershipChange::AddLearner(4);
        assert_eq!(
            decode(&entry(encode(change, &after))),
            Some((change, after))
        );
    }

    #[test]
    fn damaged_changes_are_no_changes() {
        assert_eq!(decode(&entry(vec![])), None);
        assert_eq!(decode(&entry(vec![0xff; 9])), None);
        let overlap = Membership {
            voters: vec![1, 2],
            learners: vec![2],
        };
        assert_eq!(
            decode(&entry(encode(MembershipChange::Promote(2), &overlap))),
            None
        );
    }
}
