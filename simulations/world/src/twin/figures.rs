//! The figures that are reported of a run, under the names they have in its JSON.

use super::outcome::{JobOutcome, Outcome};

/// Milliseconds per second.
const SECOND: f64 = 1_000.0;
/// Thousandths of a GPU times milliseconds in one GPU-hour.
const GPU_HOUR: f64 = 1_000.0 * 3_600_000.0;

/// Figures of one run. What takes real time (`decision_ms_p50`, `decision_ms_p99`, `wall_s`) is measured by whoever
/// runs the twin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// The policy.
    pub policy: String,
    /// The workload.
    pub trace: String,
    /// Jobs in the trace.
    pub jobs: u64,
    /// Jobs that came to their own end, a recorded failure or cancellation included. Those rejected or unfinished are not.
    pub completed: u64,
    /// Mean time from submission to end, over completed jobs.
    pub avg_jct_s: f64,
    /// Percentiles of the same: the value at `floor(p * n)` of the sorted ones.
    pub p50_jct_s: f64,
    /// 90 %.
    pub p90_jct_s: f64,
    /// 99 %.
    pub p99_jct_s: f64,
    /// Mean time from submission to end without a place, over completed jobs: before the first attempt and between
    /// attempts.
    pub avg_queue_s: f64,
    /// From the first submission to the last end.
    pub makespan_s: f64,
    /// GPU time held by all jobs, in hours.
    pub gpu_hours: f64,
    /// The same as a share of what was in service over the makespan.
    pub gpu_utilisation: f64,
    /// Attempts beyond the first, per job of the trace.
    pub restarts_per_job: f64,
    /// GPU time whose work had to be done again, in hours.
    pub lost_gpu_hours: f64,
    /// See [`Outcome::fragmentation`].
    pub fragmentation: f64,
    /// Rounds in which the policy was asked.
    pub decisions: u64,
    /// Planning rounds.
    pub rounds: u64,
}

/// True if the job came to its own end.
pub(super) fn is_completed(job: &JobOutcome) -> bool {
    job.end_ms.is_some() && job.outcome != Some(berth_types::Outcome::Rejected)
}

pub(super) fn of(outcome: &Outcome, policy: &str, trace: &str) -> Figures {
    let completed: Vec<&JobOutcome> = (outcome.jobs.iter())
        .filter(|job| is_completed(job))
        .collect();
    let mut jct_ms: Vec<u64> = (completed.iter())
        .map(|job| job.end_ms.unwrap_or(0).saturating_sub(job.submit_ms))
        .collect();
    jct_ms.sort_unstable();
    let queued_ms = completed.iter().map(|job| {
        let jct_ms = job.end_ms.unwrap_or(0).saturating_sub(job.submit_ms);
        jct_ms.saturating_sub(job.placed_ms)
    });
    let ledger = outcome.ledger();
    let restarts: u64 = outcome.jobs.iter().map(|job| u64::from(job.restarts)).sum();
    let first_ms = (outcome.jobs.iter()).map(|job| job.submit_ms).min();
    let last_ms = completed.iter().filter_map(|job| job.end_ms).max();
    let makespan_ms = last_ms.unwrap_or(0).saturating_sub(first_ms.unwrap_or(0));
    Figures {
        policy: policy.to_owned(),
        trace: trace.to_owned(),
        jobs: outcome.jobs.len() as u64,
        completed: completed.len() as u64,
        avg_jct_s: mean(jct_ms.iter().copied()) / SECOND,
        p50_jct_s: percentile(&jct_ms, 50) / SECOND,
        p90_jct_s: percentile(&jct_ms, 90) / SECOND,
        p99_jct_s: percentile(&jct_ms, 99) / SECOND,
        avg_queue_s: mean(queued_ms) / SECOND,
        makespan_s: makespan_ms as f64 / SECOND,
        gpu_hours: ledger.held() as f64 / GPU_HOUR,
        gpu_utilisation: share(ledger.held() as f64, outcome.capacity as f64),
        restarts_per_job: share(restarts as f64, outcome.jobs.len() as f64),
        lost_gpu_hours: ledger.lost as f64 / GPU_HOUR,
        fragmentation: outcome.fragmentation,
        decisions: outcome.decisions,
        rounds: outcome.rounds,
    }
}

fn mean(values: impl Iterator<Item = u64>) -> f64 {
    let (count, sum) = values.fold((0u64, 0u128), |(count, sum), value| {
        (count + 1, sum + u128::from(value))
    });
    share(sum as f64, count as f64)
}

fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let index = sorted.len() * percent / 100;
    sorted.get(index).map_or(0.0, |&value| value as f64)
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_values_at_floor_pn() {
        let sorted: Vec<u64> = (0..160).collect();
        assert_eq!(percentile(&sorted, 50), 80.0);
        assert_eq!(
            percentile(&sorted, 99),
            158.0,
            "the second largest of 160, as published"
        );
        assert_eq!(percentile(&[], 50), 0.0);
    }

    #[test]
    fn a_rejected_or_unfinished_job_counts_in_no_mean() {
        let job = |end_ms, outcome| JobOutcome {
            end_ms,
            outcome,
            ..JobOutcome::default()
        };
        let outcome = Outcome {
            jobs: vec![
                job(Some(4_000), Some(berth_types::Outcome::Completed)),
                job(Some(6_000), Some(berth_types::Outcome::Failed { code: 1 })),
                job(Some(9_000), Some(berth_types::Outcome::Rejected)),
                job(None, None),
            ],
            ..Outcome::default()
        };
        let figures = outcome.figures("p", "t");
        assert_eq!((figures.jobs, figures.completed), (4, 2));
        assert_eq!((figures.avg_jct_s, figures.makespan_s), (5.0, 6.0));
    }
}
