//! What clients ask a cluster and what it answers, free of any wire format.
//!
//! Any master accepts any [`Request`]; followers pass it to the leader as it is, so these types are also what travels
//! between masters.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attempt::PastAttempt;
use crate::host::Isolation;
use crate::identity::{CertificateView, Grant, Identity};
use crate::{
    Attempt, CheckpointRecord, Epoch, Fault, GpuDigest, HealthOrder, HealthView, JobId, JobSpec,
    JobState, MasterId, NodeId, NodeSpec, NodeState, Outcome, Rank,
};

/// Most jobs or events in one page of an answer.
pub const MAX_PAGE: u32 = 1_000;

/// A call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Submit a job. The same key with the same payload is the same submission.
    Submit {
        /// UUIDv7 as a number.
        key: u128,
        /// The job.
        spec: Arc<JobSpec>,
    },
    /// Cancel a job; cancelling a finished or cancelled one changes nothing and says so.
    Cancel {
        /// The job.
        job: JobId,
        /// Who asks.
        user: String,
    },
    /// One job, finished ones too.
    GetJob {
        /// The job.
        job: JobId,
    },
    /// Jobs, unfinished first, newest first.
    ListJobs(JobFilter),
    /// Why a job waits, or sits where it sits.
    Why {
        /// The job.
        job: JobId,
    },
    /// All nodes.
    ListNodes,
    /// One node by name.
    GetNode {
        /// Its name.
        name: String,
    },
    /// Take a node out of service, or put it back.
    SetDrain {
        /// Its name.
        name: String,
        /// What for; `None` puts it back.
        drain: Option<Drain>,
    },
    /// Say that a lost node is certainly not running anything.
    FenceNode {
        /// Its name.
        name: String,
    },
    /// The cluster at a glance.
    Status,
    /// Events from `since_seq` on, oldest first.
    Events {
        /// First sequence number wanted.
        since_seq: u64,
        /// At most so many, up to [`MAX_PAGE`].
        limit: u32,
    },
    /// Where the log files of a task are.
    LocateLogs {
        /// The job.
        job: JobId,
        /// Which attempt; the newest if `None`.
        epoch: Option<Epoch>,
        /// Which task.
        rank: Rank,
    },
    /// Let a new master join as a learner and become a voter when it has caught up.
    AddMaster {
        /// A new id, never used before.
        id: MasterId,
        /// Where it listens.
        info: MasterInfo,
        /// The master whose place it takes, if any: removed once the new one votes.
        replaces: Option<MasterId>,
    },
    /// Remove a master.
    RemoveMaster {
        /// Which.
        id: MasterId,
    },
    /// A consistent copy of the replicated state, for `backup` and `what-if`.
    Snapshot,
    /// Record a new certificate, which the master that took the call then signs.
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
    /// Certificates on record that have not expired.
    ListCertificates,
    /// Take a node or one of its GPUs out of service, or return it. Told apart from a drain by what ends it: a test.
    SetHealth {
        /// The node's name.
        name: String,
        /// Index or UUID of one GPU; the whole node if `None`.
        gpu: Option<String>,
        /// What to do.
        order: HealthOrder,
    },
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFilter {
    /// Only these states; all if empty.
    pub states: Vec<JobState>,
    /// Only this user's.
    pub user: Option<String>,
    /// Only this queue's.
    pub queue: Option<String>,
    /// Only names that start so.
    pub name_prefix: Option<String>,
    /// Only ids whose decimal form starts so.
    pub id_prefix: Option<String>,
    /// Finished ones too.
    pub finished: bool,
    /// Continue after this token of the page before.
    pub page_token: Option<u64>,
    /// At most so many, up to [`MAX_PAGE`]; 0 is the default of 100.
    pub limit: u32,
}

/// A node is to be taken out of service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Why, for people.
    pub reason: String,
    /// Move running jobs away instead of letting them finish.
    pub evict: bool,
}

