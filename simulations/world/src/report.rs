//! What a run has to say for itself.

use std::collections::BTreeMap;
use std::fmt;

use crate::network::NetworkCounts;
use crate::options::FaultKind;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{promise}: {detail}")]
pub struct Violation {
    /// Which promise.
    pub promise: &'static str,
    /// How it was broken.
    pub detail: String,
}

impl Violation {
    /// `promise` was broken so.
    pub fn new(promise: &'static str, detail: impl fmt::Display) -> Self {
        Self {
            promise,
            detail: detail.to_string(),
        }
    }

    /// An error unless `kept`.
    pub(crate) fn unless(
        kept: bool,
        promise: &'static str,
        detail: impl FnOnce() -> String,
    ) -> Result<(), Violation> {
        if kept {
            Ok(())
        } else {
            Err(Violation::new(promise, detail()))
        }
    }
}

/// What became of jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Planned by the workload.
    pub planned: u64,
    /// Acknowledged to a client.
    pub acknowledged: u64,
    /// Ended well.
    pub completed: u64,
    /// Ended badly.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Ended by their time limit.
    pub timed_out: u64,
    /// Processes started.
    pub spawned: u64,
    /// Attempts beyond each job's first.
    pub restarts: u64,
}

/// One seed's run.
#[derive(Clone, Debug)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// Hash of the event log.
    pub hash: u64,
    /// Events in it.
    pub events: u64,
    /// Virtual time at the end.
    pub virtual_ms: u64,
    /// When everything was healed, if it came to that.
    pub healed_ms: Option<u64>,
    /// Inputs given to replicas.
    pub inputs: u64,
    /// Leaders that came to serve.
    pub elections: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Disk writes lost in crashes.
    pub lost_writes: u64,
    /// Newest applied index.
    pub applied: u64,
    /// Faults that struck.
    pub faults: BTreeMap<FaultKind, u64>,
    /// What the network did.
    pub network: NetworkCounts,
    /// What became of jobs.
    pub jobs: JobCounts,
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// The newest lines of the log, or all of them.
    pub lines: Vec<String>,
}
