//! `soft+NAME`: any policy, with evictions priced. For clusters that serve people; reproductions leave it off.
//!
//! A policy that ranks jobs evicts whenever the ranking says so. Two rules stand between it and the planner:
//! - **Price.** What an eviction throws away (work since the victim's last checkpoint, and the start of its next attempt)
//!   may be at most `price` times the GPU time of what it lets start. Unknown durations count as the time that the job has
//!   waited, so whoever waits long enough becomes worth it.
//! - **Rest.** A victim must have run for `min_run` seconds, twice as long after each eviction that it has been through
//!   (up to 64 times), so that two jobs do not take turns.
//!
//! A bundle that breaks a rule is not carried out; what it wanted to start may still start where there is room. A running
//! job that was to be resized keeps its size.
//!
//! `soft:price=0.5,min_run=300+NAME` are the defaults. Source: our own, after the discussion of preemption costs in
//! Tiresias (NSDI 2019, section 5.2) and the hysteresis of time slices in Gandiva (OSDI 2018, section 3).

use berth_core::policy::{Action, Policy, Proposal, ProposedBundle, View};
use berth_core::state::Job;
use berth_types::{AttemptEnd, JobId, MILLI};
use rand_chacha::ChaCha8Rng;

use crate::duration;
use crate::options::{NameError, Options};

/// Evictions after which the rest that a victim is due grows no more, as a power of two.
const MOST_DOUBLINGS: u32 = 6;

/// Rules around a policy.
pub struct Soft {
    inner: Box<dyn Policy>,
    name: String,
    price: f64,
    min_run_ms: u64,
}

impl Soft {
    /// Around a policy, with settings: `price`, `min_run`.
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(
        inner: Box<dyn Policy>,
        name: &str,
        options: &mut Options,
    ) -> Result<Self, NameError> {
        Ok(Self {
            inner,
            name: name.to_owned(),
            price: options.number("price", 0.5, 0.0..=1e9)?,
            min_run_ms: options.number("min_run", 300, 0..=86_400u64)? * 1_000,
        })
    }

    fn allows(&self, bundle: &ProposedBundle, view: &View) -> bool {
        let job = |id: &JobId| view.state.jobs.get(id).map(|job| &**job);
        let (mut lost_gpu_ms, mut worth_gpu_ms) = (0u64, 0u64);
        for action in &bundle.actions {
            match action {
                Action::Stop(id) | Action::Resize { job: id, .. } => {
                    let Some(victim) = job(id) else { continue };
                    if !self.is_rested(victim, view.now_ms) {
                        return false;
                    }
                    lost_gpu_ms = lost_gpu_ms.saturating_add(loss_gpu_ms(victim, view));
                    if matches!(action, Action::Resize { .. }) {
                        worth_gpu_ms = worth_gpu_ms.saturating_add(worth(victim, view));
                    }
                }
                Action::Start { job: id, .. } => {
                    let worth = job(id).map_or(0, |job| worth(job, view));
                    worth_gpu_ms = worth_gpu_ms.saturating_add(worth);
                }
                Action::Keep(_) | Action::Wait(_) => {}
            }
        }
        lost_gpu_ms as f64 <= self.price * worth_gpu_ms as f64
    }

    fn is_rested(&self, victim: &Job, now_ms: u64) -> bool {
        let Some(attempt) = &victim.attempt else {
            return false;
        };
        let evicted = (victim.past.iter()).filter(|p| matches!(p.end, AttemptEnd::Evicted { .. }));
        let doublings = u32::try_from(evicted.count()).unwrap_or(u32::MAX);
        let due_ms = self.min_run_ms << doublings.min(MOST_DOUBLINGS);
        now_ms.saturating_sub(attempt.started_ms) >= due_ms
    }
}

impl Policy for Soft {
    fn name(&self) -> &str {
        &self.name
    }

    fn propose(&mut self, view: &View, rng: &mut ChaCha8Rng) -> Proposal {
        let mut proposal = self.inner.propose(view, rng);
        let bundles = std::mem::take(&mut proposal.bundles);
        let evicts = |bundle: &ProposedBundle| {
            let evicting =
                |action: &Action| matches!(action, Action::Stop(_) | Action::Resize { .. });
            bundle.actions.iter().any(evicting)
        };
        let mut soft = Vec::with_capacity(bundles.len());
        for bundle in bundles {
            if !evicts(&bundle) || self.allows(&bundle, view) {
                soft.push(bundle);
                continue;
            }
            let starts = bundle.actions.iter().filter_map(|action| match action {
                Action::Start { job, .. } => Some(ProposedBundle::start(*job)),
                Action::Stop(_) | Action::Resize { .. } | Action::Keep(_) | Action::Wait(_) => None,
            });
            soft.extend(starts);
        }
        proposal.bundles = soft;
        proposal
    }
}

/// What evicting a job throws away: the work since its last checkpoint, as far as it reports, else its whole attempt,
/// and the start of its next attempt.
fn loss_gpu_ms(victim: &Job, view: &View) -> u64 {
    let Some(attempt) = &victim.attempt else {
        return 0;
    };
    let age_ms = view.now_ms.saturating_sub(attempt.started_ms);
    let saved = victim.checkpoints.iter().map(|c| c.step).max();
    let base = attempt.resumed_step.unwrap_or(0);
    let lost_ms = match (&victim.progress, saved) {
        (Some(progress), Some(saved)) if progress.step > base => {
            let done = progress.step - base;
            let unsaved = progress.step.saturating_sub(saved.max(base)).min(done);
            let share = unsaved as f64 / done as f64;
            (age_ms as f64 * share) as u64
        }
        _ => age_ms,
    };
    let restart_ms = view.insights.get(&victim.id).map_or(0, |i| i.restart_ms);
    let ms = lost_ms.saturating_add(restart_ms);
    ms.saturating_mul(duration::held_milligpu(victim)) / u64::from(MILLI)
}

/// GPU time that a job has before it, as far as is known; else what it would have had while it waited.
fn worth(job: &Job, view: &View) -> u64 {
    let worked_ms = duration::worked_ms(job, view.now_ms);
    let ms = match duration::total_ms(job, view) {
        Some(total_ms) => total_ms.saturating_sub(worked_ms),
        None => {
            let since_ms = job
                .past
                .last()
                .map_or(job.submitted_ms, |past| past.ended_ms);
            view.now_ms.saturating_sub(since_ms)
        }
    };
    ms.saturating_mul(duration::asked_milligpu(job)) / u64::from(MILLI)
}
