//! Epochs only grow, a finished job stays finished, and ids are never used again.

use std::collections::BTreeMap;

use berth_core::State;
use berth_types::{Epoch, JobId};

use super::Verdict;
use crate::report::Violation;

const PROMISE: &str = "epochs only grow and a finished job stays finished";

/// Newest epoch of each job ever seen.
#[derive(Debug, Default)]
pub(crate) struct Epochs {
    newest: BTreeMap<JobId, Epoch>,
    over: BTreeMap<JobId, Epoch>,
    time_ms: u64,
    finished: u64,
    cancelled: BTreeMap<JobId, Epoch>,
}

impl Epochs {
    /// A state that is further than any before.
    pub(crate) fn on_newest(&mut self, state: &State) -> Verdict {
        Violation::unless(state.time_ms >= self.time_ms, PROMISE, || {
            format!(
                "state time went back from {} to {}",
                self.time_ms, state.time_ms
            )
        })?;
        Violation::unless(state.finished >= self.finished, PROMISE, || {
            format!(
                "{} jobs were finished, now {}",
                self.finished, state.finished
            )
        })?;
        self.time_ms = state.time_ms;
        self.finished = state.finished;
        for (id, job) in &state.jobs {
            let newest = self.newest.entry(*id).or_default();
            Violation::unless(job.epoch >= *newest, PROMISE, || {
                format!("job {id} went from epoch {newest} to {}", job.epoch)
            })?;
            *newest = job.epoch;
            Violation::unless(!self.over.contains_key(id), PROMISE, || {
                format!("job {id} was over and is back")
            })?;
            if let Some(limit) = self.cancelled.get(id) {
                Violation::unless(job.epoch <= *limit, PROMISE, || {
                    format!(
                        "job {id} was cancelled at epoch {limit} and started epoch {}",
                        job.epoch
                    )
                })?;
            }
        }
        let over: Vec<JobId> = self
            .newest
            .keys()
            .filter(|id| !self.over.contains_key(id) && !state.jobs.contains_key(*id))
            .copied()
            .collect();
        for id in over {
            let epoch = self.newest.get(&id).copied().unwrap_or_default();
            self.over.insert(id, epoch);
        }
        Ok(())
    }

    /// A cancellation was acknowledged while the job was at this epoch.
    pub(crate) fn on_cancelled(&mut self, job: JobId) {
        let epoch = self.newest.get(&job).copied().unwrap_or_default();
        self.cancelled.entry(job).or_insert(epoch);
    }

    /// Attempts beyond each job's first.
    pub(crate) fn restarts(&self) -> u64 {
        self.newest
            .values()
            .map(|epoch| u64::from(epoch.0.saturating_sub(1)))
            .sum()
    }
}
