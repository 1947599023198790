//! What a master tells an agent, and what it hears back.
//!
//! Everything is level-triggered: repeating a message changes nothing. A task runs because it was named in a
//! [`LaunchTask`]; it is stopped by a [`Tombstone`], never by absence; and an ended task's record is forgotten by the
//! agent only after a master said that the record is committed ([`Directive::forget`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    CheckpointRecord, Epoch, GpuEvent, GpuShare, HealthCheck, Hook, HostReport, JobId,
    LostNodeRule, Rank,
};

/// One task of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub epoch: Epoch,
    /// The task.
    pub rank: Rank,
}

/// Everything an agent needs to run one task; it adds its own directories and the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTask {
    /// Which task.
    pub key: TaskKey,
    /// The job's name.
    pub job_name: String,
    /// Who submitted it.
    pub user: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment that the job file asked for.
    pub env: BTreeMap<String, String>,
    /// Working directory; the task's own scratch directory if empty.
    pub work_dir: String,
    /// GPU shares on this node.
    pub gpus: Vec<GpuShare>,
    /// CPU share in thousandths.
    pub millicpu: u32,
    /// Memory share.
    pub mem_bytes: u64,
    /// Number of tasks in the attempt.
    pub world_size: u32,
    /// This task's number on this node, from 0.
    pub local_rank: u32,
    /// Tasks of the attempt on this node.
    pub local_world_size: u32,
    /// This node's number within the attempt, from 0.
    pub node_rank: u32,
    /// Names of the attempt's nodes, by node rank.
    pub node_names: Vec<String>,
    /// Address of rank 0.
    pub master_addr: String,
    /// Port on rank 0's node, leased for the gang. Test-bound by the agent that starts rank 0.
    pub master_port: u16,
    /// Where checkpoints of this epoch go: an absolute directory, or empty for the agent's own.
    pub checkpoint_dir: String,
    /// How many checkpoints to keep.
    pub checkpoint_keep: u32,
    /// Newest first: checkpoints to resume from. The agent takes the first that verifies.
    pub resume_from: Vec<CheckpointRecord>,
    /// How many attempts came before.
    pub restart_count: u32,
    /// What to do without contact.
    pub lost_node: LostNodeRule,
    /// Time between asking a task to stop and killing it.
    pub grace_ms: u64,
}

/// An order to stop every task of the job on this node whose epoch is at most `through`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tombstone {
    /// The job.
    pub job: JobId,
    /// Newest epoch that must stop.
    pub through: Epoch,
}

/// What a leader tells one agent. The agent refuses a directive whose (`term`, `applied`) is older than the newest seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// The cluster that speaks. An agent that has served another cluster refuses.
    pub cluster_id: u64,
    /// The leader's term.
    pub term: u64,
    /// Index of the newest entry that the leader had applied.
    pub applied: u64,
    /// Tasks that must run.
    pub launch: Vec<LaunchTask>,
    /// Tasks that must not.
    pub stop: Vec<Tombstone>,
    /// Ended tasks whose record is committed.
    pub forget: Vec<TaskKey>,
    /// Checkpoints that the log has recorded, by job, epoch and step: the agent tells the task.
    pub checkpoints_recorded: Vec<(JobId, Epoch, u64)>,
    /// How long the agent may go without hearing from a leader before `fence` tasks are stopped.
    pub lease_ms: u64,
    /// Where all masters listen, `host:port`: in the first directive of a connection, and whenever they change. Empty says
    /// nothing.
    pub masters: Vec<String>,
    /// Tests wanted of GPUs that were out of service, and of the node. Repeating one asks for its answer again.
    pub checks: Vec<HealthCheck>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskExit {
    /// Exit code, 128+n for signal n, -1 if it could not start.
    pub code: i32,
    /// When, by the node's clock.
    pub at_ms: u64,
    /// What went wrong before or beside the exit code; empty if nothing did.
    pub reason: String,
    /// True if the node and not the job is to blame (a leased port in use, no space, …): not charged to the job.
    pub node_fault: bool,
}

/// What an agent has of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskInventory {
    /// Accepted, not started yet.
    Preparing,
    /// Its process runs.
    Running {
        /// When it started.
        since_ms: u64,
    },
    /// Its process is gone; the record is durable on the node.
    Ended(TaskExit),
}

/// A fact that an agent reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskEvent {
    /// The task is in this state. `Ended` is repeated in each inventory until it is forgotten.
    State(TaskKey, TaskInventory),
    /// The task reported progress.
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
    /// A checkpoint was verified on the node.
    CheckpointVerified {
        /// The job.
        job: JobId,
        /// What was saved.
        record: CheckpointRecord,
    },
    /// A checkpoint that should have been resumed from is damaged.
    CheckpointDamaged {
        /// The job.
        job: JobId,
        /// The attempt that wrote it.
        epoch: Epoch,
        /// Its step.
        step: u64,
        /// What is wrong.
        reason: String,
    },
    /// What the node says of itself: in each inventory of an agent that knows, and whenever it changes.
    Host(HostReport),
    /// A hook failed for the attempt of this task, so that the node should get no new work. Repeated in each inventory
    /// until the task is forgotten; the leader records it before the task's end.
    HookFailed {
        /// A task of the attempt.
        key: TaskKey,
        /// Which hook.
        hook: Hook,
        /// How, with its last words.
        reason: String,
    },
    /// Something was seen of the node's GPUs, or a test was answered.
    Gpu(GpuEvent),
}

/// What an agent tells the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    /// True right after connecting and when asked: `events` holds the state of every task that the agent has.
    pub full_inventory: bool,
    /// Facts, in order.
    pub events: Vec<TaskEvent>,
}
