//! `las`: least attained service, in a few queues (Tiresias): jobs that have used few GPU-hours go first, and preempt.
//!
//! Source: Gu et al., "Tiresias: A GPU cluster manager for distributed deep learning", NSDI 2019, section 3.3 (discretised
//! two-dimensional LAS). A job's service is the GPUs that it holds times the time for which it has held them. Jobs begin
//! in the first queue and move to the next as their service passes a threshold (`queues`, in GPU-seconds, `/` between
//! them). Within a queue, jobs that have started go first, in the order of their first starts, then the others as they
//! came. No durations are needed.
//!
//! `starvation` is the paper's PROMOTEKNOB: a job that has waited, since it was last evicted, for this many times as long
//! as it has run goes back to the first queue, and its service is counted anew; 0 is never.
//!
//! Defaults: two queues, as in the paper's evaluation, with the threshold of 18,000 GPU-seconds that later comparisons
//! take from its artifact; no promotion.
//!
//! Deviations: priorities come before queues. Queues are looked at in each round, so a cluster needs rounds at intervals
//! (published comparisons use 60 s) to notice a job that passes a threshold while nothing else happens. The profile-based
//! placement of section 3.4 is left to the planner, which always consolidates. Promotions are remembered by the leader
//! only: after a change of leader, a promoted job counts its whole service again. Evictions as in
//! [`preempt`].

use std::cmp::Reverse;
use std::collections::BTreeMap;

use berth_core::policy::{Policy, Proposal, View};
use berth_core::state::Job;
use berth_types::JobId;
use rand_chacha::ChaCha8Rng;

use crate::options::{NameError, Options};
use crate::{duration, preempt};

/// Service up to which a job stays in the first queue, in GPU-seconds.
const QUEUE_GPU_S: u64 = 18_000;

/// Least attained service.
#[derive(Clone, Debug)]
pub struct Las {
    /// Upper ends of all queues but the last, in GPU-milliseconds.
    thresholds: Vec<u64>,
    /// Waits this many times what it ran before it is promoted; 0 for never.
    starvation: f64,
    /// Service and time of those that were promoted, as they were then.
    promoted: BTreeMap<JobId, Promoted>,
}

/// What is not counted any more.
#[derive(Clone, Copy, Debug, Default)]
struct Promoted {
    gpu_ms: u64,
    worked_ms: u64,
    at_ms: u64,
}

/// Sort key: priority, queue, started ones first and by start, then arrival.
type Rank = (Reverse<i32>, usize, u64, JobId);

impl Las {
    /// With settings: `queues`, `starvation`.
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(options: &mut Options) -> Result<Self, NameError> {
        let thresholds = options.ascending("queues", &[QUEUE_GPU_S])?;
        Ok(Self {
            thresholds: (thresholds.iter())
                .map(|gpu_s| gpu_s.saturating_mul(1_000))
                .collect(),
            starvation: options.number("starvation", 0.0, 0.0..=1e6)?,
            promoted: BTreeMap::new(),
        })
    }

    fn rank(&mut self, job: &Job, now_ms: u64) -> Rank {
        let since = self.promoted.get(&job.id).copied().unwrap_or_default();
        let gpu_ms = duration::attained_gpu_ms(job, now_ms).saturating_sub(since.gpu_ms);
        let mut queue = self.thresholds.partition_point(|&end| end <= gpu_ms);
        if queue > 0 && self.starves(job, since, now_ms) {
            let promoted = Promoted {
                gpu_ms: gpu_ms.saturating_add(since.gpu_ms),
                worked_ms: duration::worked_ms(job, now_ms),
                at_ms: now_ms,
            };
            self.promoted.insert(job.id, promoted);
            queue = 0;
        }
        let started_ms = job.first_started_ms.unwrap_or(u64::MAX);
        (Reverse(job.spec.priority), queue, started_ms, job.id)
    }

    fn starves(&self, job: &Job, since: Promoted, now_ms: u64) -> bool {
        let Some(last) = job.past.last().filter(|_| job.attempt.is_none()) else {
            return false;
        };
        let waited_ms = now_ms.saturating_sub(last.ended_ms.max(since.at_ms));
        let worked_ms = duration::worked_ms(job, now_ms).saturating_sub(since.worked_ms);
        let patience_ms = self.starvation * worked_ms as f64;
        self.starvation > 0.0 && worked_ms > 0 && waited_ms as f64 >= patience_ms
    }
}

impl Policy for Las {
    fn name(&self) -> &str {
        "las"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let state = &view.state;
        self.promoted.retain(|job, _| state.jobs.contains_key(job));
        let pending = state.pending.iter().map(|key| key.job);
        let all = pending.chain(state.active.iter().copied());
        let mut ranks: Vec<Rank> = all
            .filter_map(|id| state.jobs.get(&id))
            .map(|job| self.rank(job, view.now_ms))
            .collect();
        ranks.sort_unstable();
        let ranked: Vec<JobId> = ranks.into_iter().map(|(.., job)| job).collect();
        preempt::by_rank(
            view,
            &ranked,
            "has had more service than who takes its place",
        )
    }
}
