//! Free room on nodes as a bundle sees it: what its evictions vacate is free for its starts, and each start takes room
//! from the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_types::{GpuInfo, MILLI, NodeId, Resources, TaskPhase, TaskPlacement};

use super::PlanFault;
use crate::command::Start;
use crate::state::{Claim, Job, Node, State};

/// Amounts that become free and that are taken.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    freed: u64,
    taken: u64,
}

#[derive(Debug, Default)]
struct Changes {
    gpus: BTreeMap<u16, Change>,
    millicpu: Change,
    mem_bytes: Change,
    ports: BTreeSet<u16>,
}

pub(super) struct Room<'a> {
    state: &'a State,
    nodes: BTreeMap<NodeId, Changes>,
}

impl<'a> Room<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        let nodes = BTreeMap::new();
        Self { state, nodes }
    }

    /// What a task or a reservation held counts as free.
    pub(super) fn free(&mut self, claim: Claim<'_>) {
        let changes = self.nodes.entry(claim.node).or_default();
        changes.millicpu.freed += u64::from(claim.millicpu);
        changes.mem_bytes.freed = changes.mem_bytes.freed.saturating_add(claim.mem_bytes);
        for share in claim.gpus {
            changes.gpus.entry(share.gpu).or_default().freed += u64::from(share.milligpu);
        }
    }

    /// The node exists, takes work, and is of the kind that the task asks for.
    pub(super) fn check_node(&self, job: &Job, placement: &TaskPlacement) -> Result<(), PlanFault> {
        let node = self.node(placement.node)?;
        if !node.is_schedulable() {
            return Err(PlanFault::NodeUnavailable(node.id));
        }
        let Some(group) = job.spec.groups.get(usize::from(placement.group)) else {
            return Err(PlanFault::WrongRanks(job.id));
        };
        let has = |(key, value): (&String, &String)| node.spec.labels.get(key) == Some(value);
        if !group.node_labels.iter().all(has) {
            return Err(PlanFault::WrongLabels {
                job: job.id,
                rank: placement.rank,
                node: node.id,
            });
        }
        if !shares_match(&group.resources, placement) {
            let (job, rank) = (job.id, placement.rank);
            return Err(PlanFault::WrongShares { job, rank });
        }
        for share in &placement.gpus {
            let gpu = node.spec.gpus.get(usize::from(share.gpu));
            if !gpu.is_some_and(|gpu| suits(&group.resources, gpu)) {
                return Err(PlanFault::WrongGpu {
                    job: job.id,
                    node: node.id,
                    gpu: share.gpu,
                });
            }
            if node.is_blocked(share.gpu) {
                let (node, gpu) = (node.id, share.gpu);
                return Err(PlanFault::Quarantined { node, gpu });
            }
        }
        Ok(())
    }

    /// Takes what the task needs, if it is there: if neither tasks nor reservations have it, or, for a job whose place is
    /// kept, if no task has it. Its reservation was in line with all others when it was made, and what they keep may at
    /// present be held by tasks that have yet to leave, so counting both would count places twice.
    pub(super) fn take(
        &mut self,
        job: &Job,
        placement: &TaskPlacement,
        kept: bool,
    ) -> Result<(), PlanFault> {
        let node = Arc::clone(self.node(placement.node)?);
        let claim = Claim::of(job, placement);
        let changes = self.nodes.entry(node.id).or_default();
        for share in claim.gpus {
            let gpu = share.gpu;
            let known = node.gpus.get(usize::from(gpu)).copied().unwrap_or_default();
            let reserved = if kept { 0 } else { u64::from(known.reserved) };
            let used = u64::from(known.milligpu) + reserved;
            let change = changes.gpus.entry(gpu).or_default();
            if !change.take(u64::from(share.milligpu), used, u64::from(MILLI)) {
                let node = node.id;
                return Err(PlanFault::GpuBusy { node, gpu });
            }
        }
        let (reserved_millicpu, reserved_mem_bytes) = match kept {
            true => (node.reserved_millicpu, node.reserved_mem_bytes),
            false => (0, 0),
        };
        let used = u64::from(node.used_millicpu.saturating_sub(reserved_millicpu));
        let offered = u64::from(node.spec.millicpu);
        if !(changes.millicpu).take(u64::from(claim.millicpu), used, offered) {
            return Err(PlanFault::CpuShort(node.id));
        }
        let used = node.used_mem_bytes.saturating_sub(reserved_mem_bytes);
        let offered = node.spec.mem_bytes;
        if !changes.mem_bytes.take(claim.mem_bytes, used, offered) {
            return Err(PlanFault::MemShort(node.id));
        }
        Ok(())
    }

    /// Leases the gang's port on rank 0's node. A single task may do without one (port 0).
    pub(super) fn take_port(&mut self, start: &Start) -> Result<(), PlanFault> {
        let port = start.master_port;
        if port == 0 && start.placements.len() == 1 {
            return Ok(());
        }
        let Some(first) = start.placements.first() else {
            return Err(PlanFault::WrongRanks(start.job));
        };
        let node = Arc::clone(self.node(first.node)?);
        let range_start = u32::from(node.spec.port_first);
        let range = range_start..range_start + u32::from(node.spec.port_count);
        let leased = node.ports.contains_key(&port);
        let changes = self.nodes.entry(node.id).or_default();
        if !range.contains(&u32::from(port)) || leased || !changes.ports.insert(port) {
            let node = node.id;
            return Err(PlanFault::PortBusy { node, port });
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<&'a Arc<Node>, PlanFault> {
        self.state
            .nodes
            .get(&node)
            .ok_or(PlanFault::NoSuchNode(node))
    }
}

impl Change {
    /// Takes `amount` if used - freed + taken + amount <= offered. Nothing always fits, even where reservations and what
    /// has yet to leave their places are more than the node offers.
    fn take(&mut self, amount: u64, used: u64, offered: u64) -> bool {
        if amount == 0 {
            return true;
        }
        let used = used
            .saturating_sub(self.freed)
            .saturating_add(self.taken)
            .saturating_add(amount);
        if used > offered {
            return false;
        }
        self.taken = self.taken.saturating_add(amount);
        true
    }
}

pub(super) fn is_ended(phase: TaskPhase) -> bool {
    matches!(phase, TaskPhase::Ended { .. })
}

/// Whole GPUs are taken whole; a fraction is a share of one GPU; in order of GPUs, none twice.
fn shares_match(resources: &Resources, placement: &TaskPlacement) -> bool {
    let shares = &placement.gpus;
    let ordered = shares.windows(2).all(|pair| pair[0].gpu < pair[1].gpu);
    let each = resources.milligpu.min(MILLI);
    let sized = shares.iter().all(|share| share.milligpu == each);
    let count = usize::try_from(resources.devices()).unwrap_or(usize::MAX);
    ordered && sized && shares.len() == count
}

/// The GPU is of an acceptable model and large enough.
fn suits(resources: &Resources, gpu: &GpuInfo) -> bool {
    let types = &resources.gpu_types;
    let model = types.is_empty() || types.iter().any(|t| t.eq_ignore_ascii_case(&gpu.model));
    model && gpu.mem_bytes >= resources.gpu_mem_bytes
}
