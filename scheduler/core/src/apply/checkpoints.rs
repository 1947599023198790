//! What jobs saved, and how far they are.
//!
//! A checkpoint counts if the job's newest epoch wrote it, even when that attempt has just ended: its agent's word may
//! arrive after the last exit status, and dropping it would only lose work. Once a newer epoch exists, nothing of the
//! older ones is registered any more.

use berth_types::{CheckpointRecord, Epoch, JobId, Progress};

use super::transition::short;
use super::{Rejection, transition::Transition};

/// Most checkpoints in a job's record, whatever it asks to keep.
const MAX_CHECKPOINTS: usize = 16;
/// Longest directory name.
const MAX_PATH_BYTES: usize = 4096;
/// Longest hash of a manifest; a SHA-256 in hexadecimal is 64 bytes.
const MAX_HASH_BYTES: usize = 128;

impl Transition<'_> {
    pub(super) fn record_checkpoint(
        &mut self,
        job: JobId,
        record: &CheckpointRecord,
    ) -> Result<(), Rejection> {
        let known = self.known_job(job)?;
        if record.epoch != known.epoch {
            let epoch = record.epoch;
            return Err(Rejection::StaleEpoch { job, epoch });
        }
        if let Some(what) = fault(record) {
            return Err(Rejection::BadCheckpoint { job, what });
        }
        if known.checkpoints.contains(record) {
            return Ok(());
        }
        let keep = usize::try_from(known.spec.checkpoint.keep).unwrap_or(MAX_CHECKPOINTS);
        let keep = keep.clamp(1, MAX_CHECKPOINTS);
        if let Some(job) = self.state.job_mut(job) {
            let order = |c: &CheckpointRecord| (c.epoch, c.step);
            let registered = &mut job.checkpoints;
            registered.retain(|c| order(c) != order(record));
            let at = registered.partition_point(|c| order(c) > order(record));
            registered.insert(at, record.clone());
            registered.truncate(keep);
            registered.shrink_to_fit();
        }
        let text = format!("saved a checkpoint at step {}", record.step);
        self.job_event("job.checkpoint", job, &text);
        self.move_at_checkpoint(job);
        Ok(())
    }

    pub(super) fn reject_checkpoint(
        &mut self,
        job: JobId,
        epoch: Epoch,
        step: u64,
        reason: &str,
    ) -> Result<(), Rejection> {
        let known = self.known_job(job)?;
        let is_meant = |c: &CheckpointRecord| c.epoch == epoch && c.step == step;
        let Some(record) = known.checkpoints.iter().position(is_meant) else {
            return Err(Rejection::NoSuchCheckpoint { job, epoch, step });
        };
        let fallback = known.checkpoints.get(record + 1).map(|c| c.step);
        if let Some(job) = self.state.job_mut(job) {
            job.checkpoints.remove(record);
            // The agent falls back to the next older one by itself; the record follows it.
            if let Some(attempt) = &mut job.attempt
                && attempt.epoch > epoch
                && attempt.resumed_step == Some(step)
            {
                attempt.resumed_step = fallback;
            }
        }
        let then = match fallback {
            Some(step) => format!("step {step} is the newest before it"),
            None => "none is before it".to_owned(),
        };
        let reason = short(reason);
        let text = format!("cannot use its checkpoint at step {step}: {reason}; {then}");
        self.job_event("job.checkpoint_rejected", job, &text);
        Ok(())
    }

    /// Progress of superseded attempts, or older than what is known, changes nothing.
    pub(super) fn record_progress(&mut self, progress: &[(JobId, Epoch, Progress)]) {
        for (job, epoch, progress) in progress {
            let Some(known) = self.state.jobs.get(job) else {
                continue;
            };
            let current = known.attempt.as_ref().is_some_and(|a| a.epoch == *epoch);
            if !current || known.progress.as_ref() == Some(progress) {
                continue;
            }
            if let Some(job) = self.state.job_mut(*job) {
                job.progress = Some(*progress);
            }
        }
    }
}

fn fault(record: &CheckpointRecord) -> Option<&'static str> {
    if record.epoch.0 == 0 {
        Some("it has no epoch")
    } else if record.path.is_empty() || record.path.len() > MAX_PATH_BYTES {
        Some("its directory's name is empty or too long")
    } else if record.manifest_sha256.len() > MAX_HASH_BYTES {
        Some("its manifest's hash is too long")
    } else {
        None
    }
}
