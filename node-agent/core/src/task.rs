//! The life of one task on its node.
//!
//! ```text
//! Waiting --older epochs gone,--> Preparing --Prepared--> Spawning --Spawned--> Running --TaskExited--> Ended
//!    \   its GPUs free, prolog ok     \ --fault, stop--.        \ --------- TaskExited -------------------^
//!     `-- stop, GPU broken, prolog failed ----------> Recording --TaskExited------------------------------'
//! ```
//! With an epilog, the last task of an attempt is `Leaving` between its end and that of the epilog.
//! `Ended` leaves only by `forget`. A stop of a task with a process asks (TERM), then kills (KILL) until it is gone.

use std::sync::Arc;

use berth_types::{LaunchTask, LostNodeRule, TaskExit, TaskInventory};
use serde::{Deserialize, Serialize};

use crate::prepare::{DamagedCheckpoint, Prepared};

/// What the agent must know of a running task after its own restart; the keeper holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskMemo {
    /// Time between asking the task to stop and killing it.
    pub grace_ms: u64,
    /// Stop it when the lease is over (`lost_node = fence`).
    pub fence: bool,
    /// The epoch's checkpoint directory.
    pub checkpoint_dir: String,
    /// How many checkpoints to keep.
    pub checkpoint_keep: u32,
    /// Indices of the GPUs that it holds a share of.
    pub gpus: Vec<u16>,
    /// The job's name.
    pub job_name: String,
    /// Who submitted it.
    pub user: String,
}

impl TaskMemo {
    pub(crate) fn of(launch: &LaunchTask, checkpoint_dir: String) -> Self {
        Self {
            grace_ms: launch.grace_ms,
            fence: launch.lost_node == LostNodeRule::Fence,
            checkpoint_dir,
            checkpoint_keep: launch.checkpoint_keep.max(1),
            gpus: launch.gpus.iter().map(|share| share.gpu).collect(),
            job_name: launch.job_name.clone(),
            user: launch.user.clone(),
        }
    }
}

/// Where a task is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    /// Accepted; an older epoch of its job is still alive here, or its GPUs are not free yet.
    Waiting(Arc<LaunchTask>),
    /// The shell makes it ready.
    Preparing(Arc<LaunchTask>),
    /// The keeper was told to start it.
    Spawning(Arc<LaunchTask>, Prepared),
    /// It has a process.
    Running { pid: u32, since_ms: u64 },
    /// It has no process and will not get one; the keeper was told to record this.
    Recording(TaskExit),
    /// It is over and the record is durable, but the epilog of its attempt still runs: nobody is told yet, so that what it
    /// holds is not given to others.
    Leaving { exit: TaskExit, since_ms: u64 },
    /// It is over and the record is durable.
    Ended(TaskExit),
}

/// A stop that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// When KILL is due next.
    pub(crate) kill_at_ms: u64,
    /// Why, for the record.
    pub(crate) reason: String,
    /// The node stops it by itself, for its lease: not charged to the job, and no success whatever its exit code.
    pub(crate) by_node: bool,
}

/// Newest progress of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) step: u64,
    pub(crate) samples: u64,
    pub(crate) loss_micros: Option<i64>,
    pub(crate) step_us: Option<u64>,
    /// Not reported yet.
    pub(crate) fresh: bool,
}

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Task {
    pub(crate) memo: TaskMemo,
    pub(crate) phase: Phase,
    pub(crate) stop: Option<Stop>,
    pub(crate) progress: Option<Progress>,
    pub(crate) damaged: Vec<DamagedCheckpoint>,
    /// It could start but for its GPUs, since then.
    pub(crate) gpu_wait_since_ms: Option<u64>,
}

impl Task {
    pub(crate) fn new(memo: TaskMemo, phase: Phase) -> Self {
        Self {
            memo,
            phase,
            stop: None,
            progress: None,
            damaged: Vec::new(),
            gpu_wait_since_ms: None,
        }
    }

    /// Its first process, while there is one.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Running { pid, .. } => Some(pid),
            Phase::Waiting(_)
            | Phase::Preparing(_)
            | Phase::Spawning(..)
            | Phase::Recording(_)
            | Phase::Leaving { .. }
            | Phase::Ended(_) => None,
        }
    }

    /// True if it may have a process, so that a newer epoch must wait.
    pub(crate) fn may_live(&self) -> bool {
        match self.phase {
            Phase::Spawning(..) | Phase::Running { .. } => true,
            Phase::Waiting(_)
            | Phase::Preparing(_)
            | Phase::Recording(_)
            | Phase::Leaving { .. }
            | Phase::Ended(_) => false,
        }
    }

    /// What the leader hears of it.
    pub(crate) fn inventory(&self) -> TaskInventory {
        match &self.phase {
            Phase::Waiting(_) | Phase::Preparing(_) | Phase::Spawning(..) | Phase::Recording(_) => {
                TaskInventory::Preparing
            }
            Phase::Running { since_ms, .. } | Phase::Leaving { since_ms, .. } => {
                TaskInventory::Running {
                    since_ms: *since_ms,
                }
            }
            Phase::Ended(exit) => TaskInventory::Ended(exit.clone()),
        }
    }
}
