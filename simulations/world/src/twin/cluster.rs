//! The machines of a simulated cluster.

use std::collections::BTreeMap;

use berth_types::NodeSpec;

/// What a workload runs on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Its name, for reports.
    pub name: String,
    /// The nodes that are there from the beginning, in the order in which they register.
    pub nodes: Vec<NodeSpec>,
    /// GPU models by name as in [`GpuInfo::model`](berth_types::GpuInfo::model); those not listed have speed 1.
    pub gpu_models: BTreeMap<String, GpuModel>,
}

/// What a GPU model is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuModel {
    /// How fast a rigid job runs on it, as a multiple of the GPU that its duration was recorded on.
    pub speed: f64,
}

impl Cluster {
    /// All GPUs, in thousandths.
    pub fn milligpu(&self) -> u64 {
        (self.nodes.iter())
            .map(|node| node.gpus.len() as u64 * u64::from(berth_types::MILLI))
            .sum()
    }
}
