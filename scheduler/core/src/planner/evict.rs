//! Evictions: only inside a bundle whose starts are proven to fit once the evicted are gone.

use berth_types::{AttemptPhase, JobId, TaskPhase, TaskPlacement};

use super::capacity::Leeway;
use super::place::Placed;
use super::reason::{self, WaitCode, WaitReason};
use super::round::{Refused, Round, Wish};
use crate::apply::MAX_RESERVATIONS;
use crate::command::{Bundle, Eviction, Start};
use crate::policy::Action;
use crate::state::{Job, State};

impl<'a> Round<'a> {
    /// Reservations come first: what they waited for is gone, so their jobs start exactly there.
    pub(super) fn start_reserved(&mut self) {
        let state = &self.view.state;
        for (id, reservation) in &state.reservations {
            let Some(job) = state.jobs.get(id).filter(|job| job.is_pending()) else {
                continue;
            };
            if !reservation.waits_for.is_empty() {
                let ids: Vec<JobId> = reservation.waits_for.iter().map(|(job, _)| *job).collect();
                let text = format!("its place is being vacated by {}", reason::jobs(&ids));
                self.wait(*id, WaitReason::new(WaitCode::Resources, text));
                continue;
            }
            let places = &reservation.placements;
            let nodes_serve = places
                .iter()
                .all(|task| self.capacity.seat_of(task.node).is_some());
            let next = self.view.state.next_epoch(job).filter(|_| nodes_serve);
            let leased = next.and_then(|epoch| {
                let port = self.capacity.lease_for(places, *id, epoch)?;
                Some((epoch, port))
            });
            let Some((epoch, master_port)) = leased else {
                let text = "a node of its reserved place is out of service or has no free port";
                self.wait(*id, WaitReason::new(WaitCode::ReqNodeNotAvail, text));
                continue;
            };
            let start = Start {
                job: *id,
                epoch,
                placements: reservation.placements.clone(),
                master_port,
                because: reservation.because.clone(),
            };
            self.push(Bundle {
                evictions: Vec::new(),
                starts: vec![start],
            });
        }
    }

    /// Moves jobs off nodes that drain with eviction, each as soon as it can restart elsewhere and not before.
    pub(super) fn evict_drained(&mut self) {
        let state = &self.view.state;
        for node in state.nodes.values() {
            let Some(drain) = node
                .drain
                .as_ref()
                .filter(|drain| drain.evict && !node.lost)
            else {
                continue;
            };
            for id in node.jobs.keys() {
                if self.is_spent() {
                    return;
                }
                let Some(job) = self.evictable(*id) else {
                    continue;
                };
                let why = match drain.reason.as_str() {
                    "" => format!("{} drains", node.spec.name),
                    reason => format!("{} drains ({reason})", node.spec.name),
                };
                let wish = Wish {
                    job: *id,
                    workers: None,
                    slots: None,
                    why: &why,
                };
                // What does not fit elsewhere now stays where it is until it does.
                let _ = self.try_bundle(&[job], &[(job, wish)], &why);
            }
        }
    }

