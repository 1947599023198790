//! Remembered submissions point to jobs that exist or existed.

use super::Report;
use crate::apply::key_time_ms;
use crate::state::{MAX_KEYS, State};

pub(super) fn check(state: &State, report: &mut Report) {
    let count = state.submissions.len();
    report.expect(count <= MAX_KEYS, "KEYS_TOO_MANY", || {
        format!("{count} keys")
    });
    for (key, submission) in &state.submissions {
        let job = submission.job.0;
        report.expect(job > 0 && job < state.next_job, "KEY_JOB", || {
            format!("key {key:032x} points to job {job}, which was never issued")
        });
        report.expect(key_time_ms(*key).is_some(), "KEY_KIND", || {
            format!("key {key:032x} is no UUIDv7")
        });
    }
}
