//! The derived parts of the state, built from scratch: after a snapshot was read, and to check what
//! [`usage`](super::usage) kept.

use std::sync::Arc;

use berth_types::{JobId, TaskPhase};

use super::usage::Claim;
use super::{GpuUse, Job, Reservation, State};

impl State {
    /// Builds every derived part anew from jobs, nodes and reservations.
    pub fn rebuild_derived(&mut self) {
        self.clear_derived();
        let jobs: Vec<Arc<Job>> = self.jobs.values().cloned().collect();
        for job in &jobs {
            self.derive_job(job);
        }
        let reservations: Vec<Arc<Reservation>> = self.reservations.values().cloned().collect();
        for reservation in &reservations {
            self.derive_reservation(reservation.job, reservation);
        }
        let unwell: Vec<_> = self.health.keys().copied().collect();
        for node in unwell {
            self.refresh_health(node);
        }
    }

    fn clear_derived(&mut self) {
        self.pending.clear();
        self.lines.clear();
        self.active.clear();
        self.node_ids.clear();
        self.shapes.clear();
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(node) = self.node_mut(id) else {
                continue;
            };
            node.gpus.clear();
            node.gpus.resize(node.spec.gpus.len(), GpuUse::default());
            node.used_millicpu = 0;
            node.used_mem_bytes = 0;
            node.reserved_millicpu = 0;
            node.reserved_mem_bytes = 0;
            node.jobs.clear();
            node.ports.clear();
            node.resting = false;
            let spec = Arc::clone(&node.spec);
            self.node_ids.insert(spec.name.clone(), id);
            self.add_shape(&spec);
        }
    }

    fn derive_job(&mut self, job: &Job) {
        if job.is_pending() {
            self.join_pending(job.id);
        }
        let Some(attempt) = &job.attempt else {
            return;
        };
        self.active.insert(job.id);
        for task in &attempt.tasks {
            if matches!(task.phase, TaskPhase::Ended { .. }) {
                continue;
            }
            let claim = Claim::of(job, &task.placement);
            if let Some(node) = self.node_mut(claim.node) {
                node.take_task(job.id, claim);
            }
        }
        let first = attempt.tasks.first().map(|t| t.placement.node);
        if let Some(node) = first.and_then(|id| self.node_mut(id))
            && attempt.master_port != 0
        {
            node.ports.insert(attempt.master_port, job.id);
        }
    }

    fn derive_reservation(&mut self, job: JobId, reservation: &Reservation) {
        let Some(job) = self.jobs.get(&job).cloned() else {
            return;
        };
        for placement in &reservation.placements {
            let claim = Claim::of(&job, placement);
            if let Some(node) = self.node_mut(claim.node) {
                node.reserve(claim);
            }
        }
    }
}
