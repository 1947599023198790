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
//!
//! Each side of a conversation is one file: `session` (who is connected, and registrations), `reports` (what agents say),
//! `directives` (what they are told), `health` (what they say of their GPUs), `silence` (nodes that say nothing), `host`
//! (what nodes say of themselves), `verdict` (what the state says of their tasks).

mod directives;
mod health;
mod host;
mod reports;
mod session;
mod silence;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use berth_types::{JobId, NodeId, Progress, TaskInventory, TaskKey};

use crate::command::Command;
use crate::health::{Telemetry, Watch};
use crate::state::State;
pub(super) use session::Hello;
use session::Session;

pub(super) use host::by_operator;

/// Keeps a command well below the size of an entry.
const MAX_TASKS_PER_COMMAND: usize = 400;

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
    /// What GPUs showed before, to see what changes.
    watches: BTreeMap<NodeId, Watch>,
    telemetry: Telemetry,
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

    /// Newest readings.
    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
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

    /// The masters have changed: every agent is told, so that it finds a leader even when all that it was configured with are
    /// gone.
    pub(super) fn tell_masters(&mut self) {
        for (id, session) in &mut self.sessions {
            session.masters_due = true;
            self.dirty.insert(*id);
        }
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
