//! One node as the packing rules see it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::state::{Node, State};
use berth_types::{MILLI, NodeId, TaskPhase};

use super::ask::{Ask, Kind};

/// GPUs of one model on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of the model in its [`Fleet`](super::fleet::Fleet).
    pub model: usize,
    /// Their indexes.
    pub gpus: Vec<u16>,
}

/// A node's free amounts, with what this round has placed there taken off.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The node.
    pub node: NodeId,
    /// Free CPUs in thousandths.
    pub millicpu: u32,
    /// Free memory.
    pub mem_bytes: u64,
    /// Free thousandths by GPU.
    pub gpus: Vec<u32>,
    /// Its GPUs by model; one part on most nodes.
    pub parts: Vec<Part>,
    /// Kinds of workers with GPUs that sit there, with how many.
    pub kinds: BTreeMap<Kind, u32>,
    /// The record that this was read from. Holding it means that nobody changes it in place: a changed node is another
    /// record.
    pub(super) record: Arc<Node>,
    is_open: bool,
}

impl Seat {
    /// Reads a node.
    pub(super) fn of(node: &Arc<Node>, state: &State, models: &mut Vec<String>) -> Self {
        let spec = &node.spec;
        let gpus = spec.gpus.iter().enumerate().map(|(index, _)| {
            let held = (node.gpus.get(index)).map_or(0, |gpu| gpu.milligpu + gpu.reserved);
            MILLI.saturating_sub(held)
        });
        Self {
            node: node.id,
            millicpu: spec.millicpu.saturating_sub(node.used_millicpu),
            mem_bytes: spec.mem_bytes.saturating_sub(node.used_mem_bytes),
            gpus: gpus.collect(),
            parts: parts(node, models),
            kinds: kinds(node, state),
            record: Arc::clone(node),
            is_open: node.is_schedulable(),
        }
    }

    /// CPUs of the whole node, in thousandths.
    pub fn total_millicpu(&self) -> u32 {
        self.record.spec.millicpu
    }

    /// True if new tasks may be placed there.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// True if the master of a gang can meet its workers there.
    pub(super) fn has_port(&self) -> bool {
        self.record.ports.len() < usize::from(self.record.spec.port_count)
    }

    /// Free thousandths of all GPUs together.
    pub fn free_milligpu(&self) -> u64 {
        self.gpus.iter().map(|&free| u64::from(free)).sum()
    }

    /// Number of a GPU's model.
    pub(super) fn model_of(&self, gpu: u16) -> usize {
        let part = self.parts.iter().find(|part| part.gpus.contains(&gpu));
        part.map_or(0, |part| part.model)
    }

    /// GPUs of which nothing is used.
    pub fn whole_gpus(&self) -> usize {
        self.gpus.iter().filter(|&&free| free == MILLI).count()
    }

    /// True if a worker fits.
    pub fn fits(&self, ask: &Ask) -> bool {
        let labels = &self.record.spec.labels;
        self.is_open
            && self.millicpu >= ask.millicpu
            && self.mem_bytes >= ask.mem_bytes
            && (ask.node_labels.iter()).all(|(name, value)| labels.get(name) == Some(value))
            && (ask.gpus == 0 || self.gpus_for(ask).count() >= ask.gpus as usize)
    }

    /// GPUs with enough left of a model and memory that will do, ascending.
    pub fn gpus_for<'a>(&'a self, ask: &'a Ask) -> impl Iterator<Item = u16> + 'a {
        (0u16..)
            .zip(self.gpus.iter().zip(&self.record.spec.gpus))
            .filter(|(_, (free, info))| {
                **free >= ask.share
                    && info.mem_bytes >= ask.gpu_mem_bytes
                    && ask.accepts_model(&info.model)
            })
            .map(|(index, _)| index)
    }

    /// The GPUs that every rule takes that has no opinion: a part from the fullest one that holds it, whole ones from
    /// the NVLink group that holds them all and has fewest to spare, else from as few groups as possible. Ascending.
    pub fn tightest(&self, ask: &Ask) -> Vec<u16> {
        let count = ask.gpus as usize;
        if ask.is_fraction() {
            let fitting = self.gpus_for(ask);
            return fitting
                .min_by_key(|&gpu| self.gpus[usize::from(gpu)])
                .into_iter()
                .collect();
        }
        let mut links: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
        for gpu in self.gpus_for(ask) {
            let link = self.record.spec.gpus[usize::from(gpu)].nvlink_group;
            links.entry(link).or_default().push(gpu);
        }
        let mut links: Vec<Vec<u16>> = links.into_values().collect();
        let holding = links.iter().filter(|link| link.len() >= count);
        if let Some(link) = holding.min_by_key(|link| link.len()) {
            return link[..count].to_vec();
        }
        links.sort_by_key(|link| Reverse(link.len()));
        let mut taken: Vec<u16> = links.into_iter().flatten().take(count).collect();
        taken.sort_unstable();
        taken
    }

    pub(super) fn take(&mut self, ask: &Ask, gpus: &[u16]) {
        self.millicpu = self.millicpu.saturating_sub(ask.millicpu);
        self.mem_bytes = self.mem_bytes.saturating_sub(ask.mem_bytes);
        for &gpu in gpus {
            let free = &mut self.gpus[usize::from(gpu)];
            *free = free.saturating_sub(ask.share);
        }
        if let Some(kind) = ask.kind() {
            *self.kinds.entry(kind).or_insert(0) += ask.workers;
        }
    }
}

fn parts(node: &Node, models: &mut Vec<String>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (index, gpu) in (0u16..).zip(&node.spec.gpus) {
        let known = (models.iter()).position(|model| model.eq_ignore_ascii_case(&gpu.model));
        let model = known.unwrap_or_else(|| {
            models.push(gpu.model.clone());
            models.len() - 1
        });
        match parts.iter_mut().find(|part| part.model == model) {
            Some(part) => part.gpus.push(index),
            None => parts.push(Part {
                model,
                gpus: vec![index],
            }),
        }
    }
    parts
}

/// Workers on a node by kind. Jobs of one group need no look at their tasks.
fn kinds(node: &Node, state: &State) -> BTreeMap<Kind, u32> {
    let mut kinds = BTreeMap::new();
    for (id, &count) in &node.jobs {
        let Some(job) = state.jobs.get(id) else {
            continue;
        };
        let groups = &job.spec.groups;
        let mut add = |group: usize, count: u32| {
            if let Some(kind) = groups.get(group).and_then(|group| Ask::of(group).kind()) {
                *kinds.entry(kind).or_insert(0) += count;
            }
        };
        if groups.len() == 1 {
            add(0, count);
            continue;
        }
        let tasks = job.attempt.iter().flat_map(|attempt| &attempt.tasks);
        for task in tasks.filter(|task| task.placement.node == node.id) {
            if !matches!(task.phase, TaskPhase::Ended { .. }) {
                add(usize::from(task.placement.group), 1);
            }
        }
    }
    kinds
}
