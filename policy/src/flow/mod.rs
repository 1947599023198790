//! `flow`: shares of several GPU models that shorten the time jobs spend in the system, with what like jobs have shown.
//!
//! Each round, every job gets one configuration (a GPU model and a number of GPUs) or none, so that the sum of what its
//! jobs get on is worth most. A configuration is worth how much of the job's speed, alone on the cluster, it gives; of
//! two jobs, the one with less left counts more, and the more so the more jobs compete; a change counts for what is left
//! of the gain after the restart.
//!
//! Sources: that the allocation which minimises mean completion time of jobs with concave speed-ups favours those with
//! little left without starving the others, and by their rank rather than their size, is Berg, Vesilo and Harchol-Balter,
//! "heSRPT: Parallel scheduling to minimize mean slowdown", Performance Evaluation 144, 2020; configurations, rounds and
//! the integer program are those of Sia (Jayaram Subramanya et al., SOSP 2023, sections 3.2 to 3.4). Speeds and remaining
//! work come from [`Priors`]: jobs of the same family, then the job itself.
//!
//! Deviations from both: several GPU models have no common speed-up, so a job's speed is taken relative to the fastest
//! configuration that there is; sizes are predicted; and weights fall with the remaining time to a power that grows with
//! the load instead of following ranks, which change with every arrival and would move jobs for nothing.

mod worth;

use berth_core::policy::{Backfill, Policy, Proposal, View};
use rand_chacha::ChaCha8Rng;

use crate::fleet::{Candidate, Fleet, Order, Share, assign, exchange, rest, seat, undominated};
use crate::options::{NameError, Options};
use crate::priors::Priors;

pub use worth::{Prospect, Worth};

/// Why a job waits that gets nothing.
const WAITS: &str = "others get on further with these GPUs";

/// Parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowConfig {
    /// Power to which the remaining time counts against a job where there are eight GPUs for each.
    pub brevity: f64,
    /// What that grows by with the logarithm of the jobs per eight GPUs.
    pub crowding: f64,
    /// Time over which a change has to pay for its restart, in seconds, if the job runs that long.
    pub horizon_s: f64,
    /// What staying is worth beyond its speed, as a share of the speed alone on the cluster.
    pub keep: f64,
    /// Least time between two rounds, in milliseconds.
    pub interval_ms: u64,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            brevity: 0.1,
            crowding: 0.3,
            horizon_s: 600.0,
            keep: 0.05,
            interval_ms: 60_000,
        }
    }
}

impl FlowConfig {
    /// From settings: `brevity`, `crowding`, `horizon` (seconds), `keep`, `interval` (seconds; 0 for every round).
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(options: &mut Options) -> Result<Self, NameError> {
        let usual = Self::default();
        let interval_s: u64 = options.number("interval", usual.interval_ms / 1000, 0..=86_400)?;
        Ok(Self {
            brevity: options.number("brevity", usual.brevity, 0.0..=2.0)?,
            crowding: options.number("crowding", usual.crowding, 0.0..=2.0)?,
            horizon_s: options.number("horizon", usual.horizon_s, 1.0..=1e9)?,
            keep: options.number("keep", usual.keep, 0.0..=1.0)?,
            interval_ms: interval_s * 1000,
        })
    }
}

/// Shortens the time that jobs spend in the system.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    config: FlowConfig,
    worth: Worth,
    last_ms: Option<u64>,
}

impl Flow {
    /// With these parameters, and what is known of families of jobs.
    pub fn new(config: FlowConfig, priors: Priors) -> Self {
        Self {
            config,
            worth: Worth::new(priors),
            last_ms: None,
        }
    }

    /// With settings, see [`FlowConfig::with`].
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(options: &mut Options) -> Result<Self, NameError> {
        Ok(Self::new(FlowConfig::with(options)?, Priors::default()))
    }

    /// What it has learned of families of jobs.
    pub fn into_priors(self) -> Priors {
        self.worth.into_priors()
    }

    /// True if a round is due.
    fn is_due(&mut self, now_ms: u64) -> bool {
        let next_ms = |last: u64| last.saturating_add(self.config.interval_ms);
        let early = |last: u64| (last..next_ms(last)).contains(&now_ms);
        let due = !self.last_ms.is_some_and(early);
        if due {
            self.last_ms = Some(now_ms);
        }
        due
    }
}

impl Policy for Flow {
    fn name(&self) -> &str {
        "flow"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let mut proposal = Proposal {
            backfill: Backfill::Greedy,
            ..Proposal::default()
        };
        self.worth.observe(view);
        let due = self.is_due(view.now_ms);
        // Nothing else may happen until the next round is due.
        proposal.wake_ms = self
            .last_ms
            .map(|last| last.saturating_add(self.config.interval_ms));
        if !due {
            return proposal;
        }
        let mut fleet = Fleet::of(view);
        // What has just been moved is given the time to begin.
        for job in &mut fleet.jobs {
            job.pinned |= job.insight.is_some_and(|insight| insight.starting);
        }
        let prospects = self.worth.prospects(&fleet, view, &self.config);
        proposal.bundles = carry_out(&fleet, &prospects);
        proposal
    }
}

/// The bundles that give each job the configuration that is worth most in all.
pub fn carry_out(
    fleet: &Fleet<'_>,
    prospects: &[Prospect],
) -> Vec<berth_core::policy::ProposedBundle> {
    /// Worths become whole numbers for an exact search.
    const SCALE: f64 = 1e4;
    let mut capacity: Vec<u32> = fleet.kinds.iter().map(|kind| kind.gpus()).collect();
    let mut shares: Vec<(usize, Share)> = Vec::with_capacity(fleet.jobs.len());
    for (index, job) in fleet.jobs.iter().enumerate().filter(|(_, job)| job.pinned) {
        if let Some((kind, gpus)) = job.share() {
            capacity[kind] = capacity[kind].saturating_sub(gpus);
            shares.push((index, Share { kind, gpus }));
        }
    }
    let candidates = prospects.iter().map(|prospect| {
        let candidate = |option: &worth::Option_| Candidate {
            kind: option.kind,
            gpus: option.gpus,
            cost: -((option.worth * SCALE).round().clamp(0.0, 1e12) as i64),
        };
        undominated(&prospect.options.iter().map(candidate).collect::<Vec<_>>())
    });
    let candidates: Vec<Vec<Candidate>> = candidates.collect();
    let chosen = assign(&candidates, &capacity);
    for ((prospect, candidates), chosen) in prospects.iter().zip(&candidates).zip(&chosen) {
        if let Some(chosen) = chosen {
            let Candidate { kind, gpus, .. } = candidates[*chosen];
            shares.push((prospect.job, Share { kind, gpus }));
        }
    }
    let seats = seat(fleet, &shares, Order::Packed);
    let mut bundles = exchange(fleet, &seats, |_| String::new());
    let placeable = |index: usize| {
        let mut mine = prospects.iter().filter(|prospect| prospect.job == index);
        mine.next()
            .is_none_or(|prospect| !prospect.options.is_empty())
    };
    bundles.extend(rest(fleet, &seats, placeable, WAITS));
    bundles
}
