//! The replica as its user sees it: inputs and proposals. What it can be asked is in `queries.rs`, what comes out in
//! `pipeline.rs`.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use raft::eraftpb as pb;
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};

use crate::election::Election;
use crate::intake::{Situation, Verdict, judge};
use crate::pipeline::{Draft, InFlight};
use crate::status::Role;
use crate::tail::Tail;
use crate::{
    Config, HardState, Membership, Message, PeerId, ProposeError, RaftError, Recovered, Snapshot,
    eraft,
};

/// One member of the group.
///
/// Feed it [`Raft::tick`], [`Raft::step`], proposals and [`Raft::persisted`]; after each, or after a batch of them, take
/// [`Raft::ready`] once and execute it.
pub struct Raft {
    pub(crate) node: RawNode<Tail>,
    pub(crate) config: Config,
    pub(crate) membership: Membership,
    /// Why it stopped for good.
    pub(crate) failure: Option<String>,
    /// What the next batch for the disk already contains.
    pub(crate) draft: Draft,
    /// Batches handed out and not yet durable.
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) next_number: u64,
    /// Released by a durable batch, to go out with the next `Ready`.
    pub(crate) released: Vec<Message>,
    /// Durable and waiting to be installed.
    pub(crate) install: Option<Snapshot>,
    pub(crate) handed_hard_state: HardState,
    pub(crate) reported_role: (Role, u64, Option<PeerId>),
    pub(crate) applied: u64,
    /// Ticks that each peer has waited for a snapshot.
    snapshot_waits: Vec<(PeerId, u32)>,
    /// Index of a snapshot that was shown to raft-rs as if this member were in it; see `welcome_snapshot`.
    pub(crate) welcomed: Option<u64>,
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Raft {
    /// Starts a member from what it remembers. `applied` begins at the snapshot's index (0 without one), so the caller
    /// restores its state from `recovered.snapshot` first and gets the log after it once more, as far as it is committed.
    ///
    /// # Errors
    /// [`RaftError::Config`], or [`RaftError::Recovered`] when the parts do not belong together.
    pub fn new(config: Config, recovered: Recovered) -> Result<Raft, RaftError> {
        config.validate()?;
        recovered.check().map_err(RaftError::Recovered)?;
        let applied = recovered.snapshot.as_ref().map_or(0, |s| s.meta.index);
        let tail = Tail::new(&recovered);
        let membership = recovered
            .snapshot
            .as_ref()
            .map_or(&recovered.membership, |s| &s.meta.membership)
            .clone();
        let eraft_config = config.to_eraft(applied);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = catch_unwind(AssertUnwindSafe(|| {
            RawNode::new(&eraft_config, tail, &logger)
        }))
        .map_err(|panic| RaftError::Recovered(panic_text(panic.as_ref())))?
        .map_err(|e| RaftError::Recovered(e.to_string()))?;
        let first_start = recovered.is_blank() && !membership.is_empty();
        let mut raft = Raft {
            handed_hard_state: eraft::hard_state_from(&node.raft.hard_state()),
            reported_role: (Role::Follower, node.raft.term, None),
            node,
            config,
            draft: Draft {
                membership: first_start.then(|| membership.clone()),
                ..Draft::default()
            },
            membership,
            failure: None,
            in_flight: VecDeque::new(),
            next_number: 1,
            released: Vec::new(),
            install: None,
            applied,
            snapshot_waits: Vec::new(),
            welcomed: None,
        };
        raft.settle();
        Ok(raft)
    }

    /// One unit of time has passed.
    pub fn tick(&mut self) {
        if self.failure.is_some() {
            return;
        }
        // raft-rs stands at once when it is the only voter, and then expects its whole log to be durable.
        let wait = self.node.raft.state != StateRole::Leader && self.is_unpersisted();
        let timeout = self.config.snapshot_timeout_ticks;
        let stalled = self.stalled_snapshots(timeout);
        let _ = self.guarded(|node| {
            if wait && node.raft.election_elapsed + 1 >= node.raft.randomized_election_timeout() {
                return;
            }
            node.tick();
            for peer in stalled {
                node.report_snapshot(peer, SnapshotStatus::Failure);
            }
        });
        self.settle();
    }

    /// A message from a peer has arrived.
    ///
    /// # Errors
    /// [`RaftError::Refused`] for a message that makes no sense (nothing changed). [`RaftError::LostLog`] or
    /// [`RaftError::Fatal`]: the replica has stopped for good.
    pub fn step(&mut self, mut m: Message) -> Result<(), RaftError> {
        self.ensure_running()?;
        let verdict = judge(&m, &self.situation()).inspect_err(|e| {
            if matches!(e, RaftError::LostLog { .. }) {
                self.failure = Some(e.to_string());
            }
        })?;
        if verdict == Verdict::Ignore {
            return Ok(());
        }
        let from = m.from;
        self.welcome_snapshot(&mut m);
        let message = eraft::message_to(m)?;
        let outcome = self.guarded(|node| node.step(message))?;
        self.settle();
        match outcome {
            Ok(()) => Ok(()),
            Err(raft::Error::StepPeerNotFound) => Err(RaftError::Refused {
                from,
                reason: "answers without being a member",
            }),
            Err(e) => Err(self.stop(e.to_string())),
        }
    }

    /// Proposes an entry. Only the leader takes it; it may still be lost with the leadership.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub fn propose(&mut self, data: Bytes) -> Result<(), ProposeError> {
        self.propose_all([data])
    }

    /// Proposes several entries at once: all are taken, in order, or none.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub fn propose_all(
        &mut self,
        data: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), ProposeError> {
        self.ensure_leader()?;
        let entries: Vec<pb::Entry> = data
            .into_iter()
            .map(|data| pb::Entry {
                data,
                ..Default::default()
            })
            .collect();
        if entries.is_empty() {
            return Ok(());
        }
        self.propose_entries(entries)
    }

    pub(crate) fn propose_entries(&mut self, entries: Vec<pb::Entry>) -> Result<(), ProposeError> {
        let mut m = pb::Message {
            from: self.config.id,
            ..Default::default()
        };
        m.msg_type = pb::MessageType::MsgPropose;
        m.set_entries(entries.into());
        let outcome = self
            .guarded(|node| node.step(m))
            .map_err(|e| ProposeError::Stopped(e.to_string()))?;
        self.settle();
        match outcome {
            Ok(()) => Ok(()),
            Err(raft::Error::ProposalDropped) => Err(ProposeError::Busy),
            Err(e) => Err(ProposeError::Stopped(self.stop(e.to_string()).to_string())),
        }
    }

    /// Asks the group to confirm that this member still leads. A [`crate::ReadReady`] with the same context follows; the
    /// read is current once its index has been applied. Lost without notice when the role changes. Contexts must be unique
    /// within a term; one confirmation answers all reads asked before it.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub fn read_index(&mut self, context: u64) -> Result<(), ProposeError> {
        self.ensure_leader()?;
        if !self.node.raft.commit_to_current_term() {
            return Err(ProposeError::NotReady);
        }
        if self.node.raft.pending_read_count() >= self.config.max_pending_reads {
            return Err(ProposeError::Busy);
        }
        self.guarded(|node| node.read_index(context.to_be_bytes().to_vec()))
            .map_err(|e| ProposeError::Stopped(e.to_string()))?;
        self.settle();
        Ok(())
    }

    /// Hands leadership to a voter. Proposals are refused as busy until that is done or has timed out. Does nothing unless
    /// this member leads.
    pub fn transfer_leader(&mut self, to: PeerId) {
        if self.role() == Role::Leader {
            let _ = self.guarded(|node| node.transfer_leader(to));
            self.settle();
        }
    }

    /// A message to this peer could not be sent.
    pub fn report_unreachable(&mut self, peer: PeerId) {
        let _ = self.guarded(|node| node.report_unreachable(peer));
        self.settle();
    }

    /// A snapshot has reached the peer, or has not. Until then nothing else is sent to it.
    pub fn report_snapshot(&mut self, peer: PeerId, ok: bool) {
        let status = if ok {
            SnapshotStatus::Finish
        } else {
            SnapshotStatus::Failure
        };
        let _ = self.guarded(|node| node.report_snapshot(peer, status));
        self.settle();
    }

    /// The state contains every entry up to `index`. Older reports are ignored.
    pub fn on_applied(&mut self, index: u64) {
        let possible = self
            .node
            .raft
            .raft_log
            .committed
            .min(self.node.raft.raft_log.persisted);
        let index = index.min(possible);
        if index <= self.applied {
            return;
        }
        if self.guarded(|node| node.advance_apply_to(index)).is_ok() {
            self.applied = index;
        }
    }

    /// A new local snapshot exists: keeps it for peers that lag, drops the log up to `keep_entries` before its index, and
    /// puts both into the next batch. Term and membership are those the log knows, whatever the caller filled in.
    /// Returns false, and does nothing, when the snapshot is not newer than the present one or not applied yet.
    pub fn compact(&mut self, snapshot: Snapshot, keep_entries: u64) -> bool {
        let index = snapshot.meta.index;
        let Some(meta) = self.snapshot_meta(index) else {
            return false;
        };
        if self.failure.is_some()
            || self.install.is_some()
            || index <= self.node.store().snapshot_index()
        {
            return false;
        }
        let snapshot = Snapshot {
            meta,
            data: snapshot.data,
        };
        let max_bytes = self.config.tail_max_bytes;
        let base =
            self.node
                .mut_store()
                .compact(eraft::snapshot_to(&snapshot), keep_entries, max_bytes);
        self.draft.membership = Some(snapshot.meta.membership.clone());
        self.draft.snapshot = Some(snapshot);
        self.draft.compact_to = Some(base);
        true
    }

    /// Stops for good. For a shell whose disk failed: what was promised can no longer be kept.
    pub fn stop(&mut self, reason: String) -> RaftError {
        let reason = self.failure.get_or_insert(reason);
        RaftError::Fatal(reason.clone())
    }

    pub(crate) fn ensure_running(&self) -> Result<(), RaftError> {
        match &self.failure {
            Some(reason) => Err(RaftError::Fatal(reason.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn ensure_leader(&self) -> Result<(), ProposeError> {
        if let Some(reason) = &self.failure {
            return Err(ProposeError::Stopped(reason.clone()));
        }
        match self.role() {
            Role::Leader => Ok(()),
            Role::Follower | Role::PreCandidate | Role::Candidate => Err(ProposeError::NotLeader {
                leader: self.leader(),
            }),
        }
    }

    /// Runs raft-rs so that a panic inside it stops the replica and nothing else.
    pub(crate) fn guarded<T>(
        &mut self,
        f: impl FnOnce(&mut RawNode<Tail>) -> T,
    ) -> Result<T, RaftError> {
        self.ensure_running()?;
        let node = &mut self.node;
        catch_unwind(AssertUnwindSafe(|| f(node)))
            .map_err(|panic| self.stop(panic_text(panic.as_ref())))
    }

    /// Puts our own election timeout in place of the one that raft-rs drew.
    pub(crate) fn settle(&mut self) {
        let r = &self.node.raft;
        let ticks = Election {
            id: self.config.id,
            seed: self.config.seed,
            election_ticks: self.config.election_ticks,
            term: r.term,
            leader: r.leader_id,
            voters: &self.membership.voters,
        }
        .timeout_ticks();
        if r.randomized_election_timeout() != ticks {
            self.node.raft.set_randomized_election_timeout(ticks);
        }
    }

    /// A member that is being added may get a snapshot from before its addition, and raft-rs ignores snapshots without the
    /// receiver. So the receiver is put in as a learner, for raft-rs only; the log that follows says the same.
    fn welcome_snapshot(&mut self, m: &mut Message) {
        let id = self.config.id;
        let Some(meta) = m.snapshot.as_mut().and_then(|s| s.metadata.as_mut()) else {
            return;
        };
        let Some(conf) = meta.conf_state.as_mut() else {
            return;
        };
        if !self.membership.contains(id)
            && !conf.voters.contains(&id)
            && !conf.learners.contains(&id)
        {
            conf.learners.push(id);
            conf.learners.sort_unstable();
            self.welcomed = Some(meta.index);
        }
    }

    fn is_unpersisted(&self) -> bool {
        self.node.raft.raft_log.last_index() != self.node.raft.raft_log.persisted
    }

    fn situation(&self) -> Situation {
        let r = &self.node.raft;
        Situation {
            id: self.config.id,
            term: r.term,
            role: r.state,
            leader: r.leader_id,
            last_index: r.raft_log.last_index(),
            unpersisted: self.is_unpersisted(),
        }
    }

    /// Counts a tick for every peer that waits for a snapshot and names those that waited too long.
    fn stalled_snapshots(&mut self, timeout_ticks: u32) -> Vec<PeerId> {
        let r = &self.node.raft;
        if r.state != StateRole::Leader {
            self.snapshot_waits.clear();
            return Vec::new();
        }
        let waits = std::mem::take(&mut self.snapshot_waits);
        let waited = |id: PeerId| {
            waits
                .iter()
                .find(|(w, _)| *w == id)
                .map_or(0, |(_, ticks)| *ticks)
        };
        let waiting = r
            .prs()
            .iter()
            .filter(|(_, p)| p.state == ProgressState::Snapshot);
        let mut now: Vec<(PeerId, u32)> = waiting.map(|(id, _)| (*id, waited(*id) + 1)).collect();
        now.sort_unstable();
        let (stalled, waiting) = now
            .into_iter()
            .partition(|(_, ticks)| *ticks >= timeout_ticks);
        self.snapshot_waits = waiting;
        let stalled: Vec<(PeerId, u32)> = stalled;
        stalled.into_iter().map(|(id, _)| id).collect()
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "raft-rs gave up without a reason".to_owned())
}
