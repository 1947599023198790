//! An attempt is over: what its job does next.
//!
//! | the attempt ended | the job |
//! | --- | --- |
//! | completed, cancelled, timed out | is finished |
//! | failed with [`EXIT_REQUEUE`] | is queued again after its back-off, not charged, at most [`MAX_REQUEUES`] times |
//! | failed otherwise | restarts after a doubling back-off, charged to `max_restarts`, or has failed |
//! | a node could not start it | is queued again after a short growing pause, not charged, at most [`MAX_START_FAULTS`] times in a row |
//! | a node was lost, or a GPU failed | is queued again at once, not charged, all together at most [`MAX_NODE_FAULTS`] times |
//! | evicted | is queued again at once, not charged |
//!
//! An attempt with tasks on a lost node is over only when the job's rule says so, see `fencing`.

use std::sync::Arc;

use berth_types::{
    Attempt, AttemptEnd, AttemptPhase, JobId, NodeId, Outcome, PastAttempt, Rank, TaskPhase,
};

use super::transition::Transition;
use crate::state::{FinishedJob, Job, MAX_PAST, outcome_class};

/// Exit code by which a task asks for its job to be queued again (`EX_TEMPFAIL`).
pub const EXIT_REQUEUE: i32 = 75;
/// Requeues by exit code before they count as failure: a job that can only ever ask for more is not served for ever.
pub const MAX_REQUEUES: u32 = 1_000;
/// Attempts in a row that nodes could not start before the job fails: by then it is not the nodes.
pub const MAX_START_FAULTS: u32 = 20;
/// Attempts in all that ended through a node's fault before the job fails: by then it may be what kills them.
pub const MAX_NODE_FAULTS: u32 = 100;

/// First pause after a start that a node could not do.
const START_FAULT_PAUSE_MS: u64 = 500;
/// Pauses double up to 2^5 = 32 times the first.
const MAX_DOUBLINGS: u32 = 5;

/// How a job goes on.
enum Next {
    Finish(Outcome, String),
    Queue { not_before_ms: u64, why: String },
}

