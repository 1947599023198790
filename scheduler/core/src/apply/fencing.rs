//! Jobs that must not be started elsewhere while a lost node may still run part of them.
//!
//! When a node is lost, a `fence` or `wait` job keeps its attempt: its tasks there stay on record and the rest of the
//! gang goes on as well as it can. If the node comes back in time, the attempt simply goes on, and nothing was lost to a
//! short outage. If the node is fenced instead (`fence`: by the leader's timer, after the agent's lease; `wait`: by an
//! operator alone), the tasks are given up, the rest is stopped, and the job is queued again.
//!
//! A task that fails meanwhile is the lost node's doing (peers see their connection break, and the node itself stops
//! `fence` tasks at the end of its lease), so it is not charged to the job.

use berth_types::{AttemptEnd, AttemptPhase, JobId, LostNodeRule, NodeId, Rank};

use super::attempts::{is_to_run_again, live_tasks_on};
use super::{Rejection, transition::Transition};
use crate::state::{Fencing, Job};

impl Transition<'_> {
    /// A node is lost: what it ran of this job is given up, or kept until it is fenced or back.
    pub(super) fn on_lost_node(&mut self, id: JobId, node: NodeId) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let operator_only = match job.spec.restart.on_lost_node {
            LostNodeRule::Restart => return self.lose_tasks(id, node),
            LostNodeRule::Fence => false,
            LostNodeRule::Wait => true,
        };
        if !is_to_run_again(job) {
            return self.lose_tasks(id, node);
        }
        let epoch = job.epoch;
        self.drop_reservations_for(|r| r.waits_for.contains(&(id, epoch)));
        let Some(job) = self.state.job_mut(id) else {
            return;
        };
        let fencing = job.fencing.get_or_insert_with(|| Fencing {
            nodes: Default::default(),
            operator_only,
        });
        fencing.nodes.insert(node);
        let name = self.node_name(node);
        let until = match operator_only {
            true => "is back or an operator fences it",
            false => "is back or its lease has run out",
        };
        let text = format!("waits until node {name} {until}: attempt {epoch} may still run there");
        self.job_event("job.fencing", id, &text);
    }

    /// Gives up a job's tasks on a node: they cannot run any more, or the job's rule does not care.
    pub(super) fn lose_tasks(&mut self, id: JobId, node: NodeId) {
        let now = self.now();
        for rank in self.live_ranks_on(id, node) {
            self.end_task(id, rank, -1, now);
            self.attempt_failed(id, rank, AttemptEnd::NodeLost { node });
        }
        self.review(id);
    }

    /// The job will not run again, so nobody has to wait for what may be left of it.
    pub(super) fn give_up_lost_tasks(&mut self, id: JobId) {
        let now = self.now();
        for node in lost_nodes(self.state.jobs.get(&id).map(AsRef::as_ref)) {
            for rank in self.live_ranks_on(id, node) {
                self.end_task(id, rank, -1, now);
            }
        }
    }

    fn live_ranks_on(&self, id: JobId, node: NodeId) -> Vec<Rank> {
        let Some(job) = self.state.jobs.get(&id) else {
            return Vec::new();
        };
        live_tasks_on(job, node).map(|t| t.placement.rank).collect()
    }

    pub(super) fn fence_node(&mut self, id: NodeId, by_operator: bool) -> Result<(), Rejection> {
        let node = self.state.node_mut(id).ok_or(Rejection::NoSuchNode(id))?;
        if !node.lost {
            return Err(Rejection::NodeNotLost(id));
        }
        let news = !node.fenced;
        node.fenced = true;
        let waiting: Vec<JobId> = node.jobs.keys().copied().collect();
        if news || by_operator {
            let text = match by_operator {
                true => "was fenced by an operator: nothing runs there",
                false => "is fenced: its leases have run out",
            };
            self.node_event("node.fenced", id, text);
        }
        for job in waiting {
            let fencing = self.state.jobs.get(&job).and_then(|j| j.fencing.as_ref());
            if by_operator || fencing.is_some_and(|f| !f.operator_only) {
                self.lose_tasks(job, id);
            }
        }
        Ok(())
    }

    /// The node is back with what it ran: the attempt goes on.
    pub(super) fn on_node_back(&mut self, id: JobId, node: NodeId) {
        if !self.no_longer_lost(id, node) {
            return;
        }
        let attempt = self.state.jobs.get(&id).and_then(|j| j.attempt.as_ref());
        if attempt.is_none_or(|a| matches!(a.phase, AttemptPhase::Stopping(_))) {
            return;
        }
        let name = self.node_name(node);
        let text = format!("goes on: node {name} is back");
        self.job_event("job.released", id, &text);
    }

    /// Takes a node off those that the job waits for. True if it was the last.
    pub(super) fn no_longer_lost(&mut self, id: JobId, node: NodeId) -> bool {
        let known = self.state.jobs.get(&id).and_then(|j| j.fencing.as_ref());
        if !known.is_some_and(|f| f.nodes.contains(&node)) {
            return false;
        }
        let Some(job) = self.state.job_mut(id) else {
            return false;
        };
        if let Some(fencing) = &mut job.fencing {
            fencing.nodes.remove(&node);
            if fencing.nodes.is_empty() {
                job.fencing = None;
            }
        }
        job.fencing.is_none()
    }
}

/// The lost nodes that a job waits for.
pub(super) fn lost_nodes(job: Option<&Job>) -> Vec<NodeId> {
    let fencing = job.and_then(|j| j.fencing.as_ref());
    fencing.map_or(Vec::new(), |f| f.nodes.iter().copied().collect())
}
