//! Nodes come, change, are lost and return.
//!
//! What a lost node held of a `restart` job counts as gone at once: nothing is placed on a lost node, and the leader lets
//! it register again only when nothing stale runs there. Jobs with another rule wait, see `fencing`.

use std::sync::Arc;

use berth_types::api::Drain;
use berth_types::{AttemptEnd, AttemptPhase, JobId, NodeId, NodeSpec, NodeState};

use super::Rejection;
use super::attempts::live_tasks_on;
use super::transition::{Transition, short};
use crate::state::{Claim, Job, Node};

/// Most nodes ever known; ids are never reused, so names that never return count too.
pub const MAX_NODES: usize = 100_000;

impl Transition<'_> {
    pub(super) fn register_node(
        &mut self,
        spec: &Arc<NodeSpec>,
        incarnation: u64,
    ) -> Result<(), Rejection> {
        let faults = spec.faults();
        if !faults.is_empty() {
            return Err(Rejection::BadNode(faults));
        }
        match self.state.node_ids.get(&spec.name).copied() {
            Some(id) => {
                self.node_returned(id, spec, incarnation);
                Ok(())
            }
            None => self.new_node(spec, incarnation),
        }
    }

    fn new_node(&mut self, spec: &Arc<NodeSpec>, incarnation: u64) -> Result<(), Rejection> {
        if self.state.nodes.len() >= MAX_NODES {
            return Err(Rejection::TooManyNodes(MAX_NODES));
        }
        let newest = self.state.nodes.get_max().map_or(0, |(id, _)| id.0);
        let id = NodeId(newest.saturating_add(1));
        let node = Node::new(id, Arc::clone(spec), incarnation, self.now());
        self.state.nodes.insert(id, Arc::new(node));
        self.state.node_ids.insert(spec.name.clone(), id);
        self.state.add_shape(spec);
        self.touched.insert(id);
        let text = format!("joins: {}", offer_text(spec));
        self.node_event("node.registered", id, &text);
        Ok(())
    }

    /// A known node speaks: after a restart of its agent, a new leader, a loss of contact, or because it changed. Costs
    /// next to nothing when nothing changed, because after a failover every node does so.
    fn node_returned(&mut self, id: NodeId, spec: &Arc<NodeSpec>, incarnation: u64) {
        let now = self.now();
        let Some(known) = self.state.nodes.get(&id) else {
            return;
        };
        let (was_lost, restarted) = (known.lost, known.incarnation != incarnation);
        let changed = known.spec != *spec;
        if !was_lost && !restarted && !changed {
            return;
        }
        let jobs: Vec<JobId> = known.jobs.keys().copied().collect();
        self.touched.insert(id);
        if let Some(node) = self.state.node_mut(id) {
            node.incarnation = incarnation;
            node.fenced = false;
            if was_lost {
                node.lost = false;
                node.since_ms = now;
                node.reason = String::new();
            }
        }
        if was_lost {
            self.node_event("node.returned", id, "is back");
        } else if restarted {
            self.node_event("node.restarted", id, "was restarted: its tasks are gone");
        }
        if restarted {
            for job in jobs {
                self.lose_tasks(job, id);
            }
        } else {
            for job in jobs {
                self.on_node_back(job, id);
            }
        }
        if changed {
            self.change_offer(id, spec);
        }
    }

    /// Attempts that hold what the node no longer has are stopped, at the node's expense.
    fn change_offer(&mut self, id: NodeId, spec: &Arc<NodeSpec>) {
        self.drop_reservations_on(id);
        let Some(old) = self.state.nodes.get(&id).map(|n| Arc::clone(&n.spec)) else {
            return;
        };
        self.state.remove_shape(&old);
        self.state.add_shape(spec);
        let Some(node) = self.state.node_mut(id) else {
            return;
        };
        node.spec = Arc::clone(spec);
        node.trim_gpus();
        let spec_now = Arc::clone(spec);
        self.forget_health_of_changed(id, |gpu| same_device(&old, &spec_now, gpu));
        let Some(node) = self.state.node_mut(id) else {
            return;
        };
        let jobs: Vec<JobId> = node.jobs.keys().copied().collect();
        let text = format!("offers something else now: {}", offer_text(spec));
        self.node_event("node.changed", id, &text);
        let (mut millicpu, mut mem_bytes) = (0u64, 0u64);
        for job in jobs {
            let Some(held) = self.state.jobs.get(&job).and_then(|j| held_on(j, id)) else {
                continue;
            };
            let gone = held.gpus.iter().find(|gpu| !same_device(&old, spec, **gpu));
            let fits = millicpu.saturating_add(held.millicpu) <= u64::from(spec.millicpu)
                && mem_bytes.saturating_add(held.mem_bytes) <= spec.mem_bytes;
            let what = match gone {
                Some(gpu) => format!("GPU {gpu}"),
                None if !fits => "some of the CPUs or memory".to_owned(),
                None => {
                    millicpu = millicpu.saturating_add(held.millicpu);
                    mem_bytes = mem_bytes.saturating_add(held.mem_bytes);
                    continue;
                }
            };
            let reason = format!("node {} no longer has {what} that it used", spec.name);
            self.job_event("job.evicted", job, &format!("is evicted: {reason}"));
            self.stop(job, AttemptEnd::Evicted { reason });
        }
    }

    pub(super) fn mark_node_lost(&mut self, id: NodeId, reason: &str) -> Result<(), Rejection> {
        let now = self.now();
        let node = self.state.node_mut(id).ok_or(Rejection::NoSuchNode(id))?;
        if node.lost {
            return Ok(());
        }
        node.lost = true;
        node.fenced = false;
        node.since_ms = now;
        node.reason = short(reason);
        let jobs: Vec<JobId> = node.jobs.keys().copied().collect();
        self.touched.insert(id);
        let with = match jobs.len() {
            0 => String::new(),
            1 => ", with tasks of 1 job".to_owned(),
            n => format!(", with tasks of {n} jobs"),
        };
        let text = format!("is lost{with}: {}", short(reason));
        self.node_event("node.lost", id, &text);
        self.note_loss(id);
        self.drop_reservations_on(id);
        for job in jobs {
            self.on_lost_node(job, id);
        }
        Ok(())
    }

    pub(super) fn set_drain(&mut self, id: NodeId, drain: Option<&Drain>) -> Result<(), Rejection> {
        let now = self.now();
        let node = self.state.node_mut(id).ok_or(Rejection::NoSuchNode(id))?;
        let before = node.state();
        let drain = drain.map(|d| Drain {
            reason: short(&d.reason),
            evict: d.evict,
        });
        if node.drain == drain {
            return Ok(());
        }
        node.drain = drain.clone();
        if node.state() != before && before != NodeState::Lost {
            node.since_ms = now;
        }
        match drain {
            Some(drain) => {
                self.drop_reservations_on(id);
                let how = match drain.evict {
                    true => "and its jobs are moved away",
                    false => "and its jobs may finish",
                };
                let text = format!("takes no new work {how}: {}", drain.reason);
                self.node_event("node.drain", id, &text);
            }
            None => self.node_event("node.undrain", id, "takes work again"),
        }
        Ok(())
    }
}

