//! What agents say: what they have when they connect, and what has happened since.

use berth_types::{
    AgentReport, JobId, NodeId, Progress, TaskEvent, TaskExit, TaskInventory, TaskKey, TaskPhase,
    Tombstone,
};

use super::MAX_TASKS_PER_COMMAND;
use super::verdict::{Verdict, is_awaited, judge};
use crate::command::Command;
use crate::replica::{Replica, launch};

/// An agent's words on why a task ended; more would only make entries large.
const MAX_REASON_BYTES: usize = 512;

impl Replica {
    /// Sorts everything that a newly connected agent has into current, stale, and unknown.
    pub(super) fn take_inventory(&mut self, id: u64, inventory: AgentReport) {
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

    pub(in crate::replica) fn on_agent_report(&mut self, id: u64, report: AgentReport) {
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
        self.heed_fitness(id);
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
                TaskEvent::Gpu(event) => self.on_gpu_event(id, event),
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
                TaskEvent::Host(report) => self.on_host_report(id, report),
                TaskEvent::HookFailed { key, hook, reason } => {
                    self.on_hook_failed(id, key, hook, &reason)
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

    /// Proposes what agents reported, as one command per node.
    pub(in crate::replica) fn propose_reports(&mut self) {
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

    /// Puts the progress that changed into the log, as one entry for all jobs.
    pub(in crate::replica) fn propose_progress(&mut self) {
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
