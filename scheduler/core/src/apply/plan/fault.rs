//! What was wrong with a bundle of a plan.

use berth_types::{Epoch, JobId, NodeId, Rank};
use thiserror::Error;

/// The first fault of a bundle. Usual when the state moved on while the leader planned.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanFault {
    /// A job that is over or was never submitted.
    #[error("job {0} is not in the queue")]
    NoSuchJob(JobId),
    /// Runs, or waits for a lost node.
    #[error("job {0} does not wait for resources")]
    NotPending(JobId),
    /// The epoch is not one more than the newest.
    #[error("job {job} cannot start as epoch {epoch}: its newest is {newest}")]
    WrongEpoch {
        /// The job.
        job: JobId,
        /// What the plan says.
        epoch: Epoch,
        /// The newest that the job had.
        newest: Epoch,
    },
    /// Waits out its back-off.
    #[error("job {job} is not to start before {until_ms}")]
    BackOff {
        /// The job.
        job: JobId,
        /// Until when.
        until_ms: u64,
    },
    /// Two starts of one job.
    #[error("job {0} would start twice")]
    StartedTwice(JobId),
    /// Two evictions of one attempt.
    #[error("job {0} would be evicted twice")]
    EvictedTwice(JobId),
    /// The attempt to evict is not the current one.
    #[error("epoch {epoch} of job {job} is not what runs")]
    NotCurrent {
        /// The job.
        job: JobId,
        /// The epoch that was meant.
        epoch: Epoch,
    },
    /// The attempt to evict is being stopped already.
    #[error("job {0} is being stopped already")]
    AlreadyStopping(JobId),
    /// The attempt to evict waits for a lost node, so it would not leave.
    #[error("job {0} waits for a lost node")]
    WaitsForNode(JobId),
    /// Ranks with gaps, out of order, or of groups that do not exist.
    #[error("the ranks of job {0} are not in order")]
    WrongRanks(JobId),
    /// More or fewer workers than the group allows.
    #[error("group {group} of job {job} cannot have {workers} workers")]
    GroupSize {
        /// The job.
        job: JobId,
        /// The group.
        group: String,
        /// What the plan says.
        workers: u32,
    },
    /// The node was never seen.
    #[error("node {0} does not exist")]
    NoSuchNode(NodeId),
    /// The node is lost or drains.
    #[error("node {0} takes no work")]
    NodeUnavailable(NodeId),
    /// The GPU is out of service.
    #[error("GPU {gpu} of node {node} is out of service")]
    Quarantined {
        /// The node.
        node: NodeId,
        /// The GPU.
        gpu: u16,
    },
    /// The node lacks a label that the job asks for.
    #[error("node {node} has not the labels that task {rank} of job {job} asks for")]
    WrongLabels {
        /// The job.
        job: JobId,
        /// The task.
        rank: Rank,
        /// The node.
        node: NodeId,
    },
    /// Not the number, order or size of GPU shares that the job asks for.
    #[error("task {rank} of job {job} does not get the GPU shares that it asks for")]
    WrongShares {
        /// The job.
        job: JobId,
        /// The task.
        rank: Rank,
    },
    /// A GPU that does not exist, or of a kind that the job does not accept.
    #[error("GPU {gpu} of node {node} does not suit job {job}")]
    WrongGpu {
        /// The job.
        job: JobId,
        /// The node.
        node: NodeId,
        /// The GPU.
        gpu: u16,
    },
    /// A GPU is used or kept.
    #[error("GPU {gpu} of node {node} is not free")]
    GpuBusy {
        /// The node.
        node: NodeId,
        /// The GPU.
        gpu: u16,
    },
    /// Not enough CPUs.
    #[error("node {0} has not enough free CPUs")]
    CpuShort(NodeId),
    /// Not enough memory.
    #[error("node {0} has not enough free memory")]
    MemShort(NodeId),
    /// A port outside the node's range, or leased.
    #[error("port {port} of node {node} cannot be leased")]
    PortBusy {
        /// The node.
        node: NodeId,
        /// The port.
        port: u16,
    },
    /// A place is kept for the job already.
    #[error("a place is kept for job {0} already")]
    AlreadyReserved(JobId),
    /// Another place is kept for the job.
    #[error("another place is kept for job {0}")]
    ReservedElsewhere(JobId),
    /// The place that is kept is not vacated yet.
    #[error("job {by} has not yet left the place that is kept for job {job}")]
    NotVacated {
        /// The job.
        job: JobId,
        /// Who is still there.
        by: JobId,
    },
    /// Too many places are kept.
    #[error("{0} reservations are the limit")]
    TooManyReservations(usize),
}
