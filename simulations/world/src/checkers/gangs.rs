//! A gang is placed whole: every attempt has all its ranks, and each group a number of workers that it allows.

use berth_core::State;

use super::Verdict;
use crate::report::Violation;

/// Looks at every attempt.
pub(crate) fn check(state: &State) -> Verdict {
    const PROMISE: &str = "a gang is placed whole";
    for id in &state.active {
        let Some(job) = state.job(*id) else { continue };
        let Some(attempt) = &job.attempt else {
            continue;
        };
        let in_order = attempt
            .tasks
            .iter()
            .enumerate()
            .all(|(n, task)| task.placement.rank.0 as usize == n);
        Violation::unless(in_order, PROMISE, || {
            format!("the ranks of job {id} are {:?}", attempt.tasks)
        })?;
        for (number, group) in job.spec.groups.iter().enumerate() {
            let workers = attempt
                .tasks
                .iter()
                .filter(|task| usize::from(task.placement.group) == number)
                .count() as u32;
            let allowed = (group.min_workers..=group.max_workers).contains(&workers);
            Violation::unless(allowed, PROMISE, || {
                format!(
                    "group {number} of job {id} has {workers} workers, {} to {} allowed",
                    group.min_workers, group.max_workers
                )
            })?;
        }
    }
    Ok(())
}
