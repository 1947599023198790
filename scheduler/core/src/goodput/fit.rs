//! Fits the throughput model to measured steps.
//!
//! Source: the loss, the priors and the starting point are those of the Pollux and Sia artifacts (OSDI 2021, section 4.1;
//! SOSP 2023, section 3.3): root mean squared logarithmic errors of computing and of whole steps, a pull towards no
//! overlap and towards networks that do not degrade. What was never seen is assumed to cost nothing, so that it is tried.

use super::bounded::{Bounds, Value, minimise};
use super::throughput::{NOTHING_S, ThroughputModel};

/// Pull of the overlap towards 1.
const OVERLAP_PULL: f64 = 1e-3;
/// Pull of a network's degradation with more workers towards 0.
const DEGRADATION_PULL: f64 = 1e-2;
/// Where the search ends: relative gain of an iteration.
const TOLERANCE: f64 = 1e-5;
/// Synchronising across nodes costs at least this multiple of synchronising within one, if it was never seen.
const ACROSS_LEAST: f64 = 1.1;

/// One measured configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Nodes.
    pub nodes: u32,
    /// Workers.
    pub workers: u32,
    /// Samples of a micro-batch of one worker.
    pub samples: u32,
    /// Seconds of a step with one micro-batch, synchronisation included.
    pub step_s: f64,
    /// Seconds of the synchronisation alone.
    pub synchronise_s: f64,
}

/// Parameters in the order of [`ThroughputModel`]'s fields.
const COUNT: usize = 7;
const COMPUTE: usize = 0;
const ACROSS: usize = 2;
const WITHIN: usize = 4;
const OVERLAP: usize = 6;

/// The model that explains the observations best; `None` without any, or if one of them is not a positive time.
pub fn fit(observations: &[Observation]) -> Option<ThroughputModel> {
    let seen: Vec<Seen> = observations.iter().map(Seen::of).collect::<Option<_>>()?;
    let first = observations.first()?;
    let mut start = [0.1, 0.01, 0.1, 0.01, 0.1, 0.01, 1.001];
    let mut bounds = Bounds {
        low: [NOTHING_S; COUNT],
        high: [f64::INFINITY; COUNT],
    };
    (bounds.low[OVERLAP], bounds.high[OVERLAP]) = (1.0, 10.0);
    let mut hold = |at: usize, value: f64| {
        (start[at], bounds.low[at], bounds.high[at]) = (value, value, value);
    };
    // One batch size alone cannot tell the fixed part from the rest: half is taken for fixed.
    if observations.iter().all(|o| o.samples == first.samples) {
        let compute = observations.iter().map(|o| o.step_s - o.synchronise_s);
        hold(
            COMPUTE,
            compute.sum::<f64>() / observations.len() as f64 / 2.0,
        );
    }
    let across = observations.iter().any(|o| o.nodes > 1);
    let within = observations.iter().any(|o| o.nodes == 1 && o.workers > 1);
    let more_than_two = observations.iter().any(|o| o.workers > 2);
    for (fixed, seen) in [(ACROSS, across), (WITHIN, within)] {
        if !seen {
            hold(fixed, NOTHING_S);
        }
        if !seen || !more_than_two {
            hold(fixed + 1, NOTHING_S);
        }
    }
    let mut x = minimise(|x| loss(x, &seen), start, &bounds, TOLERANCE);
    if !across {
        x[ACROSS] = x[ACROSS].max(ACROSS_LEAST * x[WITHIN]);
        x[ACROSS + 1] = x[ACROSS + 1].max(ACROSS_LEAST * x[WITHIN + 1]);
    }
    let [
        compute_fixed_s,
        compute_per_sample_s,
        across_fixed_s,
        across_per_worker_s,
        within_fixed_s,
        within_per_worker_s,
        overlap,
    ] = x;
    Some(ThroughputModel {
        compute_fixed_s,
        compute_per_sample_s,
        across_fixed_s,
        across_per_worker_s,
        within_fixed_s,
        within_per_worker_s,
        overlap,
    })
}

