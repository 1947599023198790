//! An acknowledged job is never lost, a key never makes two jobs, and no read shows less than what was known before.

use std::collections::{BTreeMap, BTreeSet};

use berth_types::api::JobView;
use berth_types::{Epoch, JobId, JobState};

use super::Verdict;
use crate::client::Floor;
use crate::report::Violation;

/// One acknowledged job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// Its key.
    pub(crate) key: u128,
    /// Its number in the workload.
    pub(crate) planned: usize,
    /// How far it is known to have come.
    pub(crate) floor: Floor,
}

/// What clients were told.
#[derive(Debug, Default)]
pub(crate) struct Submissions {
    by_key: BTreeMap<u128, JobId>,
    /// Jobs that somebody has asked to cancel, whether that was acknowledged or not.
    cancel_asked: BTreeSet<JobId>,
    /// Acknowledged jobs.
    pub(crate) jobs: BTreeMap<JobId, Known>,
}

impl Submissions {
    /// A submission was acknowledged.
    pub(crate) fn on_acknowledged(&mut self, key: u128, planned: usize, job: JobId) -> Verdict {
        const PROMISE: &str = "a key never makes two jobs";
        let first = *self.by_key.entry(key).or_insert(job);
        Violation::unless(first == job, PROMISE, || {
            format!("key {key:032x} was answered with job {first} and job {job}")
        })?;
        let known = self.jobs.entry(job).or_insert(Known {
            key,
            planned,
            floor: Floor::default(),
        });
        Violation::unless(known.key == key, PROMISE, || {
            format!(
                "job {job} was the answer to keys {:032x} and {key:032x}",
                known.key
            )
        })
    }

    /// What is known of a job now; a read that begins now must show at least this.
    pub(crate) fn floor(&self, job: JobId) -> Floor {
        self.jobs.get(&job).map(|k| k.floor).unwrap_or_default()
    }

    /// Somebody asks to cancel a job.
    pub(crate) fn on_cancel_asked(&mut self, job: JobId) {
        self.cancel_asked.insert(job);
    }

    /// Whether somebody has asked to cancel a job.
    pub(crate) fn cancel_asked(&self, job: JobId) -> bool {
        self.cancel_asked.contains(&job)
    }

    /// A cancellation was acknowledged.
    pub(crate) fn on_cancelled(&mut self, job: JobId) {
        if let Some(known) = self.jobs.get_mut(&job) {
            known.floor.cancelled = true;
        }
    }

    /// A job was read; when the read began, `floor` was known.
    pub(crate) fn on_read(&mut self, job: JobId, floor: Floor, view: &JobView) -> Verdict {
        const PROMISE: &str = "a read shows what was known before";
        let current = view.attempt.as_ref().map(|a| a.epoch);
        let past = view.past.last().map(|p| p.epoch);
        let epoch = current.max(past).unwrap_or(Epoch(0));
        Violation::unless(view.id == job, PROMISE, || {
            format!("asked for job {job}, got job {}", view.id)
        })?;
        Violation::unless(epoch >= floor.epoch, PROMISE, || {
            format!(
                "job {job} was known to be at epoch {}, read at {epoch}",
                floor.epoch
            )
        })?;
        if let Some((state, outcome)) = floor.ended {
            let same = view.state == state && view.outcome == Some(outcome);
            Violation::unless(same, PROMISE, || {
                format!(
                    "job {job} had ended as {outcome:?}, read as {:?} {:?}",
                    view.state, view.outcome
                )
            })?;
        }
        let stopping = view.state.is_final() || view.state == JobState::Stopping;
        Violation::unless(!floor.cancelled || stopping, PROMISE, || {
            format!("job {job} was cancelled, read as {:?}", view.state)
        })?;
        if let Some(known) = self.jobs.get_mut(&job) {
            known.floor.epoch = known.floor.epoch.max(epoch);
            if let (true, Some(outcome)) = (view.state.is_final(), view.outcome) {
                known.floor.ended = Some((view.state, outcome));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use berth_types::JobId;

    use super::Submissions;

    #[test]
    fn a_key_with_two_jobs_and_a_job_with_two_keys_are_found() {
        let mut known = Submissions::default();
        assert!(known.on_acknowledged(1, 0, JobId(1)).is_ok());
        assert!(known.on_acknowledged(1, 0, JobId(1)).is_ok());
        assert!(known.on_acknowledged(2, 1, JobId(2)).is_ok());
        assert!(known.on_acknowledged(1, 0, JobId(3)).is_err());
        assert!(known.on_acknowledged(3, 2, JobId(2)).is_err());
    }
}
