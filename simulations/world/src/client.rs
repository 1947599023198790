//! Clients: each makes one call at a time and repeats it, with the same key, until it knows the answer.

use std::collections::VecDeque;
use std::sync::Arc;

use berth_types::api::{MasterInfo, Request};
use berth_types::{Epoch, JobId, JobSpec, JobState, MasterId, Outcome};

/// What a call is for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// Submit this planned job.
    Submit {
        /// Its number in the workload.
        planned: usize,
        /// Its key.
        key: u128,
    },
    /// Use a key again for something else: must be refused.
    ReuseKey,
    /// Submit nonsense: must be refused.
    Nonsense,
    /// Ask for a job that does not exist.
    Missing,
    /// Cancel.
    Cancel(JobId),
    /// Read a job: it must be at least as far as this.
    Read(JobId, Floor),
    /// List jobs: none twice.
    List,
    /// Read something else.
    Look,
    /// An operator's change.
    Operate(Operation),
}

/// An operator's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Drain a node, or put it back.
    Drain {
        /// The node.
        name: String,
        /// Into drain; else out.
        drain: bool,
        /// Move running jobs away.
        evict: bool,
    },
    /// Say that a dead machine is dead.
    Fence {
        /// The node.
        name: String,
        /// Its machine.
        machine: usize,
    },
    /// Add a master.
    Add {
        /// Its id.
        id: MasterId,
        /// Where it is.
        info: MasterInfo,
        /// In whose place.
        replaces: MasterId,
    },
    /// Remove a master.
    Remove {
        /// Its id.
        id: MasterId,
    },
    /// Cancel a job that would never end.
    Cancel {
        /// The job.
        job: JobId,
    },
    /// Ask why a job waits; it must say something.
    Why {
        /// The job.
        job: JobId,
    },
}

/// How far a job is known to have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floor {
    /// Newest attempt seen.
    pub(crate) epoch: Epoch,
    /// A cancellation was acknowledged.
    pub(crate) cancelled: bool,
    /// How it ended, if that was seen.
    pub(crate) ended: Option<(JobState, Outcome)>,
}

/// A call under way.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Its number; a repeat has a new one.
    pub(crate) number: u64,
    /// What for.
    pub(crate) purpose: Purpose,
    /// What is asked.
    pub(crate) request: Request,
    /// The host asked.
    pub(crate) host: usize,
}

/// One client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// Planned jobs that it still has to submit.
    pub(crate) queue: VecDeque<usize>,
    /// Operator's changes that it still has to make.
    pub(crate) operations: VecDeque<Operation>,
    /// The call under way.
    pub(crate) call: Option<Call>,
    /// Its jobs.
    pub(crate) jobs: Vec<JobId>,
    /// The key and job of its newest submission.
    pub(crate) last_key: Option<(u128, Arc<JobSpec>)>,
    /// Mean time between two calls.
    pub(crate) think_ms: u64,
    /// An operator makes changes only.
    pub(crate) operator: bool,
    /// Submits what it has at once, one job each time it acts, and does nothing else.
    pub(crate) prompt: bool,
}

impl Client {
    /// True if it has nothing to do and waits for nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.call.is_none() && self.queue.is_empty() && self.operations.is_empty()
    }
}
