//! The glue: Raft, the replicated state, the planner, clients and agents in one deterministic step.
//!
//! [`Replica::step_all`] takes `now` and a batch of [`Input`]s and appends [`Effect`]s. What must wait for the disk is
//! withheld here (by the Raft facade) until [`Input::Persisted`], so a shell may carry out effects in any order.
//!
//! ```text
//! Following --elected, own term committed--> Leading (agents, rounds, calls are served here)
//!     ^----------------leadership lost--------------'          any fatal error --> Stopped
//! ```
//! Each concern is one file: `calls` (clients), `proposals` (commands on their way), `agents`, `rounds` (planning),
//! `members` (masters), `answers` (reads).

mod agents;
mod answers;
mod calls;
mod config;
mod io;
mod launch;
mod members;
mod orders;
mod peer;
mod proposals;
mod rounds;

use std::collections::BTreeMap;

use berth_raft::{Entry, EntryKind, Raft, Ready, Recovered, Snapshot, SnapshotMeta, Status};
use berth_types::api::{MasterInfo, Response};
use berth_types::{MasterId, TaskInventory};
use bytes::Bytes;
use thiserror::Error;

pub use config::{Bootstrap, ReplicaConfig};
pub use io::{Effect, HistoryLookup, Input};
pub use peer::{PeerDecodeError, PeerMessage};

use crate::apply::{Applied, CommandResult, apply};
use crate::codec;
use crate::command::{Command, LogEntry};
use crate::state::State;
use agents::{Agents, Hello};
use calls::Calls;
use proposals::Proposals;
use rounds::Rounds;

/// Why a replica could not start.
#[derive(Debug, Error)]
pub enum ReplicaError {
    /// The log or its settings.
    #[error("the log cannot be used")]
    Raft(#[from] berth_raft::RaftError),
    /// The snapshot.
    #[error("the snapshot at index {index} cannot be read")]
    Snapshot {
        /// Where it stands.
        index: u64,
        /// Why.
        #[source]
        source: codec::CodecError,
    },
}

/// What only a leader has.
struct Lead {
    agents: Agents,
    rounds: Rounds,
    /// New master -> the one it replaces.
    replacing: BTreeMap<MasterId, MasterId>,
    last_slow_ms: u64,
    last_progress_ms: u64,
}

/// One master's replica. See the [module](self).
pub struct Replica {
    config: ReplicaConfig,
    raft: Raft,
    state: State,
    applied: u64,
    now_ms: u64,
    lead: Option<Lead>,
    proposals: Proposals,
    calls: Calls,
    /// Last told to the shell: leader, term, whether this master serves.
    told: (Option<MasterId>, u64, bool),
    told_masters: Vec<(MasterId, MasterInfo)>,
    /// Index at which a snapshot is being encoded.
    snapshot_at: Option<u64>,
    bootstrapping: bool,
    /// Found by this master's own check: stops its planning.
    alarm: Option<String>,
    stopped: Option<String>,
}

impl Replica {
    /// A replica from what its disk remembers. The effects are to be carried out before the first step.
    pub fn new(
        config: ReplicaConfig,
        mut recovered: Recovered,
    ) -> Result<(Replica, Vec<Effect>), ReplicaError> {
        if let (true, true, Some(bootstrap)) = (
            recovered.is_blank(),
            recovered.membership.is_empty(),
            &config.bootstrap,
        ) {
            recovered.membership =
                berth_raft::Membership::of_voters(bootstrap.masters.iter().map(|(id, _)| id.0));
        }
        let (mut state, mut applied) = (State::new(), 0);
        if let Some(Snapshot { meta, data }) = &recovered.snapshot {
            let index = meta.index;
            state = codec::decode_state(data)
                .map_err(|source| ReplicaError::Snapshot { index, source })?;
            applied = index;
        }
        let raft_config = berth_raft::Config {
            id: config.id.0,
            seed: config.seed,
            election_ticks: config.election_ticks,
            heartbeat_ticks: config.heartbeat_ticks,
            ..berth_raft::Config::default()
        };
        let raft = Raft::new(raft_config, recovered)?;
        let calls = Calls::new(config.proposer);
        let mut replica = Replica {
            config,
            raft,
            state,
            applied,
            now_ms: 0,
            lead: None,
            proposals: Proposals::default(),
            calls,
            told: (None, 0, false),
            told_masters: Vec::new(),
            snapshot_at: None,
            bootstrapping: false,
            alarm: None,
            stopped: None,
        };
        let mut out = Vec::new();
        replica.tell_masters(&mut out);
        replica.settle(&mut out);
        Ok((replica, out))
    }