impl Transition<'_> {
    /// Ends an attempt whose tasks are all gone.
    pub(super) fn settle(&mut self, id: JobId) {
        let now = self.now();
        let state = &mut *self.state;
        let Some(job) = state.jobs.get_mut(&id).map(Arc::make_mut) else {
            return;
        };
        let Some(attempt) = job.attempt.take() else {
            return;
        };
        state.active.remove(&id);
        let first = attempt.tasks.first().map(|t| t.placement.node);
        if let Some(node) = first.and_then(|n| state.nodes.get_mut(&n))
            && attempt.master_port != 0
        {
            Arc::make_mut(node).ports.remove(&attempt.master_port);
        }
        let failure = job.failure.take();
        let end = match &attempt.phase {
            AttemptPhase::Stopping(end) => end.clone(),
            AttemptPhase::Starting | AttemptPhase::Running => {
                failure.map_or(AttemptEnd::Completed, |failure| *failure)
            }
        };
        job.attained_gpu_ms = job
            .attained_gpu_ms
            .saturating_add(attained_gpu_ms(&attempt));
        let epoch = attempt.epoch;
        remember(job, &attempt, end.clone(), now);
        self.vacated(id, epoch);
        if end == AttemptEnd::Completed {
            let nodes: Vec<NodeId> = attempt.tasks.iter().map(|t| t.placement.node).collect();
            self.clear_failures(&nodes);
        }
        match self.next(id, &end) {
            Some(Next::Finish(outcome, reason)) => self.finish(id, outcome, reason),
            Some(Next::Queue { not_before_ms, why }) => self.queue_again(id, not_before_ms, &why),
            None => {}
        }
    }

    fn next(&mut self, id: JobId, end: &AttemptEnd) -> Option<Next> {
        let now = self.now();
        let why = self.why_ended(id, end);
        let job = self.state.job_mut(id)?;
        let restart = job.spec.restart.clone();
        let queue = |pause_ms: u64, why: String| Next::Queue {
            not_before_ms: now.saturating_add(pause_ms),
            why,
        };
        Some(match end {
            AttemptEnd::Completed | AttemptEnd::Cancelled | AttemptEnd::TimedOut => {
                Next::Finish(end.outcome(), why)
            }
            AttemptEnd::Failed { code, .. }
                if *code == EXIT_REQUEUE && job.requeues < MAX_REQUEUES =>
            {
                job.requeues += 1;
                queue(restart.backoff_ms, why)
            }
            AttemptEnd::Failed { .. } if job.restarts < restart.max_restarts => {
                let pause_ms = doubled(restart.backoff_ms, job.restarts);
                job.restarts += 1;
                queue(pause_ms, why)
            }
            AttemptEnd::Failed { .. } => {
                let budget = match restart.max_restarts {
                    0 => String::new(),
                    n => format!("; all {n} restarts are used"),
                };
                Next::Finish(end.outcome(), format!("{why}{budget}"))
            }
            AttemptEnd::NotStarted { .. }
            | AttemptEnd::NodeLost { .. }
            | AttemptEnd::GpuFault { .. } => {
                let lost = !matches!(end, AttemptEnd::NotStarted { .. });
                let pause_ms = match lost {
                    true => 0,
                    false => doubled(START_FAULT_PAUSE_MS, job.start_faults),
                };
                job.start_faults = job.start_faults.saturating_add(u32::from(!lost));
                job.node_faults = job.node_faults.saturating_add(1);
                let times = match (job.start_faults, job.node_faults) {
                    (in_a_row, _) if in_a_row >= MAX_START_FAULTS => in_a_row,
                    (_, in_all) if in_all > MAX_NODE_FAULTS => in_all,
                    _ => return Some(queue(pause_ms, why)),
                };
                let why = format!("{why}; nodes failed it {times} times");
                Next::Finish(end.outcome(), why)
            }
            AttemptEnd::Evicted { .. } => queue(0, why),
        })
    }

    fn queue_again(&mut self, id: JobId, not_before_ms: u64, why: &str) {
        let floor = self.state.epoch_floor;
        let Some(job) = self.state.job_mut(id) else {
            return;
        };
        job.not_before_ms = not_before_ms;
        let number = job.epoch.0.max(floor).saturating_add(1);
        let from = match job.checkpoints.first() {
            Some(checkpoint) => format!("from step {}", checkpoint.step),
            None => "from the beginning".to_owned(),
        };
        self.state.join_pending(id);
        let text = format!("restarts as attempt {number} {from}: {why}");
        self.job_event("job.restarting", id, &text);
    }

    /// Moves a job without an attempt from the state into the history.
    pub(super) fn finish(&mut self, id: JobId, outcome: Outcome, reason: String) {
        self.drop_reservation(id);
        let (kind, verb) = match outcome {
            Outcome::Completed => ("job.finished", "completed"),
            Outcome::Failed { .. } | Outcome::NodeLost => ("job.failed", "failed"),
            Outcome::Cancelled => ("job.cancelled", "is over"),
            Outcome::TimedOut => ("job.timed_out", "is over"),
            Outcome::Rejected => ("job.rejected", "was rejected"),
        };
        self.job_event(kind, id, &format!("{verb}: {reason}"));
        self.state.leave_pending(id);
        let Some(job) = self.state.jobs.remove(&id) else {
            return;
        };
        self.state.finished = self.state.finished.saturating_add(1);
        if let Some(count) = self.state.finished_by_class.get_mut(outcome_class(outcome)) {
            *count = count.saturating_add(1);
        }
        let node_names = self.names_of(&job);
        self.finished.push(FinishedJob {
            seq: self.state.finished,
            job: Arc::unwrap_or_clone(job),
            outcome,
            reason,
            ended_ms: self.state.time_ms,
            node_names,
        });
    }

    fn names_of(&self, job: &Job) -> Vec<(NodeId, String)> {
        let mut nodes: Vec<NodeId> = job.past.iter().flat_map(|p| p.nodes.clone()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let named = nodes.into_iter().map(|n| (n, self.node_name(n)));
        named.collect()
    }

    /// The attempt's end, for people.
    fn why_ended(&self, id: JobId, end: &AttemptEnd) -> String {
        match end {
            AttemptEnd::Completed => "every task exited 0".to_owned(),
            AttemptEnd::Failed { rank, code, reason } => {
                let on = self.on_node(id, *rank);
                let said = said(reason);
                match code {
                    -1 => format!("task {rank} could not start{on}{said}"),
                    &EXIT_REQUEUE => format!("task {rank} asked to be queued again{on}{said}"),
                    code if *code > 128 => {
                        format!("task {rank} was ended by signal {}{on}{said}", code - 128)
                    }
                    code => format!("task {rank} exited {code}{on}{said}"),
                }
            }
            AttemptEnd::NodeLost { node } => format!("node {} was lost", self.node_name(*node)),
            AttemptEnd::NotStarted { reason } => {
                format!("a node could not start it{}", said(reason))
            }
            AttemptEnd::Evicted { reason } => format!("evicted{}", said(reason)),
            AttemptEnd::Cancelled => "cancelled".to_owned(),
            AttemptEnd::GpuFault { node, gpu, reason } => {
                format!(
                    "GPU {gpu} of node {} failed{}",
                    self.node_name(*node),
                    said(reason)
                )
            }
            AttemptEnd::TimedOut => "its time limit was reached".to_owned(),
        }
    }

    fn on_node(&self, id: JobId, rank: Rank) -> String {
        let past = self.state.jobs.get(&id).and_then(|j| j.past.last());
        let index = usize::try_from(rank.0).unwrap_or(usize::MAX);
        match past.and_then(|p| p.nodes.get(index)) {
            Some(node) => format!(" on node {}", self.node_name(*node)),
            None => String::new(),
        }
    }
}

