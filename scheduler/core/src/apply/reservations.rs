//! GPUs kept for jobs whose evictions are under way.
//!
//! A reservation counts in full on its nodes from the moment it is made, so while the evicted tasks still run a GPU can
//! be used and reserved at once. Nothing else is placed there (free is what is neither used nor reserved), and once the
//! evicted attempts are gone the reservation is covered exactly: an attempt that is being stopped never grows.

use std::sync::Arc;

use berth_types::{Epoch, JobId, NodeId};

use super::transition::{Transition, short};
use crate::command::{Eviction, Start};
use crate::state::{Claim, Reservation};

/// Most reservations at a time; every attempt's end looks at all of them.
pub const MAX_RESERVATIONS: usize = 1_024;

impl Transition<'_> {
    pub(super) fn reserve(&mut self, start: &Start, evictions: &[Eviction]) {
        let reservation = Arc::new(Reservation {
            job: start.job,
            placements: start.placements.clone(),
            waits_for: evictions.iter().map(|e| (e.job, e.epoch)).collect(),
            since_ms: self.now(),
            because: short(&start.because),
        });
        let state = &mut *self.state;
        let Some(job) = state.jobs.get(&start.job) else {
            return;
        };
        for placement in &reservation.placements {
            let claim = Claim::of(job, placement);
            if let Some(node) = state.nodes.get_mut(&claim.node) {
                Arc::make_mut(node).reserve(claim);
            }
        }
        state.reservations.insert(start.job, reservation);
        let text = format!(
            "has its place kept until {} evicted attempts are gone",
            evictions.len()
        );
        self.job_event("job.reserved", start.job, &text);
    }

    /// Lets go what is kept for a job, if anything is.
    pub(super) fn drop_reservation(&mut self, job: JobId) {
        let state = &mut *self.state;
        let Some(reservation) = state.reservations.remove(&job) else {
            return;
        };
        let Some(job) = state.jobs.get(&job) else {
            return;
        };
        for placement in &reservation.placements {
            let claim = Claim::of(job, placement);
            if let Some(node) = state.nodes.get_mut(&claim.node) {
                Arc::make_mut(node).unreserve(claim);
            }
        }
    }

    /// A node can no longer be counted on: the jobs that were to start there are planned anew.
    pub(super) fn drop_reservations_on(&mut self, node: NodeId) {
        self.drop_reservations_for(|r| r.placements.iter().any(|p| p.node == node));
    }

    pub(super) fn drop_reservations_for(&mut self, concerned: impl Fn(&Reservation) -> bool) {
        let jobs: Vec<JobId> = self
            .state
            .reservations
            .values()
            .filter(|r| concerned(r))
            .map(|r| r.job)
            .collect();
        for job in jobs {
            self.drop_reservation(job);
        }
    }

    /// An attempt is gone: reservations no longer wait for it.
    pub(super) fn vacated(&mut self, job: JobId, epoch: Epoch) {
        let waits = |r: &Reservation| r.waits_for.contains(&(job, epoch));
        let jobs: Vec<JobId> = self
            .state
            .reservations
            .values()
            .filter(|r| waits(r))
            .map(|r| r.job)
            .collect();
        for reserved in jobs {
            if let Some(reservation) = self.state.reservations.get_mut(&reserved) {
                Arc::make_mut(reservation).waits_for.remove(&(job, epoch));
            }
        }
    }
}
