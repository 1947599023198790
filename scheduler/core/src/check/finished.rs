//! No job is lost: every id that was issued is an unfinished job's or was counted as finished, once.

use super::Report;
use crate::state::State;

pub(super) fn check(state: &State, report: &mut Report) {
    let issued = state.next_job.saturating_sub(1);
    let known = (state.jobs.len() as u64).saturating_add(state.finished);
    report.expect(issued == known, "JOBS_CONSERVED", || {
        let unfinished = state.jobs.len();
        format!(
            "{issued} jobs were accepted, {unfinished} are unfinished and {} finished",
            state.finished
        )
    });
    let by_class: u64 = state
        .finished_by_class
        .iter()
        .fold(0, |n, c| n.saturating_add(*c));
    report.expect(by_class == state.finished, "FINISHED_COUNTS", || {
        format!(
            "{by_class} finished jobs by class, {} in all",
            state.finished
        )
    });
}
