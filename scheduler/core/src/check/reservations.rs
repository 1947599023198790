//! What is kept is kept for a job that can use it: one that waits or is being evicted itself, on nodes that take work,
//! and every attempt waited for is being stopped.

use berth_types::AttemptPhase;

use super::Report;
use crate::state::State;

pub(super) fn check(state: &State, report: &mut Report) {
    for (id, reservation) in &state.reservations {
        let job = state.jobs.get(id);
        let usable =
            job.is_some_and(|j| j.is_pending() || reservation.waits_for.contains(&(j.id, j.epoch)));
        report.expect(usable && reservation.job == *id, "RESERVATION_JOB", || {
            format!("a place is kept for job {id}, which cannot start")
        });
        for (waited, epoch) in &reservation.waits_for {
            let attempt = state.jobs.get(waited).and_then(|j| j.attempt.as_ref());
            let stopping = attempt
                .is_some_and(|a| a.epoch == *epoch && matches!(a.phase, AttemptPhase::Stopping(_)));
            report.expect(stopping, "RESERVATION_WAITS", || {
                format!("the place of job {id} waits for job {waited}, which does not stop")
            });
        }
        for placement in &reservation.placements {
            let node = state.nodes.get(&placement.node);
            let takes_work = node.is_some_and(|n| n.is_schedulable());
            report.expect(takes_work, "RESERVATION_NODE", || {
                format!("a place for job {id} is kept on node {}", placement.node)
            });
        }
    }
}