/// What a job's attempt holds on a node, if it is not being stopped already.
struct Held {
    gpus: Vec<u16>,
    millicpu: u64,
    mem_bytes: u64,
}

fn held_on(job: &Job, node: NodeId) -> Option<Held> {
    let attempt = job.attempt.as_ref()?;
    if matches!(attempt.phase, AttemptPhase::Stopping(_)) {
        return None;
    }
    let mut held = Held {
        gpus: Vec::new(),
        millicpu: 0,
        mem_bytes: 0,
    };
    for task in live_tasks_on(job, node) {
        let claim = Claim::of(job, &task.placement);
        held.gpus.extend(claim.gpus.iter().map(|share| share.gpu));
        held.millicpu = held.millicpu.saturating_add(u64::from(claim.millicpu));
        held.mem_bytes = held.mem_bytes.saturating_add(claim.mem_bytes);
    }
    Some(held)
}

fn same_device(old: &NodeSpec, new: &NodeSpec, gpu: u16) -> bool {
    let uuid = |spec: &NodeSpec| spec.gpus.get(usize::from(gpu)).map(|g| g.uuid.clone());
    uuid(new).is_some() && uuid(old) == uuid(new)
}

fn offer_text(spec: &NodeSpec) -> String {
    let gpus = match spec.gpus.first() {
        None => "no GPU".to_owned(),
        Some(first) => format!("{} GPUs {}", spec.gpus.len(), first.model),
    };
    let cpus = spec.millicpu / 1000;
    let gib = spec.mem_bytes >> 30;
    let simulated = if spec.simulated_gpus && !spec.gpus.is_empty() {
        " (simulated)"
    } else {
        ""
    };
    format!("{gpus}{simulated}, {cpus} CPUs, {gib} GiB of memory")
}
