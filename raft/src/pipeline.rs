//! What comes out of a replica, and when: the order between disk, peers and state.
//!
//! ```text
//! raft-rs ready --+-- leader's messages ------------------------------> Ready.messages, at once
//!                 +-- other messages --- wait for their batch --------> Ready.messages, after persisted(n)
//!                 +-- entries, vote ---- Persist(n) ------------------> disk ... persisted(n)
//!                 +-- snapshot --------- Persist(n) --- persisted(n) -> Ready.install
//!                 +-- committed, reads -------------------------------> Ready
//! ```

use raft::StateRole;

use crate::facade::Raft;
use crate::{
    Entry, HardState, Membership, Message, PeerId, Persist, RaftError, ReadReady, Ready, Role,
    Snapshot, eraft,
};

/// The next batch while it is being collected.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) reset_log: bool,
    pub(crate) entries: Vec<Entry>,
    pub(crate) membership: Option<Membership>,
    pub(crate) snapshot: Option<Snapshot>,
    /// The snapshot came from the leader and is to be installed once durable.
    pub(crate) install: bool,
    pub(crate) compact_to: Option<u64>,
    /// Term or vote changed.
    pub(crate) vote: bool,
}

impl Draft {
    fn is_needed(&self) -> bool {
        self.reset_log
            || !self.entries.is_empty()
            || self.membership.is_some()
            || self.snapshot.is_some()
            || self.compact_to.is_some()
            || self.vote
    }

    /// Without a compaction only: losing that costs disk space until the next one.
    fn must_sync(&self) -> bool {
        self.reset_log
            || !self.entries.is_empty()
            || self.membership.is_some()
            || self.vote
            || self.install
    }

    fn append(&mut self, entries: &[raft::eraftpb::Entry]) {
        if let Some(first) = entries.first() {
            self.entries.retain(|e| e.index < first.index);
            self.entries.extend(entries.iter().map(eraft::entry_from));
        }
    }

    fn replace(&mut self, snapshot: Snapshot) {
        *self = Draft {
            reset_log: true,
            membership: Some(snapshot.meta.membership.clone()),
            snapshot: Some(snapshot),
            install: true,
            vote: self.vote,
            ..Draft::default()
        };
    }
}

/// A batch that was handed out.
#[derive(Debug)]
pub(crate) struct InFlight {
    number: u64,
    /// Number of the last raft-rs `Ready` that is durable with it.
    eraft_number: u64,
    /// Changes term or vote: a leader of that term may not speak before it is durable.
    vote: bool,
    install: Option<Snapshot>,
    held: Vec<Message>,
}

impl Raft {
    /// Everything that is due now. Once after a batch of inputs is enough.
    pub fn ready(&mut self) -> Ready {
        let mut out = Ready {
            messages: std::mem::take(&mut self.released),
            ..Ready::default()
        };
        if self.drain(&mut out).is_err() {
            return Ready::default();
        }
        out.install = self.install.take();
        let role: (Role, u64, Option<PeerId>) = (self.role(), self.term(), self.leader());
        if role != self.reported_role {
            self.reported_role = role;
            out.role_changed = Some(role);
        }
        out
    }

    /// Every batch up to `number` is durable. Take [`Raft::ready`] for what that releases.
    ///
    /// # Errors
    /// [`RaftError::UnknownBatch`] for a number that was never handed out, [`RaftError::Fatal`] if the replica has stopped.
    pub fn persisted(&mut self, number: u64) -> Result<(), RaftError> {
        self.ensure_running()?;
        if number >= self.next_number {
            return Err(RaftError::UnknownBatch(number));
        }
        while self
            .in_flight
            .front()
            .is_some_and(|batch| batch.number <= number)
        {
            let Some(batch) = self.in_flight.pop_front() else {
                break;
            };
            self.guarded(|node| node.on_persist_ready(batch.eraft_number))?;
            self.released.extend(batch.held);
            if batch.install.is_some() {
                self.install = batch.install;
            }
        }
        self.settle();
        Ok(())
    }

