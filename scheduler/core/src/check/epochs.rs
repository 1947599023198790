//! Epochs only grow: the current attempt has the newest, past ones are older and in order, checkpoints are no newer.

use super::Report;
use crate::state::{MAX_PAST, State};

pub(super) fn check(state: &State, report: &mut Report) {
    for (id, job) in &state.jobs {
        let known = *id == job.id && id.0 > 0 && id.0 < state.next_job;
        report.expect(known, "JOB_ID", || format!("job {id} was never issued"));
        let current = job.attempt.as_ref().map(|a| a.epoch);
        report.expect(
            current.is_none_or(|e| e == job.epoch),
            "EPOCH_CURRENT",
            || format!("job {id} runs epoch {current:?}, newest {}", job.epoch),
        );
        let ordered = job.past.windows(2).all(|p| p[0].epoch < p[1].epoch);
        let below = job.past.last().is_none_or(|p| match current {
            Some(current) => p.epoch < current,
            None => p.epoch == job.epoch,
        });
        let bounded = job.past.len() <= MAX_PAST;
        report.expect(ordered && below && bounded, "EPOCH_PAST", || {
            format!("past epochs of job {id} are out of order or too many")
        });
        let counted = job.attempt.is_some() || job.epoch.0 == 0 || !job.past.is_empty();
        report.expect(counted, "EPOCH_LOST", || {
            format!("epoch {} of job {id} is nowhere", job.epoch)
        });
        let order = |c: &berth_types::CheckpointRecord| (c.epoch, c.step);
        let newest_first = job
            .checkpoints
            .windows(2)
            .all(|c| order(&c[0]) > order(&c[1]));
        let issued = job.checkpoints.iter().all(|c| c.epoch <= job.epoch);
        report.expect(newest_first && issued, "CHECKPOINTS", || {
            format!("checkpoints of job {id} are out of order or of epochs to come")
        });
    }
}
