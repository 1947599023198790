//! Attempts: one incarnation of a job's gang.
//!
//! ```text
//! Starting --all tasks run--> Running --all exit 0--------> (ended: Completed)
//!     \                          \ --a task fails/lost----> Stopping --all gone--> (ended)
//!      `-- cancel, failure, evict `--cancel, evict, limit--> Stopping
//! ```

use serde::{Deserialize, Serialize};

use crate::{Epoch, GpuShare, NodeId, Outcome, Rank};

/// Where one task sits and what it holds there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPlacement {
    /// The task.
    pub rank: Rank,
    /// Index into [`JobSpec::groups`](crate::JobSpec::groups).
    pub group: u16,
    /// The node.
    pub node: NodeId,
    /// GPU shares held, ordered by GPU.
    pub gpus: Vec<GpuShare>,
}

/// How far a task has come, as committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskPhase {
    /// Placed; the agent has not yet said that it runs.
    Assigned,
    /// Its process was started at this time.
    Running {
        /// When.
        since_ms: u64,
    },
    /// Its process is gone and its resources are free.
    Ended {
        /// Exit code, 128+n for signal n, or -1 if it never ran or was lost.
        code: i32,
        /// When.
        at_ms: u64,
    },
}

/// A task of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Where it sits.
    pub placement: TaskPlacement,
    /// How far it is.
    pub phase: TaskPhase,
}

/// How far an attempt has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptPhase {
    /// Directives are out; not every task runs yet.
    Starting,
    /// Every task runs or has ended well.
    Running,
    /// Its tasks are being stopped; when all are gone the attempt ends so.
    Stopping(AttemptEnd),
}

/// Why an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptEnd {
    /// Every task exited 0.
    Completed,
    /// A task failed: the first one, with its code and the agent's words.
    Failed {
        /// The first task that failed.
        rank: Rank,
        /// Exit code, 128+n for signal n, -1 if it could not start.
        code: i32,
        /// What the agent said, such as `command not found: trian.py`.
        reason: String,
    },
    /// A node was lost under it.
    NodeLost {
        /// The node.
        node: NodeId,
    },
    /// A task could not be started for a cause that is the node's (a port in use, say); not charged to the job.
    NotStarted {
        /// The agent's words.
        reason: String,
    },
    /// Evicted by the scheduler in favour of something else; not charged to the job.
    Evicted {
        /// Why.
        reason: String,
    },
    /// Cancelled by a user.
    Cancelled,
    /// Ran longer than its time limit.
    TimedOut,
    /// A GPU failed under it; not charged to the job.
    GpuFault {
        /// Its node.
        node: NodeId,
        /// Its index in the node's offer.
        gpu: u16,
        /// What was seen.
        reason: String,
    },
}

/// One incarnation of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its epoch.
    pub epoch: Epoch,
    /// How far it is.
    pub phase: AttemptPhase,
    /// Its tasks, by rank.
    pub tasks: Vec<TaskRecord>,
    /// Port on rank 0's node, leased for the gang's rendezvous.
    pub master_port: u16,
    /// When it was placed.
    pub started_ms: u64,
    /// The checkpoint step that it resumed from, if any.
    pub resumed_step: Option<u64>,
    /// Why it sits where it sits, in the policy's words.
    pub placed_because: String,
}

/// An attempt that is over, kept short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastAttempt {
    /// Its epoch.
    pub epoch: Epoch,
    /// When it was placed.
    pub started_ms: u64,
    /// When its last task was gone.
    pub ended_ms: u64,
    /// Why it ended.
    pub end: AttemptEnd,
    /// Where its tasks sat, by rank, so that their logs are found.
    pub nodes: Vec<NodeId>,
    /// The checkpoint step that it resumed from, if any.
    pub resumed_step: Option<u64>,
}

impl AttemptEnd {
    /// The job's outcome if this end is final.
    pub fn outcome(&self) -> Outcome {
        match self {
            AttemptEnd::Completed => Outcome::Completed,
            AttemptEnd::Failed { code, .. } => Outcome::Failed { code: *code },
            AttemptEnd::NodeLost { .. } => Outcome::NodeLost,
            AttemptEnd::NotStarted { .. } => Outcome::Failed { code: -1 },
            AttemptEnd::Evicted { .. } => Outcome::Cancelled,
            AttemptEnd::Cancelled => Outcome::Cancelled,
            AttemptEnd::TimedOut => Outcome::TimedOut,
            AttemptEnd::GpuFault { .. } => Outcome::Failed { code: -1 },
        }
    }
}
