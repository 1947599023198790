//! Jobs come in.

use std::sync::Arc;

use berth_types::{JobId, JobSpec, Outcome};

use super::transition::short;
use super::{Rejection, transition::Transition};
use crate::state::Job;

/// Most unfinished jobs; bounds a master's memory.
pub const MAX_UNFINISHED: usize = 1_000_000;

impl Transition<'_> {
    /// Accepts a job: its id, and whether this very submission had been accepted before.
    pub(super) fn submit_job(
        &mut self,
        key: u128,
        hash: u128,
        spec: &Arc<JobSpec>,
    ) -> Result<(JobId, bool), Rejection> {
        if let Some(job) = self.known_key(key, hash)? {
            return Ok((job, true));
        }
        let faults = spec.faults();
        if !faults.is_empty() {
            return Err(Rejection::BadSpec(faults));
        }
        if self.state.jobs.len() >= MAX_UNFINISHED {
            return Err(Rejection::QueueFull(MAX_UNFINISHED));
        }
        let id = JobId(self.state.next_job.max(1));
        self.state.next_job = id.0.saturating_add(1);
        self.remember_key(key, hash, id);
        let job = Arc::new(Job::new(id, Arc::clone(spec), self.now()));
        self.state.jobs.insert(id, job);
        self.state.join_pending(id);
        let text = format!("was submitted by {} to queue {}", spec.user, spec.queue);
        self.job_event("job.submitted", id, &text);
        Ok((id, false))
    }

    /// A job that wanted to start now or never could not.
    pub(super) fn reject_job(&mut self, job: JobId, reason: &str) -> Result<(), Rejection> {
        let record = self.known_job(job)?;
        let never_started = record.epoch.0 == 0 && record.is_pending();
        if !record.spec.start_now || !never_started {
            return Err(Rejection::NotRejectable(job));
        }
        self.finish(job, Outcome::Rejected, short(reason));
        Ok(())
    }

    /// An unfinished job, or what to say about its id.
    pub(super) fn known_job(&self, job: JobId) -> Result<&Arc<Job>, Rejection> {
        self.state.jobs.get(&job).ok_or({
            if job.0 == 0 || job.0 >= self.state.next_job {
                Rejection::NoSuchJob(job)
            } else {
                Rejection::AlreadyFinished(job)
            }
        })
    }
}
