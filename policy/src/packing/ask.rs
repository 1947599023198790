//! What one worker, or several together, ask of a node.

use std::collections::BTreeMap;

use berth_types::{GroupSpec, MILLI};

/// What kind of worker it is: 0 for a part of a GPU, else the number of its GPUs.
pub type Kind = u32;

/// What some workers of a group ask of one node. Those that ask for the same share what is known about them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// How many workers; the amounts are those of all together.
    pub workers: u32,
    /// CPUs in thousandths.
    pub millicpu: u32,
    /// Host memory.
    pub mem_bytes: u64,
    /// GPU devices that it touches.
    pub gpus: u32,
    /// What it takes of each of them, in thousandths.
    pub share: u32,
    /// Acceptable GPU models, without regard to case; any if empty.
    pub gpu_types: Vec<String>,
    /// Least memory of each GPU.
    pub gpu_mem_bytes: u64,
    /// Labels that the node must have.
    pub node_labels: BTreeMap<String, String>,
}

impl Ask {
    /// What one worker of a group asks for.
    pub fn of(group: &GroupSpec) -> Self {
        let resources = &group.resources;
        Self {
            workers: 1,
            millicpu: resources.millicpu,
            mem_bytes: resources.mem_bytes,
            gpus: resources.devices(),
            share: resources.milligpu.min(MILLI),
            gpu_types: resources.gpu_types.clone(),
            gpu_mem_bytes: resources.gpu_mem_bytes,
            node_labels: group.node_labels.clone(),
        }
    }

    /// What so many workers like this one ask for together; only for workers with whole GPUs.
    pub fn times(&self, workers: u32) -> Self {
        Self {
            workers: self.workers.saturating_mul(workers),
            millicpu: self.millicpu.saturating_mul(workers),
            mem_bytes: self.mem_bytes.saturating_mul(u64::from(workers)),
            gpus: self.gpus.saturating_mul(workers),
            ..self.clone()
        }
    }

    /// Thousandths of GPUs in all.
    pub fn milligpu(&self) -> u64 {
        u64::from(self.gpus) * u64::from(self.share)
    }

    /// True if it takes a part of one GPU.
    pub fn is_fraction(&self) -> bool {
        self.gpus == 1 && self.share < MILLI
    }

    /// What kind of worker this is; none if it takes no GPU.
    pub fn kind(&self) -> Option<Kind> {
        match self.gpus {
            0 => None,
            _ if self.share < MILLI => Some(0),
            gpus => Some(gpus / self.workers.max(1)),
        }
    }

    /// True if GPUs of this model will do.
    pub fn accepts_model(&self, model: &str) -> bool {
        accepts(&self.gpu_types, model)
    }
}

/// True if a list of acceptable models names this one, or names none.
pub(super) fn accepts(gpu_types: &[String], model: &str) -> bool {
    gpu_types.is_empty() || gpu_types.iter().any(|t| t.eq_ignore_ascii_case(model))
}
