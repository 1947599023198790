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

/// The nodes, as the cluster describes them and as the state knows them.
#[derive(Debug)]
pub(super) struct Machines {
    /// Names and speeds of GPU models, by node of the cluster and GPU.
    models: Vec<Vec<(Arc<str>, f64)>>,
    /// By node of the cluster, once it has registered.
    ids: Vec<Option<NodeId>>,
    /// By node of the state, which counts them in the order in which they registered.
    indexes: Vec<usize>,
    nothing: Arc<str>,
}

impl Machines {
    pub(super) fn new(cluster: &Cluster) -> Self {
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut intern = |model: &str| match names.get(model) {
            Some(name) => Arc::clone(name),
            None => {
                let name: Arc<str> = Arc::from(model);
                names.insert(Arc::clone(&name));
                name
            }
        };
        let models = cluster.all_nodes().map(|node| {
            let gpus = node.gpus.iter().map(|gpu| {
                let speed = cluster.gpu_models.get(&gpu.model).map_or(1.0, |m| m.speed);
                (intern(&gpu.model), speed)
            });
            gpus.collect()
        });
        Self {
            ids: vec![None; cluster.nodes.len() + cluster.later.len()],
            models: models.collect(),
            indexes: Vec::new(),
            nothing: Arc::from(""),
        }
    }

    /// Registers a node of the cluster, for the first time or again. The nodes that changed.
    pub(super) fn register(
        &mut self,
        cluster: &Cluster,
        index: usize,
        incarnation: u64,
        now_ms: u64,
        lane: &mut Lane,
    ) -> Result<BTreeSet<NodeId>, TwinError> {
        let known = lane.state.nodes.len();
        let Some(spec) = cluster.node(index) else {
            return Ok(BTreeSet::new());
        };
        let command = Command::RegisterNode {
            spec: lane::offer(spec),
            incarnation,
        };
        let fault = |why| TwinError::Node {
            node: spec.name.clone(),
            why,
        };
        let applied = match lane.commit(now_ms, vec![command]) {
            Ok(applied) => applied,
            Err(TwinError::Refused { why, .. }) => return Err(fault(why)),
            Err(other) => return Err(other),
        };
        if self.ids[index].is_none() {
            if lane.state.nodes.len() == known {
                return Err(fault("its name is there twice".to_owned()));
            }
            self.ids[index] = lane.state.nodes.get_max().map(|(id, _)| *id);
            self.indexes.push(index);
        }
        Ok(applied.touched)
    }

    /// Id of a node of the cluster, once it has registered.
    pub(super) fn id(&self, index: usize) -> Option<NodeId> {
        self.ids.get(index).copied().flatten()
    }

    /// Index in the cluster of a node.
    pub(super) fn index(&self, node: NodeId) -> usize {
        let known = self.indexes.get(lane::node_index(node));
        known.copied().unwrap_or(usize::MAX)
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
                Some((model, speed)) => (model, *speed),
                None => (&self.nothing, 1.0),
            };
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

    /// Name and speed of a GPU's model.
    pub(super) fn model(&self, node: NodeId, gpu: u16) -> Option<&(Arc<str>, f64)> {
        (self.models.get(self.index(node))?).get(usize::from(gpu))
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
