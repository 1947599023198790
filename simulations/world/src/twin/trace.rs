//! A workload: which jobs arrive when, what they ask for, and how they really behave.

use std::sync::Arc;

use berth_types::JobSpec;

/// Jobs in the order of their arrival.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// Its name, for reports.
    pub name: String,
    /// By `submit_ms`, ties in the source's order.
    pub jobs: Vec<TraceJob>,
}

/// One job of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceJob {
    /// Its name in the source.
    pub key: String,
    /// When it is submitted, in milliseconds from the trace's start.
    pub submit_ms: u64,
    /// What is submitted. User, queue and name are the source's; `expected_ms` is what a user would have said (0 if the
    /// source does not tell), never the truth by itself.
    pub spec: Arc<JobSpec>,
    /// How it behaves.
    pub truth: Truth,
}

/// How a job behaves, which the scheduler does not know.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    /// Runs for a recorded time at the size it asks for.
    Rigid(Rigid),
}

/// A recorded duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rigid {
    /// How long it runs on GPUs of speed 1, in milliseconds; `u64::MAX` if it never ends.
    pub run_ms: u64,
    /// How it ends then.
    pub end: End,
}

/// How a recorded job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, well.
    Completed,
    /// By itself, with a failure.
    Failed,
    /// Its user cancelled it.
    Cancelled,
}
