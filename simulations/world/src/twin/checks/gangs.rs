//! A gang is placed whole, and stays whole: between two instants a job holds all of its workers' places or none.

use berth_core::state::State;
use berth_types::TaskPhase;

use super::Verdict;

/// `open` is the number of attempts that the engine knows of.
pub(super) fn check(state: &State, open: usize) -> Verdict {
    let mut placed = 0;
    for (id, job) in &state.jobs {
        let Some(attempt) = &job.attempt else {
            continue;
        };
        placed += 1;
        for (index, group) in job.spec.groups.iter().enumerate() {
            let tasks =
                || (attempt.tasks.iter()).filter(|t| usize::from(t.placement.group) == index);
            let workers = tasks().count() as u64;
            let bounds = u64::from(group.min_workers)..=u64::from(group.max_workers);
            if !bounds.contains(&workers) {
                let (name, least) = (&group.name, group.min_workers);
                return Err(format!(
                    "GANG: job {id} has {workers} workers in group `{name}`, which takes at least {least}"
                ));
            }
            let gone = tasks()
                .filter(|t| matches!(t.phase, TaskPhase::Ended { .. }))
                .count();
            if group.gang && gone > 0 {
                return Err(format!(
                    "GANG: {gone} of {workers} workers of job {id} are gone"
                ));
            }
        }
    }
    if placed != open {
        return Err(format!(
            "GANG: {placed} jobs have an attempt, {open} are known to run"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use berth_types::{JobId, TaskPhase};

    use crate::twin::checks::made_up::{State, placed, state};

    fn verdict(open: usize, change: impl FnOnce(&mut State)) -> Result<(), String> {
        let mut state = state();
        placed(&mut state, 1, &[(1, &[(0, 1_000)]), (2, &[(0, 1_000)])]);
        change(&mut state);
        super::check(&state, open)
    }

    #[test]
    fn a_worker_less_is_seen() {
        assert_eq!(verdict(1, |_| {}), Ok(()));
        let missing = verdict(1, |state| {
            let job = state.jobs.get_mut(&JobId(1)).map(Arc::make_mut).unwrap();
            job.attempt.as_mut().unwrap().tasks.pop();
        });
        assert!(missing.unwrap_err().contains("has 1 workers"));
    }

    #[test]
    fn a_worker_that_is_gone_while_the_other_runs_is_seen() {
        let torn = verdict(1, |state| {
            let job = state.jobs.get_mut(&JobId(1)).map(Arc::make_mut).unwrap();
            job.attempt.as_mut().unwrap().tasks[1].phase = TaskPhase::Ended { code: 0, at_ms: 3 };
        });
        assert!(
            torn.unwrap_err()
                .contains("1 of 2 workers of job 1 are gone")
        );
    }

    #[test]
    fn an_attempt_that_nobody_runs_is_seen() {
        assert!(
            verdict(0, |_| {})
                .unwrap_err()
                .contains("0 are known to run")
        );
    }
}
