//! Plans: each bundle is checked again with integers only, and carried out or refused whole.
//!
//! A leader plans on a copy of the state that may be behind by the time the plan is committed, and a plan may come from
//! a leader that was deposed meanwhile. So nothing of it is trusted.

mod fault;
mod room;

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_types::{AttemptPhase, TaskPlacement};

use super::{MAX_RESERVATIONS, Rejection, transition::Transition};
use crate::command::{Bundle, Eviction, Start};
use crate::state::{Claim, Job, State};
pub use fault::PlanFault;
use room::Room;

impl Transition<'_> {
    /// With evictions, the starts become reservations and the planner starts the jobs once their places are vacated.
    pub(super) fn apply_bundle(&mut self, bundle: &Bundle) -> Result<(), Rejection> {
        check_bundle(self.state, bundle)?;
        for eviction in &bundle.evictions {
            self.evict(eviction);
        }
        for start in &bundle.starts {
            if bundle.evictions.is_empty() {
                self.drop_reservation(start.job);
                self.start(start);
            } else {
                self.reserve(start, &bundle.evictions);
            }
        }
        Ok(())
    }
}

fn check_bundle(state: &State, bundle: &Bundle) -> Result<(), PlanFault> {
    let mut room = Room::new(state);
    let mut evicted = BTreeSet::new();
    for eviction in &bundle.evictions {
        let job = check_eviction(state, eviction)?;
        if !evicted.insert(job.id) {
            return Err(PlanFault::EvictedTwice(job.id));
        }
        let tasks = job.attempt.iter().flat_map(|a| a.tasks.iter());
        for task in tasks.filter(|t| !room::is_ended(t.phase)) {
            room.free(Claim::of(job, &task.placement));
        }
    }
    let reserves = !bundle.evictions.is_empty();
    if reserves && state.reservations.len() + bundle.starts.len() > MAX_RESERVATIONS {
        return Err(PlanFault::TooManyReservations(MAX_RESERVATIONS));
    }
    let mut started = BTreeSet::new();
    for start in &bundle.starts {
        if !started.insert(start.job) {
            return Err(PlanFault::StartedTwice(start.job));
        }
        let job = check_turn(state, start, evicted.contains(&start.job))?;
        check_shape(job, &start.placements)?;
        let kept = is_kept(state, job, start, reserves)?;
        for placement in &start.placements {
            room.check_node(job, placement)?;
            room.take(job, placement, kept)?;
        }
        if !reserves {
            room.take_port(start)?;
        }
    }
    Ok(())
}

fn check_eviction<'a>(state: &'a State, eviction: &Eviction) -> Result<&'a Arc<Job>, PlanFault> {
    let job = eviction.job;
    let known = state.jobs.get(&job).ok_or(PlanFault::NoSuchJob(job))?;
    let attempt = known.attempt.as_ref().filter(|a| a.epoch == eviction.epoch);
    let epoch = eviction.epoch;
    let attempt = attempt.ok_or(PlanFault::NotCurrent { job, epoch })?;
    if matches!(attempt.phase, AttemptPhase::Stopping(_)) {
        return Err(PlanFault::AlreadyStopping(job));
    }
    if known.fencing.is_some() {
        return Err(PlanFault::WaitsForNode(job));
    }
    Ok(known)
}

/// The job may start now, as this attempt.
fn check_turn<'a>(
    state: &'a State,
    start: &Start,
    evicted: bool,
) -> Result<&'a Arc<Job>, PlanFault> {
    let job = start.job;
    let known = state.jobs.get(&job).ok_or(PlanFault::NoSuchJob(job))?;
    if !known.is_pending() && !evicted {
        return Err(PlanFault::NotPending(job));
    }
    if state.next_epoch(known) != Some(start.epoch) {
        let (newest, epoch) = (known.epoch, start.epoch);
        return Err(PlanFault::WrongEpoch { job, epoch, newest });
    }
    if known.not_before_ms > state.time_ms {
        let until_ms = known.not_before_ms;
        return Err(PlanFault::BackOff { job, until_ms });
    }
    Ok(known)
}

/// Ranks without gaps, groups in order, each as large as it may be.
fn check_shape(job: &Job, placements: &[TaskPlacement]) -> Result<(), PlanFault> {
    let mut workers = vec![0u32; job.spec.groups.len()];
    let mut group = 0;
    for (rank, placement) in placements.iter().enumerate() {
        if u64::from(placement.rank.0) != rank as u64 || placement.group < group {
            return Err(PlanFault::WrongRanks(job.id));
        }
        group = placement.group;
        match workers.get_mut(usize::from(group)) {
            Some(count) => *count = count.saturating_add(1),
            None => return Err(PlanFault::WrongRanks(job.id)),
        }
    }
    for (group, count) in job.spec.groups.iter().zip(workers) {
        if count < group.min_workers || count > group.max_workers {
            return Err(PlanFault::GroupSize {
                job: job.id,
                group: group.name.clone(),
                workers: count,
            });
        }
    }
    Ok(())
}

/// True if this place is kept for the job. It starts exactly there, once it is vacated.
fn is_kept(state: &State, job: &Job, start: &Start, reserves: bool) -> Result<bool, PlanFault> {
    let Some(reservation) = state.reservations.get(&job.id) else {
        return Ok(false);
    };
    if reserves {
        return Err(PlanFault::AlreadyReserved(job.id));
    }
    if reservation.placements != start.placements {
        return Err(PlanFault::ReservedElsewhere(job.id));
    }
    if let Some((evicted, _)) = reservation.waits_for.first() {
        return Err(PlanFault::NotVacated {
            job: job.id,
            by: *evicted,
        });
    }
    Ok(true)
}
