//! Which batch a job runs best with.
//!
//! Source: Qiao et al., OSDI 2021, section 3.3 (goodput is throughput times efficiency, maximised over the batch), with the
//! grid and the rules of gradient accumulation of the Sia artifact (SOSP 2023): 50 batches in geometric steps, and at
//! least two micro-batches where a single worker would have no second one to estimate the noise from.

use super::noise::GradientNoise;
use super::throughput::{LocalBatch, ThroughputModel};

/// Batches tried, in geometric steps.
const TRIED: u32 = 50;
/// Slack of the roundings up, so that an exact quotient stays what it is.
const SLACK: f64 = 1e-8;

/// What a job's batch may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Batch of all workers that the job begins with; efficiency is relative to it.
    pub first: u32,
    /// Largest batch of all workers.
    pub most: u32,
    /// Smallest micro-batch of a worker.
    pub local_least: u32,
    /// Largest micro-batch of a worker, as its memory allows.
    pub local_most: u32,
    /// True if the batch is always `most`.
    pub fixed: bool,
}

/// A batch with what it yields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchChoice {
    /// Samples per second that count as much as those of the first batch; 0 if no batch within the limits exists.
    pub goodput: f64,
    /// What each worker does.
    pub batch: LocalBatch,
}

/// How a batch of all workers is divided: micro-batches as large as fits.
pub fn divide(global: f64, workers: u32, first: u32, local_most: u32) -> LocalBatch {
    let local = global / f64::from(workers.max(1));
    let mut accumulated = (local / f64::from(local_most.max(1)) - SLACK).ceil() - 1.0;
    if workers == 1 && local > f64::from(first) + SLACK {
        accumulated = accumulated.max(1.0);
    }
    let accumulated = accumulated.max(0.0);
    let samples = (local / (accumulated + 1.0) - SLACK).ceil();
    LocalBatch {
        samples: samples as u32,
        accumulated: accumulated as u32,
    }
}

/// The best batch of so many workers on so many nodes; of equally good ones the first.
pub fn best_batch(
    model: &ThroughputModel,
    noise: GradientNoise,
    limits: &BatchLimits,
    nodes: u32,
    workers: u32,
) -> BatchChoice {
    let most = f64::from(limits.most);
    let least = match limits.fixed {
        true => most,
        false => f64::from(limits.first.max(limits.local_least.saturating_mul(workers))),
    };
    let step = ((most / least).ln() / f64::from(TRIED - 1)).exp();
    let mut best: Option<BatchChoice> = None;
    let mut last = None;
    let mut global = least;
    for tried in 0..TRIED {
        if tried == TRIED - 1 {
            global = most;
        }
        let batch = divide(global, workers, limits.first, limits.local_most);
        global *= step;
        if last.replace(batch) == Some(batch) {
            continue;
        }
        let goodput = goodput(model, noise, limits, nodes, workers, batch);
        if best.is_none_or(|best| goodput > best.goodput) {
            best = Some(BatchChoice { goodput, batch });
        }
    }
    best.unwrap_or(BatchChoice {
        goodput: 0.0,
        batch: LocalBatch {
            samples: 1,
            accumulated: 0,
        },
    })
}

fn goodput(
    model: &ThroughputModel,
    noise: GradientNoise,
    limits: &BatchLimits,
    nodes: u32,
    workers: u32,
    batch: LocalBatch,
) -> f64 {
    if !(limits.local_least..=limits.local_most).contains(&batch.samples) {
        return 0.0;
    }
    let first = f64::from(limits.first);
    let gain = noise.gain(batch.global(workers) / first);
    first * gain / model.iteration_s(nodes, workers, batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits = BatchLimits {
        first: 128,
        most: 4096,
        local_least: 32,
        local_most: 1024,
        fixed: false,
    };

    fn model(synchronise_s: f64) -> ThroughputModel {
        ThroughputModel {
            compute_fixed_s: 0.01,
            compute_per_sample_s: 0.001,
            across_fixed_s: synchronise_s,
            across_per_worker_s: 0.0,
            within_fixed_s: synchronise_s,
            within_per_worker_s: 0.0,
            overlap: 1.0,
        }
    }

    const NOISY: GradientNoise = GradientNoise {
        squared_norm: 1.0,
        variance: 100.0,
    };

    fn local(samples: u32, accumulated: u32) -> LocalBatch {
        LocalBatch {
            samples,
            accumulated,
        }
    }

    #[test]
    fn a_single_worker_accumulates_beyond_the_first_batch() {
        assert_eq!(divide(128.0, 1, 128, 1024), local(128, 0));
        assert_eq!(divide(256.0, 1, 128, 1024), local(128, 1));
        assert_eq!(divide(4096.0, 1, 128, 1024), local(1024, 3));
        assert_eq!(divide(256.0, 2, 128, 1024), local(128, 0));
        assert_eq!(divide(4096.0, 2, 128, 1000), local(683, 2));
    }

    #[test]
    fn dear_synchronisation_asks_for_larger_batches() {
        let cheap = best_batch(&model(0.0), NOISY, &LIMITS, 2, 8);
        let dear = best_batch(&model(5.0), NOISY, &LIMITS, 2, 8);
        assert!(dear.batch.global(8) > cheap.batch.global(8));
        assert_eq!(dear.batch.global(8), 4096.0);
        assert!(dear.goodput < cheap.goodput);
    }

    #[test]
    fn the_best_is_at_least_as_good_as_both_ends() {
        let limits = LIMITS;
        for workers in [1, 2, 4, 16] {
            let best = best_batch(&model(0.05), NOISY, &limits, 1, workers);
            for global in [f64::from(limits.first.max(32 * workers)), 4096.0] {
                let batch = divide(global, workers, limits.first, limits.local_most);
                assert!(best.goodput >= goodput(&model(0.05), NOISY, &limits, 1, workers, batch));
            }
        }
    }

    #[test]
    fn a_fixed_batch_stays() {
        let limits = BatchLimits {
            fixed: true,
            most: 1000,
            ..LIMITS
        };
        let best = best_batch(&model(0.05), NOISY, &limits, 1, 4);
        assert_eq!(best.batch, local(250, 0));
    }

    #[test]
    fn more_workers_than_the_batch_can_feed_yield_nothing() {
        let limits = BatchLimits {
            most: 128,
            ..LIMITS
        };
        let first_only = best_batch(&model(0.05), NOISY, &limits, 2, 8);
        assert!(first_only.goodput > 0.0, "the first batch tried is 8 x 32");
        assert_eq!(first_only.batch, local(32, 0));
        let fixed = BatchLimits {
            fixed: true,
            ..limits
        };
        assert_eq!(best_batch(&model(0.05), NOISY, &fixed, 2, 8).goodput, 0.0);
    }
}
