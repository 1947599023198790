//! An attempt begins, or is told to stop.

use std::sync::Arc;

use berth_types::{
    Attempt, AttemptEnd, AttemptPhase, Epoch, JobId, NodeId, Outcome, TaskPhase, TaskRecord,
};

use super::settle::may_run_again;
use super::{Rejection, transition::Transition};
use crate::command::{Eviction, Start};
use crate::state::{Claim, Job};

impl Transition<'_> {
    /// Places a job where a validated start says.
    pub(super) fn start(&mut self, start: &Start) {
        let now = self.now();
        self.state.leave_pending(start.job);
        let state = &mut *self.state;
        let Some(job) = state.jobs.get_mut(&start.job).map(Arc::make_mut) else {
            return;
        };
        state.active.insert(job.id);
        job.epoch = start.epoch;
        job.first_started_ms.get_or_insert(now);
        job.failure = None;
        for placement in &start.placements {
            let claim = Claim::of(job, placement);
            if let Some(node) = state.nodes.get_mut(&claim.node).map(Arc::make_mut) {
                node.take_task(job.id, claim);
                self.touched.insert(claim.node);
            }
        }
        let first = start.placements.first().map(|p| p.node);
        if let Some(node) = first.and_then(|id| state.nodes.get_mut(&id))
            && start.master_port != 0
        {
            Arc::make_mut(node).ports.insert(start.master_port, job.id);
        }
        let resumed_step = job.checkpoints.first().map(|c| c.step);
        job.attempt = Some(Box::new(attempt(start, now, resumed_step)));
        let text = format!(
            "starts as attempt {} on {}{}",
            start.epoch,
            self.placement_text(start),
            resumed_step.map_or(String::new(), |step| format!(" from step {step}")),
        );
        self.job_event("job.started", start.job, &text);
    }

    /// Such as `node n1` or `8 tasks on 2 nodes`.
    fn placement_text(&self, start: &Start) -> String {
        let mut nodes: Vec<NodeId> = start.placements.iter().map(|p| p.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let tasks = start.placements.len();
        match nodes.as_slice() {
            [node] if tasks == 1 => format!("node {}", self.node_name(*node)),
            [node] => format!("node {} with {tasks} tasks", self.node_name(*node)),
            _ => format!("{} nodes with {tasks} tasks", nodes.len()),
        }
    }

    /// Tells every task that is left to stop. The attempt ends so once all are gone, so the caller reviews it: if the job
    /// will not run again, tasks on lost nodes count as gone.
    pub(super) fn stop(&mut self, job: JobId, end: AttemptEnd) {
        let Some(attempt) = self.state.job_mut(job).and_then(|job| job.attempt.as_mut()) else {
            return;
        };
        attempt.phase = AttemptPhase::Stopping(end);
        let live = attempt
            .tasks
            .iter()
            .filter(|t| !matches!(t.phase, TaskPhase::Ended { .. }));
        self.touched.extend(live.map(|t| t.placement.node));
        let over = match self.state.jobs.get(&job) {
            Some(job) => job.fencing.is_some() && !is_to_run_again(job),
            None => false,
        };
        if over {
            self.give_up_lost_tasks(job);
        }
    }

    pub(super) fn evict(&mut self, eviction: &Eviction) {
        let reason = super::transition::short(&eviction.reason);
        let text = format!("is evicted: {reason}");
        self.job_event("job.evicted", eviction.job, &text);
        self.stop(eviction.job, AttemptEnd::Evicted { reason });
    }

    /// A job that runs is stopped first; one that waits is over at once. Repeating it changes nothing.
    pub(super) fn cancel_job(&mut self, job: JobId, user: &str) -> Result<(), Rejection> {
        let known = self.known_job(job)?;
        let Some(attempt) = &known.attempt else {
            let by = by(user);
            self.finish(job, Outcome::Cancelled, format!("cancelled{by}"));
            return Ok(());
        };
        match attempt.phase {
            AttemptPhase::Stopping(AttemptEnd::Cancelled | AttemptEnd::TimedOut) => {}
            AttemptPhase::Starting | AttemptPhase::Running | AttemptPhase::Stopping(_) => {
                let text = format!("is being cancelled{}", by(user));
                self.job_event("job.cancelling", job, &text);
                self.drop_reservation(job);
                self.stop(job, AttemptEnd::Cancelled);
                self.review(job);
            }
        }
        Ok(())
    }

    /// The leader's timer says that the attempt has run for too long; state time decides.
    pub(super) fn expire_attempt(&mut self, job: JobId, epoch: Epoch) -> Result<(), Rejection> {
        let known = self.known_job(job)?;
        let stale = Rejection::StaleEpoch { job, epoch };
        let attempt = known.attempt.as_ref().filter(|a| a.epoch == epoch);
        let attempt = attempt.ok_or(stale)?;
        if matches!(attempt.phase, AttemptPhase::Stopping(_)) {
            return Ok(());
        }
        let limit_ms = known.spec.time_limit_ms;
        if limit_ms == 0 || self.now() < attempt.started_ms.saturating_add(limit_ms) {
            return Err(Rejection::NotExpired(job));
        }
        self.stop(job, AttemptEnd::TimedOut);
        self.review(job);
        Ok(())
    }
}

/// False if the attempt is being stopped for good.
pub(super) fn is_to_run_again(job: &Job) -> bool {
    match job.attempt.as_ref().map(|a| &a.phase) {
        Some(AttemptPhase::Stopping(end)) => may_run_again(job, end),
        Some(AttemptPhase::Starting | AttemptPhase::Running) | None => true,
    }
}

fn by(user: &str) -> String {
    if user.is_empty() {
        return String::new();
    }
    format!(" by {}", super::transition::short(user))
}

fn attempt(start: &Start, now_ms: u64, resumed_step: Option<u64>) -> Attempt {
    let tasks = start.placements.iter().map(|placement| TaskRecord {
        placement: placement.clone(),
        phase: TaskPhase::Assigned,
    });
    Attempt {
        epoch: start.epoch,
        phase: AttemptPhase::Starting,
        tasks: tasks.collect(),
        master_port: start.master_port,
        started_ms: now_ms,
        resumed_step,
        placed_because: super::transition::short(&start.because),
    }
}

/// Tasks of the current attempt that are not gone yet and sit on this node, by rank.
pub(super) fn live_tasks_on(job: &Job, node: NodeId) -> impl Iterator<Item = &TaskRecord> {
    let tasks = job.attempt.iter().flat_map(|a| a.tasks.iter());
    tasks.filter(move |t| t.placement.node == node && !matches!(t.phase, TaskPhase::Ended { .. }))
}
