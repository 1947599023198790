//! A workload: which jobs arrive when, what they ask for, and how they really behave.

use std::sync::Arc;

use berth_types::JobSpec;

use super::behaviour::{Behaviour, Model};
use super::rigid::RigidJob;
use super::setting::Setting;

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
#[derive(Clone, Debug)]
pub enum Truth {
    /// Runs for a recorded time at the size it asks for.
    Rigid(Rigid),
    /// Anything else.
    Model(Arc<dyn Model>),
}

impl PartialEq for Truth {
    /// Models are equal if they are the same one.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Truth::Rigid(a), Truth::Rigid(b)) => a == b,
            (Truth::Model(a), Truth::Model(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl TraceJob {
    /// The job as the engine holds it, from its submission on.
    pub(super) fn begin(&self, setting: &Setting) -> Box<dyn Behaviour> {
        match &self.truth {
            Truth::Rigid(rigid) => Box::new(RigidJob::new(*rigid, self, setting)),
            Truth::Model(model) => model.begin(self),
        }
    }
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
    /// By itself, with a failure. A recorded duration covers all tries, so such a job is submitted without restarts
    /// (`spec.restart.max_restarts` 0), or it fails again as soon as it is restarted.
    Failed,
    /// Its user cancelled it.
    Cancelled,
}
