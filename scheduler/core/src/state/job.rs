//! A job's replicated record.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use berth_types::{
    Attempt, AttemptEnd, AttemptPhase, CheckpointRecord, Epoch, JobId, JobSpec, JobState, NodeId,
    Outcome, PastAttempt, Progress, TaskPlacement,
};
use serde::{Deserialize, Serialize};

/// Past attempts kept in the record; older ones are only counted.
pub const MAX_PAST: usize = 16;

/// An unfinished job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What was submitted.
    pub spec: Arc<JobSpec>,
    /// When it was accepted.
    pub submitted_ms: u64,
    /// When its first attempt was placed.
    pub first_started_ms: Option<u64>,
    /// Newest epoch given; 0 before the first attempt.
    pub epoch: Epoch,
    /// The current attempt.
    pub attempt: Option<Box<Attempt>>,
    /// Ended attempts, oldest first, the newest [`MAX_PAST`].
    pub past: Vec<PastAttempt>,
    /// Restarts charged to the budget.
    pub restarts: u32,
    /// Attempts that ended through a node's fault (lost, or unable to start it); not charged, but bounded.
    pub node_faults: u32,
    /// Attempts in a row that a node could not start; reset once an attempt runs.
    pub start_faults: u32,
    /// Attempts that asked to be queued again by their exit code; not charged, but bounded.
    pub requeues: u32,
    /// First failure of a task that does not stop its attempt (a group that is no gang): the attempt's end once the
    /// other tasks have ended by themselves.
    pub failure: Option<Box<AttemptEnd>>,
    /// Not to be placed before this time.
    pub not_before_ms: u64,
    /// Waits for lost nodes, if it does; only while it has an attempt.
    pub fencing: Option<Fencing>,
    /// Registered checkpoints, newest first; at most `spec.checkpoint.keep` (and 16).
    pub checkpoints: Vec<CheckpointRecord>,
    /// Newest progress.
    pub progress: Option<Progress>,
    /// GPU-milliseconds attained by ended attempts (thousandths of GPUs times milliseconds / 1000).
    pub attained_gpu_ms: u64,
}

/// Lost nodes on which tasks of a `fence` or `wait` job's current attempt may still run. The attempt keeps them: it goes
/// on if they come back in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fencing {
    /// Nodes not yet fenced or returned.
    pub nodes: BTreeSet<NodeId>,
    /// True if only an operator (or the node's return) releases it.
    pub operator_only: bool,
}

/// Sort key of a pending job: higher priority first, then by id, which is by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PendingKey {
    /// Priority.
    pub priority: Reverse<i32>,
    /// The job.
    pub job: JobId,
}

/// GPUs kept for a job whose evictions are under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The job that will start.
    pub job: JobId,
    /// Where.
    pub placements: Vec<TaskPlacement>,
    /// Attempts that vacate; the reservation is ready when none is left.
    pub waits_for: BTreeSet<(JobId, Epoch)>,
    /// Since when.
    pub since_ms: u64,
    /// Why, in the policy's words.
    pub because: String,
}

/// A job that is over, as kept in the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishedJob {
    /// Counted from 1 over the cluster's life.
    pub seq: u64,
    /// Its last record.
    pub job: Job,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for people.
    pub reason: String,
    /// When.
    pub ended_ms: u64,
    /// Names of the nodes in its attempts.
    pub node_names: Vec<(NodeId, String)>,
}

impl Job {
    /// A job that was just accepted.
    pub fn new(id: JobId, spec: Arc<JobSpec>, submitted_ms: u64) -> Self {
        Self {
            id,
            spec,
            submitted_ms,
            first_started_ms: None,
            epoch: Epoch(0),
            attempt: None,
            past: Vec::new(),
            restarts: 0,
            node_faults: 0,
            start_faults: 0,
            requeues: 0,
            failure: None,
            not_before_ms: 0,
            fencing: None,
            checkpoints: Vec::new(),
            progress: None,
            attained_gpu_ms: 0,
        }
    }

    /// Sort key among pending jobs.
    pub fn pending_key(&self) -> PendingKey {
        PendingKey {
            priority: Reverse(self.spec.priority),
            job: self.id,
        }
    }

    /// True if it waits for resources (its back-off may still run).
    pub fn is_pending(&self) -> bool {
        self.attempt.is_none() && self.fencing.is_none()
    }

    /// Where it is in its life.
    pub fn state(&self) -> JobState {
        match (&self.attempt, &self.fencing) {
            (_, Some(_)) => JobState::Fencing,
            (None, None) => JobState::Pending,
            (Some(attempt), None) => match attempt.phase {
                AttemptPhase::Starting => JobState::Starting,
                AttemptPhase::Running => JobState::Running,
                AttemptPhase::Stopping(_) => JobState::Stopping,
            },
        }
    }
}