/// True if a job may have another attempt after one that ends so.
pub(super) fn may_run_again(job: &Job, end: &AttemptEnd) -> bool {
    match end {
        AttemptEnd::Completed | AttemptEnd::Cancelled | AttemptEnd::TimedOut => false,
        AttemptEnd::Failed { code, .. } => {
            let requeue = *code == EXIT_REQUEUE && job.requeues < MAX_REQUEUES;
            requeue || job.restarts < job.spec.restart.max_restarts
        }
        AttemptEnd::NodeLost { .. }
        | AttemptEnd::NotStarted { .. }
        | AttemptEnd::GpuFault { .. }
        | AttemptEnd::Evicted { .. } => true,
    }
}

fn said(reason: &str) -> String {
    if reason.is_empty() {
        return String::new();
    }
    format!(": {reason}")
}

/// `first` doubled so many times, up to 32 times `first`.
fn doubled(first_ms: u64, times: u32) -> u64 {
    first_ms.saturating_mul(1 << times.min(MAX_DOUBLINGS))
}

fn remember(job: &mut Job, attempt: &Attempt, end: AttemptEnd, now_ms: u64) {
    if job.past.len() >= MAX_PAST {
        let surplus = job.past.len() + 1 - MAX_PAST;
        job.past.drain(..surplus);
    }
    job.past.reserve_exact(1);
    job.past.push(PastAttempt {
        epoch: attempt.epoch,
        started_ms: attempt.started_ms,
        ended_ms: now_ms,
        end,
        nodes: attempt.tasks.iter().map(|t| t.placement.node).collect(),
        resumed_step: attempt.resumed_step,
    });
}

fn attained_gpu_ms(attempt: &Attempt) -> u64 {
    attempt.tasks.iter().fold(0u64, |sum, task| {
        let TaskPhase::Ended { at_ms, .. } = task.phase else {
            return sum;
        };
        let held_ms = at_ms.saturating_sub(attempt.started_ms);
        let milligpu: u64 = task
            .placement
            .gpus
            .iter()
            .map(|s| u64::from(s.milligpu))
            .sum();
        sum.saturating_add(held_ms.saturating_mul(milligpu) / 1000)
    })
}
