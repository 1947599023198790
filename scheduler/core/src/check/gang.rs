//! An attempt has all its ranks, in order and in the sizes that its groups allow, and at least one that is not gone.

use berth_types::{AttemptPhase, TaskPhase};

use super::Report;
use crate::state::State;

pub(super) fn check(state: &State, report: &mut Report) {
    for (id, job) in &state.jobs {
        let Some(attempt) = &job.attempt else {
            continue;
        };
        let ranks = attempt.tasks.iter().zip(0u32..);
        let ordered = ranks.clone().all(|(t, rank)| t.placement.rank.0 == rank);
        report.expect(ordered, "RANKS", || format!("ranks of job {id} have gaps"));
        for (index, group) in job.spec.groups.iter().enumerate() {
            let in_group = |t: &&berth_types::TaskRecord| usize::from(t.placement.group) == index;
            let workers = attempt.tasks.iter().filter(in_group).count() as u64;
            let sizes = u64::from(group.min_workers)..=u64::from(group.max_workers);
            report.expect(sizes.contains(&workers), "GROUP_SIZE", || {
                format!("group {} of job {id} has {workers} workers", group.name)
            });
        }
        let ended = |phase| matches!(phase, TaskPhase::Ended { .. });
        let live = attempt.tasks.iter().any(|t| !ended(t.phase));
        report.expect(live, "ATTEMPT_OVER", || {
            format!("every task of job {id} is gone but its attempt is not over")
        });
        let assigned = |phase| matches!(phase, TaskPhase::Assigned);
        let waits = attempt.tasks.iter().any(|t| assigned(t.phase));
        let phase_holds = match attempt.phase {
            AttemptPhase::Starting => waits,
            AttemptPhase::Running => !waits,
            AttemptPhase::Stopping(_) => true,
        };
        report.expect(phase_holds, "ATTEMPT_PHASE", || {
            format!("attempt of job {id} is {:?}", attempt.phase)
        });
    }
}
