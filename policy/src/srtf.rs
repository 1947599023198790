//! `srtf`: within a priority, the job with the shortest remaining time first.
//!
//! Source: Schrage and Miller, "The queue M/G/1 with the shortest remaining processing time discipline", Operations
//! Research 14 (1966): it minimises the mean time in the system when durations are known.
//!
//! Deviations:
//! - It does not preempt: a running job stays. Work that an eviction throws away has a price that this rule does not
//!   know.
//! - Remaining time is `expected_ms` (else `time_limit_ms`) less what earlier attempts ran, if a checkpoint kept it.
//!   Jobs of unknown duration go last.
//! - Plain SRTF starves long jobs for as long as short ones arrive. Jobs that have waited for [`AGED_MS`] therefore go
//!   first, by arrival. So a job's wait is bounded by that, plus the time that those which aged before it need.

use std::cmp::Reverse;

use berth_core::policy::{Backfill, Policy, Proposal, ProposedBundle, View};
use berth_core::state::Job;
use berth_types::JobId;
use rand_chacha::ChaCha8Rng;

/// Waiting this long lets a job go before shorter ones.
pub const AGED_MS: u64 = 4 * 3_600_000;

/// A job is never taken to be closer to its end than this share of its duration: estimates are not that good.
const LEAST_REMAINING_PERCENT: u64 = 5;

/// Shortest remaining time first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Srtf;

/// Sort key: priority, aged ones first and by arrival, then remaining time.
type Turn = (Reverse<i32>, bool, u64, JobId);

impl Policy for Srtf {
    fn name(&self) -> &str {
        "srtf"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let pending = view.state.pending.iter();
        let mut turns: Vec<Turn> = pending
            .filter_map(|key| view.state.jobs.get(&key.job))
            .map(|job| turn(job, view.now_ms))
            .collect();
        turns.sort_unstable();
        Proposal {
            bundles: (turns.iter())
                .map(|&(.., job)| ProposedBundle::start(job))
                .collect(),
            backfill: Backfill::BehindReservation,
        }
    }
}

fn turn(job: &Job, now_ms: u64) -> Turn {
    let is_aged = now_ms.saturating_sub(job.submitted_ms) >= AGED_MS;
    let remaining = if is_aged { 0 } else { remaining_ms(job) };
    (Reverse(job.spec.priority), !is_aged, remaining, job.id)
}

/// Expected time to the job's end once it runs; the largest number if unknown.
pub fn remaining_ms(job: &Job) -> u64 {
    let spec = &job.spec;
    let duration = match (spec.expected_ms, spec.time_limit_ms) {
        (0, 0) => return u64::MAX,
        (0, limit) => limit,
        (expected, _) => expected,
    };
    let ran = (job.past.iter())
        .map(|past| past.ended_ms.saturating_sub(past.started_ms))
        .fold(0u64, u64::saturating_add);
    let kept = if job.checkpoints.is_empty() { 0 } else { ran };
    let least = duration / 100 * LEAST_REMAINING_PERCENT;
    duration.saturating_sub(kept).max(least)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use berth_types::{AttemptEnd, CheckpointRecord, Epoch, JobSpec, PastAttempt};

    use super::*;

    fn job(id: u64, spec: JobSpec) -> Job {
        Job::new(JobId(id), Arc::new(spec), 0)
    }

    fn checkpoint() -> CheckpointRecord {
        CheckpointRecord {
            epoch: Epoch(1),
            step: 1,
            path: "/checkpoints/1".to_owned(),
            bytes: 1,
            manifest_sha256: String::new(),
            save_ms: 1,
        }
    }

    #[test]
    fn unknown_durations_go_last_and_limits_stand_in_for_expectations() {
        let unknown = job(1, JobSpec::default());
        let limited = job(
            2,
            JobSpec {
                time_limit_ms: 900,
                ..JobSpec::default()
            },
        );
        let expected = job(
            3,
            JobSpec {
                expected_ms: 500,
                time_limit_ms: 900,
                ..JobSpec::default()
            },
        );
        let mut turns = [turn(&unknown, 0), turn(&limited, 0), turn(&expected, 0)];
        turns.sort_unstable();
        assert_eq!(turns.map(|turn| turn.3.0), [3, 2, 1]);
    }

    #[test]
    fn aged_jobs_go_first_by_arrival_but_not_before_a_higher_priority() {
        let old = job(
            1,
            JobSpec {
                expected_ms: 1_000_000,
                ..JobSpec::default()
            },
        );
        let mut young = job(
            2,
            JobSpec {
                expected_ms: 1,
                ..JobSpec::default()
            },
        );
        let mut high = job(
            3,
            JobSpec {
                priority: 1,
                ..JobSpec::default()
            },
        );
        young.submitted_ms = AGED_MS;
        high.submitted_ms = AGED_MS;
        let mut turns = [
            turn(&old, AGED_MS),
            turn(&young, AGED_MS),
            turn(&high, AGED_MS),
        ];
        turns.sort_unstable();
        assert_eq!(turns.map(|turn| turn.3.0), [3, 1, 2]);
    }

    #[test]
    fn what_ran_counts_only_if_a_checkpoint_kept_it() {
        let mut job = job(
            1,
            JobSpec {
                expected_ms: 1_000,
                ..JobSpec::default()
            },
        );
        job.past.push(PastAttempt {
            epoch: Epoch(1),
            started_ms: 100,
            ended_ms: 700,
            end: AttemptEnd::Evicted {
                reason: String::new(),
            },
            nodes: Vec::new(),
            resumed_step: None,
        });
        assert_eq!(remaining_ms(&job), 1_000);
        job.checkpoints.push(checkpoint());
        assert_eq!(remaining_ms(&job), 400);
        job.past[0].ended_ms = 5_000;
        assert_eq!(remaining_ms(&job), 50);
    }
}
