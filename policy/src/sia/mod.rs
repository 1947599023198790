//! `sia`: goodput-optimal shares on several GPU models, from an integer program.
//!
//! Source: Jayaram Subramanya, Arfeen, Lin, Qiao, Jia and Ganger, "Sia: Heterogeneity-aware, goodput-optimized ML-cluster
//! scheduling", SOSP 2023, sections 3.2 to 3.4. Each round, every job gets one configuration (a GPU model, and 1, 2, 4, ..
//! GPUs of one node or whole nodes) or none, so that the sum of normalised goodputs to the power of p is best. Changing
//! costs a factor that grows with the restarts that a job has had.
//!
//! Deviations from the paper's simulator, whose rules it otherwise keeps:
//! - The integer program is solved by an exact method of its own (`fleet::assign`).
//! - Of configurations that the rounding makes equal, a job keeps the one it has, or takes the one with the fewest GPUs; a
//!   job without GPUs begins on the kind that there is most of.
//! - Jobs that need not move stay where they are, since a move would cost a restart; the paper's simulator places all jobs
//!   anew each round and does not charge for it.
//! - A running job whose speed nobody knows keeps what it has until it ends.
//! - Jobs of other shapes than one gang of single-GPU workers are left to the planner, behind the others.

mod rows;

use berth_core::policy::{Backfill, Policy, Proposal, View};
use rand_chacha::ChaCha8Rng;

use crate::fleet::{Candidate, Fleet, Order, Share, assign, exchange, rest, seat};
use crate::options::{NameError, Options};
use rows::Rows;

/// Parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SiaConfig {
    /// Fairness: the power of normalised goodputs, below 0; the paper's default (section 4.3).
    pub power: f64,
    /// What a job without GPUs costs, where one with its least configuration costs 1.
    pub without: f64,
    /// Least time between two rounds, in milliseconds.
    pub interval_ms: u64,
}

impl Default for SiaConfig {
    fn default() -> Self {
        Self {
            power: -0.5,
            without: 1.1,
            interval_ms: 60_000,
        }
    }
}

/// Why a job waits that gets nothing.
const WAITS: &str = "others make more of the GPUs";

/// Costs are in hundredths, as the paper's simulator rounds them.
const HUNDREDTHS: f64 = 100.0;

/// Goodput-optimal shares.
#[derive(Debug, Default)]
pub struct Sia {
    config: SiaConfig,
    rows: Rows,
    last_ms: Option<u64>,
}

impl Sia {
    /// With settings: `power` (below 0), `without`, `interval` (seconds; 0 for every round).
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(options: &mut Options) -> Result<Self, NameError> {
        let usual = SiaConfig::default();
        let interval_s: u64 = options.number("interval", usual.interval_ms / 1000, 0..=86_400)?;
        let config = SiaConfig {
            power: options.number("power", usual.power, -10.0..=-0.01)?,
            without: options.number("without", usual.without, 1.0..=1000.0)?,
            interval_ms: interval_s * 1000,
        };
        Ok(Self {
            config,
            ..Self::default()
        })
    }

    /// True if a round is due.
    fn is_due(&mut self, now_ms: u64) -> bool {
        let early =
            |last: u64| now_ms < last.saturating_add(self.config.interval_ms) && now_ms >= last;
        if self.last_ms.is_some_and(early) {
            return false;
        }
        self.last_ms = Some(now_ms);
        true
    }
}

impl Policy for Sia {
    fn name(&self) -> &str {
        "sia"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let mut proposal = Proposal {
            bundles: Vec::new(),
            backfill: Backfill::Greedy,
            ..Proposal::default()
        };
        let due = self.is_due(view.now_ms);
        // Nothing else may happen until the next round is due.
        proposal.wake_ms = self
            .last_ms
            .map(|last| last.saturating_add(self.config.interval_ms));
        if !due {
            return proposal;
        }
        let mut fleet = Fleet::of(view).keeping_unknown();
        // What has just been moved is given the time to begin.
        for job in &mut fleet.jobs {
            job.pinned |= job.insight.is_some_and(|insight| insight.starting);
        }
        let fleet = fleet;
        self.rows.retain(&fleet);
        let mut capacity: Vec<u32> = fleet.kinds.iter().map(|kind| kind.gpus()).collect();
        let mut shares: Vec<(usize, Share)> = Vec::with_capacity(fleet.jobs.len());
        let mut free: Vec<usize> = Vec::with_capacity(fleet.jobs.len());
        for (index, job) in fleet.jobs.iter().enumerate() {
            match (job.pinned, job.share()) {
                (true, Some((kind, gpus))) => {
                    capacity[kind] = capacity[kind].saturating_sub(gpus);
                    shares.push((index, Share { kind, gpus }));
                }
                (true, None) => {}
                (false, _) => free.push(index),
            }
        }
        let rows = free.iter();
        let rows = rows.map(|&job| self.rows.candidates(&fleet, job, view.now_ms, &self.config));
        let candidates: Vec<Vec<Candidate>> = rows.collect();
        let chosen = assign(&candidates, &capacity);
        for ((index, candidates), chosen) in free.iter().zip(&candidates).zip(&chosen) {
            if let Some(chosen) = chosen {
                let Candidate { kind, gpus, .. } = candidates[*chosen];
                shares.push((*index, Share { kind, gpus }));
            }
        }
        let seats = seat(&fleet, &shares, Order::Packed);
        proposal.bundles = exchange(&fleet, &seats, |_| String::new());
        let empty: Vec<usize> = (free.iter().zip(&candidates))
            .filter(|(_, candidates)| candidates.is_empty())
            .map(|(index, _)| *index)
            .collect();
        let fits = |index: usize| !empty.contains(&index);
        proposal.bundles.extend(rest(&fleet, &seats, fits, WAITS));
        proposal
    }
}
