//! What published traces are like, and the distributions that meet it.

use super::number::{exp, ln, normal_below, sqrt, unit};
use crate::dice::Dice;
use crate::twin::End;

/// Steps of a bisection; more than a double can tell apart.
const STEPS: u32 = 80;
/// Share of jobs of the median size, which is the smallest or second-smallest there is.
const OF_MEDIAN_SIZE: f64 = 0.55;
/// Ends, in the order of the shares.
const ENDS: [End; 3] = [End::Completed, End::Cancelled, End::Failed];

/// A published trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// SenseTime Helios, four clusters (SC 2021).
    Helios,
    /// Microsoft Philly (ATC 2019).
    Philly,
    /// Alibaba PAI, gpu-v2020 (NSDI 2022): parts of a GPU.
    Pai,
    /// Shanghai AI Lab Acme, cluster Seren (NSDI 2024): language models.
    Seren,
    /// Acme, cluster Kalos: larger language models.
    Kalos,
}

/// What is published of its GPU jobs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likeness {
    /// Mean duration, in seconds.
    pub mean_run_s: f64,
    /// Median duration.
    pub median_run_s: f64,
    /// GPUs per job, in the mean.
    pub mean_gpus: f64,
    /// GPUs per job, median.
    pub median_gpus: f64,
    /// Shares of completed, cancelled and failed jobs by number.
    pub count_shares: [f64; 3],
    /// The same by GPU time.
    pub time_shares: [f64; 3],
}

impl Published {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Helios,
        Self::Philly,
        Self::Pai,
        Self::Seren,
        Self::Kalos,
    ];

    /// What is published of it: `cluster_summary.csv` of Acme. PAI's ends are not; it is given Helios'.
    pub fn likeness(self) -> Likeness {
        let of = |mean_run_s, median_run_s, mean_gpus, median_gpus, count_shares, time_shares| {
            Likeness {
                mean_run_s,
                median_run_s,
                mean_gpus,
                median_gpus,
                count_shares,
                time_shares,
            }
        };
        let helios = ([0.624, 0.221, 0.155], [0.513, 0.394, 0.093]);
        match self {
            Self::Helios => of(6_651.7, 206.0, 3.716, 1.0, helios.0, helios.1),
            Self::Philly => of(
                18_006.1,
                874.0,
                1.928,
                1.0,
                [0.604, 0.090, 0.306],
                [0.321, 0.294, 0.385],
            ),
            Self::Pai => of(4_787.1, 480.7, 0.683, 0.5, helios.0, helios.1),
            Self::Seren => of(
                1_414.3,
                122.0,
                5.68,
                1.0,
                [0.497, 0.075, 0.428],
                [0.212, 0.664, 0.124],
            ),
            Self::Kalos => of(
                1_259.7,
                124.0,
                26.77,
                1.0,
                [0.541, 0.062, 0.397],
                [0.313, 0.607, 0.080],
            ),
        }
    }
}

/// Distributions that meet a likeness.
#[derive(Clone, Debug)]
pub(super) struct Calibration {
    likeness: Likeness,
    /// Mean of the logarithm of a duration in milliseconds, and its deviation, before the end's factor.
    location: f64,
    deviation: f64,
    /// How much longer than the mean jobs of each end run.
    factors: [f64; 3],
    /// Thousandths of GPUs with cumulated shares.
    sizes: Vec<(u32, f64)>,
}

impl Calibration {
    pub(super) fn of(likeness: Likeness, max_milligpu: u32) -> Self {
        let mut factors = likeness.time_shares;
        for (factor, count) in factors.iter_mut().zip(likeness.count_shares) {
            *factor /= count;
        }
        let deviation = deviation(&likeness, &factors);
        Self {
            location: location(&likeness, deviation) + ln(1_000.0),
            deviation,
            factors,
            sizes: sizes(&likeness, max_milligpu),
            likeness,
        }
    }

    pub(super) fn end(&self, dice: &mut Dice) -> End {
        let mut left = unit(dice) * self.likeness.count_shares.iter().sum::<f64>();
        for (end, share) in ENDS.into_iter().zip(self.likeness.count_shares) {
            left -= share;
            if left < 0.0 {
                return end;
            }
        }
        End::Completed
    }

    /// The duration that lies so many deviations from the typical one.
    pub(super) fn run_ms(&self, end: End, deviations: f64) -> f64 {
        let index = ENDS.iter().position(|known| *known == end).unwrap_or(0);
        self.factors[index] * exp(self.location + self.deviation * deviations)
    }

    pub(super) fn size(&self, dice: &mut Dice) -> u32 {
        let at = unit(dice);
        let found = self.sizes.iter().find(|(_, below)| at < *below);
        found.or(self.sizes.last()).map_or(1_000, |(size, _)| *size)
    }
}

/// Mean of the logarithm, so that the mean comes out.
fn location(likeness: &Likeness, deviation: f64) -> f64 {
    ln(likeness.mean_run_s) - 0.5 * deviation * deviation
}

/// The deviation of the logarithm at which the median of the mixture is the published one. A wider one with the same
/// mean has a smaller median.
fn deviation(likeness: &Likeness, factors: &[f64; 3]) -> f64 {
    let below_median = |deviation: f64| {
        let location = location(likeness, deviation);
        let shares = likeness.count_shares.iter().zip(factors);
        let below = shares.map(|(share, factor)| {
            let x = ln(likeness.median_run_s / factor) - location;
            share * normal_below(x / deviation)
        });
        below.sum::<f64>()
    };
    bisect(0.1, 6.0, |deviation| below_median(deviation) < 0.5)
}

/// Powers of two: the median size has its share, and the others fall off geometrically so that the mean comes out.
fn sizes(likeness: &Likeness, max_milligpu: u32) -> Vec<(u32, f64)> {
    let median = (likeness.median_gpus * 1_000.0).round() as u32;
    let smallest = if median < 1_000 { 250 } else { 1_000 };
    let doubled = |size: &u32| size.checked_mul(2).filter(|size| *size <= max_milligpu);
    let all: Vec<u32> = std::iter::successors(Some(smallest), doubled).collect();
    let weights = |ratio: f64| {
        let mut weight = 1.0;
        let mut others = 0.0;
        let mut weights = Vec::new();
        for size in &all {
            if *size == median {
                weights.push(0.0);
                continue;
            }
            weights.push(weight);
            others += weight;
            weight *= ratio;
        }
        let scale = if others > 0.0 {
            (1.0 - OF_MEDIAN_SIZE) / others
        } else {
            0.0
        };
        let shares = all
            .iter()
            .zip(weights)
            .map(|(size, weight)| match *size == median {
                true => OF_MEDIAN_SIZE,
                false => weight * scale,
            });
        shares.collect::<Vec<f64>>()
    };
    let mean = |ratio: f64| {
        let shares = weights(ratio);
        let gpus = all
            .iter()
            .zip(shares)
            .map(|(size, share)| f64::from(*size) / 1_000.0 * share);
        gpus.sum::<f64>()
    };
    let ratio = bisect(0.001, 8.0, |ratio| mean(ratio) < likeness.mean_gpus);
    let mut below = 0.0;
    let shares = all.iter().zip(weights(ratio)).map(|(size, share)| {
        below += share;
        (*size, below)
    });
    shares.collect()
}

/// Where `is_low` turns from true to false.
fn bisect(low: f64, high: f64, is_low: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (low, high);
    for _ in 0..STEPS {
        let middle = 0.5 * (low + high);
        if is_low(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    sqrt(low * high)
}
