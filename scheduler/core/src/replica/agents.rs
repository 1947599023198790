//! The leader's conversations with agents: who is in contact, what each has, and what it must be told.
//!
//! ```text
//! connected --inventory has tasks that must not run--> told to stop them --all gone--> registered (if new, lost, changed)
//!     `------nothing stale------------------------------------------------------------^
//! registered node silent for node_timeout --> MarkNodeLost --> (fence) lease + margin --> FenceNode
//! ```
//! What an agent must be told is always derived from the replicated state and from what this session was told before, so
//! a new session or a new leader needs no memory. A task that the state does not know is never stopped: an empty or
//! restored master kills nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_types::{
    AgentReport, AttemptPhase, Directive, JobId, NodeId, NodeSpec, Progress, TaskEvent, TaskExit,
    TaskInventory, TaskKey, TaskPhase, TaskRecord, Tombstone,
};

use super::{Effect, Replica, launch};
use crate::command::Command;
use crate::state::{Node, State};

/// One connection.
struct Session {
    spec: Arc<NodeSpec>,
    incarnation: u64,
    /// Known once the node is registered.
    node: Option<NodeId>,
    /// Tasks that the agent has, as far as this session said or heard.
    known: BTreeSet<TaskKey>,
    /// Live tasks that must end before the node may be used (again).
    stale: BTreeSet<TaskKey>,
    told_to_stop: BTreeSet<Tombstone>,
    out: Directive,
    answer_due: bool,
    sent_ms: u64,
    registering: bool,
}

/// What a leader knows about agents.
#[derive(Default)]
pub(super) struct Agents {
    sessions: BTreeMap<u64, Session>,
    by_node: BTreeMap<NodeId, u64>,
    heard_ms: BTreeMap<NodeId, u64>,
    dirty: BTreeSet<u64>,
    touched: BTreeSet<NodeId>,
    /// Reports to be proposed, by node.
    reports: BTreeMap<NodeId, Vec<(TaskKey, TaskInventory)>>,
    /// Nodes whose loss or fencing is being proposed.
    marking: BTreeSet<NodeId>,
    progress: BTreeMap<JobId, (berth_types::Epoch, Progress)>,
    progress_changed: BTreeSet<JobId>,
}

/// What the state says of a task that an agent has.
enum Verdict {
    /// It is of the current attempt and belongs there.
    Current,
    /// It must not run (any more).
    Stale,
    /// The state has not heard of it (it was restored from an older copy, say): left alone.
    Unknown,
}

fn judge(state: &State, node: Option<NodeId>, key: TaskKey) -> Verdict {
    let Some(job) = state.job(key.job) else {
        return if key.job.0 < state.next_job {
            Verdict::Stale
        } else {
            Verdict::Unknown
        };
    };
    if key.epoch > job.epoch {
        return Verdict::Unknown;
    }
    let Some(attempt) = job.attempt.as_ref().filter(|a| a.epoch == key.epoch) else {
        return Verdict::Stale;
    };
    let here = attempt
        .tasks
        .get(key.rank.0 as usize)
        .filter(|t| Some(t.placement.node) == node);
    match here {
        Some(task) if matches!(task.phase, TaskPhase::Ended { .. }) => Verdict::Stale,
        Some(_) if matches!(attempt.phase, AttemptPhase::Stopping(_)) => Verdict::Stale,
        Some(_) => Verdict::Current,
        None => Verdict::Stale,
    }
}

/// True while the state still waits for the end of this task, whether it runs or is being stopped.
fn is_awaited(state: &State, key: TaskKey) -> bool {
    let attempt = state
        .job(key.job)
        .and_then(|job| job.attempt.as_ref())
        .filter(|a| a.epoch == key.epoch);
    let task = attempt.and_then(|a| a.tasks.get(key.rank.0 as usize));
    task.is_some_and(|t| !matches!(t.phase, TaskPhase::Ended { .. }))
}

impl Agents {
    pub(super) fn new(state: &State, now_ms: u64) -> Self {
        // Nobody has reported to this leader yet: every node gets the full timeout to do so.
        Agents {
            heard_ms: state.nodes.keys().map(|node| (*node, now_ms)).collect(),
            ..Agents::default()
        }
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.by_node.contains_key(&node)
    }

