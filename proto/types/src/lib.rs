//! The vocabulary of Berth: ids, units, resources, job specs, and what masters and agents tell each other.
//!
//! Owns plain data and the rules that a value must obey by itself ([`JobSpec::faults`](job::JobSpec::faults)).
//! Must not know: the wire format, the log format, any policy, any clock. Times are milliseconds since the Unix
//! epoch, UTC, and are handed in.
//!
//! Start reading at [`job`] (what a user submits), then [`attempt`] (one incarnation of it) and [`agent`] (what a
//! master tells an agent and hears back).

pub mod agent;
pub mod api;
pub mod attempt;
pub mod checkpoint;
pub mod fault;
pub mod health;
pub mod host;
pub mod id;
pub mod identity;
pub mod job;
pub mod node;
pub mod resources;
pub mod telemetry;

pub use agent::{
    AgentReport, Directive, LaunchTask, TaskEvent, TaskExit, TaskInventory, TaskKey, Tombstone,
};
pub use api::{
    ApiError, Drain, ErrorKind, Event, JobFilter, JobView, MasterInfo, MasterView, NodeView,
    Progress, Request, Response, StatusView, WhyView,
};
pub use attempt::{
    Attempt, AttemptEnd, AttemptPhase, PastAttempt, TaskPhase, TaskPlacement, TaskRecord,
};
pub use checkpoint::{CheckpointFile, CheckpointRecord};
pub use fault::Fault;
pub use health::{
    Evidence, Finding, GpuDigest, GpuEvent, HealthCheck, HealthNote, HealthOrder, HealthStage,
    HealthView, Outage, Sign,
};
pub use host::{Hook, HostReport, Isolation, IsolationKind};
pub use id::{Epoch, JobId, MasterId, NodeId, Rank};
pub use identity::{CertificateView, Grant, Identity, JoinToken, Role};
pub use job::{CheckpointSpec, GroupSpec, JobSpec, JobState, LostNodeRule, Outcome, RestartSpec};
pub use node::{GpuInfo, NodeSpec, NodeState};
pub use resources::{GpuShare, MILLI, Resources};
pub use telemetry::{GpuCondition, GpuIdentity, GpuPath, GpuReading, GpuXid, PciePath};
