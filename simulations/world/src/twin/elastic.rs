//! Elastic jobs: an amount of work that goes faster with more workers, as the time of a step by GPU model and shape says.
//!
//! The time of a step has the form that Pollux fits (Qiao et al., OSDI'21, section 3.2, equations 8 to 11): computing,
//! and synchronising within a node or across nodes, which overlap in part. Each step does as much work as it has
//! workers, so throughput is workers per step time.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::insight::{Configuration, Insight, Prediction, Speed};

use super::behaviour::{Behaviour, Ended, Held, Model, Spent, Stop};
use super::setting::Overhead;
use super::toil::Toil;
use super::trace::{End, TraceJob};

/// Seconds of one step, by shape, on GPUs of one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepTime {
    /// Computing, per step.
    pub compute_s: f64,
    /// Synchronising two workers of one node.
    pub local_s: f64,
    /// The same for each further worker.
    pub local_each_s: f64,
    /// Synchronising two workers of several nodes.
    pub wide_s: f64,
    /// The same for each further worker.
    pub wide_each_s: f64,
    /// How much computing and synchronising overlap: 1 not at all, large values almost entirely.
    pub overlap: f64,
}

impl StepTime {
    /// Of so many workers on so many nodes.
    pub fn seconds(&self, workers: u32, nodes: u32) -> f64 {
        let further = f64::from(workers.saturating_sub(2));
        let sync_s = match (workers, nodes) {
            (0 | 1, _) => return self.compute_s,
            (_, 0 | 1) => self.local_s + self.local_each_s * further,
            _ => self.wide_s + self.wide_each_s * further,
        };
        let overlap = self.overlap.max(1.0);
        (self.compute_s.powf(overlap) + sync_s.powf(overlap)).powf(1.0 / overlap)
    }
}

/// A job whose throughput depends on what it gets. Its spec says how few and how many workers it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Elastic {
    /// Work, in milliseconds of one worker on [`reference`](Self::reference).
    pub work_ms: u64,
    /// GPU model that the work is measured on; one of those in `steps`.
    pub reference: String,
    /// Time of a step by GPU model. It cannot run on others: there it holds what it holds and makes no progress.
    pub steps: BTreeMap<String, StepTime>,
    /// What starts, restarts and checkpoints cost.
    pub overhead: Overhead,
    /// True if the scheduler knows how fast it is where, and how much work there is.
    pub is_known: bool,
}

impl Elastic {
    /// Work per time on such GPUs, as a multiple of one worker on the reference; `None` if it cannot run there.
    pub fn rate(&self, gpu_model: &str, workers: u32, nodes: u32) -> Option<f64> {
        let reference_s = self.steps.get(&self.reference)?.seconds(1, 1);
        let step_s = self.steps.get(gpu_model)?.seconds(workers, nodes);
        let rate = f64::from(workers) * reference_s / step_s;
        (rate.is_finite() && rate > 0.0).then_some(rate)
    }

    /// The same for what an attempt holds; the slowest model counts for all.
    fn rate_of(&self, held: &Held) -> f64 {
        let workers = held.workers.iter().sum();
        let mut nodes: Vec<_> = held.nodes.iter().map(|node| node.node).collect();
        nodes.dedup();
        let nodes = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let rates = (held.nodes.iter())
            .map(|node| self.rate(&node.gpu_model, workers, nodes).unwrap_or(0.0));
        rates.reduce(f64::min).unwrap_or(0.0)
    }
}

impl Speed for Elastic {
    fn goodput(&self, configuration: &Configuration<'_>) -> Option<f64> {
        let Configuration {
            gpu_model,
            nodes,
            workers,
        } = *configuration;
        self.rate(gpu_model, workers, nodes)
    }

    fn steps_per_s(&self, configuration: &Configuration<'_>) -> Option<f64> {
        let steps = self.steps.get(configuration.gpu_model)?;
        Some(1.0 / steps.seconds(configuration.workers, configuration.nodes))
    }
}

/// An [`Elastic`] job that is shared by runs.
#[derive(Clone, Debug)]
pub struct ElasticModel(pub Arc<Elastic>);

impl Model for ElasticModel {
    fn begin(&self, job: &TraceJob) -> Box<dyn Behaviour> {
        let elastic = &self.0;
        let insight = elastic.is_known.then(|| {
            let most: u32 = job.spec.groups.iter().map(|group| group.max_workers).sum();
            let least: u32 = job.spec.groups.iter().map(|group| group.min_workers).sum();
            let rate = elastic.rate(&elastic.reference, least, 1).unwrap_or(1.0);
            Arc::new(Insight {
                duration: Some(Prediction {
                    median_ms: (elastic.work_ms as f64 / rate) as u64,
                    log_sd: 0.0,
                }),
                speed: Some(Arc::<Elastic>::clone(elastic)),
                restart_ms: elastic.overhead.restart_ms,
                max_workers: most,
                ..Insight::default()
            })
        });
        Box::new(ElasticJob {
            toil: Toil::new(elastic.work_ms, End::Completed, elastic.overhead),
            elastic: Arc::clone(elastic),
            insight,
        })
    }
}

/// An elastic job of a run.
#[derive(Debug)]
struct ElasticJob {
    toil: Toil,
    elastic: Arc<Elastic>,
    insight: Option<Arc<Insight>>,
}

impl Behaviour for ElasticJob {
    fn on_start(&mut self, held: &Held, now_ms: u64) {
        self.toil.start(self.elastic.rate_of(held), now_ms);
    }

    fn due_ms(&self) -> Option<u64> {
        self.toil.due_ms()
    }

    fn advance(&mut self, now_ms: u64) -> Option<Ended> {
        self.toil.advance(now_ms)
    }

    fn on_stop(&mut self, _now_ms: u64, why: Stop) -> Spent {
        self.toil.stop(why)
    }

    fn on_speed(&mut self, share: f64, _now_ms: u64) {
        self.toil.set_share(share);
    }

    fn insight(&mut self) -> Option<Arc<Insight>> {
        self.insight.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_longer_with_more_workers_and_longer_still_across_nodes() {
        let steps = StepTime {
            compute_s: 3.0,
            local_s: 4.0,
            local_each_s: 1.0,
            wide_s: 12.0,
            wide_each_s: 2.0,
            overlap: 2.0,
        };
        assert_eq!(steps.seconds(1, 1), 3.0);
        assert!((steps.seconds(2, 1) - 5.0).abs() < 1e-12, "3-4-5");
        assert!((steps.seconds(2, 2) - 153f64.sqrt()).abs() < 1e-12);
        assert!(steps.seconds(4, 1) > steps.seconds(2, 1));
        let apart = StepTime {
            overlap: 1.0,
            ..steps
        };
        assert_eq!(apart.seconds(3, 1), 8.0, "3 + 4 + 1");
    }
}
