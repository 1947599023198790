//! What the scheduler knows or believes about a job beyond its record: how long it will run, and how fast in which
//! configuration. Filled by whoever observes the job (a leader from reports, the simulator from its own); read by
//! policies through a [`View`](crate::policy::View).

use std::fmt::Debug;
use std::sync::Arc;

use berth_types::JobId;

use crate::goodput::{GradientNoise, LearnedModel, Observation};
use imbl::OrdMap;

/// By job. A persistent map, so a view shares it.
pub type Insights = OrdMap<JobId, Arc<Insight>>;

/// What is known of one job.
#[derive(Clone, Debug, Default)]
pub struct Insight {
    /// How long it will run in all, once it runs at the size it asks for.
    pub duration: Option<Prediction>,
    /// How fast it runs where.
    pub speed: Option<Arc<dyn Speed>>,
    /// What a start, restart, move or resize costs before work goes on, in milliseconds of its allocation.
    pub restart_ms: u64,
    /// Most workers worth trying next; 0 if nothing says so.
    pub max_workers: u32,
    /// Starts beyond the first that cost `restart_ms`.
    pub restarts: u32,
    /// True while its newest attempt starts, or loads what an earlier one saved, and makes no progress yet.
    pub starting: bool,
    /// What it was seen to do, for whoever learns across jobs.
    pub record: Option<Arc<Record>>,
}

/// What a job was seen to do up to now.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Useful progress: samples that counted as much as those of its first batch.
    pub done: f64,
    /// All of it, if that is known beforehand. Where the truth is asked for.
    pub total: Option<f64>,
    /// When that was, in milliseconds of state time.
    pub at_ms: u64,
    /// Statistics of its gradient when it was seen last.
    pub noise: Option<GradientNoise>,
    /// By GPU model: what fits there, and what was measured. The fits are the job's own.
    pub models: Vec<(LearnedModel, Arc<Vec<Observation>>)>,
    /// Largest batch of all workers together that it was seen to run.
    pub most_batch: u32,
}

/// A prediction with its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Median, in milliseconds.
    pub median_ms: u64,
    /// Standard deviation of the natural logarithm; 0 if it is known exactly.
    pub log_sd: f64,
}

/// A shape that a job could run in: so many workers, all on GPUs of one model, over so many nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration<'a> {
    /// GPU model, as nodes report it; empty for any, whoever does not tell them apart.
    pub gpu_model: &'a str,
    /// Nodes that it spans.
    pub nodes: u32,
    /// Workers in all.
    pub workers: u32,
}

/// How fast a job runs. Figures are comparable within one job only.
pub trait Speed: Debug + Send + Sync {
    /// Useful progress per second, at the best batch size that the job may use; `None` if it cannot run so.
    fn goodput(&self, configuration: &Configuration<'_>) -> Option<f64>;

    /// Steps per second at the batch size that the job asked for; `None` if it cannot run so.
    fn steps_per_s(&self, configuration: &Configuration<'_>) -> Option<f64>;
}
