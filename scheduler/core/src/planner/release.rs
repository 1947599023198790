//! When running attempts will give back what they hold.

use berth_types::{Attempt, AttemptPhase, GroupSpec, JobId, JobSpec, TaskPhase, TaskPlacement};

use super::capacity::Capacity;
use super::room::Amounts;
use crate::command::Bundle;
use crate::state::{Job, State};

/// An attempt without a known duration that has run for longer than this may be one that never ends, such as a
/// service; it is expected to end after all others.
const OUTLIVED_MS: u64 = 86_400_000;

/// What the end of an attempt is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// What its submitter expects, else its limit.
    Expected,
    /// Only its limit, which is enforced: nobody outlasts it, and nobody gains by claiming to be short.
    Enforced,
}

/// When something is expected to end. Ordered by what is waited for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum When {
    /// At this time.
    At(u64),
    /// Unknown; it started at this time. The oldest are waited for first: then the newest start that a promise
    /// depends on only ever moves back, and the promise is kept once everything as old has ended.
    Unknown(u64),
    /// Unknown, and it has run so long already that it may never end.
    Outlived(u64),
}

/// Something that will give back what it holds.
#[derive(Clone, Debug)]
pub(super) struct Release<'a> {
    pub(super) when: When,
    pub(super) job: JobId,
    spec: &'a JobSpec,
    held: Held<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Held<'a> {
    /// By the tasks of an attempt that have not ended.
    Attempt(&'a Attempt),
    /// By a reservation, or by a start of this round.
    Places(&'a [TaskPlacement]),
}

impl<'a> Release<'a> {
    /// Where it holds something.
    pub(super) fn placements(&self) -> impl Iterator<Item = &'a TaskPlacement> + use<'a> {
        let (tasks, places) = match self.held {
            Held::Attempt(attempt) => (attempt.tasks.as_slice(), [].as_slice()),
            Held::Places(places) => ([].as_slice(), places),
        };
        let live = (tasks.iter()).filter(|task| !matches!(task.phase, TaskPhase::Ended { .. }));
        live.map(|task| &task.placement).chain(places)
    }

    /// Groups that its placements refer to.
    pub(super) fn groups(&self) -> &'a [GroupSpec] {
        &self.spec.groups
    }

    /// Gives back what it holds.
    pub(super) fn give(&self, capacity: &Capacity<'_>, amounts: &mut Amounts) {
        for placement in self.placements() {
            if let Some(claim) = capacity.claim(&self.spec.groups, placement) {
                amounts.give(&capacity.seats, claim);
            }
        }
    }
}

/// What attempts and reservations will release, in no order.
pub(super) fn releases(state: &State, now_ms: u64, trust: Trust) -> Vec<Release<'_>> {
    let active = state.active.iter().filter_map(|id| {
        let job = state.jobs.get(id)?;
        let attempt = job.attempt.as_deref()?;
        let (when, held) = (
            expected_end(job, attempt, now_ms, trust),
            Held::Attempt(attempt),
        );
        Some(Release {
            when,
            job: *id,
            spec: &job.spec,
            held,
        })
    });
    let reserved = state.reservations.iter().filter_map(|(id, reservation)| {
        let spec = &state.jobs.get(id)?.spec;
        let when = yet_to_start(spec, now_ms, reservation.since_ms, trust);
        Some(Release {
            when,
            job: *id,
            spec,
            held: Held::Places(&reservation.placements),
        })
    });
    active.chain(reserved).collect()
}

/// What the starts of this round will release. A start of an evicted job is its reservation's, until then.
pub(super) fn planned<'r>(
    state: &'r State,
    bundles: &'r [Bundle],
    now_ms: u64,
    trust: Trust,
) -> impl Iterator<Item = Release<'r>> {
    bundles
        .iter()
        .flat_map(|bundle| &bundle.starts)
        .filter_map(move |start| {
            let spec = &state.jobs.get(&start.job)?.spec;
            // A ready reservation is among the releases already.
            if state.reservations.contains_key(&start.job) {
                return None;
            }
            let when = yet_to_start(spec, now_ms, now_ms, trust);
            Some(Release {
                when,
                job: start.job,
                spec,
                held: Held::Places(&start.placements),
            })
        })
}

fn yet_to_start(spec: &JobSpec, now_ms: u64, since_ms: u64, trust: Trust) -> When {
    match duration(spec, trust) {
        Some(duration) => When::At(now_ms.saturating_add(duration)),
        None => When::Unknown(since_ms),
    }
}

/// How long an attempt of this job will run, if that can be told.
pub(super) fn duration(spec: &JobSpec, trust: Trust) -> Option<u64> {
    let limit = enforced_duration(spec);
    match (spec.expected_ms, trust) {
        (0, _) | (_, Trust::Enforced) => limit,
        (expected, Trust::Expected) => Some(limit.map_or(expected, |limit| limit.min(expected))),
    }
}

/// How long an attempt of this job can run at most: its limit is enforced, then it has its grace to stop.
fn enforced_duration(spec: &JobSpec) -> Option<u64> {
    (spec.time_limit_ms > 0).then(|| spec.time_limit_ms.saturating_add(spec.grace_ms))
}

/// When an attempt is expected to end.
fn expected_end(job: &Job, attempt: &Attempt, now_ms: u64, trust: Trust) -> When {
    let spec = &job.spec;
    let started = attempt.started_ms;
    if matches!(attempt.phase, AttemptPhase::Stopping(_)) {
        return When::At(now_ms.saturating_add(spec.grace_ms));
    }
    let limit = enforced_duration(spec).map(|limit| started.saturating_add(limit));
    if spec.expected_ms > 0 && trust == Trust::Expected {
        let end = overrun(started, spec.expected_ms, now_ms);
        return When::At(limit.map_or(end, |limit| limit.min(end)));
    }
    match limit {
        Some(limit) => When::At(limit.max(now_ms)),
        None if now_ms.saturating_sub(started) > OUTLIVED_MS => When::Outlived(started),
        None => When::Unknown(started),
    }
}

/// The end of an attempt by its expected duration, doubled until it lies ahead: what took longer than it should is
/// expected to take as long again.
fn overrun(started: u64, expected_ms: u64, now_ms: u64) -> u64 {
    let age = now_ms.saturating_sub(started);
    let mut duration = expected_ms.max(1);
    while duration <= age && duration < u64::MAX / 2 {
        duration *= 2;
    }
    started.saturating_add(duration)
}