    /// The replicated state, as far as it is applied here.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Newest applied index.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// How Raft is doing.
    pub fn status(&self) -> Status {
        self.raft.status()
    }

    /// True while this master leads and serves.
    pub fn is_serving(&self) -> bool {
        self.lead.is_some()
    }

    /// Why it stopped for good, if it has.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Hands leadership to another master, before a planned stop.
    pub fn step_aside(&mut self, effects: &mut Vec<Effect>) {
        if self.lead.is_some() {
            self.hand_over();
            self.settle(effects);
        }
    }

    /// One input; see [`Replica::step_all`].
    pub fn step(&mut self, now_ms: u64, input: Input, effects: &mut Vec<Effect>) {
        self.step_all(now_ms, [input], effects);
    }

    /// Takes a batch of inputs and appends what is to be done. A batch shares log entries and flushes.
    pub fn step_all(
        &mut self,
        now_ms: u64,
        inputs: impl IntoIterator<Item = Input>,
        effects: &mut Vec<Effect>,
    ) {
        self.now_ms = self.now_ms.max(now_ms);
        for input in inputs {
            if self.stopped.is_some() {
                return;
            }
            self.on_input(input, effects);
        }
        self.settle(effects);
    }

    fn on_input(&mut self, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Tick => self.on_tick(out),
            Input::Peer { from, message } => self.on_peer(from, message, out),
            Input::PeerUnreachable(peer) => self.raft.report_unreachable(peer.0),
            Input::SnapshotSent { to, ok } => self.raft.report_snapshot(to.0, ok),
            Input::Persisted(number) => {
                if let Err(error) = self.raft.persisted(number) {
                    self.stop(error.to_string(), out);
                }
            }
            Input::PersistFailed(reason) => self.stop(format!("the disk failed: {reason}"), out),
            Input::Request { id, request } => self.on_request(id, request, out),
            Input::AgentConnected {
                session,
                spec,
                incarnation,
                cluster_id,
                inventory,
            } => {
                self.on_agent_connected(
                    session,
                    Hello {
                        spec,
                        incarnation,
                        cluster_id,
                        inventory,
                    },
                    out,
                );
            }
            Input::AgentReport { session, report } => self.on_agent_report(session, report),
            Input::AgentGone { session } => self.on_agent_gone(session),
            Input::PolicyAnswer { round, plan } => self.on_policy_answer(round, plan),
            Input::HistoryFound { token, jobs } => self.on_history_found(token, jobs, out),
            Input::SnapshotTaken { index, data } => self.on_snapshot_taken(index, data, out),
        }
    }

    fn on_peer(&mut self, from: MasterId, message: PeerMessage, out: &mut Vec<Effect>) {
        match message {
            PeerMessage::Raft(message) => match self.raft.step(message) {
                // A refused message changed nothing; peers repeat what matters.
                Ok(())
                | Err(berth_raft::RaftError::Refused { .. } | berth_raft::RaftError::Decode(_)) => {
                }
                Err(error) => self.stop(error.to_string(), out),
            },
            PeerMessage::Forward { id, request } => self.on_forward(from, id, request, out),
            PeerMessage::Answer { id, response } => self.on_answer(id, response, out),
        }
    }

