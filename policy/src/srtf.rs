//! `srtf`: within a priority, the job with the shortest remaining time first.
//!
//! Source: Schrage and Miller, "The queue M/G/1 with the shortest remaining processing time discipline", Operations
//! Research 14 (1966): it minimises the mean time in the system when durations are known.
//!
//! By default it is fit for clusters that serve people:
//! - It does not preempt: a running job stays. Work that an eviction throws away has a price that this rule does not
//!   know.
//! - Remaining time is what is known of the duration, or predicted (see [`estimates`](crate::estimates)), less what
//!   earlier attempts ran, if a checkpoint kept it. Jobs of unknown duration go last.
//! - Plain SRTF starves long jobs for as long as short ones arrive. Jobs that have waited for [`AGED_MS`] therefore go
//!   first, by arrival. So a job's wait is bounded by that, plus the time that those which aged before it need.
//!
//! `preempt=yes` is the published policy (as in Helios, SC 2021, section 4.2): running jobs are ranked with those that
//! wait, nobody ages, and who has less before it takes the place of who has more ([`preempt`] tells how
//! evictions deviate). Work up to an eviction counts as kept, since a job has notice to save.

use std::cmp::Reverse;

use berth_core::policy::{Backfill, Policy, Proposal, ProposedBundle, View};
use berth_core::state::Job;
use berth_types::JobId;
use rand_chacha::ChaCha8Rng;

use crate::estimates::Estimates;
use crate::options::{NameError, Options};
use crate::{duration, preempt};

/// Waiting this long lets a job go before shorter ones.
pub const AGED_MS: u64 = 4 * 3_600_000;

/// A job is never taken to be closer to its end than this share of its duration: estimates are not that good.
const LEAST_REMAINING_PERCENT: u64 = 5;

/// Shortest remaining time first.
#[derive(Clone, Debug, Default)]
pub struct Srtf {
    preempts: bool,
    backfill: Backfill,
    estimates: Estimates,
}

impl Srtf {
    /// With settings: `preempt`, `backfill` (of no effect if it preempts), `durations`.
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(options: &mut Options) -> Result<Self, NameError> {
        Ok(Self {
            preempts: options.flag("preempt", false)?,
            backfill: options.backfill()?,
            estimates: Estimates::with(options)?,
        })
    }
}

/// Sort key: priority, aged ones first and by arrival, then remaining time.
type Turn = (Reverse<i32>, bool, u64, JobId);

impl Policy for Srtf {
    fn name(&self) -> &str {
        "srtf"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        self.estimates.observe(view);
        if self.preempts {
            return preempting(view, &mut self.estimates);
        }
        let pending = view.state.pending.iter();
        let mut turns: Vec<Turn> = pending
            .filter_map(|key| view.state.jobs.get(&key.job))
            .map(|job| turn(job, self.estimates.total_ms(job, view), view.now_ms))
            .collect();
        turns.sort_unstable();
        Proposal {
            bundles: (turns.iter())
                .map(|&(.., job)| ProposedBundle::start(job))
                .collect(),
            backfill: self.backfill,
            ..Proposal::default()
        }
    }
}

/// Running and waiting jobs in one order; among equals those that run stay.
fn preempting(view: &View, estimates: &mut Estimates) -> Proposal {
    let state = &view.state;
    let pending = state.pending.iter().map(|key| key.job);
    let all = pending.chain(state.active.iter().copied());
    let mut ranks: Vec<(Reverse<i32>, u64, bool, JobId)> = all
        .filter_map(|id| state.jobs.get(&id))
        .map(|job| {
            let left_ms = estimates.total_ms(job, view).map_or(u64::MAX, |total_ms| {
                total_ms.saturating_sub(duration::worked_ms(job, view.now_ms))
            });
            (
                Reverse(job.spec.priority),
                left_ms,
                job.attempt.is_none(),
                job.id,
            )
        })
        .collect();
    ranks.sort_unstable();
    let ranked: Vec<JobId> = ranks.into_iter().map(|(.., job)| job).collect();
    preempt::by_rank(
        view,
        &ranked,
        "has more time before it than who takes its place",
    )
}

fn turn(job: &Job, total_ms: Option<u64>, now_ms: u64) -> Turn {
    let is_aged = now_ms.saturating_sub(job.submitted_ms) >= AGED_MS;
    let remaining = match total_ms {
        _ if is_aged => 0,
        Some(total_ms) => remaining_ms(job, total_ms),
        None => u64::MAX,
    };
    (Reverse(job.spec.priority), !is_aged, remaining, job.id)
}

/// Expected time to the end of a job that waits, once it runs.
fn remaining_ms(job: &Job, total_ms: u64) -> u64 {
    let ran = (job.past.iter())
        .map(|past| past.ended_ms.saturating_sub(past.started_ms))
        .fold(0u64, u64::saturating_add);
    let kept = if job.checkpoints.is_empty() { 0 } else { ran };
    let least = total_ms / 100 * LEAST_REMAINING_PERCENT;
    total_ms.saturating_sub(kept).max(least)
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
        let mut turns =
            [&unknown, &limited, &expected].map(|job| turn(job, duration::said_ms(job), 0));
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
        let jobs = [&old, &young, &high];
        let mut turns = jobs.map(|job| turn(job, duration::said_ms(job), AGED_MS));
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
        assert_eq!(remaining_ms(&job, 1_000), 1_000);
        job.checkpoints.push(checkpoint());
        assert_eq!(remaining_ms(&job, 1_000), 400);
        job.past[0].ended_ms = 5_000;
        assert_eq!(remaining_ms(&job, 1_000), 50);
    }
}
