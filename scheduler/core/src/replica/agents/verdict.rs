//! What the state says of a task that an agent has.

use berth_types::{AttemptPhase, NodeId, TaskKey, TaskPhase};

use crate::state::State;

/// What the state says of a task that an agent has.
pub(super) enum Verdict {
    /// It is of the current attempt and belongs there.
    Current,
    /// It must not run (any more).
    Stale,
    /// The state has not heard of it (it was restored from an older copy, say): left alone.
    Unknown,
}

pub(super) fn judge(state: &State, node: Option<NodeId>, key: TaskKey) -> Verdict {
    let Some(job) = state.job(key.job) else {
        return if key.job.0 < state.next_job {
            Verdict::Stale
        } else {
            Verdict::Unknown
        };
    };
    if key.epoch > job.epoch {
        return Verdict::Unknown;
    }
    let Some(attempt) = job.attempt.as_ref().filter(|a| a.epoch == key.epoch) else {
        return Verdict::Stale;
    };
    let here = attempt
        .tasks
        .get(key.rank.0 as usize)
        .filter(|t| Some(t.placement.node) == node);
    match here {
        Some(task) if matches!(task.phase, TaskPhase::Ended { .. }) => Verdict::Stale,
        Some(_) if matches!(attempt.phase, AttemptPhase::Stopping(_)) => Verdict::Stale,
        Some(_) => Verdict::Current,
        None => Verdict::Stale,
    }
}

/// True while the state still waits for the end of this task, whether it runs or is being stopped.
pub(super) fn is_awaited(state: &State, key: TaskKey) -> bool {
    let attempt = state
        .job(key.job)
        .and_then(|job| job.attempt.as_ref())
        .filter(|a| a.epoch == key.epoch);
    let task = attempt.and_then(|a| a.tasks.get(key.rank.0 as usize));
    task.is_some_and(|t| !matches!(t.phase, TaskPhase::Ended { .. }))
}