/// Where a master listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterInfo {
    /// `host:port` of its gRPC service, for clients, agents and other masters.
    pub address: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// To `Submit`.
    Submitted {
        /// The job's id.
        job: JobId,
        /// True if this key had been used for it before.
        duplicate: bool,
    },
    /// Done (cancel, drain, members, …), with a sentence for people.
    Done(String),
    /// To `GetJob`.
    Job(Box<JobView>),
    /// To `ListJobs`.
    Jobs {
        /// The page.
        jobs: Vec<JobView>,
        /// Where the next page starts, if there is one.
        next: Option<u64>,
    },
    /// To `Why`.
    Why(WhyView),
    /// To `ListNodes` and `GetNode`.
    Nodes(Vec<NodeView>),
    /// To `Status`.
    Status(Box<StatusView>),
    /// To `Events`.
    Events {
        /// The page.
        events: Vec<Event>,
        /// Sequence number to ask for next.
        next_seq: u64,
    },
    /// To `LocateLogs`.
    Logs {
        /// The node that has them.
        node: NodeId,
        /// Its name.
        node_name: String,
        /// The attempt.
        epoch: Epoch,
        /// True if the task can still write.
        live: bool,
    },
    /// To `Snapshot`: encoded replicated state, and the log index it stands at.
    Snapshot {
        /// Log index.
        index: u64,
        /// Encoded by the core's codec.
        data: Vec<u8>,
    },
    /// The call failed and changed nothing.
    Error(ApiError),
    /// To `IssueCertificate`.
    CertificateIssued {
        /// The certificate's number.
        serial: u64,
        /// State time.
        issued_ms: u64,
        /// When it ends.
        expires_ms: u64,
    },
    /// To `ListCertificates`.
    Certificates(Vec<CertificateView>),
}

/// Why a call failed; maps one to one to a gRPC status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// Class of the error.
    pub kind: ErrorKind,
    /// Machine-readable reason, upper case, such as `JOB_NOT_FOUND`. Stable.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// The fields at fault: path, what is wrong, what would be right.
    pub fields: Vec<(String, String, String)>,
}

/// Class of an [`ApiError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request itself is wrong.
    InvalidArgument,
    /// What it names does not exist.
    NotFound,
    /// It contradicts what exists (a key used with another payload, a master that exists).
    AlreadyExists,
    /// Not in this state.
    FailedPrecondition,
    /// A limit is reached; try later.
    ResourceExhausted,
    /// No leader, leadership lost on the way; try again with the same key.
    Unavailable,
    /// Berth is at fault.
    Internal,
    /// The caller did not say who it is, or what says so is no longer good.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
}

impl ApiError {
    /// An error of `kind`.
    pub fn new(
        kind: ErrorKind,
        reason: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            hint: hint.into(),
            fields: Vec::new(),
        }
    }

    /// An error for every fault of a request.
    pub fn faults(reason: &str, faults: Vec<Fault>) -> Self {
        let message = faults
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ");
        let fields = faults
            .into_iter()
            .map(|f| (f.field, f.what, f.hint))
            .collect();
        let hint = "correct the fields named and submit again".to_owned();
        Self {
            kind: ErrorKind::InvalidArgument,
            reason: reason.to_owned(),
            message,
            hint,
            fields,
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.message)
    }
}

impl std::error::Error for ApiError {}

/// The newest progress that a job reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Samples seen.
    pub samples: u64,
    /// Loss in millionths.
    pub loss_micros: Option<i64>,
    /// Duration of the last step in microseconds.
    pub step_us: Option<u64>,
    /// When it was reported.
    pub at_ms: u64,
}

