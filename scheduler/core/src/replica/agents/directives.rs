//! What agents are told: derived from the state and from what each session was told before.

use berth_types::{
    AttemptPhase, Directive, NodeId, TaskExit, TaskInventory, TaskKey, TaskPhase, TaskRecord,
    Tombstone,
};

use super::health::ask_for_tests;
use super::session::Session;
use crate::replica::{Effect, Replica, launch};
use crate::state::{Node, State};

impl Replica {
    /// Tells agents what they do not know yet.
    pub(in crate::replica) fn send_directives(&mut self, out: &mut Vec<Effect>) {
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
            let tests = ask_for_tests(&self.state, node, session);
            if refresh(&self.state, node, session) || tests {
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
            let masters_due = std::mem::take(&mut session.masters_due);
            let nothing = full.launch.is_empty() && full.stop.is_empty() && full.forget.is_empty();
            if nothing
                && full.checks.is_empty()
                && full.checkpoints_recorded.is_empty()
                && !session.answer_due
                && !masters_due
            {
                continue;
            }
            session.answer_due = false;
            session.sent_ms = now;
            let (cluster_id, lease_ms) = (self.state.cluster_id, self.config.lease_ms);
            let masters = if masters_due {
                let known = self.told_masters.iter();
                known.map(|(_, info)| info.address.clone()).collect()
            } else {
                Vec::new()
            };
            let directive = Directive {
                cluster_id,
                term,
                applied,
                lease_ms,
                masters,
                ..full
            };
            out.push(Effect::SendAgent {
                session: id,
                directive,
            });
        }
    }
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
