//! Shapes: what makes nodes equal in the eyes of a job, whatever runs on them.

use std::collections::BTreeMap;

use berth_types::NodeSpec;

/// What a node offers, without its identity. Nodes of one shape can run the same tasks when they are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeShape {
    /// CPUs in thousandths.
    pub millicpu: u32,
    /// Host memory that tasks may use.
    pub mem_bytes: u64,
    /// Number of GPUs per model (lower case) and memory.
    pub gpus: BTreeMap<(String, u64), u32>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl NodeShape {
    /// The shape of a node.
    pub fn of(spec: &NodeSpec) -> Self {
        let mut gpus = BTreeMap::new();
        for gpu in &spec.gpus {
            *gpus
                .entry((gpu.model.to_lowercase(), gpu.mem_bytes))
                .or_insert(0) += 1;
        }
        Self {
            millicpu: spec.millicpu,
            mem_bytes: spec.mem_bytes,
            gpus,
            labels: spec.labels.clone(),
        }
    }

    /// All its GPUs.
    pub fn gpu_count(&self) -> u32 {
        self.gpus.values().sum()
    }
}
