//! What a shell is to do.

use std::sync::Arc;

use berth_types::{
    AgentReport, CheckpointFile, Epoch, HealthCheck, JobId, LaunchTask, TaskExit, TaskKey,
};

use crate::fence::{Fence, Refusal};
use crate::hooks::HookRun;
use crate::masters::Learned;
use crate::prepare::Prepared;
use crate::task::TaskMemo;

/// An order for the shell. Effects that concern the keeper ([`Spawn`](Effect::Spawn), [`Signal`](Effect::Signal),
/// [`PersistExit`](Effect::PersistExit), [`Forget`](Effect::Forget), [`RenewLease`](Effect::RenewLease)) are carried
/// out in the order given; so are [`Register`](Effect::Register) and [`Report`](Effect::Report). The others are free.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// First message on a new stream. The shell adds the node's spec.
    Register {
        /// Which stream.
        session: u64,
        /// The keeper's incarnation.
        incarnation: u64,
        /// Newest directive seen.
        fence: Fence,
        /// State of every task that the agent has.
        inventory: AgentReport,
    },
    /// Tell the leader. Reports may be merged by appending their events.
    Report {
        /// Which stream.
        session: u64,
        /// What; without events it is the heartbeat.
        report: AgentReport,
    },
    /// Write down the newest directive seen, before the effects that follow. Needs to survive the agent's death; a
    /// machine's only when `cluster_id` or `term` changed (tasks do not survive that).
    SaveFence(Fence),
    /// Write down where the masters are, and look there, too, when a leader is looked for ([`Route`](crate::Route)). Needs to
    /// survive the agent's death, since its configuration may name none that still exists.
    SaveMasters(Learned),
    /// Make directories, test-bind `master_port` if the task is rank 0, and find the first checkpoint of
    /// `resume_from` that verifies. Answered by [`Input::Prepared`](crate::Input::Prepared).
    Prepare {
        /// What is to run.
        launch: Arc<LaunchTask>,
    },
    /// Have the keeper start it. Idempotent by key: a task that the keeper has is not started again. Answered by
    /// [`Input::Spawned`](crate::Input::Spawned) or [`Input::TaskExited`](crate::Input::TaskExited).
    Spawn {
        /// What.
        launch: Arc<LaunchTask>,
        /// What preparation found.
        prepared: Prepared,
        /// Kept by the keeper for a restarted agent.
        memo: TaskMemo,
    },
    /// Send a signal to the task's whole process group. Nothing happens if it is gone.
    Signal {
        /// Which task.
        key: TaskKey,
        /// Which signal.
        signal: StopSignal,
        /// The node stops it by itself, for its lease: the keeper marks the exit record as the node's doing, so that
        /// this is known even if the agent dies before the task does.
        by_node: bool,
    },
    /// Have the keeper record the end of a task that has no process. Idempotent: the first record counts. Answered
    /// by [`Input::TaskExited`](crate::Input::TaskExited).
    PersistExit {
        /// Which task.
        key: TaskKey,
        /// How it ended.
        exit: TaskExit,
    },
    /// The record of this task is committed: the keeper may drop it.
    Forget {
        /// Which task.
        key: TaskKey,
    },
    /// A leader was heard: the keeper kills the tasks with [`TaskMemo::fence`] by itself if the next of these does
    /// not come within `lease_ms`, so that the lease holds while the agent is dead.
    RenewLease {
        /// From now.
        lease_ms: u64,
    },
    /// Check every file (size, SHA-256), refuse paths outside the epoch's checkpoint directory, write the manifest.
    /// Answered by [`Input::CheckpointVerified`](crate::Input::CheckpointVerified).
    VerifyCheckpoint {
        /// The job.
        job: JobId,
        /// The attempt that wrote it.
        epoch: Epoch,
        /// Its step.
        step: u64,
        /// The epoch's checkpoint directory: `path` must be inside.
        checkpoint_dir: String,
        /// Directory that holds it.
        path: String,
        /// Its files, of all shards.
        files: Vec<CheckpointFile>,
        /// How long saving took (the slowest shard).
        save_ms: u64,
    },
    /// A checkpoint is recorded in the log: of those of this job at or before (`epoch`, `step`), delete all but the
    /// newest `keep`.
    PruneCheckpoints {
        /// The job.
        job: JobId,
        /// The attempt.
        epoch: Epoch,
        /// The recorded step.
        step: u64,
        /// The epoch's checkpoint directory; older epochs' lie beside it.
        checkpoint_dir: String,
        /// How many to keep, at least 1.
        keep: u32,
    },
    /// Tell a task over its socket, if it listens.
    TellTask {
        /// Which task.
        key: TaskKey,
        /// What.
        message: TaskMessage,
    },
    /// Run a hook of the operator. Answered by [`Input::HookEnded`](crate::Input::HookEnded), with a failure if it takes too
    /// long or cannot be run.
    RunHook(HookRun),
    /// Look at the GPUs now; the facts that follow from it carry this number or a higher one.
    LookAtGpus {
        /// Only grows.
        look: u64,
    },
    /// End a process that holds memory of a GPU although its task is over.
    EndProcess {
        /// The task.
        key: TaskKey,
        /// The process.
        pid: u32,
        /// It is another one if it did not start then.
        start_ticks: u64,
        /// The GPU.
        gpu: u16,
    },
    /// Run the operator's test of a GPU or of the node, if there is one; the core has looked at the GPU itself. Answered by
    /// [`Input::Checked`](crate::Input::Checked).
    RunCheck {
        /// What to test.
        check: HealthCheck,
    },
    /// Give up this stream and look for a master anew; [`Input::Disconnected`](crate::Input::Disconnected) may follow
    /// or not.
    Disconnect {
        /// Which.
        session: u64,
    },
    /// A directive, or a launch of it, was refused; for the agent's log.
    Refused {
        /// Which stream.
        session: u64,
        /// Why.
        refusal: Refusal,
    },
}

/// How to ask a task to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopSignal {
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
}

/// What the agent tells a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskMessage {
    /// A checkpoint is recorded in the log, or will not be.
    Ack {
        /// Its step.
        step: u64,
        /// Recorded.
        accepted: bool,
        /// Why not.
        reason: String,
    },
    /// The task should end by itself.
    Stop {
        /// It is killed then.
        deadline_ms: u64,
        /// Why.
        reason: String,
    },
}