/// A job as shown to people and scripts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// What was submitted.
    pub spec: Arc<JobSpec>,
    /// Where it is in its life.
    pub state: JobState,
    /// Machine-readable reason while it waits (`Resources`, `Priority`, …, Slurm's names where the meaning is the
    /// same), or for its end; empty if there is nothing to say.
    pub reason: String,
    /// The same for people.
    pub reason_text: String,
    /// When it was accepted.
    pub submitted_ms: u64,
    /// When its first attempt was placed.
    pub started_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The current attempt.
    pub attempt: Option<Attempt>,
    /// Attempts before, oldest first, the newest 16.
    pub past: Vec<PastAttempt>,
    /// Restarts charged to its budget.
    pub restarts: u32,
    /// Registered checkpoints, newest first.
    pub checkpoints: Vec<CheckpointRecord>,
    /// Newest progress.
    pub progress: Option<Progress>,
    /// Names of the nodes that appear in its attempts.
    pub node_names: BTreeMap<NodeId, String>,
}

/// The answer to `why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyView {
    /// The job.
    pub job: JobId,
    /// Where it is in its life.
    pub state: JobState,
    /// The one reason, machine-readable.
    pub reason: String,
    /// The one reason, for people.
    pub text: String,
    /// The nearest change that would start it; empty if it runs or is over.
    pub unblock: String,
    /// Jobs ahead of it in the queue, if it waits.
    pub ahead: Option<u32>,
    /// What was looked at: a line per group of equal nodes, such as `12 nodes a100x8: 3 GPUs free of 96, needs 4 on one node`.
    pub evidence: Vec<String>,
}

/// A node as shown to people and scripts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its id.
    pub id: NodeId,
    /// What it offers.
    pub spec: Arc<NodeSpec>,
    /// Whether it can be used.
    pub state: NodeState,
    /// Why it drains or is lost.
    pub reason: String,
    /// Since when it is in this state.
    pub since_ms: u64,
    /// Share used of each GPU in thousandths, by index.
    pub used_milligpu: Vec<u32>,
    /// CPUs in use, in thousandths.
    pub used_millicpu: u32,
    /// Memory in use.
    pub used_mem_bytes: u64,
    /// Tasks on it.
    pub tasks: u32,
    /// Jobs on it, ascending.
    pub jobs: Vec<JobId>,
    /// True if the leader hears it now.
    pub connected: bool,
    /// How it isolates tasks, while it is connected.
    pub isolation: Isolation,
    /// The node's own health first, then that of its GPUs; what was never unwell is not listed.
    pub health: Vec<HealthView>,
    /// Newest readings of its GPUs, as far as the leader has heard any.
    pub telemetry: Vec<GpuDigest>,
}

/// A master as shown to people and scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterView {
    /// Its id.
    pub id: MasterId,
    /// Where it listens.
    pub info: MasterInfo,
    /// True for the leader.
    pub leader: bool,
    /// True if it votes (a learner does not).
    pub voter: bool,
    /// Newest log index known to be on its disk.
    pub matched: u64,
    /// True if the leader heard it lately.
    pub reachable: bool,
}

/// The cluster at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The cluster.
    pub cluster_id: u64,
    /// Format that all masters can apply.
    pub cluster_version: u32,
    /// Term of the leader.
    pub term: u64,
    /// Newest committed and applied index.
    pub applied: u64,
    /// Masters.
    pub masters: Vec<MasterView>,
    /// Jobs by state; finished ones counted since the cluster's start.
    pub jobs: BTreeMap<JobState, u64>,
    /// Nodes by state: ready, draining, lost.
    pub nodes: (u32, u32, u32),
    /// GPUs in thousandths: used, usable.
    pub milligpu: (u64, u64),
    /// Name of the policy that plans.
    pub policy: String,
    /// Planning rounds of this leader, and how long the last took in microseconds.
    pub rounds: (u64, u64),
    /// State time.
    pub time_ms: u64,
    /// A broken invariant that stopped scheduling; empty if all is well.
    pub alarm: String,
}

/// Something that happened, as committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counted from 1 over the cluster's life.
    pub seq: u64,
    /// State time.
    pub at_ms: u64,
    /// What kind, such as `job.submitted`. Stable.
    pub kind: String,
    /// The job concerned.
    pub job: Option<JobId>,
    /// The node concerned.
    pub node: Option<NodeId>,
    /// For people.
    pub text: String,
}
