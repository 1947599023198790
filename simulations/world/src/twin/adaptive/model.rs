//! The kinds of adaptive jobs: how they tune their batch, and what the scheduler knows of them.

use std::sync::Arc;

use super::application::Application;
use super::job::AdaptiveJob;
use super::knowledge::alone;
use crate::twin::alone::Alone;
use crate::twin::behaviour::{Behaviour, Held, Model};
use crate::twin::trace::TraceJob;

/// A training job that may change its batch with its GPUs.
#[derive(Clone, Debug)]
pub struct Adaptive {
    /// What it trains.
    pub application: Arc<Application>,
    /// How it tunes its batch.
    pub tuning: Tuning,
    /// What the scheduler knows of its speed.
    pub knowledge: Knowledge,
    /// Batch of all workers that its user asked for.
    pub asked_batch: u32,
    /// Most workers that it may ever have.
    pub most_workers: u32,
    /// True if moving to other nodes in the same shape on the same GPU model costs nothing, as in published simulators.
    pub free_moves: bool,
}

/// How a job tunes its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tuning {
    /// By a model of its speed on the GPU model that it runs on.
    #[default]
    PerModel,
    /// By one model of its speed, whatever it runs on.
    Blind,
    /// Not at all: it is the one asked for.
    Fixed,
}

/// What the scheduler knows of a job's speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Knowledge {
    /// What the job was seen to do; it tries twice the workers that it has seen, and no more.
    #[default]
    Learned,
    /// A model that was fitted to everything measured beforehand; how noisy its gradient is remains to be seen.
    Seeded,
    /// Everything, from the start.
    True,
}

impl Model for Adaptive {
    fn begin(&self, _job: &TraceJob) -> Box<dyn Behaviour> {
        Box::new(AdaptiveJob::new(self.clone()))
    }

    fn alone(&self, _job: &TraceJob, choices: &[Held]) -> Option<Alone> {
        alone(self, choices)
    }
}
