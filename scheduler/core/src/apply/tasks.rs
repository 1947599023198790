//! What agents say of tasks.
//!
//! Only the current attempt's tasks count, each on the node where it was placed, and an ended task stays ended: what an
//! agent repeats, or says about a copy that was given up for lost, changes nothing.
//!
//! A task of a gang that fails stops its attempt. A failed task of a group that is no gang lets the others end by
//! themselves; the first such failure is kept and becomes the attempt's end.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_types::{
    AttemptEnd, AttemptPhase, JobId, LostNodeRule, NodeId, Rank, TaskExit, TaskInventory, TaskKey,
    TaskPhase,
};

use super::attempts::{is_to_run_again, live_tasks_on};
use super::fencing::lost_nodes;
use super::transition::short;
use super::{Rejection, transition::Transition};
use crate::state::{Claim, Job};

impl Transition<'_> {
    pub(super) fn record_tasks(
        &mut self,
        node: NodeId,
        tasks: &[(TaskKey, TaskInventory)],
    ) -> Result<(), Rejection> {
        if !self.state.nodes.contains_key(&node) {
            return Err(Rejection::NoSuchNode(node));
        }
        let mut changed = BTreeSet::new();
        for (key, inventory) in tasks {
            if self.record_task(node, *key, inventory) {
                changed.insert(key.job);
            }
        }
        for job in changed {
            self.review(job);
        }
        Ok(())
    }

    /// True if this changed the task's record.
    fn record_task(&mut self, node: NodeId, key: TaskKey, inventory: &TaskInventory) -> bool {
        let Some(phase) = self.phase_on(node, key) else {
            return false;
        };
        match (phase, inventory) {
            (TaskPhase::Ended { .. }, _)
            | (_, TaskInventory::Preparing)
            | (TaskPhase::Running { .. }, TaskInventory::Running { .. }) => false,
            (TaskPhase::Assigned, TaskInventory::Running { since_ms }) => {
                let now = self.now();
                self.set_phase(key.job, key.rank, |started_ms| TaskPhase::Running {
                    since_ms: (*since_ms).max(started_ms).min(now),
                });
                true
            }
            (TaskPhase::Assigned | TaskPhase::Running { .. }, TaskInventory::Ended(exit)) => {
                let job = self.state.jobs.get(&key.job).map(AsRef::as_ref);
                let lost = lost_nodes(job).first().copied();
                self.end_task(key.job, key.rank, exit.code, exit.at_ms);
                // A task that its node stopped may have answered with 0: that is no success.
                if exit.code != 0 || exit.node_fault {
                    self.task_failed(key.job, key.rank, exit, lost);
                }
                true
            }
        }
    }

    /// The task's phase, if it belongs to the current attempt and was placed on this node.
    fn phase_on(&self, node: NodeId, key: TaskKey) -> Option<TaskPhase> {
        let attempt = self.state.jobs.get(&key.job)?.attempt.as_ref()?;
        let task = attempt.tasks.get(usize::try_from(key.rank.0).ok()?)?;
        (attempt.epoch == key.epoch && task.placement.node == node).then_some(task.phase)
    }

    fn set_phase(&mut self, job: JobId, rank: Rank, phase: impl FnOnce(u64) -> TaskPhase) {
        let attempt = self.state.job_mut(job).and_then(|j| j.attempt.as_mut());
        let Some(attempt) = attempt else {
            return;
        };
        let index = usize::try_from(rank.0).unwrap_or(usize::MAX);
        if let Some(task) = attempt.tasks.get_mut(index) {
            task.phase = phase(attempt.started_ms);
        }
    }

    /// Frees what a live task held. Its time is kept between the attempt's start and state time, because it comes from
    /// the node's clock.
    pub(super) fn end_task(&mut self, job: JobId, rank: Rank, code: i32, at_ms: u64) {
        let now = self.now();
        self.set_phase(job, rank, |started_ms| TaskPhase::Ended {
            code,
            at_ms: at_ms.max(started_ms).min(now),
        });
        let state = &mut *self.state;
        let Some(job) = state.jobs.get(&job) else {
            return;
        };
        let index = usize::try_from(rank.0).unwrap_or(usize::MAX);
        let Some(task) = job.attempt.as_ref().and_then(|a| a.tasks.get(index)) else {
            return;
        };
        let claim = Claim::of(job, &task.placement);
        self.touched.insert(claim.node);
        let (id, node) = (job.id, claim.node);
        let left = job.fencing.is_some() && live_tasks_on(job, node).next().is_some();
        if let Some(node) = state.nodes.get_mut(&node) {
            Arc::make_mut(node).free_task(id, claim);
        }
        if !left {
            self.no_longer_lost(id, node);
        }
    }

    /// `lost` is a node that the job waits for: the failure follows from its loss.
    fn task_failed(&mut self, job: JobId, rank: Rank, exit: &TaskExit, lost: Option<NodeId>) {
        let reason = short(&exit.reason);
        let code = exit.code;
        let blamed = match lost {
            Some(_) => None,
            None => self.blame(job, rank, exit),
        };
        let end = match lost {
            Some(node) => AttemptEnd::NodeLost { node },
            None if let Some(end) = blamed => end,
            None if exit.node_fault => AttemptEnd::NotStarted { reason },
            None => AttemptEnd::Failed { rank, code, reason },
        };
        self.attempt_failed(job, rank, end);
    }

    /// The attempt stops, or, if the task's group is no gang, remembers its first failure. An attempt that is being
    /// stopped keeps its reason, with one exception: ranks fail when the node of another one dies, long before the node
    /// is known as lost, and then the node is to blame and not the job.
    pub(super) fn attempt_failed(&mut self, job: JobId, rank: Rank, end: AttemptEnd) {
        let Some(known) = self.state.jobs.get(&job) else {
            return;
        };
        let stopping = known
            .attempt
            .as_ref()
            .is_some_and(|a| matches!(a.phase, AttemptPhase::Stopping(_)));
        if stopping {
            if let AttemptEnd::NodeLost { .. } = end {
                self.blame_node(job, end);
            }
            return;
        }
        if in_gang(known, rank) {
            self.stop(job, end);
        } else if known.failure.is_none()
            && let Some(job) = self.state.job_mut(job)
        {
            job.failure = Some(Box::new(end));
        }
    }

    /// A node was lost under an attempt that stops because a rank failed. A `fence` or `wait` job that is out of restarts
    /// stays failed: its end did not wait for the node to be fenced, so it must not run again.
    fn blame_node(&mut self, id: JobId, end: AttemptEnd) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let may_move =
            job.spec.restart.on_lost_node == LostNodeRule::Restart || is_to_run_again(job);
        let attempt = self.state.job_mut(id).and_then(|j| j.attempt.as_mut());
        if let Some(attempt) = attempt
            && may_move
            && matches!(
                attempt.phase,
                AttemptPhase::Stopping(AttemptEnd::Failed { .. })
            )
        {
            attempt.phase = AttemptPhase::Stopping(end);
        }
    }

    /// What follows for the attempt from its tasks' phases.
    pub(super) fn review(&mut self, job: JobId) {
        let Some(attempt) = self.state.jobs.get(&job).and_then(|j| j.attempt.as_ref()) else {
            return;
        };
        let is_assigned = |phase| matches!(phase, TaskPhase::Assigned);
        let is_ended = |phase| matches!(phase, TaskPhase::Ended { .. });
        if attempt.tasks.iter().all(|t| is_ended(t.phase)) {
            self.settle(job);
        } else if attempt.phase == AttemptPhase::Starting
            && !attempt.tasks.iter().any(|t| is_assigned(t.phase))
        {
            self.now_running(job);
        }
    }

    fn now_running(&mut self, job: JobId) {
        let Some(record) = self.state.job_mut(job) else {
            return;
        };
        record.start_faults = 0;
        if let Some(attempt) = &mut record.attempt {
            attempt.phase = AttemptPhase::Running;
        }
        let epoch = record.epoch;
        let text = format!("runs: every task of attempt {epoch} has started");
        self.job_event("job.running", job, &text);
    }
}

fn in_gang(job: &Job, rank: Rank) -> bool {
    let index = usize::try_from(rank.0).unwrap_or(usize::MAX);
    let task = job.attempt.as_ref().and_then(|a| a.tasks.get(index));
    let group = task.and_then(|t| job.spec.groups.get(usize::from(t.placement.group)));
    group.is_none_or(|g| g.gang)
}
