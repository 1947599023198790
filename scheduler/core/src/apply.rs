//! What a committed command does to the replicated state.
//!
//! [`apply`] is total and deterministic: integers only, no clock, no panic on any input. It never trusts the command:
//! whatever a leader planned, an agent said or a client sent is checked against the state first, and a command (or one
//! bundle of a plan) that does not hold is refused whole with a typed [`Rejection`] and leaves the state as it was.
//!
//! ```text
//!             Start              every task runs             every task exited 0
//!  pending ----------> Starting -----------------> Running -----------------------> finished: completed
//!     ^                   |                           |
//!     |                   |  a task fails, a node is  |
//!     |                   |  lost, cancel, evict, ... |
//!     |                   v                           |
//!     |                Stopping <---------------------'
//!     |                   | every task is gone
//!     |                   |-- cancelled, timed out, out of restarts --------------> finished
//!     `-- restart, requeue, evicted, node lost, not started
//! ```
//!
//! Beside this, an attempt with tasks on a lost node may be waiting for that node (shown as `Fencing`); see `fencing`.
//!
//! One file per family of commands; all of them are methods of `Transition`. What decides how an attempt's end
//! continues is in one place, `settle`.
//!
//! The rules here, those of [`JobSpec::faults`](berth_types::JobSpec::faults) included, are part of the log's
//! meaning: masters of different versions must apply alike, so a changed rule is opened by
//! [`Command::SetClusterVersion`], never by the binary.

mod attempts;
mod certificates;
mod checkpoints;
mod fencing;
mod health;
mod keys;
mod masters;
mod nodes;
mod plan;
mod rejection;
mod reservations;
mod settle;
mod submit;
mod tasks;
mod transition;

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_types::api::Event;
use berth_types::{JobId, NodeId};

pub use certificates::{
    MAX_CERTIFICATES, MAX_LIFETIME_MS, MAX_REVOCATIONS, MAX_TOKENS, REVOKED_FOR_MS,
};
pub use keys::key_time_ms;
pub use nodes::MAX_NODES;
pub use plan::PlanFault;
pub use rejection::Rejection;
pub use reservations::MAX_RESERVATIONS;
pub use settle::{EXIT_REQUEUE, MAX_NODE_FAULTS, MAX_REQUEUES, MAX_START_FAULTS};
pub use submit::MAX_UNFINISHED;

use crate::command::{Command, LogEntry};
use crate::state::{FinishedJob, State};
use transition::Transition;

/// What an entry did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// One for each of the entry's commands, in order.
    pub results: Vec<CommandResult>,
    /// What happened, in order; also in [`State::events`].
    pub events: Vec<Arc<Event>>,
    /// Jobs that left the state for the history, by sequence number.
    pub finished: Vec<FinishedJob>,
    /// Nodes whose desired tasks changed: some were placed there, must stop, or are gone.
    pub touched: BTreeSet<NodeId>,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandResult {
    /// Carried out, or nothing was left to do.
    Done,
    /// To [`Command::SubmitJob`].
    Submitted {
        /// The job's id.
        job: JobId,
        /// True if this key had been used for it before.
        duplicate: bool,
    },
    /// Refused; nothing changed.
    Rejected(Rejection),
    /// To [`Command::ApplyPlan`]: one for each bundle, in order.
    Bundles(Vec<Result<(), Rejection>>),
    /// To [`Command::IssueCertificate`].
    CertificateIssued {
        /// Its number.
        serial: u64,
        /// State time.
        issued_ms: u64,
        /// When it ends.
        expires_ms: u64,
    },
}

impl From<Result<(), Rejection>> for CommandResult {
    fn from(result: Result<(), Rejection>) -> Self {
        match result {
            Ok(()) => CommandResult::Done,
            Err(rejection) => CommandResult::Rejected(rejection),
        }
    }
}

/// Carries out an entry. State time becomes the larger of what it was and the entry's stamp.
///
/// The log index is not used: equal entries do equal things wherever they are.
pub fn apply(state: &mut State, _index: u64, entry: &LogEntry) -> Applied {
    state.time_ms = state.time_ms.max(entry.stamp_ms);
    let mut transition = Transition::new(state);
    let results = entry
        .commands
        .iter()
        .map(|command| transition.carry_out(command))
        .collect();
    transition.into_applied(results)
}

impl Transition<'_> {
    fn carry_out(&mut self, command: &Command) -> CommandResult {
        match command {
            Command::Bootstrap {
                cluster_id,
                masters,
            } => self.bootstrap(*cluster_id, masters).into(),
            Command::SubmitJob { key, hash, spec } => match self.submit_job(*key, *hash, spec) {
                Ok((job, duplicate)) => CommandResult::Submitted { job, duplicate },
                Err(rejection) => CommandResult::Rejected(rejection),
            },
            Command::CancelJob { job, user } => self.cancel_job(*job, user).into(),
            Command::ApplyPlan { plan: _, bundles } => {
                CommandResult::Bundles(bundles.iter().map(|b| self.apply_bundle(b)).collect())
            }
            Command::RegisterNode { spec, incarnation } => {
                self.register_node(spec, *incarnation).into()
            }
            Command::MarkNodeLost { node, reason } => self.mark_node_lost(*node, reason).into(),
            Command::FenceNode { node, by_operator } => self.fence_node(*node, *by_operator).into(),
            Command::SetDrain { node, drain } => self.set_drain(*node, drain.as_ref()).into(),
            Command::RecordTasks { node, tasks } => self.record_tasks(*node, tasks).into(),
            Command::RecordCheckpoint { job, record } => {
                self.record_checkpoint(*job, record).into()
            }
            Command::RejectCheckpoint {
                job,
                epoch,
                step,
                reason,
            } => self.reject_checkpoint(*job, *epoch, *step, reason).into(),
            Command::RecordProgress { progress } => {
                self.record_progress(progress);
                CommandResult::Done
            }
            Command::ExpireAttempt { job, epoch } => self.expire_attempt(*job, *epoch).into(),
            Command::RejectJob { job, reason } => self.reject_job(*job, reason).into(),
            Command::SetMaster { id, info } => self.set_master(*id, info.as_ref()).into(),
            Command::SetClusterVersion { version } => self.set_cluster_version(*version).into(),
            Command::IssueCertificate {
                identity,
                lifetime_ms,
                grant,
            } => match self.issue_certificate(identity, *lifetime_ms, grant) {
                Ok(issued) => issued,
                Err(rejection) => CommandResult::Rejected(rejection),
            },
            Command::RevokeCertificates { identity } => self.revoke_certificates(identity).into(),
            Command::RecordHealth { node, findings } => self.record_health(*node, findings).into(),
            Command::OrderHealth { node, gpu, order } => {
                self.order_health(*node, *gpu, order).into()
            }
            Command::ReviewHealth { node, gpu } => self.review_health(*node, *gpu).into(),
        }
    }
}
