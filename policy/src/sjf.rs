//! `sjf`: within a priority, the shortest job first, without preemption.
//!
//! Source: Conway, Maxwell and Miller, "Theory of Scheduling", 1967, section 8.5; as a baseline for training clusters in
//! Helios (SC 2021, section 4.2), which blocks behind the first job that does not fit: `backfill=none`.
//!
//! Deviations: durations are what is known of them, or predicted (see [`estimates`](crate::estimates)), so only a
//! simulation that tells the truth makes it the published oracle. Jobs of unknown duration go last. Long jobs starve for as long as short ones
//! arrive; `srtf` is the one with ageing.

use std::cmp::Reverse;

use berth_core::policy::{Backfill, Policy, Proposal, ProposedBundle, View};
use berth_types::JobId;
use rand_chacha::ChaCha8Rng;

use crate::estimates::Estimates;
use crate::options::{NameError, Options};

/// Shortest job first.
#[derive(Clone, Debug, Default)]
pub struct Sjf {
    backfill: Backfill,
    estimates: Estimates,
}

impl Sjf {
    /// With settings: `backfill`, `durations`.
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(options: &mut Options) -> Result<Self, NameError> {
        Ok(Self {
            backfill: options.backfill()?,
            estimates: Estimates::with(options)?,
        })
    }
}

impl Policy for Sjf {
    fn name(&self) -> &str {
        "sjf"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        self.estimates.observe(view);
        let pending = view.state.pending.iter();
        let jobs = pending.filter_map(|key| view.state.jobs.get(&key.job));
        let mut turns: Vec<(Reverse<i32>, u64, JobId)> = jobs
            .map(|job| {
                let total_ms = self.estimates.total_ms(job, view).unwrap_or(u64::MAX);
                (Reverse(job.spec.priority), total_ms, job.id)
            })
            .collect();
        turns.sort_unstable();
        Proposal {
            bundles: (turns.iter())
                .map(|&(.., job)| ProposedBundle::start(job))
                .collect(),
            backfill: self.backfill,
            ..Proposal::default()
        }
    }
}
