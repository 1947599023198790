//! Facts that a shell feeds into the core.

use berth_types::{
    CheckpointFile, CheckpointRecord, Directive, Epoch, HealthCheck, Isolation, JobId, TaskExit,
    TaskKey,
};

use crate::gpus::GpuFact;
use crate::hooks::HookRun;
use crate::prepare::{PrepareFault, Prepared};
use crate::task::TaskMemo;

/// A fact for [`AgentCore::step`](crate::AgentCore::step).
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The keeper said what it has: at start, and again whenever the agent had to connect to it anew. Nothing is
    /// registered before the first of these.
    KeeperState {
        /// Drawn at each start of the keeper: a new one says that no older task can be alive.
        incarnation: u64,
        /// Every task and record that the keeper has.
        tasks: Vec<KeptTask>,
    },
    /// A stream to a master stands; the answer is [`Effect::Register`](crate::Effect::Register).
    Connected {
        /// Chosen by the shell, never reused.
        session: u64,
    },
    /// That stream is gone.
    Disconnected {
        /// Which.
        session: u64,
    },
    /// A leader spoke. Ignored unless `session` is the current one.
    Directive {
        /// On which stream.
        session: u64,
        /// What.
        directive: Directive,
    },
    /// Answer to [`Effect::Prepare`](crate::Effect::Prepare).
    Prepared {
        /// Which task.
        key: TaskKey,
        /// What was made ready, or why it cannot start.
        result: Result<Prepared, PrepareFault>,
    },
    /// The keeper started the task's process (it also is the leader of its process group).
    Spawned {
        /// Which task.
        key: TaskKey,
        /// Its process id.
        pid: u32,
        /// When.
        at_ms: u64,
    },
    /// The keeper has durably recorded how the task ended: it exited, could not be started, or the core had the
    /// record made with [`Effect::PersistExit`](crate::Effect::PersistExit).
    TaskExited {
        /// Which task.
        key: TaskKey,
        /// How.
        exit: TaskExit,
    },
    /// A task reported progress.
    Progress {
        /// Which task.
        key: TaskKey,
        /// Steps done.
        step: u64,
        /// Samples seen.
        samples: u64,
        /// Loss in millionths, if it said one.
        loss_micros: Option<i64>,
        /// Duration of the last step in microseconds, if it said one.
        step_us: Option<u64>,
    },
    /// A task says that it has saved a checkpoint, or its shard of one.
    CheckpointReported {
        /// Which task.
        key: TaskKey,
        /// What it saved.
        checkpoint: ReportedCheckpoint,
    },
    /// Answer to [`Effect::VerifyCheckpoint`](crate::Effect::VerifyCheckpoint).
    CheckpointVerified {
        /// The job.
        job: JobId,
        /// The attempt that wrote it.
        epoch: Epoch,
        /// Its step.
        step: u64,
        /// The record for the log, or what is wrong.
        result: Result<CheckpointRecord, String>,
    },
    /// Answer to [`Effect::RunHook`](crate::Effect::RunHook).
    HookEnded {
        /// Which.
        run: HookRun,
        /// Why it failed, with its last words.
        result: Result<(), String>,
    },
    /// How this node isolates tasks, as its keeper says.
    Isolation(Isolation),
    /// What the node's health check says now, if there is one.
    Fitness(Result<(), String>),
    /// The node's GPUs are read from a driver: so many. Until then, and on nodes without, GPUs are as the offer says.
    Gpus {
        /// Length of the node's offer.
        count: u16,
    },
    /// Something was seen of one of them.
    Gpu {
        /// Index in the node's offer.
        gpu: u16,
        /// What.
        fact: GpuFact,
    },
    /// The driver announced an error on one of them.
    Xid {
        /// Index in the node's offer.
        gpu: u16,
        /// NVIDIA's number of the error.
        xid: u32,
        /// When it was heard.
        at_ms: u64,
    },
    /// Answer to [`Effect::RunCheck`](crate::Effect::RunCheck).
    Checked {
        /// Which test.
        check: HealthCheck,
        /// Fit for work.
        passed: bool,
        /// What was found, for people.
        text: String,
    },
    /// Time passed; due at least every 100 ms for timely kills.
    Tick,
}

/// A checkpoint, or one shard of it, as a task reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedCheckpoint {
    /// Training step that it restores.
    pub step: u64,
    /// Absolute directory that holds it.
    pub path: String,
    /// Its files, relative to `path`.
    pub files: Vec<CheckpointFile>,
    /// How long saving took.
    pub save_ms: u64,
    /// Number of this shard, from 0.
    pub shard: u32,
    /// Number of shards that make the checkpoint, at least 1; all are written on this node.
    pub shards: u32,
}

/// One task as the keeper has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTask {
    /// Which task.
    pub key: TaskKey,
    /// What was handed to the keeper with [`Effect::Spawn`](crate::Effect::Spawn).
    pub memo: TaskMemo,
    /// Its state.
    pub phase: KeptPhase,
}

/// State of a task in the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptPhase {
    /// Its process runs.
    Running {
        /// Process id.
        pid: u32,
        /// When it started.
        since_ms: u64,
    },
    /// It is gone; the record is durable.
    Ended(TaskExit),
}
