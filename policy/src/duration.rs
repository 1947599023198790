//! How long jobs run, as far as is known: what policies that order by time go by.

use berth_core::policy::View;
use berth_core::state::Job;
use berth_types::{AttemptEnd, MILLI};

/// How long the job runs in all once it runs at the size it asks for: the insight's median (which is the truth where a
/// simulation says so), else what its submitter expects, else its limit; `None` if nothing is known.
pub fn total_ms(job: &Job, view: &View) -> Option<u64> {
    let insight = view.insights.get(&job.id);
    let known = insight.and_then(|insight| insight.duration.as_ref());
    known
        .map(|prediction| prediction.median_ms)
        .or_else(|| said_ms(job))
}

/// What its submitter says: how long it is expected to run, else how long it may.
pub fn said_ms(job: &Job) -> Option<u64> {
    match (job.spec.expected_ms, job.spec.time_limit_ms) {
        (0, 0) => None,
        (0, limit) => Some(limit),
        (expected, _) => Some(expected),
    }
}

/// Thousandths of GPUs that the job asks for at least.
pub fn asked_milligpu(job: &Job) -> u64 {
    (job.spec.groups.iter())
        .map(|group| u64::from(group.min_workers) * u64::from(group.resources.milligpu))
        .sum()
}

/// Thousandths of GPUs that the job holds; 0 while it waits.
pub fn held_milligpu(job: &Job) -> u64 {
    let tasks = job.attempt.iter().flat_map(|attempt| &attempt.tasks);
    let shares = tasks.flat_map(|task| &task.placement.gpus);
    shares.map(|share| u64::from(share.milligpu)).sum()
}

/// Service that the job has had in all attempts up to now, in GPU-milliseconds.
pub fn attained_gpu_ms(job: &Job, now_ms: u64) -> u64 {
    let current = job.attempt.as_ref().map_or(0, |attempt| {
        let age_ms = now_ms.saturating_sub(attempt.started_ms);
        age_ms.saturating_mul(held_milligpu(job)) / u64::from(MILLI)
    });
    job.attained_gpu_ms.saturating_add(current)
}

/// Time that the job has run in attempts whose work is kept: the current one, and those that were evicted, with notice
/// to save. Of jobs with GPUs it is their service over the GPUs that they ask for.
pub fn worked_ms(job: &Job, now_ms: u64) -> u64 {
    let failed = |end: &AttemptEnd| !matches!(end, AttemptEnd::Evicted { .. });
    let lost = (job.past.iter()).any(|past| failed(&past.end)) && job.checkpoints.is_empty();
    let current = job.attempt.as_ref().map(|a| a.started_ms);
    let current_ms = current.map_or(0, |started| now_ms.saturating_sub(started));
    match asked_milligpu(job) {
        _ if lost => current_ms,
        0 => (job.past.iter())
            .map(|past| past.ended_ms.saturating_sub(past.started_ms))
            .fold(current_ms, u64::saturating_add),
        milligpu => {
            let gpu_ms = u128::from(attained_gpu_ms(job, now_ms)) * u128::from(MILLI);
            u64::try_from(gpu_ms / u128::from(milligpu)).unwrap_or(u64::MAX)
        }
    }
}