    pub(super) fn session_ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.sessions.keys().copied()
    }

    pub(super) fn progress(&self, job: JobId, epoch: berth_types::Epoch) -> Option<Progress> {
        self.progress
            .get(&job)
            .filter(|(of, _)| *of == epoch)
            .map(|(_, progress)| *progress)
    }

    /// The desired tasks of these nodes have changed.
    pub(super) fn touch(&mut self, nodes: &BTreeSet<NodeId>) {
        self.touched.extend(nodes);
    }

    fn of_node(&mut self, node: NodeId) -> Option<(u64, &mut Session)> {
        let id = *self.by_node.get(&node)?;
        self.sessions.get_mut(&id).map(|session| (id, session))
    }

    /// The log has these ends: the agent may forget them.
    fn on_recorded(&mut self, node: NodeId, tasks: &[(TaskKey, TaskInventory)]) {
        let Some((id, session)) = self.of_node(node) else {
            return;
        };
        for (key, inventory) in tasks {
            if matches!(inventory, TaskInventory::Ended(_)) {
                session.known.remove(key);
                session.out.forget.push(*key);
            }
        }
        self.dirty.insert(id);
    }

    /// A committed command, at the leader: what agents learn from it.
    pub(super) fn on_committed(&mut self, state: &State, command: &Command) {
        match command {
            Command::RecordTasks { node, tasks } => self.on_recorded(*node, tasks),
            Command::RecordCheckpoint { job, record } => {
                let attempt = state.job(*job).and_then(|job| job.attempt.as_ref());
                let tasks = attempt
                    .filter(|a| a.epoch == record.epoch)
                    .map(|a| a.tasks.as_slice())
                    .unwrap_or_default();
                for node in tasks
                    .iter()
                    .map(|t| t.placement.node)
                    .collect::<BTreeSet<_>>()
                {
                    let Some((id, session)) = self.of_node(node) else {
                        continue;
                    };
                    session
                        .out
                        .checkpoints_recorded
                        .push((*job, record.epoch, record.step));
                    self.dirty.insert(id);
                }
            }
            Command::MarkNodeLost { node, .. } | Command::FenceNode { node, .. } => {
                self.marking.remove(node);
            }
            _ => {}
        }
    }
}

impl Replica {
    pub(super) fn on_agent_connected(&mut self, id: u64, hello: Hello, out: &mut Vec<Effect>) {
        let (own, theirs) = (self.state.cluster_id, hello.cluster_id);
        if self.lead.is_none() || (theirs != 0 && theirs != own) {
            let reason = match self.lead {
                None => "this master does not lead".to_owned(),
                Some(_) => {
                    format!("this is cluster {own:016x}, the agent has served {theirs:016x}")
                }
            };
            out.push(Effect::CloseAgent {
                session: id,
                reason,
                leader: self.leader_info(),
            });
            return;
        }
        let node = self.state.node_ids.get(&hello.spec.name).copied();
        let session = Session {
            spec: hello.spec,
            incarnation: hello.incarnation,
            node,
            known: BTreeSet::new(),
            stale: BTreeSet::new(),
            told_to_stop: BTreeSet::new(),
            out: Directive::default(),
            answer_due: true,
            sent_ms: 0,
            registering: false,
        };
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        lead.agents.sessions.insert(id, session);
        lead.agents.dirty.insert(id);
        if let Some(node) = node {
            self.adopt_session(node, id, out);
        }
        self.take_inventory(id, hello.inventory);
        self.register_if_clean(id);
    }

