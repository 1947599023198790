//! What has been learned of one job: how fast it is on each GPU model, seen or projected.
//!
//! Source: Jayaram Subramanya et al., SOSP 2023, section 3.3 ("bootstrapping of throughput models"): a GPU model on which
//! the job has not run takes the goodput of one on which it has, times the ratio of their speeds with one GPU.

use std::sync::Arc;

use super::batch::{BatchLimits, best_batch, divide};
use super::noise::GradientNoise;
use super::throughput::ThroughputModel;
use crate::insight::{Configuration, Speed};

/// What is known of a job's speed.
#[derive(Clone, Debug, Default)]
pub struct Learned {
    /// By GPU model, in the order in which they are asked when one has to be projected from another.
    pub models: Vec<LearnedModel>,
    /// For workers on any GPUs, without regard to their model.
    pub blind: Option<(ThroughputModel, BatchLimits)>,
    /// Statistics of the gradient when the job was last seen.
    pub noise: Option<GradientNoise>,
    /// Workers that the job was submitted for, and their batch; for its speed in steps.
    pub asked_batch: u32,
}

/// What is known of a job on one GPU model.
#[derive(Clone, Debug)]
pub struct LearnedModel {
    /// The GPU model's name, as nodes report it.
    pub gpu_model: Arc<str>,
    /// GPUs of a node of this model.
    pub gpus_per_node: u32,
    /// Which batches fit.
    pub limits: BatchLimits,
    /// Samples per second of one GPU, measured before the job ran; 0 if unknown.
    pub single_gpu: f64,
    /// Fitted to what was seen on this model; `None` if it was never seen there.
    pub fitted: Option<ThroughputModel>,
}

impl Learned {
    fn model(&self, gpu_model: &str) -> Option<&LearnedModel> {
        self.models
            .iter()
            .find(|model| *model.gpu_model == *gpu_model)
    }

    /// A fitted model to use for this GPU model, how many nodes the workers would span there, and the ratio of speeds.
    fn source(&self, configuration: &Configuration<'_>) -> Option<(&LearnedModel, u32, f64)> {
        let own = self.model(configuration.gpu_model)?;
        if own.fitted.is_some() {
            return Some((own, configuration.nodes, 1.0));
        }
        let other = self.models.iter().find(|model| model.fitted.is_some())?;
        let is_known = own.single_gpu > 0.0 && other.single_gpu > 0.0;
        let nodes = configuration.workers.div_ceil(other.gpus_per_node.max(1));
        is_known.then(|| (other, nodes, own.single_gpu / other.single_gpu))
    }
}

impl Speed for Learned {
    fn goodput(&self, configuration: &Configuration<'_>) -> Option<f64> {
        let noise = self.noise?;
        let (fitted, limits, nodes, ratio) = if configuration.gpu_model.is_empty() {
            let (fitted, limits) = self.blind.as_ref()?;
            (fitted, limits, configuration.nodes, 1.0)
        } else {
            let (model, nodes, ratio) = self.source(configuration)?;
            (model.fitted.as_ref()?, &model.limits, nodes, ratio)
        };
        let best = best_batch(fitted, noise, limits, nodes, configuration.workers);
        Some(best.goodput * ratio)
    }

    fn steps_per_s(&self, configuration: &Configuration<'_>) -> Option<f64> {
        let (model, nodes, ratio) = self.source(configuration)?;
        let (workers, limits) = (configuration.workers, &model.limits);
        let global = f64::from(self.asked_batch.max(1));
        let batch = divide(global, workers, limits.first, limits.local_most);
        Some(ratio / model.fitted.as_ref()?.iteration_s(nodes, workers, batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned() -> Learned {
        let limits = BatchLimits {
            first: 128,
            most: 1024,
            local_least: 32,
            local_most: 512,
            fixed: false,
        };
        let fitted = ThroughputModel {
            compute_fixed_s: 0.01,
            compute_per_sample_s: 0.001,
            across_fixed_s: 0.1,
            across_per_worker_s: 0.0,
            within_fixed_s: 0.01,
            within_per_worker_s: 0.0,
            overlap: 1.0,
        };
        let model = |name: &str, gpus_per_node, single_gpu, fitted| LearnedModel {
            gpu_model: name.into(),
            gpus_per_node,
            limits,
            single_gpu,
            fitted,
        };
        Learned {
            models: vec![
                model("slow", 4, 100.0, Some(fitted)),
                model("fast", 8, 300.0, None),
                model("odd", 8, 0.0, None),
            ],
            blind: None,
            noise: Some(GradientNoise {
                squared_norm: 1.0,
                variance: 1000.0,
            }),
            asked_batch: 512,
        }
    }

    fn on(gpu_model: &str, nodes: u32, workers: u32) -> Configuration<'_> {
        Configuration {
            gpu_model,
            nodes,
            workers,
        }
    }

    #[test]
    fn an_unseen_model_is_projected_by_the_ratio_of_single_gpus() {
        let learned = learned();
        // Eight workers are one node of the fast kind, two of the slow kind that is known.
        let known = learned.goodput(&on("slow", 2, 8)).expect("it was seen");
        let projected = learned.goodput(&on("fast", 1, 8)).expect("by projection");
        assert!((projected - 3.0 * known).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_projected_is_unknown() {
        let mut learned = learned();
        assert_eq!(learned.goodput(&on("odd", 1, 1)), None);
        assert_eq!(learned.goodput(&on("missing", 1, 1)), None);
        assert_eq!(learned.goodput(&on("", 1, 1)), None);
        learned.noise = None;
        assert_eq!(learned.goodput(&on("slow", 1, 1)), None);
    }

    #[test]
    fn steps_are_those_of_the_batch_that_was_asked_for() {
        let steps = learned().steps_per_s(&on("slow", 1, 4)).expect("known");
        assert!((1.0 / steps - (0.01 + 0.128 + 0.01)).abs() < 1e-6);
    }
}
