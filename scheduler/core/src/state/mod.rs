//! The replicated state: what every master knows alike after the same log.
//!
//! Large collections are persistent maps with shared records, so a clone of the whole state (a policy's view, a
//! snapshot) costs nothing noticeable, and a change copies one record.
//!
//! Invariants are re-derived by [`check`](crate::check). Finished jobs are not here: they leave for the history.

mod asked;
mod certificates;
mod derive;
mod job;
mod node;
mod persistent;
mod shape;
mod usage;

use std::sync::Arc;

use berth_types::api::{Event, MasterInfo};
use berth_types::{Epoch, JobId, MasterId, NodeId, Outcome};
use imbl::{OrdMap, OrdSet, Vector};
use serde::{Deserialize, Serialize};

use crate::health::Records;
pub use asked::Asked;
pub(crate) use asked::Request;
pub use certificates::{Certificate, Certificates, Revocation, TokenUse};
pub use job::{Fencing, FinishedJob, Job, MAX_PAST, PendingKey, Reservation};
pub use node::{GpuUse, Node};
pub use shape::NodeShape;
pub(crate) use usage::Claim;

/// Newest events kept in the state; older ones are forgotten.
pub const MAX_EVENTS: usize = 10_000;
/// How long an idempotency key is remembered, in state time.
pub const KEY_WINDOW_MS: u64 = 600_000;
/// Most idempotency keys remembered; beyond it the oldest go first and keys as old as those are refused as expired.
pub const MAX_KEYS: usize = 1_000_000;

/// A remembered submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Hash of the payload.
    pub hash: u128,
    /// The job that it became.
    pub job: JobId,
}

/// Everything replicated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Drawn at bootstrap; 0 before.
    pub cluster_id: u64,
    /// Format that all masters can apply.
    pub cluster_version: u32,
    /// Where masters listen.
    #[serde(with = "persistent::map")]
    pub masters: OrdMap<MasterId, MasterInfo>,
    /// State time: never runs backwards.
    pub time_ms: u64,
    /// Id of the next job.
    pub next_job: u64,
    /// Attempts start above this epoch. A restored cluster raises it: what the old one started after the backup may still
    /// run under numbers that the backup does not know, and must not be taken for what starts now.
    pub epoch_floor: u32,
    /// Unfinished jobs.
    #[serde(with = "persistent::map")]
    pub jobs: OrdMap<JobId, Arc<Job>>,
    /// Jobs that wait for resources, in the order of their turn. Derived from `jobs`.
    #[serde(skip)]
    pub pending: OrdSet<PendingKey>,
    /// The same jobs by what they ask for. Derived from `jobs`.
    #[serde(skip)]
    pub lines: OrdMap<Asked, OrdSet<PendingKey>>,
    /// Jobs with a current attempt. Derived from `jobs`.
    #[serde(skip)]
    pub active: OrdSet<JobId>,
    /// All nodes ever seen.
    #[serde(with = "persistent::map")]
    pub nodes: OrdMap<NodeId, Arc<Node>>,
    /// Node names. Derived from `nodes`.
    #[serde(skip)]
    pub node_ids: OrdMap<String, NodeId>,
    /// How many nodes there are of each shape, lost and draining ones included. Derived from `nodes`.
    #[serde(skip)]
    pub shapes: OrdMap<Arc<NodeShape>, u32>,
    /// GPUs kept for jobs whose evictions are under way.
    #[serde(with = "persistent::map")]
    pub reservations: OrdMap<JobId, Arc<Reservation>>,
    /// Idempotency keys; UUIDv7 keys sort by age.
    #[serde(with = "persistent::map")]
    pub submissions: OrdMap<u128, Submission>,
    /// Keys whose time is before this are refused as expired.
    pub keys_from_ms: u64,
    /// Finished jobs so far; the newest one's sequence number in the history.
    pub finished: u64,
    /// Finished jobs by outcome class: completed, failed, cancelled, timed out.
    pub finished_by_class: [u64; 4],
    /// Newest events, oldest first.
    #[serde(with = "persistent::vector")]
    pub events: Vector<Arc<Event>>,
    /// Sequence number of the next event.
    pub next_event: u64,
    /// Who was given a certificate, and whose is no longer good.
    pub certificates: Certificates,
    /// A broken invariant that stopped scheduling. Set by the replica that saw it, for itself: neither replicated nor
    /// read by [`apply`](crate::apply).
    #[serde(skip)]
    pub alarm: Option<String>,
    /// How GPUs and nodes are doing; nodes that there was never anything to say of have no record. The codec writes it
    /// behind the rest.
    #[serde(skip)]
    pub health: Records,
}

/// Index into [`State::finished_by_class`].
pub fn outcome_class(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Completed => 0,
        Outcome::Failed { .. } | Outcome::NodeLost | Outcome::Rejected => 1,
        Outcome::Cancelled => 2,
        Outcome::TimedOut => 3,
    }
}

impl State {
    /// A state before its first command.
    pub fn new() -> Self {
        Self {
            next_job: 1,
            next_event: 1,
            ..Self::default()
        }
    }

    /// An unfinished job.
    pub fn job(&self, job: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&job)
    }

    /// The epoch of a job's next attempt; `None` if there is none left.
    pub fn next_epoch(&self, job: &Job) -> Option<Epoch> {
        job.epoch.0.max(self.epoch_floor).checked_add(1).map(Epoch)
    }

    /// A job without an attempt joins those that wait.
    pub(crate) fn join_pending(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get(&id) {
            asked::join(&mut self.pending, &mut self.lines, job);
        }
    }

    /// A job waits no more.
    pub(crate) fn leave_pending(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get(&id) {
            asked::leave(&mut self.pending, &mut self.lines, job);
        }
    }

    /// A node by name.
    pub fn node_named(&self, name: &str) -> Option<&Arc<Node>> {
        self.node_ids.get(name).and_then(|id| self.nodes.get(id))
    }
}