    /// This session now speaks for the node; an older one is closed.
    fn adopt_session(&mut self, node: NodeId, id: u64, out: &mut Vec<Effect>) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        lead.agents.heard_ms.insert(node, self.now_ms);
        if let Some(old) = lead
            .agents
            .by_node
            .insert(node, id)
            .filter(|old| *old != id)
        {
            lead.agents.sessions.remove(&old);
            let reason = "a newer connection of this node took over".to_owned();
            out.push(Effect::CloseAgent {
                session: old,
                reason,
                leader: None,
            });
        }
    }

    /// Sorts everything that a newly connected agent has into current, stale, and unknown.
    fn take_inventory(&mut self, id: u64, inventory: AgentReport) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let Some(session) = lead.agents.sessions.get_mut(&id) else {
            return;
        };
        for event in &inventory.events {
            let TaskEvent::State(key, task) = event else {
                continue;
            };
            session.known.insert(*key);
            if matches!(task, TaskInventory::Ended(_)) {
                continue;
            }
            if let Verdict::Stale = judge(&self.state, session.node, *key) {
                session.stale.insert(*key);
                let tombstone = Tombstone {
                    job: key.job,
                    through: key.epoch,
                };
                if session.told_to_stop.insert(tombstone) {
                    session.out.stop.push(tombstone);
                }
            }
        }
        let missing = self.missing_tasks(id);
        self.take_events(id, inventory.events);
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        for (node, key) in missing {
            let exit = TaskExit {
                code: -1,
                at_ms: self.now_ms,
                reason: "the node has no trace of it any more".to_owned(),
                node_fault: true,
            };
            lead.agents
                .reports
                .entry(node)
                .or_default()
                .push((key, TaskInventory::Ended(exit)));
        }
        if let Some(node) = lead.agents.sessions.get(&id).and_then(|s| s.node) {
            lead.agents.touched.insert(node);
        }
    }

    /// Tasks that were seen to run on this node and of which its agent, unchanged since, knows nothing.
    fn missing_tasks(&self, id: u64) -> Vec<(NodeId, TaskKey)> {
        let Some(session) = self
            .lead
            .as_ref()
            .and_then(|lead| lead.agents.sessions.get(&id))
        else {
            return Vec::new();
        };
        let Some(node) = session.node.and_then(|node| self.state.nodes.get(&node)) else {
            return Vec::new();
        };
        launch::tasks_on(&self.state, node)
            .filter(|(_, _, task)| matches!(task.phase, TaskPhase::Running { .. }))
            .map(|(job, attempt, task)| TaskKey {
                job: job.id,
                epoch: attempt.epoch,
                rank: task.placement.rank,
            })
            .filter(|key| !session.known.contains(key))
            .map(|key| (node.id, key))
            .collect()
    }

    pub(super) fn on_agent_report(&mut self, id: u64, report: AgentReport) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let Some(session) = lead.agents.sessions.get_mut(&id) else {
            return;
        };
        if let Some(node) = session.node {
            lead.agents.heard_ms.insert(node, self.now_ms);
        }
        // A busy agent renews its lease by what it is told anyway; an idle one needs an answer.
        if report.events.is_empty() || session.sent_ms + 500 <= self.now_ms {
            session.answer_due = true;
            lead.agents.dirty.insert(id);
        }
        self.take_events(id, report.events);
        self.register_if_clean(id);
    }

    fn take_events(&mut self, id: u64, events: Vec<TaskEvent>) {
        for event in events {
            match event {
                TaskEvent::State(key, task) => self.on_task_state(id, key, task),
                TaskEvent::Progress {
                    key,
                    step,
                    samples,
                    loss_micros,
                    step_us,
                } => {
                    let at_ms = self.now_ms;
                    self.on_progress(
                        key,
                        Progress {
                            step,
                            samples,
                            loss_micros,
                            step_us,
                            at_ms,
                        },
                    );
                }
                TaskEvent::CheckpointVerified { job, record } => {
                    self.proposals
                        .push(Command::RecordCheckpoint { job, record }, None);
                }
                TaskEvent::CheckpointDamaged {
                    job,
                    epoch,
                    step,
                    reason,
                } => {
                    self.proposals.push(
                        Command::RejectCheckpoint {
                            job,
                            epoch,
                            step,
                            reason,
                        },
                        None,
                    );
                }
            }
        }
    }

    fn on_task_state(&mut self, id: u64, key: TaskKey, mut task: TaskInventory) {
        if let TaskInventory::Ended(exit) = &mut task {
            let whole = (0..=MAX_REASON_BYTES.min(exit.reason.len()))
                .rfind(|at| exit.reason.is_char_boundary(*at));
            exit.reason.truncate(whole.unwrap_or(0));
        }
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let Some(session) = lead.agents.sessions.get_mut(&id) else {
            return;
        };
        let awaited = is_awaited(&self.state, key);
        match &task {
            TaskInventory::Preparing => {}
            TaskInventory::Running { .. } => {
                session.known.insert(key);
            }
            TaskInventory::Ended(_) => {
                session.stale.remove(&key);
                let known_to_state = key.job.0 < self.state.next_job;
                if !awaited && known_to_state {
                    session.known.remove(&key);
                    session.out.forget.push(key);
                    lead.agents.dirty.insert(id);
                }
            }
        }
        if let (true, Some(node), false) = (awaited, session.node, task == TaskInventory::Preparing)
        {
            lead.agents
                .reports
                .entry(node)
                .or_default()
                .push((key, task));
        }
    }

    fn on_progress(&mut self, key: TaskKey, progress: Progress) {
        let current = self
            .state
            .job(key.job)
            .is_some_and(|job| job.epoch == key.epoch && job.attempt.is_some());
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        if !current {
            return;
        }
        let newest = lead
            .agents
            .progress
            .entry(key.job)
            .or_insert((key.epoch, progress));
        // Ranks of a gang report the same step one after the other; the furthest is the gang's.
        if newest.0 != key.epoch || newest.1.step <= progress.step {
            *newest = (key.epoch, progress);
            lead.agents.progress_changed.insert(key.job);
        }
    }

    /// Registers the node of this session if that would change anything and nothing stale runs there.
    fn register_if_clean(&mut self, id: u64) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let Some(session) = lead.agents.sessions.get_mut(&id) else {
            return;
        };
        if !session.stale.is_empty() || session.registering {
            return;
        }
        let known = session.node.and_then(|node| self.state.nodes.get(&node));
        let same = |node: &Arc<Node>| {
            !node.lost && node.incarnation == session.incarnation && node.spec == session.spec
        };
        if !known.is_some_and(same) {
            session.registering = true;
            let (spec, incarnation) = (session.spec.clone(), session.incarnation);
            self.proposals
                .push(Command::RegisterNode { spec, incarnation }, None);
        }
    }

    /// A registration is committed: its session now has a node.
    pub(super) fn on_registered(&mut self, name: &str, out: &mut Vec<Effect>) {
        let Some(node) = self.state.node_ids.get(name).copied() else {
            return;
        };
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        lead.agents.heard_ms.insert(node, self.now_ms);
        let newest = lead
            .agents
            .sessions
            .iter_mut()
            .rev()
            .find(|(_, s)| s.spec.name == name);
        let Some((id, session)) = newest else { return };
        let id = *id;
        session.registering = false;
        session.node = Some(node);
        lead.agents.touched.insert(node);
        self.adopt_session(node, id, out);
    }

    /// Ends the connection of a node: it was marked lost, or its registration makes no sense. An agent that is still there
    /// connects anew and tells everything it has.
    pub(super) fn close_session_of(&mut self, name: &str, reason: &str, out: &mut Vec<Effect>) {
        let Some(lead) = self.lead.as_ref() else {
            return;
        };
        let named = |(_, s): &(&u64, &Session)| s.spec.name == name;
        let ids: Vec<u64> = lead
            .agents
            .sessions
            .iter()
            .filter(named)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.on_agent_gone(id);
            out.push(Effect::CloseAgent {
                session: id,
                reason: reason.to_owned(),
                leader: self.leader_info(),
            });
        }
    }

    pub(super) fn on_agent_gone(&mut self, id: u64) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let Some(session) = lead.agents.sessions.remove(&id) else {
            return;
        };
        lead.agents.dirty.remove(&id);
        if let Some(node) = session
            .node
            .filter(|node| lead.agents.by_node.get(node) == Some(&id))
        {
            lead.agents.by_node.remove(&node);
        }
    }

    /// Proposes what agents reported, as one command per node.
    pub(super) fn propose_reports(&mut self) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        for (node, tasks) in std::mem::take(&mut lead.agents.reports) {
            for part in tasks.chunks(MAX_TASKS_PER_COMMAND) {
                self.proposals.push(
                    Command::RecordTasks {
                        node,
                        tasks: part.to_vec(),
                    },
                    None,
                );
            }
        }
    }

    /// Tells agents what they do not know yet.
    pub(super) fn send_directives(&mut self, out: &mut Vec<Effect>) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let (term, applied, now) = (self.raft.term(), self.applied, self.now_ms);
        let agents = &mut lead.agents;
        for node in std::mem::take(&mut agents.touched) {
            let Some((id, session)) = agents.of_node(node) else {
                continue;
            };
            let never_started = never_started(&self.state, node, session, now);
            if refresh(&self.state, node, session) {
                agents.dirty.insert(id);
            }
            if !never_started.is_empty() {
                agents
                    .reports
                    .entry(node)
                    .or_default()
                    .extend(never_started);
            }
        }
        for id in std::mem::take(&mut agents.dirty) {
            let Some(session) = agents.sessions.get_mut(&id) else {
                continue;
            };
            let full = std::mem::take(&mut session.out);
            let nothing = full.launch.is_empty() && full.stop.is_empty() && full.forget.is_empty();
            if nothing && full.checkpoints_recorded.is_empty() && !session.answer_due {
                continue;
            }
            session.answer_due = false;
            session.sent_ms = now;
            let (cluster_id, lease_ms) = (self.state.cluster_id, self.config.lease_ms);
            let directive = Directive {
                cluster_id,
                term,
                applied,
                lease_ms,
                ..full
            };
            out.push(Effect::SendAgent {
                session: id,
                directive,
            });
        }
    }

    /// Finds nodes that were silent for too long, and lost ones whose lease is certainly over.
    pub(super) fn watch_nodes(&mut self) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let agents = &mut lead.agents;
        for (id, node) in &self.state.nodes {
            if agents.marking.contains(id) {
                continue;
            }
            let heard = *agents.heard_ms.entry(*id).or_insert(self.now_ms);
            let silent = self.now_ms.saturating_sub(heard);
            if !node.lost && silent >= self.config.node_timeout_ms {
                let reason = format!("no word from its agent for {:.1} s", silent as f64 / 1000.0);
                self.proposals
                    .push(Command::MarkNodeLost { node: *id, reason }, None);
                agents.marking.insert(*id);
            } else if node.lost
                && !node.fenced
                && silent >= self.config.lease_ms + self.config.fence_margin_ms
            {
                self.proposals.push(
                    Command::FenceNode {
                        node: *id,
                        by_operator: false,
                    },
                    None,
                );
                agents.marking.insert(*id);
            }
        }
    }

    /// Puts the progress that changed into the log, as one entry for all jobs.
    pub(super) fn propose_progress(&mut self) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let agents = &mut lead.agents;
        agents
            .progress
            .retain(|job, _| self.state.jobs.contains_key(job));
        let changed = std::mem::take(&mut agents.progress_changed);
        let entry = |job: &JobId| {
            agents
                .progress
                .get(job)
                .map(|(epoch, p)| (*job, *epoch, *p))
        };
        let progress: Vec<_> = changed.iter().filter_map(entry).collect();
        for part in progress.chunks(MAX_TASKS_PER_COMMAND) {
            self.proposals.push(
                Command::RecordProgress {
                    progress: part.to_vec(),
                },
                None,
            );
        }
    }
}