    /// Term or vote is not durable yet.
    pub(crate) fn vote_in_flight(&self) -> bool {
        self.draft.vote || self.in_flight.iter().any(|batch| batch.vote)
    }

    fn drain(&mut self, out: &mut Ready) -> Result<(), RaftError> {
        let (mut now, mut later) = (Vec::new(), Vec::new());
        let mut eraft_number = 0;
        while self.node.has_ready() {
            let mut rd = self.guarded(raft::RawNode::ready)?;
            eraft_number = rd.number();
            let leads = self.node.raft.state == StateRole::Leader;
            let messages = if leads {
                rd.take_messages()
            } else {
                rd.take_persisted_messages()
            };
            let queue = if leads { &mut now } else { &mut later };
            queue.extend(messages.into_iter().map(eraft::message_from));
            out.committed
                .extend(rd.take_committed_entries().iter().map(eraft::entry_from));
            out.reads
                .extend(rd.take_read_states().iter().filter_map(read_ready));
            self.collect(&mut rd);
            self.guarded(|node| node.advance_append_async(rd))?;
        }
        self.hand_out(out, now, later, eraft_number)
    }

    /// Takes what must be durable out of one raft-rs `Ready`, into the in-memory log and the next batch.
    fn collect(&mut self, rd: &mut raft::Ready) {
        if !rd.snapshot().is_empty() {
            let mut ours = eraft::snapshot_from(rd.snapshot());
            if self.welcomed.take() == Some(ours.meta.index) {
                let id = self.id();
                ours.meta.membership.learners.retain(|l| *l != id);
            }
            self.membership = ours.meta.membership.clone();
            self.node.mut_store().reset_to(eraft::snapshot_to(&ours));
            self.draft.replace(ours);
        }
        let entries = rd.take_entries();
        self.draft.append(&entries);
        self.node.mut_store().append(entries);
        if let Some(hs) = rd.hs() {
            self.draft.vote |=
                hs.term != self.handed_hard_state.term || hs.vote != self.handed_hard_state.vote;
        }
    }

    /// Numbers the batch, if one is needed, and decides which messages have to wait for it.
    fn hand_out(
        &mut self,
        out: &mut Ready,
        now: Vec<Message>,
        later: Vec<Message>,
        eraft_number: u64,
    ) -> Result<(), RaftError> {
        if self.draft.is_needed() {
            let draft = std::mem::take(&mut self.draft);
            let hard_state = eraft::hard_state_from(&self.node.raft.hard_state());
            out.persist = Some(self.number(draft, hard_state, eraft_number));
        }
        match self.in_flight.back_mut() {
            Some(batch) => {
                batch.eraft_number = batch.eraft_number.max(eraft_number);
                batch.held.extend(later);
            }
            None => {
                if eraft_number != 0 {
                    self.guarded(|node| node.on_persist_ready(eraft_number))?;
                }
                out.messages.extend(later);
            }
        }
        // The only voter leads before its vote is durable; raft-rs would let it speak.
        match self.in_flight.iter_mut().rfind(|batch| batch.vote) {
            Some(batch) => batch.held.extend(now),
            None => out.messages.extend(now),
        }
        Ok(())
    }

    fn number(&mut self, draft: Draft, hard_state: HardState, eraft_number: u64) -> Persist {
        let number = self.next_number;
        self.next_number += 1;
        let must_sync = draft.must_sync();
        self.in_flight.push_back(InFlight {
            number,
            eraft_number,
            vote: draft.vote,
            install: draft.snapshot.clone().filter(|_| draft.install),
            held: Vec::new(),
        });
        let changed = hard_state != self.handed_hard_state;
        self.handed_hard_state = hard_state;
        Persist {
            number,
            reset_log: draft.reset_log,
            entries: draft.entries,
            hard_state: changed.then_some(hard_state),
            membership: draft.membership,
            snapshot: draft.snapshot,
            compact_to: draft.compact_to,
            must_sync,
        }
    }
}

fn read_ready(state: &raft::ReadState) -> Option<ReadReady> {
    let context = u64::from_be_bytes(state.request_ctx.as_slice().try_into().ok()?);
    Some(ReadReady {
        context,
        index: state.index,
    })
}
