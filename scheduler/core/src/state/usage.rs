//! Keeping the derived parts of the state exact, one change at a time. Only [`apply`](crate::apply) calls this;
//! [`derive`](super::derive) builds the same from scratch.

use std::sync::Arc;

use berth_types::{GpuShare, JobId, NodeId, NodeSpec, Resources, TaskPlacement};

use super::{GpuUse, Job, Node, NodeShape, State};

/// What one placement takes from its node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    /// The node.
    pub(crate) node: NodeId,
    /// GPU shares.
    pub(crate) gpus: &'a [GpuShare],
    /// CPUs in thousandths.
    pub(crate) millicpu: u32,
    /// Memory.
    pub(crate) mem_bytes: u64,
}

impl<'a> Claim<'a> {
    /// What `placement` of a job with this spec takes. A group that does not exist takes no CPU and no memory.
    pub(crate) fn of(job: &Job, placement: &'a TaskPlacement) -> Self {
        let group = job.spec.groups.get(usize::from(placement.group));
        let (millicpu, mem_bytes) = group.map_or((0, 0), |g| {
            let Resources {
                millicpu,
                mem_bytes,
                ..
            } = g.resources;
            (millicpu, mem_bytes)
        });
        Self {
            node: placement.node,
            gpus: &placement.gpus,
            millicpu,
            mem_bytes,
        }
    }
}

impl Node {
    /// A task takes its resources.
    pub(crate) fn take_task(&mut self, job: JobId, claim: Claim<'_>) {
        self.take_host(claim);
        for share in claim.gpus {
            let gpu = self.gpu_mut(share.gpu);
            gpu.milligpu = gpu.milligpu.saturating_add(share.milligpu);
        }
        *self.jobs.entry(job).or_insert(0) += 1;
    }

    /// A task gives its resources back.
    pub(crate) fn free_task(&mut self, job: JobId, claim: Claim<'_>) {
        self.free_host(claim);
        for share in claim.gpus {
            let gpu = self.gpu_mut(share.gpu);
            gpu.milligpu = gpu.milligpu.saturating_sub(share.milligpu);
        }
        if let Some(tasks) = self.jobs.get_mut(&job) {
            *tasks = tasks.saturating_sub(1);
            if *tasks == 0 {
                self.jobs.remove(&job);
            }
        }
        self.trim_gpus();
    }

    /// A reservation keeps these resources.
    pub(crate) fn reserve(&mut self, claim: Claim<'_>) {
        self.take_host(claim);
        self.reserved_millicpu = self.reserved_millicpu.saturating_add(claim.millicpu);
        self.reserved_mem_bytes = self.reserved_mem_bytes.saturating_add(claim.mem_bytes);
        for share in claim.gpus {
            let gpu = self.gpu_mut(share.gpu);
            gpu.reserved = gpu.reserved.saturating_add(share.milligpu);
        }
    }

    /// A reservation lets these resources go.
    pub(crate) fn unreserve(&mut self, claim: Claim<'_>) {
        self.free_host(claim);
        self.reserved_millicpu = self.reserved_millicpu.saturating_sub(claim.millicpu);
        self.reserved_mem_bytes = self.reserved_mem_bytes.saturating_sub(claim.mem_bytes);
        for share in claim.gpus {
            let gpu = self.gpu_mut(share.gpu);
            gpu.reserved = gpu.reserved.saturating_sub(share.milligpu);
        }
        self.trim_gpus();
    }

    fn take_host(&mut self, claim: Claim<'_>) {
        self.used_millicpu = self.used_millicpu.saturating_add(claim.millicpu);
        self.used_mem_bytes = self.used_mem_bytes.saturating_add(claim.mem_bytes);
    }

    fn free_host(&mut self, claim: Claim<'_>) {
        self.used_millicpu = self.used_millicpu.saturating_sub(claim.millicpu);
        self.used_mem_bytes = self.used_mem_bytes.saturating_sub(claim.mem_bytes);
    }

    fn gpu_mut(&mut self, index: u16) -> &mut GpuUse {
        let index = usize::from(index);
        if self.gpus.len() <= index {
            self.gpus.resize(index + 1, GpuUse::default());
        }
        &mut self.gpus[index]
    }

    /// GPUs that the spec no longer has stay listed only as long as something holds them.
    pub(crate) fn trim_gpus(&mut self) {
        while self.gpus.len() > self.spec.gpus.len() && self.gpus.last() == Some(&GpuUse::default())
        {
            self.gpus.pop();
        }
        if self.gpus.len() < self.spec.gpus.len() {
            self.gpus.resize(self.spec.gpus.len(), GpuUse::default());
        }
    }
}

impl State {
    /// A node's record, to change it.
    pub(crate) fn node_mut(&mut self, node: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(&node).map(Arc::make_mut)
    }

    /// A job's record, to change it.
    pub(crate) fn job_mut(&mut self, job: JobId) -> Option<&mut Job> {
        self.jobs.get_mut(&job).map(Arc::make_mut)
    }

    /// Sets what a node's health says of its use.
    pub(crate) fn refresh_health(&mut self, id: NodeId) {
        let health = self.health.get(&id).cloned().unwrap_or_default();
        let Some(node) = self.node_mut(id) else {
            return;
        };
        node.resting = health.is_resting();
        let offered = node.spec.gpus.len();
        for (gpu, used) in (0u16..).zip(&mut node.gpus) {
            used.blocked = usize::from(gpu) < offered && health.is_blocked(gpu);
        }
        node.trim_gpus();
    }

    /// Counts one more node of this shape.
    pub(crate) fn add_shape(&mut self, spec: &NodeSpec) {
        let shape = NodeShape::of(spec);
        match self.shapes.get_mut(&shape) {
            Some(count) => *count = count.saturating_add(1),
            None => {
                self.shapes.insert(Arc::new(shape), 1);
            }
        }
    }

    /// Counts one node less of this shape.
    pub(crate) fn remove_shape(&mut self, spec: &NodeSpec) {
        let shape = NodeShape::of(spec);
        let Some(count) = self.shapes.get_mut(&shape) else {
            return;
        };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.shapes.remove(&shape);
        }
    }
}