/// An agent's words on why a task ended; more would only make entries large.
const MAX_REASON_BYTES: usize = 512;
/// Keeps a command well below the size of an entry.
const MAX_TASKS_PER_COMMAND: usize = 400;

/// An agent's first words.
pub(super) struct Hello {
    pub(super) spec: Arc<NodeSpec>,
    pub(super) incarnation: u64,
    pub(super) cluster_id: u64,
    pub(super) inventory: AgentReport,
}

/// True if the task may be started over this session: it has not been seen to run, and the node's registration is of the
/// keeper that speaks. Before a restarted machine has registered, its tasks still stand in the state as they were.
fn may_launch(node: &Node, session: &Session, task: &TaskRecord) -> bool {
    let fresh = matches!(task.phase, TaskPhase::Assigned);
    fresh && !node.lost && node.incarnation == session.incarnation
}

/// Ends of tasks that are being stopped and of which this session's agent has never heard: their launch was on its way
/// when an older session or leader went. Only a leader can say so; the agent has nothing to report.
fn never_started(
    state: &State,
    node: NodeId,
    session: &Session,
    now_ms: u64,
) -> Vec<(TaskKey, TaskInventory)> {
    let Some(record) = state.nodes.get(&node) else {
        return Vec::new();
    };
    let stopping = launch::tasks_on(state, record).filter(|(_, attempt, task)| {
        let assigned = matches!(task.phase, TaskPhase::Assigned);
        assigned && matches!(attempt.phase, AttemptPhase::Stopping(_))
    });
    let keys = stopping.map(|(job, attempt, task)| TaskKey {
        job: job.id,
        epoch: attempt.epoch,
        rank: task.placement.rank,
    });
    keys.filter(|key| !session.known.contains(key))
        .map(|key| {
            let exit = TaskExit {
                code: -1,
                at_ms: now_ms,
                reason: "never started: its attempt ended first".to_owned(),
                node_fault: true,
            };
            (key, TaskInventory::Ended(exit))
        })
        .collect()
}

/// Adds to the session's next directive what the state wants on the node and the session has not been told. True if
/// anything was added.
fn refresh(state: &State, node: NodeId, session: &mut Session) -> bool {
    let Some(record) = state.nodes.get(&node) else {
        return false;
    };
    let mut added = false;
    for (job, attempt, task) in launch::tasks_on(state, record) {
        let key = TaskKey {
            job: job.id,
            epoch: attempt.epoch,
            rank: task.placement.rank,
        };
        if matches!(attempt.phase, AttemptPhase::Stopping(_)) {
            let tombstone = Tombstone {
                job: key.job,
                through: key.epoch,
            };
            if session.told_to_stop.insert(tombstone) {
                session.out.stop.push(tombstone);
                added = true;
            }
        } else if may_launch(record, session, task) && session.known.insert(key) {
            session
                .out
                .launch
                .push(launch::launch_task(state, job, attempt, task));
            added = true;
        }
    }
    added
}
