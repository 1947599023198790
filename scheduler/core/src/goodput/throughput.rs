//! How long a step takes: the throughput model of adaptive-batch jobs.
//!
//! Source: Qiao et al., "Pollux: Co-adaptive Cluster Scheduling for Goodput-Optimized Deep Learning", OSDI 2021, section
//! 3.2 (equations 8 to 11), as Jayaram Subramanya et al., "Sia: Heterogeneity-aware, goodput-optimized ML-cluster
//! scheduling", SOSP 2023, section 3.3, use it, once per GPU model.

/// Time of what is not there: of communication that a single worker does not have, and the least value of a parameter.
pub const NOTHING_S: f64 = 1e-8;

/// Fitted parameters. Times are in seconds; `local batch` is the samples of one worker in one micro-batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThroughputModel {
    /// Fixed part of the time to compute the gradients of one micro-batch.
    pub compute_fixed_s: f64,
    /// The part that grows with each sample.
    pub compute_per_sample_s: f64,
    /// Synchronising two workers on several nodes.
    pub across_fixed_s: f64,
    /// What each worker beyond the second adds to that.
    pub across_per_worker_s: f64,
    /// Synchronising two workers on one node.
    pub within_fixed_s: f64,
    /// What each worker beyond the second adds to that.
    pub within_per_worker_s: f64,
    /// How far computing and synchronising overlap: 1 not at all, 10 nearly whole.
    pub overlap: f64,
}

/// What one worker does between two updates of the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalBatch {
    /// Samples of one micro-batch.
    pub samples: u32,
    /// Micro-batches before the one that ends with the synchronisation.
    pub accumulated: u32,
}

impl LocalBatch {
    /// Samples of all workers together between two updates.
    pub fn global(&self, workers: u32) -> f64 {
        f64::from(workers) * f64::from(self.samples) * f64::from(self.accumulated + 1)
    }
}

impl ThroughputModel {
    /// Time to compute the gradients of one micro-batch.
    pub fn compute_s(&self, samples: f64) -> f64 {
        self.compute_fixed_s + self.compute_per_sample_s * samples
    }

    /// Time to synchronise the workers.
    pub fn synchronise_s(&self, nodes: u32, workers: u32) -> f64 {
        let (fixed_s, per_worker_s) = match (nodes, workers) {
            (2.., _) => (self.across_fixed_s, self.across_per_worker_s),
            (_, 2..) => (self.within_fixed_s, self.within_per_worker_s),
            _ => (NOTHING_S, NOTHING_S),
        };
        fixed_s + per_worker_s * (f64::from(workers) - 2.0).max(NOTHING_S)
    }

    /// Time of one update of the parameters: all micro-batches and the synchronisation.
    pub fn iteration_s(&self, nodes: u32, workers: u32, batch: LocalBatch) -> f64 {
        let compute_s = self.compute_s(f64::from(batch.samples));
        let last_s = overlapped(compute_s, self.synchronise_s(nodes, workers), self.overlap);
        f64::from(batch.accumulated) * compute_s + last_s
    }
}

/// `(a^g + b^g)^(1/g)` of two positive times, without overflow.
pub(super) fn overlapped(a: f64, b: f64, overlap: f64) -> f64 {
    let (least, most) = if a < b { (a, b) } else { (b, a) };
    let share = (least / most).powf(overlap);
    most * (share.ln_1p() / overlap).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ThroughputModel = ThroughputModel {
        compute_fixed_s: 0.1,
        compute_per_sample_s: 0.01,
        across_fixed_s: 0.3,
        across_per_worker_s: 0.02,
        within_fixed_s: 0.05,
        within_per_worker_s: 0.001,
        overlap: 1.0,
    };

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }

    #[test]
    fn one_worker_synchronises_with_nobody() {
        let batch = LocalBatch {
            samples: 10,
            accumulated: 0,
        };
        near(MODEL.iteration_s(1, 1, batch), 0.2);
    }

    #[test]
    fn workers_on_one_node_and_on_several_have_their_own_network() {
        let batch = LocalBatch {
            samples: 10,
            accumulated: 0,
        };
        near(MODEL.iteration_s(1, 4, batch), 0.2 + 0.05 + 2.0 * 0.001);
        near(MODEL.iteration_s(2, 4, batch), 0.2 + 0.3 + 2.0 * 0.02);
    }

    #[test]
    fn accumulated_micro_batches_compute_but_do_not_synchronise() {
        let batch = LocalBatch {
            samples: 10,
            accumulated: 3,
        };
        near(MODEL.iteration_s(2, 2, batch), 4.0 * 0.2 + 0.3);
        near(batch.global(2), 80.0);
    }

    #[test]
    fn more_overlap_leaves_the_longer_of_the_two() {
        near(overlapped(0.3, 0.4, 2.0), 0.5);
        near(overlapped(0.3, 3.0, 10.0), 3.0);
        near(overlapped(0.2, 0.1, 1.0), 0.3);
    }
}