    /// A job whose attempt can be asked to stop: placed, not stopping, not torn apart by a lost node.
    fn evictable(&self, job: JobId) -> Option<&'a Job> {
        let state = &self.view.state;
        let record = state.jobs.get(&job)?;
        let free = is_evictable(state, record) && !self.decided.contains(&job);
        free.then_some(&**record)
    }

    /// Carries out a bundle of several actions, or of one that is not a plain start.
    pub(super) fn carry_out(&mut self, actions: &[Action], why: &str) {
        self.promise_deferred();
        let (mut evicted, mut wishes) = (Vec::new(), Vec::new());
        let mut refused = false;
        for action in actions {
            match action {
                Action::Keep(_) | Action::Wait(_) => {}
                Action::Stop(job) => match self.evictable(*job) {
                    Some(record) => evicted.push(record),
                    None => refused = true,
                },
                Action::Resize {
                    job,
                    workers,
                    slots,
                } => match self.evictable(*job) {
                    Some(record) => {
                        evicted.push(record);
                        wishes.push((
                            record,
                            Wish {
                                job: *job,
                                workers: Some(workers),
                                slots: slots.as_deref(),
                                why,
                            },
                        ));
                    }
                    None => refused = true,
                },
                Action::Start {
                    job,
                    workers,
                    slots,
                } => match self.startable(*job) {
                    Some(record) => {
                        let (workers, slots) = (workers.as_deref(), slots.as_deref());
                        wishes.push((
                            record,
                            Wish {
                                job: *job,
                                workers,
                                slots,
                                why,
                            },
                        ));
                    }
                    None => refused = true,
                },
            }
        }
        // An eviction that serves no start is not proven to be of use.
        refused |= wishes.is_empty() && !evicted.is_empty();
        if !refused && !wishes.is_empty() {
            refused = self.try_bundle(&evicted, &wishes, why).is_err();
        }
        self.plan.stats.refused += usize::from(refused);
    }

    /// Adds a bundle if its starts fit once the evicted are gone; else changes nothing.
    fn try_bundle(
        &mut self,
        evicted: &[&'a Job],
        wishes: &[(&'a Job, Wish<'_>)],
        why: &str,
    ) -> Result<(), Refused> {
        if has_duplicates(evicted.iter().map(|job| job.id))
            || has_duplicates(wishes.iter().map(|(job, _)| job.id))
        {
            return Err(Refused);
        }
        if !evicted.is_empty() && self.reserved + wishes.len() > MAX_RESERVATIONS {
            return Err(Refused);
        }
        let held: Vec<(&Job, Vec<TaskPlacement>)> =
            evicted.iter().map(|job| (*job, held(job))).collect();
        for (job, tasks) in &held {
            self.capacity.give(&job.spec.groups, tasks);
        }
        let found = self.place_all(wishes);
        let starts = found.as_ref().ok().and_then(|found| {
            let starts = (wishes.iter().zip(found))
                .map(|((job, wish), (placed, _))| self.start(job, placed, wish.why));
            starts.collect::<Option<Vec<Start>>>()
        });
        // Until the evicted are gone, both they and the starts hold their places.
        for (job, tasks) in &held {
            self.capacity.take(&job.spec.groups, tasks, Leeway::ALL);
        }
        let (found, Some(starts)) = (found?, starts) else {
            return Err(Refused);
        };
        if !evicted.is_empty() {
            // A reservation keeps no port: one is leased when it is redeemed.
            for start in &starts {
                if let Some(first) = start.placements.first() {
                    self.capacity.end_lease(first.node, start.master_port);
                }
            }
        }
        for ((job, _), (placed, leeway)) in wishes.iter().zip(&found) {
            self.capacity.take(&job.spec.groups, &placed.tasks, *leeway);
        }
        let evictions: Vec<Eviction> = (evicted.iter())
            .map(|job| Eviction {
                job: job.id,
                epoch: job.epoch,
                reason: eviction_reason(job.id, wishes, why),
            })
            .collect();
        self.reserved += if evictions.is_empty() {
            0
        } else {
            starts.len()
        };
        self.push(Bundle { evictions, starts });
        Ok(())
    }

    /// Places for all wishes beside each other. Leaves the capacity as it was.
    fn place_all(
        &mut self,
        wishes: &[(&'a Job, Wish<'_>)],
    ) -> Result<Vec<(Placed, Leeway)>, Refused> {
        let mut found: Vec<(Placed, Leeway)> = Vec::with_capacity(wishes.len());
        let mut refused = false;
        for (job, wish) in wishes {
            let shape = self.shape_of(job);
            let leeway = self.leeway(job);
            match self.find(job, shape, wish, leeway) {
                Ok(Some(placed)) => {
                    self.capacity
                        .take(&job.spec.groups, &placed.tasks, Leeway::ALL);
                    found.push((placed, leeway));
                }
                Ok(None) | Err(Refused) => {
                    refused = true;
                    break;
                }
            }
        }
        for ((job, _), (placed, _)) in wishes.iter().zip(&found) {
            self.capacity.give(&job.spec.groups, &placed.tasks);
        }
        if refused { Err(Refused) } else { Ok(found) }
    }
}

/// Why a job is evicted, in the policy's words if it has any.
fn eviction_reason(job: JobId, wishes: &[(&Job, Wish<'_>)], why: &str) -> String {
    if !why.is_empty() {
        return why.to_owned();
    }
    let mut others = wishes
        .iter()
        .map(|(other, _)| other.id)
        .filter(|other| *other != job);
    match others.next() {
        Some(other) => format!("makes room for job {other}"),
        None => "restarts with another number of workers".to_owned(),
    }
}

fn has_duplicates(ids: impl Iterator<Item = JobId>) -> bool {
    let mut ids: Vec<JobId> = ids.collect();
    ids.sort_unstable();
    ids.windows(2).any(|pair| pair[0] == pair[1])
}

/// True if a job's attempt can be asked to stop: placed, not stopping, not torn apart by a lost node, not spoken for.
pub fn is_evictable(state: &State, job: &Job) -> bool {
    let attempt = job.attempt.as_ref();
    attempt.is_some_and(|attempt| !matches!(attempt.phase, AttemptPhase::Stopping(_)))
        && job.fencing.is_none()
        && !state.reservations.contains_key(&job.id)
}

/// What a job holds: the places of its tasks that have not ended.
pub fn held(job: &Job) -> Vec<TaskPlacement> {
    let tasks = job.attempt.iter().flat_map(|attempt| &attempt.tasks);
    let live = tasks.filter(|task| !matches!(task.phase, TaskPhase::Ended { .. }));
    live.map(|task| task.placement.clone()).collect()
}
