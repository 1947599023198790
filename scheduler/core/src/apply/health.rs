//! Health: evidence is taken, GPUs and nodes go out of service and come back, and what ran there moves.
//!
//! What a fault means for the tasks there:
//!
//! | what is out of service | its tasks |
//! | --- | --- |
//! | a GPU with a fatal error, or that is gone | their attempts stop at once and restart elsewhere, not charged |
//! | a GPU that is suspected of failing, hangs, or was taken out by hand | move away at their next checkpoint, not charged |
//! | a node that was taken out by hand, or that needs a hand | the same |
//! | a node that cools down because tasks fail there | may finish |

use std::sync::Arc;

use berth_types::{
    AttemptEnd, AttemptPhase, Evidence, Finding, HealthOrder, HealthStage, JobId, NodeId, Rank,
    TaskExit, TaskPhase, TaskPlacement,
};

use super::Rejection;
use super::attempts::is_to_run_again;
use super::settle::may_run_again;
use super::transition::{Transition, short};
use crate::health::failures::{self, Failure};
use crate::health::{Consequence, Health, NodeHealth, cooling};
use crate::state::Job;

/// Points of one loss of contact: the seventh within hours takes the node out of service. Fewer can be a network's.
const LOSS_POINTS: u32 = 150;

impl Transition<'_> {
    pub(super) fn record_health(
        &mut self,
        node: NodeId,
        findings: &[Finding],
    ) -> Result<(), Rejection> {
        if !self.state.nodes.contains_key(&node) {
            return Err(Rejection::NoSuchNode(node));
        }
        for finding in findings {
            if self.has_gpu(node, finding.gpu) {
                self.take_evidence(node, finding.gpu, &finding.evidence);
            }
        }
        Ok(())
    }

    /// True of the node as a whole, too.
    fn has_gpu(&self, node: NodeId, gpu: Option<u16>) -> bool {
        let known = self.state.nodes.get(&node);
        known.is_some_and(|n| gpu.is_none_or(|gpu| usize::from(gpu) < n.spec.gpus.len()))
    }

    fn take_evidence(&mut self, node: NodeId, gpu: Option<u16>, evidence: &Evidence) {
        let now = self.now();
        let was_usable = self.health_of(node, gpu).stage.is_usable();
        let consequence = self.health_of(node, gpu).take(evidence, cooling(gpu), now);
        match consequence {
            Consequence::None => {}
            Consequence::Changed(why) => self.health_changed(node, gpu, &why),
            Consequence::Fatal(why) => {
                if was_usable {
                    self.health_changed(node, gpu, &why);
                }
                if let Some(gpu) = gpu {
                    self.gpu_failed(node, gpu, &why);
                }
            }
            Consequence::Machine(why) => {
                let machine = self.health_of(node, None);
                machine.note(&why, now);
                machine.quarantine_by_hand(&why, now);
                self.health_changed(node, None, &why);
            }
        }
    }

    fn health_of(&mut self, node: NodeId, gpu: Option<u16>) -> &mut Health {
        let health = self.state.health.entry(node).or_default();
        Arc::make_mut(health).of_mut(gpu)
    }

    /// Tells it, and keeps what is derived from it in step.
    fn health_changed(&mut self, node: NodeId, gpu: Option<u16>, why: &str) {
        let stage = self.health_of(node, gpu).stage;
        if !stage.is_usable() {
            self.drop_reservations_on(node);
        }
        self.state.refresh_health(node);
        self.touched.insert(node);
        let what = match gpu {
            Some(gpu) => format!("GPU {gpu} "),
            None => String::new(),
        };
        let kind = match (gpu, stage) {
            (Some(_), HealthStage::Healthy) => "gpu.healthy",
            (Some(_), HealthStage::Suspect) => "gpu.suspect",
            (Some(_), HealthStage::Leaving) => "gpu.leaving",
            (Some(_), HealthStage::Quarantined) => "gpu.quarantined",
            (Some(_), HealthStage::Testing) => "gpu.testing",
            (None, HealthStage::Healthy) => "node.healthy",
            (None, HealthStage::Suspect) => "node.suspect",
            (None, HealthStage::Leaving) => "node.leaving",
            (None, HealthStage::Quarantined) => "node.quarantined",
            (None, HealthStage::Testing) => "node.testing",
        };
        let text = format!("{what}is {}: {}", stage.as_str(), short(why));
        self.node_event(kind, node, &text);
    }

    /// What runs on a GPU has lost it.
    fn gpu_failed(&mut self, node: NodeId, gpu: u16, why: &str) {
        let Some(jobs) = self.state.nodes.get(&node).map(|n| n.jobs.clone()) else {
            return;
        };
        for id in jobs.into_keys() {
            let Some(job) = self.state.jobs.get(&id) else {
                continue;
            };
            if !holds(job, |p| p.node == node && uses(p, gpu)) {
                continue;
            }
            let end = AttemptEnd::GpuFault {
                node,
                gpu,
                reason: short(why),
            };
            self.lose_gpu(id, end);
        }
    }

    /// The attempt stops. One that stops already because a task failed has failed through the GPU, if it may run again.
    fn lose_gpu(&mut self, id: JobId, end: AttemptEnd) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let again = is_to_run_again(job);
        match job.attempt.as_ref().map(|a| &a.phase) {
            Some(AttemptPhase::Starting | AttemptPhase::Running) => {
                let AttemptEnd::GpuFault { node, gpu, reason } = &end else {
                    return;
                };
                let name = self.node_name(*node);
                let text =
                    format!("lost GPU {gpu} of node {name} ({reason}): it restarts elsewhere");
                self.job_event("job.gpu_fault", id, &text);
                self.stop(id, end);
                self.review(id);
            }
            Some(AttemptPhase::Stopping(AttemptEnd::Failed { .. })) if again => {
                if let Some(attempt) = self.state.job_mut(id).and_then(|j| j.attempt.as_mut()) {
                    attempt.phase = AttemptPhase::Stopping(end);
                }
            }
            Some(AttemptPhase::Stopping(_)) | None => {}
        }
    }

    pub(super) fn order_health(
        &mut self,
        node: NodeId,
        gpu: Option<u16>,
        order: &HealthOrder,
    ) -> Result<(), Rejection> {
        if !self.state.nodes.contains_key(&node) {
            return Err(Rejection::NoSuchNode(node));
        }
        if !self.has_gpu(node, gpu) {
            let gpu = gpu.unwrap_or_default();
            return Err(Rejection::NoSuchGpu { node, gpu });
        }
        let now = self.now();
        match order {
            HealthOrder::Quarantine { reason } => {
                let reason = short(reason);
                let health = self.health_of(node, gpu);
                health.quarantine_by_hand(&reason, now);
                let why = format!("taken out of service by hand: {reason}");
                self.health_changed(node, gpu, &why);
            }
            HealthOrder::Return => {
                let before = self.health_of(node, gpu).stage;
                self.health_of(node, gpu).return_by_hand(now);
                if gpu.is_none()
                    && let Some(health) = self.state.health.get_mut(&node)
                {
                    Arc::make_mut(health).failures.clear();
                }
                if self.health_of(node, gpu).stage != before {
                    self.health_changed(node, gpu, "returned by hand");
                }
            }
        }
        Ok(())
    }

    /// The leader's timer says that a record's time has come; state time decides.
    pub(super) fn review_health(
        &mut self,
        node: NodeId,
        gpu: Option<u16>,
    ) -> Result<(), Rejection> {
        let now = self.now();
        let known = self.state.health.get(&node).and_then(|h| h.of(gpu));
        let Some(known) = known else {
            return Err(Rejection::NoSuchNode(node));
        };
        let before = known.stage;
        if self.health_of(node, gpu).review(now) {
            // A test that is asked for again must reach the agent again.
            self.touched.insert(node);
            let health = self.health_of(node, gpu);
            if health.stage != before {
                let why = health.why().to_owned();
                let why = why.split_once(": ").map_or("", |(_, why)| why);
                self.health_changed(node, gpu, why);
            }
        }
        Ok(())
    }

    /// Devices that are not the same any more have another health.
    pub(super) fn forget_health_of_changed(&mut self, node: NodeId, same: impl Fn(u16) -> bool) {
        if let Some(health) = self.state.health.get_mut(&node) {
            Arc::make_mut(health).gpus.retain(|gpu, _| same(*gpu));
        }
        self.state.refresh_health(node);
    }

    /// A node was lost: once may happen to any, again and again does not.
    pub(super) fn note_loss(&mut self, node: NodeId) {
        let now = self.now();
        let why = "lost contact again and again";
        let machine = self.health_of(node, None);
        machine.note("was lost", now);
        let before = machine.stage;
        machine.weigh(LOSS_POINTS, why, cooling(None), now);
        if machine.stage != before {
            self.health_changed(node, None, why);
        }
    }

    /// A task failed by itself: what its GPUs say of it, if they are to blame. Else its node is watched.
    pub(super) fn blame(&mut self, job: JobId, rank: Rank, exit: &TaskExit) -> Option<AttemptEnd> {
        let now = self.now();
        let known = self.state.jobs.get(&job)?;
        let attempt = known.attempt.as_ref()?;
        if matches!(attempt.phase, AttemptPhase::Stopping(_)) {
            return None;
        }
        let index = usize::try_from(rank.0).ok()?;
        let placement = attempt.tasks.get(index)?.placement.clone();
        let node = placement.node;
        let health = self.state.health.get(&node);
        let at_fault = placement.gpus.iter().find_map(|share| {
            let record = health?.gpus.get(&share.gpu)?;
            let blamed = record.is_to_blame(now);
            blamed.then(|| (share.gpu, record.newest().to_owned()))
        });
        if let Some((gpu, reason)) = at_fault {
            return Some(AttemptEnd::GpuFault { node, gpu, reason });
        }
        if exit.code != super::EXIT_REQUEUE {
            self.note_failure(job, node, exit.node_fault);
        }
        None
    }

    fn note_failure(&mut self, job: JobId, node: NodeId, not_started: bool) {
        let now = self.now();
        // A job that fails on several nodes is at fault itself. One that cannot be started is not.
        let before = self.state.jobs.get(&job).map(|j| j.past.as_slice());
        let mut elsewhere = false;
        let nodes = before.unwrap_or_default().iter().flat_map(|p| &p.nodes);
        let mut nodes: Vec<NodeId> = nodes.copied().filter(|other| *other != node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for other in nodes {
            let Some(health) = self.state.health.get_mut(&other) else {
                continue;
            };
            let is_it = |f: &Failure| f.job == job && !f.not_started;
            if !not_started && health.failures.iter().any(is_it) {
                elsewhere = true;
                Arc::make_mut(health).failures.retain(|f| !is_it(f));
            }
        }
        if elsewhere {
            return;
        }
        let failure = Failure {
            job,
            at_ms: now,
            not_started,
        };
        let health = self.state.health.entry(node).or_default();
        failures::note(&mut Arc::make_mut(health).failures, failure);
        let usable = self.health_of(node, None).stage.is_usable();
        if usable && failures::is_to_blame(self.state, node) {
            let health = self.state.health.entry(node).or_default();
            let count = std::mem::take(&mut Arc::make_mut(health).failures).len();
            let why = format!("tasks of {count} jobs failed here in a row");
            let machine = self.health_of(node, None);
            machine.note(&why, now);
            machine.quarantine(&why, cooling(None), now);
            self.health_changed(node, None, &why);
        }
    }

    /// An attempt ended well: whatever failed on its nodes before was not the nodes' fault.
    pub(super) fn clear_failures(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            if let Some(health) = self.state.health.get_mut(node)
                && !health.failures.is_empty()
            {
                Arc::make_mut(health).failures.clear();
            }
        }
    }

    /// A checkpoint was recorded: if the attempt uses something that is out of service, this is when it moves.
    pub(super) fn move_at_checkpoint(&mut self, id: JobId) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let Some(attempt) = &job.attempt else {
            return;
        };
        let moves = matches!(
            attempt.phase,
            AttemptPhase::Starting | AttemptPhase::Running
        ) && job.fencing.is_none();
        if !moves {
            return;
        }
        let mut live = attempt
            .tasks
            .iter()
            .filter(|t| !matches!(t.phase, TaskPhase::Ended { .. }));
        let why = live.find_map(|task| self.must_leave(&task.placement));
        let Some(reason) = why else {
            return;
        };
        let end = AttemptEnd::Evicted {
            reason: reason.clone(),
        };
        if !may_run_again(job, &end) {
            return;
        }
        let text = format!("has saved a checkpoint and moves away: {reason}");
        self.job_event("job.drained", id, &text);
        self.stop(id, end);
        self.review(id);
    }

    /// Why a task should not stay where it is.
    fn must_leave(&self, placement: &TaskPlacement) -> Option<String> {
        let health: &NodeHealth = self.state.health.get(&placement.node)?;
        let name = || self.node_name(placement.node);
        let gpu = placement.gpus.iter().find_map(|share| {
            let record = health.gpus.get(&share.gpu)?;
            (!record.stage.is_usable()).then(|| (share.gpu, record.why()))
        });
        if let Some((gpu, why)) = gpu {
            return Some(format!("GPU {gpu} of node {} is {why}", name()));
        }
        let machine = &health.machine;
        let by_hand = !machine.stage.is_usable() && machine.until_ms == u64::MAX;
        by_hand.then(|| format!("node {} is {}", name(), machine.why()))
    }
}

fn uses(placement: &TaskPlacement, gpu: u16) -> bool {
    placement.gpus.iter().any(|share| share.gpu == gpu)
}

/// True if a live task of the job's attempt sits so.
fn holds(job: &Job, sits: impl Fn(&TaskPlacement) -> bool) -> bool {
    let tasks = job.attempt.iter().flat_map(|a| &a.tasks);
    let mut live = tasks.filter(|t| !matches!(t.phase, TaskPhase::Ended { .. }));
    live.any(|task| sits(&task.placement))
}
