//! The machines of a run, and how full they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_core::command::Command;
use berth_core::state::{Node, State};
use berth_types::{GroupSpec, MILLI, NodeId, TaskPlacement};

use super::TwinError;
use crate::twin::behaviour::{Held, HeldNode};
use crate::twin::fragmentation::Demand;
use crate::twin::lane::{self, Lane};
use crate::twin::series::{Level, Series};
use crate::twin::{Cluster, Trace};

/// GPU models of the nodes.
#[derive(Debug, Default)]
pub(super) struct Machines {
    /// By node and GPU.
    models: Vec<Vec<(Arc<str>, f64)>>,
    nothing: Option<Arc<str>>,
}

impl Machines {
    /// Registers every node of a cluster.
    pub(super) fn register(cluster: &Cluster, lane: &mut Lane) -> Result<Self, TwinError> {
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut machines = Self {
            models: Vec::new(),
            nothing: Some(Arc::from("")),
        };
        for node in &cluster.nodes {
            let gpus = node.gpus.iter().map(|gpu| {
                let name = match names.get(gpu.model.as_str()) {
                    Some(name) => Arc::clone(name),
                    None => {
                        let name: Arc<str> = Arc::from(gpu.model.as_str());
                        names.insert(Arc::clone(&name));
                        name
                    }
                };
                let speed = cluster.gpu_models.get(&gpu.model).map_or(1.0, |m| m.speed);
                (name, speed)
            });
            machines.models.push(gpus.collect());
            let known = lane.state.nodes.len();
            let command = Command::RegisterNode {
                spec: lane::offer(node),
                incarnation: 1,
            };
            let registered = lane.commit(0, vec![command]);
            let why = match registered {
                Err(TwinError::Refused { why, .. }) => why,
                Err(other) => return Err(other),
                Ok(_) if lane.state.nodes.len() == known => "its name is there twice".to_owned(),
                Ok(_) => continue,
            };
            let node = node.name.clone();
            return Err(TwinError::Node { node, why });
        }
        Ok(machines)
    }

    /// What an attempt with these tasks holds.
    pub(super) fn held(&self, groups: &[GroupSpec], tasks: &[TaskPlacement]) -> Held {
        let mut workers = vec![0; groups.len()];
        let mut nodes: Vec<HeldNode> = Vec::new();
        let mut milligpu = 0;
        let mut seen: BTreeSet<(NodeId, u16)> = BTreeSet::new();
        for task in tasks {
            if let Some(count) = workers.get_mut(usize::from(task.group)) {
                *count += 1;
            }
            let gpus = task
                .gpus
                .first()
                .and_then(|share| self.model(task.node, share.gpu));
            let (model, speed) = match gpus {
                Some((model, speed)) => (Some(model), *speed),
                None => (self.nothing.as_ref(), 1.0),
            };
            let Some(model) = model else { continue };
            let known = (nodes
                .iter()
                .rposition(|n| n.node == task.node && n.gpu_model == *model))
            .unwrap_or_else(|| {
                nodes.push(HeldNode {
                    node: task.node,
                    gpu_model: Arc::clone(model),
                    speed,
                    workers: 0,
                    gpus: 0,
                });
                nodes.len() - 1
            });
            nodes[known].workers += 1;
            for share in &task.gpus {
                milligpu += u64::from(share.milligpu);
                let is_new = share.milligpu == MILLI || seen.insert((task.node, share.gpu));
                nodes[known].gpus += u32::from(is_new);
                if let Some((_, speed)) = self.model(task.node, share.gpu) {
                    nodes[known].speed = nodes[known].speed.min(*speed);
                }
            }
        }
        nodes.sort_by(|a, b| (a.node, &a.gpu_model).cmp(&(b.node, &b.gpu_model)));
        Held {
            workers,
            nodes,
            milligpu,
        }
    }

    fn model(&self, node: NodeId, gpu: u16) -> Option<&(Arc<str>, f64)> {
        (self.models.get(lane::node_index(node))?).get(usize::from(gpu))
    }
}

/// Keeps the level, and adds it up over time.
#[derive(Debug)]
pub(super) struct Meter {
    demand: Demand,
    /// By node: used, free and stranded.
    nodes: Vec<(u64, u64, u64)>,
    level: Level,
    pub(super) series: Series,
}

impl Meter {
    pub(super) fn new(trace: &Trace) -> Self {
        let demand = Demand::of(trace);
        Self {
            series: Series::scaled_by(demand.workers),
            demand,
            nodes: Vec::new(),
            level: Level::default(),
        }
    }

    /// Time passes.
    pub(super) fn on_time(&mut self, now_ms: u64) {
        self.series.on_time(now_ms, &self.level);
    }

    pub(super) fn look_at_all(&mut self, state: &State) {
        for node in state.nodes.values() {
            self.look_at_node(node);
        }
    }

    /// Something changed on these nodes, or in the queue.
    pub(super) fn look(&mut self, state: &State, touched: &BTreeSet<NodeId>) {
        for node in touched.iter().filter_map(|node| state.nodes.get(node)) {
            self.look_at_node(node);
        }
        self.level.waiting = state.pending.len() as u64;
        self.level.placed = state.active.len() as u64;
    }

    fn look_at_node(&mut self, node: &Node) {
        let index = lane::node_index(node.id);
        if self.nodes.len() <= index {
            self.nodes.resize(index + 1, (0, 0, 0));
        }
        let used: u64 = node.gpus.iter().map(|gpu| u64::from(gpu.milligpu)).sum();
        let (mut free, mut stranded) = (0, 0);
        if node.is_schedulable() {
            let mut gpus = [0; 16];
            let many: Vec<u32>;
            let frees = node
                .gpus
                .iter()
                .map(|gpu| MILLI.saturating_sub(gpu.milligpu));
            let free_gpus = if node.gpus.len() <= gpus.len() {
                for (slot, free) in gpus.iter_mut().zip(frees) {
                    *slot = free;
                }
                &gpus[..node.gpus.len()]
            } else {
                many = frees.collect();
                &many[..]
            };
            free = free_gpus.iter().map(|&milli| u64::from(milli)).sum();
            stranded = self.demand.stranded(free_gpus);
        }
        let before = std::mem::replace(&mut self.nodes[index], (used, free, stranded));
        let level = &mut self.level;
        level.used_milligpu = level.used_milligpu + used - before.0;
        level.free_milligpu = level.free_milligpu + free - before.1;
        level.stranded = level.stranded + stranded - before.2;
    }

    pub(super) fn used_milligpu(&self) -> u64 {
        self.level.used_milligpu
    }

    /// In service so far, in thousandths of GPUs times milliseconds.
    pub(super) fn capacity(&self) -> u64 {
        u64::try_from(self.series.capacity()).unwrap_or(u64::MAX)
    }
}
