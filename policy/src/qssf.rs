//! `qssf`: the least predicted GPU time first (quasi-shortest-service-first), without preemption.
//!
//! Source: Hu et al., "Characterization and prediction of deep learning workloads in large-scale GPU datacenters" (Helios),
//! SC 2021, section 4.2, algorithm 1. A job's turn is its predicted duration times its GPUs, told once when it is first
//! seen. The published scheduler blocks behind the first job that does not fit: `backfill=none`.
//!
//! Where predictions come from (`estimate`):
//! - `history` (default): an insight, else earlier jobs that are like it ([`history`](crate::history)), else what its
//!   submitter says, else an hour, so that jobs go by their GPUs.
//! - `given`: an insight, else what its submitter says, else an hour.
//!
//! Deviations: the prediction has no trained part; see [`history`](crate::history). Priorities come first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use berth_core::policy::{Backfill, Policy, Proposal, ProposedBundle, View};
use berth_core::state::Job;
use berth_types::JobId;
use rand_chacha::ChaCha8Rng;

use crate::duration;
use crate::history::History;
use crate::options::{NameError, Options};

/// Taken for the duration of a job of which nothing is known.
const UNKNOWN_MS: u64 = 3_600_000;

/// Least predicted GPU time first.
#[derive(Clone, Debug, Default)]
pub struct Qssf {
    backfill: Backfill,
    /// Predicts what nobody says; `None` to take what is given.
    history: Option<History>,
    /// Milli-GPU-milliseconds by pending job.
    turns: BTreeMap<JobId, u128>,
}

impl Qssf {
    /// With settings: `estimate`, `backfill`.
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(options: &mut Options) -> Result<Self, NameError> {
        let learns = options.choice("estimate", &[("history", true), ("given", false)])?;
        Ok(Self {
            backfill: options.backfill()?,
            history: learns.then(History::default),
            turns: BTreeMap::new(),
        })
    }

    fn predict(&self, job: &Job, view: &View) -> u128 {
        let insight = view.insights.get(&job.id);
        let told = insight.and_then(|insight| insight.duration.as_ref());
        let duration_ms = (told.map(|prediction| prediction.median_ms))
            .or_else(|| self.history.as_ref()?.predict_ms(job))
            .or_else(|| duration::said_ms(job))
            .unwrap_or(UNKNOWN_MS);
        u128::from(duration_ms) * u128::from(duration::asked_milligpu(job))
    }
}

impl Policy for Qssf {
    fn name(&self) -> &str {
        "qssf"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let jobs = &view.state.jobs;
        match &mut self.history {
            Some(history) => {
                for job in history.observe(view) {
                    self.turns.remove(&job);
                }
            }
            None => self.turns.retain(|job, _| jobs.contains_key(job)),
        }
        let pending = view.state.pending.iter();
        let pending: Vec<&Job> = pending
            .filter_map(|key| jobs.get(&key.job))
            .map(|job| &**job)
            .collect();
        for job in &pending {
            if !self.turns.contains_key(&job.id) {
                let turn = self.predict(job, view);
                self.turns.insert(job.id, turn);
            }
        }
        let mut turns: Vec<(Reverse<i32>, u128, JobId)> = (pending.iter())
            .map(|job| {
                let turn = self.turns.get(&job.id).copied();
                (Reverse(job.spec.priority), turn.unwrap_or(0), job.id)
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
