//! Why a command was refused.

use berth_types::api::{ApiError, ErrorKind};
use berth_types::{Epoch, Fault, Identity, JobId, MasterId, NodeId};
use thiserror::Error;

use super::PlanFault;

/// Why a command (or a bundle of a plan) was refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The cluster has its identity already, or was to get none.
    #[error("the cluster is bootstrapped already")]
    AlreadyBootstrapped,
    /// A bootstrap without id or masters.
    #[error("a cluster needs an id other than 0 and at least one master")]
    BadBootstrap,
    /// Not a UUIDv7.
    #[error("the idempotency key {0:032x} is no UUIDv7")]
    KeyMalformed(u128),
    /// The key was used for another payload.
    #[error("the idempotency key was used for another job, {0}")]
    KeyReused(JobId),
    /// The key's time lies before the window that is remembered.
    #[error("the idempotency key is {0} ms too old: whether it was used before is no longer known")]
    KeyExpired(u64),
    /// The key's time lies too far ahead of the cluster's.
    #[error("the idempotency key's time is {0} ms ahead of the cluster's clock")]
    KeyFromFuture(u64),
    /// The spec is wrong by itself.
    #[error("the job has {} faults, first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    BadSpec(Vec<Fault>),
    /// Too many unfinished jobs.
    #[error("{0} unfinished jobs are the limit")]
    QueueFull(usize),
    /// No job has this id.
    #[error("job {0} does not exist")]
    NoSuchJob(JobId),
    /// The job is over.
    #[error("job {0} is over")]
    AlreadyFinished(JobId),
    /// The job did not ask to be started now or rejected, or it has been started.
    #[error("job {0} is not one that is to be rejected")]
    NotRejectable(JobId),
    /// The attempt is not the job's current one.
    #[error("epoch {epoch} of job {job} is over")]
    StaleEpoch {
        /// The job.
        job: JobId,
        /// The epoch that was meant.
        epoch: Epoch,
    },
    /// The attempt has no limit, or time left.
    #[error("the attempt of job {0} has time left")]
    NotExpired(JobId),
    /// No node has this id.
    #[error("node {0} does not exist")]
    NoSuchNode(NodeId),
    /// The node has no such GPU.
    #[error("node {node} has no GPU {gpu}")]
    NoSuchGpu {
        /// The node.
        node: NodeId,
        /// What was meant.
        gpu: u16,
    },
    /// The node is not lost.
    #[error("node {0} is in contact")]
    NodeNotLost(NodeId),
    /// What the node offers is wrong by itself.
    #[error("the node has {} faults, first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    BadNode(Vec<Fault>),
    /// Too many nodes.
    #[error("{0} nodes are the limit")]
    TooManyNodes(usize),
    /// The checkpoint is wrong by itself.
    #[error("the checkpoint of job {job} is refused: {what}")]
    BadCheckpoint {
        /// The job.
        job: JobId,
        /// What is wrong.
        what: &'static str,
    },
    /// No such checkpoint is registered.
    #[error("job {job} has no checkpoint of epoch {epoch} at step {step}")]
    NoSuchCheckpoint {
        /// The job.
        job: JobId,
        /// The attempt that wrote it.
        epoch: Epoch,
        /// Its step.
        step: u64,
    },
    /// No master has this id, or it has no address.
    #[error("master {0} is unknown or has no address")]
    BadMaster(MasterId),
    /// The cluster's version never goes back.
    #[error("the cluster is at version {0} already")]
    VersionBehind(u32),
    /// The name cannot stand in a certificate.
    #[error("{0}")]
    BadIdentity(String),
    /// The join token's time is over.
    #[error("the join token has expired")]
    TokenExpired,
    /// The join token was used as often as it may be.
    #[error("the join token is used up")]
    TokenUsed,
    /// A token for a pattern of names does not replace what somebody holds.
    #[error("{0} holds a certificate already")]
    IdentityTaken(Identity),
    /// The certificate that asks for another one is no longer good.
    #[error("the certificate of {0} is revoked")]
    CertificateRevoked(Identity),
    /// Masters hold the authority's key, so a list does not keep them out.
    #[error("the certificate of a master cannot be revoked")]
    MasterIrrevocable,
    /// Too many certificates, tokens in use or revocations.
    #[error("{0} {1} are the limit")]
    TooManyIdentities(usize, &'static str),
    /// A bundle of a plan does not hold.
    #[error(transparent)]
    Plan(#[from] PlanFault),
}

impl Rejection {
    /// The error that a caller sees.
    pub fn to_api(&self) -> ApiError {
        use ErrorKind::{
            AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted,
        };
        let (kind, reason, hint) = match self {
            Rejection::BadSpec(faults) => {
                return ApiError::faults("JOB_INVALID", faults.clone());
            }
            Rejection::BadNode(faults) => {
                return ApiError::faults("NODE_INVALID", faults.clone());
            }
            Rejection::AlreadyBootstrapped => (AlreadyExists, "ALREADY_BOOTSTRAPPED", ""),
            Rejection::BadBootstrap => (InvalidArgument, "BOOTSTRAP_INVALID", ""),
            Rejection::KeyMalformed(_) => (
                InvalidArgument,
                "KEY_MALFORMED",
                "draw a UUIDv7 for each submission",
            ),
            Rejection::KeyReused(_) => (
                AlreadyExists,
                "KEY_REUSED",
                "draw a new key for a job that differs in any way",
            ),
            Rejection::KeyExpired(_) => (
                FailedPrecondition,
                "KEY_EXPIRED",
                "look for the job with `berth jobs`, then submit with a new key; check this machine's clock",
            ),
            Rejection::KeyFromFuture(_) => (
                InvalidArgument,
                "KEY_FROM_FUTURE",
                "check the clocks of this machine and of the masters",
            ),
            Rejection::QueueFull(_) => (
                ResourceExhausted,
                "QUEUE_FULL",
                "wait until jobs have finished",
            ),
            Rejection::NoSuchJob(_) => {
                (NotFound, "JOB_NOT_FOUND", "see `berth jobs` for known ids")
            }
            Rejection::AlreadyFinished(_) => (FailedPrecondition, "JOB_FINISHED", ""),
            Rejection::NotRejectable(_) => (FailedPrecondition, "JOB_NOT_REJECTABLE", ""),
            Rejection::StaleEpoch { .. } => (FailedPrecondition, "STALE_EPOCH", ""),
            Rejection::NotExpired(_) => (FailedPrecondition, "NOT_EXPIRED", ""),
            Rejection::BadCheckpoint { .. } => (InvalidArgument, "CHECKPOINT_INVALID", ""),
            Rejection::NoSuchCheckpoint { .. } => (NotFound, "CHECKPOINT_NOT_FOUND", ""),
            Rejection::BadMaster(_) => (
                NotFound,
                "MASTER_NOT_FOUND",
                "see `berth masters` for known ids",
            ),
            Rejection::VersionBehind(_) => (FailedPrecondition, "VERSION_BEHIND", ""),
            Rejection::Plan(_) => (FailedPrecondition, "STALE_PLAN", ""),
            _ => self.about_nodes(),
        };
        ApiError::new(kind, reason, self.to_string(), hint)
    }

    /// Kind, reason and hint of what is about nodes.
    fn about_nodes(&self) -> (ErrorKind, &'static str, &'static str) {
        use ErrorKind::{FailedPrecondition, NotFound, ResourceExhausted};
        match self {
            Rejection::NoSuchNode(_) => (
                NotFound,
                "NODE_NOT_FOUND",
                "see `berth nodes` for known names",
            ),
            Rejection::NoSuchGpu { .. } => (
                NotFound,
                "GPU_NOT_FOUND",
                "see `berth node NAME` for its GPUs",
            ),
            Rejection::NodeNotLost(_) => (
                FailedPrecondition,
                "NODE_NOT_LOST",
                "only a lost node can be fenced; use `berth drain` to empty one",
            ),
            Rejection::TooManyNodes(_) => (ResourceExhausted, "TOO_MANY_NODES", ""),
            _ => self.about_certificates(),
        }
    }

    /// Kind, reason and hint of what is about certificates.
    fn about_certificates(&self) -> (ErrorKind, &'static str, &'static str) {
        use ErrorKind::{
            AlreadyExists, FailedPrecondition, InvalidArgument, ResourceExhausted, Unauthenticated,
        };
        match self {
            Rejection::TokenExpired => (
                Unauthenticated,
                "TOKEN_EXPIRED",
                "ask an admin for a new one: `berth token create`",
            ),
            Rejection::TokenUsed => (
                Unauthenticated,
                "TOKEN_USED",
                "ask an admin for a new one: `berth token create`, with --uses for several",
            ),
            Rejection::IdentityTaken(_) => (
                AlreadyExists,
                "IDENTITY_TAKEN",
                "choose another name, or ask an admin for a token for exactly this one",
            ),
            Rejection::CertificateRevoked(_) => (
                Unauthenticated,
                "CERTIFICATE_REVOKED",
                "join again with a new token from an admin",
            ),
            Rejection::MasterIrrevocable => (
                FailedPrecondition,
                "MASTER_IRREVOCABLE",
                "every master holds the authority's key: remove it with `berth masters remove`, then replace the authority as docs/security.md says",
            ),
            Rejection::TooManyIdentities(..) => (
                ResourceExhausted,
                "TOO_MANY_IDENTITIES",
                "wait until some have expired",
            ),
            _ => (InvalidArgument, "IDENTITY_INVALID", ""),
        }
    }
}
