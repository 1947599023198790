//! Which durations a policy goes by that orders by time: what is known, or what earlier jobs let expect.
//!
//! Setting `durations`:
//! - `known` (default): an insight (in a simulation with `--durations true` the truth), else what the submitter says; see
//!   [`duration::total_ms`].
//! - `predicted`: earlier jobs that are like it ([`history`](crate::history)), else what the submitter says. Insights are
//!   not looked at, so a simulation gives nothing away. A job is told once, when it is first seen, so that the order does
//!   not waver; one that outlives its prediction is taken to need twice as long, and twice that the next time.

use std::collections::BTreeMap;

use berth_core::policy::View;
use berth_core::state::Job;
use berth_types::JobId;

use crate::duration;
use crate::history::History;
use crate::options::{NameError, Options};

/// Durations by job.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    /// Predicts; `None` to take what is known.
    history: Option<History>,
    /// What was predicted.
    told: BTreeMap<JobId, Option<u64>>,
}

impl Estimates {
    /// With the setting `durations`.
    ///
    /// # Errors
    /// If it does not hold.
    pub fn with(options: &mut Options) -> Result<Self, NameError> {
        let predicts = options.choice("durations", &[("known", false), ("predicted", true)])?;
        Ok(Self {
            history: predicts.then(History::default),
            told: BTreeMap::new(),
        })
    }

    /// Learns from what ended since the last view. Once at the beginning of each round.
    pub fn observe(&mut self, view: &View) {
        let Some(history) = &mut self.history else {
            return;
        };
        for job in history.observe(view) {
            self.told.remove(&job);
        }
    }

    /// How long a job runs in all, if there is any telling.
    pub fn total_ms(&mut self, job: &Job, view: &View) -> Option<u64> {
        let Some(history) = &self.history else {
            return duration::total_ms(job, view);
        };
        let predict = || history.predict_ms(job).or_else(|| duration::said_ms(job));
        let told = *self.told.entry(job.id).or_insert_with(predict);
        told.map(|total_ms| outlived(total_ms, duration::worked_ms(job, view.now_ms)))
    }
}

/// A prediction, doubled for as long as the job has worked longer.
fn outlived(predicted_ms: u64, worked_ms: u64) -> u64 {
    let mut total_ms = predicted_ms.max(1);
    while total_ms < worked_ms {
        total_ms = total_ms.saturating_mul(2);
    }
    total_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_outlives_its_prediction_needs_twice_as_long() {
        assert_eq!(outlived(100, 0), 100);
        assert_eq!(outlived(100, 100), 100);
        assert_eq!(outlived(100, 101), 200);
        assert_eq!(outlived(100, 900), 1_600);
        assert_eq!(outlived(0, u64::MAX), u64::MAX);
    }
}