    fn on_tick(&mut self, out: &mut Vec<Effect>) {
        self.raft.tick();
        self.tick_calls(out);
        let (now, progress_every) = (self.now_ms, self.config.progress_every_ms);
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        if now < lead.last_slow_ms + SLOW_TICK_MS {
            return;
        }
        lead.last_slow_ms = now;
        let progress_due = lead.last_progress_ms + progress_every <= now;
        if progress_due {
            lead.last_progress_ms = now;
            self.propose_progress();
        }
        self.watch_nodes();
        self.watch_health();
        self.expire_attempts();
        self.advance_members(out);
    }

    fn expire_attempts(&mut self) {
        for id in &self.state.active {
            let Some(job) = self.state.jobs.get(id) else {
                continue;
            };
            let (limit, Some(attempt)) = (job.spec.time_limit_ms, &job.attempt) else {
                continue;
            };
            let stopping = matches!(attempt.phase, berth_types::AttemptPhase::Stopping(_));
            if limit > 0 && !stopping && attempt.started_ms + limit <= self.now_ms {
                self.proposals.push(
                    Command::ExpireAttempt {
                        job: *id,
                        epoch: attempt.epoch,
                    },
                    None,
                );
            }
        }
    }

    /// Does everything that is due until nothing is.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        while self.stopped.is_none() {
            self.propose_reports();
            let mut busy = self.propose_queued();
            busy |= self.lead.is_some() && self.ask_reads();
            let ready = self.raft.ready();
            busy |= !ready.is_empty();
            self.on_ready(ready, out);
            if let Some(reason) = self.raft.failure() {
                let reason = reason.to_owned();
                self.stop(reason, out);
                return;
            }
            busy |= self.follow_leadership(out);
            self.answer_reads(out);
            busy |= self.start_round(out);
            if !busy {
                break;
            }
        }
        self.send_directives(out);
        self.maybe_snapshot(out);
    }

    fn on_ready(&mut self, ready: Ready, out: &mut Vec<Effect>) {
        for message in ready.messages {
            let to = MasterId(message.to);
            out.push(Effect::SendPeer {
                to,
                message: PeerMessage::Raft(message),
            });
        }
        if let Some(persist) = ready.persist {
            out.push(Effect::Persist(persist));
        }
        if let Some(snapshot) = ready.install {
            self.install(snapshot, out);
        }
        for entry in ready.committed {
            if self.stopped.is_some() {
                return;
            }
            self.on_committed(&entry, out);
        }
        for read in ready.reads {
            self.on_read_ready(read.context, read.index);
        }
    }

    fn install(&mut self, snapshot: Snapshot, out: &mut Vec<Effect>) {
        let index = snapshot.meta.index;
        match codec::decode_state(&snapshot.data) {
            Ok(state) => {
                self.state = state;
                self.applied = index;
                self.raft.on_applied(index);
                out.push(Effect::HistoryGap {
                    through: self.state.finished,
                });
                self.tell_masters(out);
            }
            Err(error) => self.stop(
                format!("the leader's snapshot at index {index} cannot be read: {error}"),
                out,
            ),
        }
    }

    fn on_committed(&mut self, entry: &Entry, out: &mut Vec<Effect>) {
        if entry.kind == EntryKind::Membership
            && let Err(error) = self.raft.apply_membership(entry)
        {
            self.stop(error.to_string(), out);
            return;
        }
        if !entry.data.is_empty() {
            match codec::decode_entry(&entry.data) {
                Ok(log_entry) => self.apply_entry(entry.index, &log_entry, out),
                Err(error) => {
                    let index = entry.index;
                    self.stop(
                        format!(
                            "log entry {index} cannot be read, is this binary too old? {error}"
                        ),
                        out,
                    );
                    return;
                }
            }
        }
        self.applied = entry.index;
        self.raft.on_applied(entry.index);
        if entry.kind == EntryKind::Membership {
            self.tell_masters(out);
        }
        let every = self.config.check_every;
        if every > 0 && entry.index.is_multiple_of(every) && self.alarm.is_none() {
            self.alarm = self
                .state
                .check()
                .err()
                .and_then(|broken| broken.first().map(ToString::to_string));
        }
    }

    fn apply_entry(&mut self, index: u64, entry: &LogEntry, out: &mut Vec<Effect>) {
        let Applied {
            results,
            events,
            finished,
            touched,
        } = apply(&mut self.state, index, entry);
        let own = entry.tag.proposer == self.config.proposer;
        let waiters = if own {
            self.proposals.take_waiters(entry.tag.seq)
        } else {
            Vec::new()
        };
        for (waiter, result) in waiters.into_iter().zip(&results) {
            let Some(waiter) = waiter else { continue };
            let response = answers::response_to(&waiter.request, result);
            self.respond(waiter.origin, response, out);
        }
        for (command, result) in entry.commands.iter().zip(&results) {
            self.on_applied_command(command, result, out);
        }
        if let Some(lead) = self.lead.as_mut() {
            lead.agents.touch(&touched);
        }
        if !finished.is_empty() {
            out.push(Effect::AppendHistory(finished));
        }
        if !events.is_empty() {
            out.push(Effect::Publish(events));
        }
    }

    /// What a committed command means to the leader beyond the state.
    fn on_applied_command(
        &mut self,
        command: &Command,
        result: &CommandResult,
        out: &mut Vec<Effect>,
    ) {
        match command {
            Command::Bootstrap { .. } | Command::SetMaster { .. } => self.tell_masters(out),
            _ => {}
        }
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        lead.agents.on_committed(&self.state, command);
        match (command, result) {
            (Command::ApplyPlan { .. }, CommandResult::Bundles(verdicts)) => {
                lead.rounds
                    .on_plan_applied(verdicts.iter().any(Result::is_err));
            }
            (Command::ApplyPlan { .. }, _) => lead.rounds.on_plan_applied(true),
            (Command::RegisterNode { spec, .. }, CommandResult::Rejected(why)) => {
                self.close_session_of(
                    &spec.name,
                    &format!("the registration was refused: {why}"),
                    out,
                );
            }
            (Command::RegisterNode { spec, .. }, _) => {
                lead.rounds.want();
                self.on_registered(&spec.name, out);
            }
            (Command::MarkNodeLost { node, .. }, _) => {
                lead.rounds.want();
                if let Some(name) = self.state.nodes.get(node).map(|n| n.spec.name.clone()) {
                    self.close_session_of(
                        &name,
                        "this node was out of contact and counts as lost",
                        out,
                    );
                }
            }
            (Command::RecordTasks { tasks, .. }, _) => {
                // A task that runs frees nothing.
                if tasks
                    .iter()
                    .any(|(_, task)| matches!(task, TaskInventory::Ended(_)))
                {
                    lead.rounds.want();
                }
            }
            (Command::SubmitJob { .. }, _) => lead.rounds.want_for_arrival(),
            (Command::RecordProgress { .. } | Command::RecordCheckpoint { .. }, _) => {}
            _ => lead.rounds.want(),
        }
    }

    /// Compares Raft's role with what this replica does. True if something changed.
    fn follow_leadership(&mut self, out: &mut Vec<Effect>) -> bool {
        let caught_up = self.raft.ready_to_lead() && self.applied >= self.raft.commit();
        let mut changed = false;
        if !self.raft.ready_to_lead() {
            self.bootstrapping = false;
            if let Some(lead) = self.lead.take() {
                let leader = self.leader_info();
                for session in lead.agents.session_ids() {
                    let reason = "leadership has moved".to_owned();
                    out.push(Effect::CloseAgent {
                        session,
                        reason,
                        leader: leader.clone(),
                    });
                }
            }
        } else if self.lead.is_none() && caught_up && self.state.cluster_id != 0 {
            let agents = Agents::new(&self.state, self.now_ms);
            let (last_slow_ms, last_progress_ms) = (self.now_ms, self.now_ms);
            let (rounds, replacing) = (Rounds::default(), BTreeMap::new());
            self.lead = Some(Lead {
                agents,
                rounds,
                replacing,
                last_slow_ms,
                last_progress_ms,
            });
            changed = true;
        }
        let now = (
            self.raft.leader().map(MasterId),
            self.raft.term(),
            self.lead.is_some(),
        );
        if now != self.told {
            self.told = now;
            let (leader, term, is_self) = now;
            let leader =
                leader.map(|id| (id, self.state.masters.get(&id).cloned().unwrap_or_default()));
            out.push(Effect::LeaderChanged {
                leader,
                term,
                is_self,
            });
            self.reroute(out);
            // Rerouting has emptied the queue of commands, a bootstrap that waits there included.
            self.bootstrapping &= self.lead.is_some();
            changed = true;
        }
        // Last: nothing above may drop what is queued here.
        if self.raft.ready_to_lead()
            && self.state.cluster_id == 0
            && caught_up
            && !self.bootstrapping
            && let Some(bootstrap) = &self.config.bootstrap
        {
            let (cluster_id, masters) = (bootstrap.cluster_id, bootstrap.masters.clone());
            self.proposals.push(
                Command::Bootstrap {
                    cluster_id,
                    masters,
                },
                None,
            );
            self.bootstrapping = true;
            changed = true;
        }
        changed
    }

    fn leader_info(&self) -> Option<MasterInfo> {
        let leader = self
            .raft
            .leader()
            .map(MasterId)
            .filter(|id| *id != self.config.id)?;
        self.told_masters
            .iter()
            .find(|(id, _)| *id == leader)
            .map(|(_, info)| info.clone())
    }

    /// Tells the shell whom to talk to, if that has changed.
    fn tell_masters(&mut self, out: &mut Vec<Effect>) {
        let masters: Vec<_> = match (&self.config.bootstrap, self.state.masters.is_empty()) {
            (Some(bootstrap), true) => bootstrap.masters.clone(),
            _ => self
                .state
                .masters
                .iter()
                .map(|(id, info)| (*id, info.clone()))
                .collect(),
        };
        if masters != self.told_masters {
            self.told_masters.clone_from(&masters);
            out.push(Effect::MastersChanged(masters));
            if let Some(lead) = self.lead.as_mut() {
                lead.agents.tell_masters();
            }
        }
    }

    fn maybe_snapshot(&mut self, out: &mut Vec<Effect>) {
        let size = self.raft.log_size();
        let due = size.entries_since_snapshot >= self.config.snapshot_entries
            || size.bytes_since_snapshot >= self.config.snapshot_bytes;
        if due
            && self.snapshot_at.is_none()
            && self.stopped.is_none()
            && self.raft.snapshot_meta(self.applied).is_some()
        {
            self.snapshot_at = Some(self.applied);
            out.push(Effect::TakeSnapshot {
                index: self.applied,
                state: Box::new(self.state.clone()),
            });
        }
    }

    fn on_snapshot_taken(&mut self, index: u64, data: Bytes, out: &mut Vec<Effect>) {
        for origin in self.calls.copies.remove(&index).unwrap_or_default() {
            self.respond(
                origin,
                Response::Snapshot {
                    index,
                    data: data.to_vec(),
                },
                out,
            );
        }
        if self.snapshot_at == Some(index) {
            self.snapshot_at = None;
            // Term and membership are filled in by the facade from its log.
            let meta = SnapshotMeta {
                index,
                ..SnapshotMeta::default()
            };
            self.raft
                .compact(Snapshot { meta, data }, self.config.keep_entries);
        }
    }

    fn stop(&mut self, reason: String, out: &mut Vec<Effect>) {
        if self.stopped.is_none() {
            self.raft.stop(reason.clone());
            if let Some(lead) = self.lead.take() {
                for session in lead.agents.session_ids() {
                    out.push(Effect::CloseAgent {
                        session,
                        reason: "this master has stopped".into(),
                        leader: None,
                    });
                }
            }
            self.stopped = Some(reason.clone());
            out.push(Effect::Stopped(reason));
        }
    }
}

/// Node timeouts, time limits and membership are looked at this often.
const SLOW_TICK_MS: u64 = 200;
