//! What the log says. Commands are imperatives; only [`apply`](crate::apply) carries them out.
//!
//! The list is append-only: a variant keeps its position for ever and its fields never change (a new field is a new
//! variant), because old logs must read the same. Golden bytes in the codec's tests hold this.

use std::sync::Arc;

use berth_types::api::{Drain, MasterInfo};
use berth_types::{
    CheckpointRecord, Epoch, Finding, Grant, HealthOrder, Identity, JobId, JobSpec, MasterId,
    NodeId, NodeSpec, Progress, TaskInventory, TaskKey, TaskPlacement,
};
use serde::{Deserialize, Serialize};

/// Identifies who proposed an entry, so that the proposer finds the callers that wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProposalTag {
    /// A number drawn at each start of a master, so that a restarted one never mistakes an old entry for its own.
    pub proposer: u64,
    /// Counts up per proposer.
    pub seq: u64,
}

/// One log entry: commands that share a stamp and a durable flush.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Who proposed it.
    pub tag: ProposalTag,
    /// The leader's clock when it proposed. State time is the larger of this and the time before.
    pub stamp_ms: u64,
    /// Carried out in order.
    pub commands: Vec<Command>,
}

/// A change to the replicated state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a cluster: its id and masters. Later ones are ignored.
    Bootstrap {
        /// Drawn once.
        cluster_id: u64,
        /// The first masters.
        masters: Vec<(MasterId, MasterInfo)>,
    },
    /// Accept a job.
    SubmitJob {
        /// Idempotency key (UUIDv7 as a number).
        key: u128,
        /// First 16 bytes of the SHA-256 of the encoded spec.
        hash: u128,
        /// The job.
        spec: Arc<JobSpec>,
    },
    /// Cancel a job.
    CancelJob {
        /// The job.
        job: JobId,
        /// Who asked.
        user: String,
    },
    /// Carry out part of a plan. Each bundle is accepted or rejected whole.
    ApplyPlan {
        /// Counts up per leader.
        plan: u64,
        /// In order.
        bundles: Vec<Bundle>,
    },
    /// A node came (back) into contact and has nothing running that should not.
    RegisterNode {
        /// What it offers.
        spec: Arc<NodeSpec>,
        /// Drawn at each start of the node's keeper: tells that tasks cannot have survived.
        incarnation: u64,
    },
    /// A node has been out of contact for too long.
    MarkNodeLost {
        /// Which.
        node: NodeId,
        /// For people.
        reason: String,
    },
    /// Nothing of what a lost node held can still run: its `fence` and `wait` jobs may start elsewhere.
    FenceNode {
        /// Which.
        node: NodeId,
        /// True if an operator said so: then `wait` jobs are released too.
        by_operator: bool,
    },
    /// Take a node out of service or put it back.
    SetDrain {
        /// Which.
        node: NodeId,
        /// What for; `None` puts it back.
        drain: Option<Drain>,
    },
    /// What an agent said of its tasks. States of superseded attempts change nothing.
    RecordTasks {
        /// The node that said so.
        node: NodeId,
        /// In order.
        tasks: Vec<(TaskKey, TaskInventory)>,
    },
    /// A checkpoint was verified.
    RecordCheckpoint {
        /// The job.
        job: JobId,
        /// The checkpoint; only the current epoch's count.
        record: CheckpointRecord,
    },
    /// A registered checkpoint turned out damaged.
    RejectCheckpoint {
        /// The job.
        job: JobId,
        /// The attempt that wrote it.
        epoch: Epoch,
        /// Its step.
        step: u64,
        /// What is wrong.
        reason: String,
    },
    /// Newest progress of many jobs, coalesced.
    RecordProgress {
        /// Of the current attempts only.
        progress: Vec<(JobId, Epoch, Progress)>,
    },
    /// An attempt ran longer than its time limit.
    ExpireAttempt {
        /// The job.
        job: JobId,
        /// The attempt.
        epoch: Epoch,
    },
    /// A `start_now` job could not start.
    RejectJob {
        /// The job.
        job: JobId,
        /// Why not.
        reason: String,
    },
    /// Where a master listens; `None` once it is gone.
    SetMaster {
        /// Which.
        id: MasterId,
        /// Where.
        info: Option<MasterInfo>,
    },
    /// All masters can apply this format: opens what is gated behind it.
    SetClusterVersion {
        /// The version.
        version: u32,
    },
    /// Number a certificate, which a master then signs.
    IssueCertificate {
        /// For whom.
        identity: Identity,
        /// How long it is to be good.
        lifetime_ms: u64,
        /// By what right.
        grant: Grant,
    },
    /// Every certificate that an identity holds is no longer good.
    RevokeCertificates {
        /// Whose.
        identity: Identity,
    },
    /// What was seen of a node's health.
    RecordHealth {
        /// Which.
        node: NodeId,
        /// In order.
        findings: Vec<Finding>,
    },
    /// An operator takes a GPU or a node out of service, or wants it back.
    OrderHealth {
        /// The node.
        node: NodeId,
        /// One of its GPUs, by index in its offer; the whole node if `None`.
        gpu: Option<u16>,
        /// What to do.
        order: HealthOrder,
    },
    /// The time of a health record may have come: it is tested, or forgiven.
    ReviewHealth {
        /// The node.
        node: NodeId,
        /// One of its GPUs; the node's own record if `None`.
        gpu: Option<u16>,
    },
}

/// The atomic unit of a plan: evictions and the starts that they serve.
///
/// If there are evictions, the starts' GPUs are kept in a [`Reservation`](crate::state::Reservation) until they are
/// vacated; the planner starts the jobs then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Attempts to stop.
    pub evictions: Vec<Eviction>,
    /// Jobs to start.
    pub starts: Vec<Start>,
}

/// An attempt to stop in favour of something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eviction {
    /// The job.
    pub job: JobId,
    /// Its current attempt.
    pub epoch: Epoch,
    /// Why.
    pub reason: String,
}

/// A job to start in these places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The job.
    pub job: JobId,
    /// The new attempt's epoch: [`State::next_epoch`](crate::State::next_epoch).
    pub epoch: Epoch,
    /// Where each task goes, by rank from 0 without gaps, groups in the spec's order.
    pub placements: Vec<TaskPlacement>,
    /// Port on rank 0's node.
    pub master_port: u16,
    /// Why there, in the policy's words.
    pub because: String,
}
