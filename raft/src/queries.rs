//! What a replica can be asked at any time.

use raft::{ProgressState, StateRole};

use crate::facade::Raft;
use crate::status::{LogSize, PeerProgress, ProgressKind, Role, Status};
use crate::{Membership, PeerId, SnapshotMeta};

impl Raft {
    /// How it is doing.
    pub fn status(&self) -> Status {
        let r = &self.node.raft;
        let last_index = r.raft_log.last_index();
        let mut peers: Vec<PeerProgress> = r
            .prs()
            .iter()
            .filter(|(id, _)| r.state == StateRole::Leader && **id != self.config.id)
            .map(|(id, p)| PeerProgress {
                id: *id,
                matched: p.matched,
                state: match p.state {
                    ProgressState::Probe => ProgressKind::Probe,
                    ProgressState::Replicate => ProgressKind::Replicate,
                    ProgressState::Snapshot => ProgressKind::Snapshot,
                },
                recent_active: p.recent_active,
                lag: last_index.saturating_sub(p.matched),
            })
            .collect();
        peers.sort_unstable_by_key(|p| p.id);
        Status {
            id: self.config.id,
            role: self.role(),
            term: r.term,
            leader: self.leader(),
            commit: r.raft_log.committed,
            applied: self.applied,
            last_index,
            first_index: r.raft_log.first_index(),
            membership: self.membership.clone(),
            peers,
            ready_to_lead: self.ready_to_lead(),
            transferring_to: r.lead_transferee,
            failed: self.failure.clone(),
        }
    }

    /// Size of the log in memory.
    pub fn log_size(&self) -> LogSize {
        self.node.store().size()
    }

    /// This member.
    pub fn id(&self) -> PeerId {
        self.config.id
    }

    /// Its part in the group. The only voter elects itself before its vote is durable; until then it counts as a
    /// candidate, because after a crash it may vote for somebody else in the same term.
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader if self.vote_in_flight() => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    /// Newest term seen.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// The leader of the present term, where known.
    pub fn leader(&self) -> Option<PeerId> {
        let unsure = self.node.raft.state == StateRole::Leader && self.vote_in_flight();
        Some(self.node.raft.leader_id).filter(|id| *id != raft::INVALID_ID && !unsure)
    }

    /// It leads and has committed an entry of its own term.
    pub fn ready_to_lead(&self) -> bool {
        self.role() == Role::Leader && self.node.raft.commit_to_current_term()
    }

    /// Highest index known to be committed.
    pub fn commit(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Members, as far as the log has been applied.
    pub fn membership(&self) -> Membership {
        self.membership.clone()
    }

    /// Why it stopped for good, if it has.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Position, term and membership for a snapshot of the state at `index`; `None` if the log no longer or not yet knows.
    pub fn snapshot_meta(&self, index: u64) -> Option<SnapshotMeta> {
        self.node
            .store()
            .meta_at(index)
            .filter(|_| index <= self.applied)
    }
}