/// An observation as the loss needs it.
struct Seen {
    samples: f64,
    /// Which network synchronises: index of its fixed part.
    network: Option<usize>,
    beyond_two: f64,
    log_compute: f64,
    log_step: f64,
}

impl Seen {
    fn of(observation: &Observation) -> Option<Self> {
        let compute_s = observation.step_s - observation.synchronise_s;
        let is_sound = compute_s > 0.0 && observation.step_s.is_finite() && compute_s.is_finite();
        is_sound.then(|| Self {
            samples: f64::from(observation.samples),
            network: match (observation.nodes, observation.workers) {
                (2.., _) => Some(ACROSS),
                (_, 2..) => Some(WITHIN),
                _ => None,
            },
            beyond_two: (f64::from(observation.workers) - 2.0).max(NOTHING_S),
            log_compute: compute_s.ln(),
            log_step: observation.step_s.ln(),
        })
    }
}

/// The loss and its gradient.
fn loss(x: &[f64; COUNT], seen: &[Seen]) -> Value<COUNT> {
    let overlap = x[OVERLAP];
    let (mut squared_compute, mut squared_step) = (0.0, 0.0);
    let (mut by_compute, mut by_step) = ([0.0; COUNT], [0.0; COUNT]);
    for one in seen {
        let compute = x[COMPUTE] + x[COMPUTE + 1] * one.samples;
        let log_compute = compute.ln();
        let error = log_compute - one.log_compute;
        squared_compute += error * error;
        by_compute[COMPUTE] += error / compute;
        by_compute[COMPUTE + 1] += error * one.samples / compute;

        let network = match one.network {
            Some(fixed) => x[fixed] + x[fixed + 1] * one.beyond_two,
            None => NOTHING_S + NOTHING_S * one.beyond_two,
        };
        let log_network = network.ln();
        let (least, most) = match log_network < log_compute {
            true => (log_network, log_compute),
            false => (log_compute, log_network),
        };
        let share = (overlap * (least - most)).exp();
        let log_sum = overlap * most + share.ln_1p();
        let of_most = 1.0 / (1.0 + share);
        let of_compute = match log_network < log_compute {
            true => of_most,
            false => 1.0 - of_most,
        };
        let of_network = 1.0 - of_compute;
        let error = log_sum / overlap - one.log_step;
        squared_step += error * error;
        by_step[COMPUTE] += error * of_compute / compute;
        by_step[COMPUTE + 1] += error * of_compute / compute * one.samples;
        if let Some(fixed) = one.network {
            by_step[fixed] += error * of_network / network;
            by_step[fixed + 1] += error * of_network / network * one.beyond_two;
        }
        let mean = of_compute * log_compute + of_network * log_network;
        by_step[OVERLAP] += error * (mean - log_sum / overlap) / overlap;
    }
    let count = seen.len() as f64;
    let (compute_error, step_error) = (
        (squared_compute / count).sqrt(),
        (squared_step / count).sqrt(),
    );
    let mut gradient = [0.0; COUNT];
    for (error, by) in [(compute_error, by_compute), (step_error, by_step)] {
        if error > 0.0 {
            for (sum, part) in gradient.iter_mut().zip(by) {
                *sum += part / (count * error);
            }
        }
    }
    let mut value = compute_error + step_error + OVERLAP_PULL * (overlap - 1.0).powi(2);
    gradient[OVERLAP] += 2.0 * OVERLAP_PULL * (overlap - 1.0);
    for fixed in [ACROSS, WITHIN] {
        let ratio = x[fixed + 1] / x[fixed];
        value += DEGRADATION_PULL * ratio * ratio;
        gradient[fixed + 1] += 2.0 * DEGRADATION_PULL * ratio / x[fixed];
        gradient[fixed] -= 2.0 * DEGRADATION_PULL * ratio * ratio / x[fixed];
    }
    (value, gradient)
}

#[cfg(test)]
mod tests {
    use super::super::throughput::LocalBatch;
    use super::*;

    const TRUTH: ThroughputModel = ThroughputModel {
        compute_fixed_s: 0.03,
        compute_per_sample_s: 0.002,
        across_fixed_s: 0.2,
        across_per_worker_s: 0.0003,
        within_fixed_s: 0.04,
        within_per_worker_s: 0.0001,
        overlap: 1.0,
    };

    fn observe(nodes: u32, workers: u32, samples: u32) -> Observation {
        let compute_s = TRUTH.compute_s(f64::from(samples));
        let batch = LocalBatch {
            samples,
            accumulated: 0,
        };
        let step_s = TRUTH.iteration_s(nodes, workers, batch);
        Observation {
            nodes,
            workers,
            samples,
            step_s,
            synchronise_s: step_s - compute_s,
        }
    }

    /// Even where it stops early: SciPy 1.11 (`minimize(method="L-BFGS-B", tol=1e-5)`) gave these on the same data.
    #[test]
    fn the_fit_ends_where_l_bfgs_b_does() {
        let shapes = [(1, 1), (1, 2), (1, 4), (2, 8), (4, 16)];
        let seen: Vec<Observation> = shapes
            .iter()
            .flat_map(|&(nodes, workers)| [32, 64, 128].map(|b| observe(nodes, workers, b)))
            .collect();
        let model = fit(&seen).expect("there are observations");
        let pairs = [
            (model.compute_fixed_s, 0.029_998_96),
            (model.compute_per_sample_s, 0.002_000_011),
            (model.across_fixed_s, 0.035_535_40),
            (model.across_per_worker_s, 0.020_230_70),
            (model.within_fixed_s, 0.033_145_92),
            (model.within_per_worker_s, 0.002_758_813),
            (model.overlap, 1.208_132_9),
        ];
        for (ours, theirs) in pairs {
            assert!(
                (ours / theirs - 1.0f64).abs() < 1e-4,
                "{ours} is not {theirs}"
            );
        }
    }

    #[test]
    fn what_was_never_seen_is_free() {
        let model = fit(&[observe(1, 1, 64)]).expect("one observation");
        assert_eq!(model.within_fixed_s, NOTHING_S);
        assert!(model.across_fixed_s < 1e-7);
        let half = TRUTH.compute_s(64.0) / 2.0;
        assert!((model.compute_fixed_s - half).abs() < 1e-9);
        assert!((model.compute_s(64.0) / TRUTH.compute_s(64.0) - 1.0).abs() < 0.02);
    }

    #[test]
    fn several_nodes_cost_at_least_what_one_does() {
        let model = fit(&[observe(1, 1, 64), observe(1, 4, 64)]).expect("two observations");
        assert!(model.across_fixed_s >= 1.1 * model.within_fixed_s);
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let seen: Vec<Seen> = [observe(1, 1, 32), observe(1, 4, 64), observe(2, 16, 128)]
            .iter()
            .filter_map(Seen::of)
            .collect();
        let x = [0.1, 0.01, 0.15, 0.02, 0.05, 0.01, 1.7];
        let gradient = loss(&x, &seen).1;
        for i in 0..COUNT {
            let (mut above, mut below) = (x, x);
            (above[i], below[i]) = (x[i] + 1e-6, x[i] - 1e-6);
            let slope = (loss(&above, &seen).0 - loss(&below, &seen).0) / 2e-6;
            let error = (slope - gradient[i]).abs();
            assert!(
                error < 1e-4 * slope.abs().max(1e-2),
                "{i}: {slope} {gradient:?}"
            );
        }
    }

    #[test]
    fn times_that_are_none_are_refused() {
        assert_eq!(fit(&[]), None);
        let mut bad = observe(1, 1, 64);
        bad.synchronise_s = bad.step_s;
        assert_eq!(fit(&[bad]), None);
        bad.step_s = f64::NAN;
        assert_eq!(fit(&[bad]), None);
    }
}
