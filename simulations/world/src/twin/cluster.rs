//! The machines of a simulated cluster.

use std::collections::BTreeMap;

use berth_core::policy::POOL_LABEL;
use berth_types::NodeSpec;

/// What a workload runs on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Its name, for reports.
    pub name: String,
    /// The nodes that are there from the beginning, in the order in which they register.
    pub nodes: Vec<NodeSpec>,
    /// Nodes that pools can grow by. A policy has to ask for them.
    pub later: Vec<NodeSpec>,
    /// Its pools; a node belongs to the one that its label [`POOL_LABEL`] names.
    pub pools: Vec<PoolRules>,
    /// GPU models by name as in [`GpuInfo::model`](berth_types::GpuInfo::model); those not listed have speed 1.
    pub gpu_models: BTreeMap<String, GpuModel>,
}

/// What nodes of a pool cost, and how they come and go. It has as many nodes at most as there are of it in
/// [`Cluster::nodes`] and [`Cluster::later`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolRules {
    /// Its name.
    pub name: String,
    /// It never gets smaller than this.
    pub min_nodes: u32,
    /// Most nodes that are granted, whatever is asked for; the provider's limit, where `later` is the owner's.
    pub quota_nodes: Option<u32>,
    /// From asking for a node to its registration.
    pub boot_ms: u64,
    /// In how many of 1000 cases a request for a node is denied.
    pub denied_per_mille: u32,
    /// After a denial nothing is asked for so long; at least 1.
    pub retry_ms: u64,
    /// What a node costs for an hour.
    pub price_per_hour: f64,
}

/// What a GPU model is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuModel {
    /// How fast a rigid job runs on it, as a multiple of the GPU that its duration was recorded on.
    pub speed: f64,
}

impl Cluster {
    /// All GPUs that are there from the beginning, in thousandths.
    pub fn milligpu(&self) -> u64 {
        (self.nodes.iter())
            .map(|node| node.gpus.len() as u64 * u64::from(berth_types::MILLI))
            .sum()
    }

    /// The nodes from the beginning and those that may come later: nodes by index.
    pub fn all_nodes(&self) -> impl Iterator<Item = &NodeSpec> {
        self.nodes.iter().chain(&self.later)
    }

    /// A node by index.
    pub fn node(&self, index: usize) -> Option<&NodeSpec> {
        match index.checked_sub(self.nodes.len()) {
            None => self.nodes.get(index),
            Some(later) => self.later.get(later),
        }
    }

    /// Index of the pool that a node belongs to.
    pub fn pool_of(&self, node: &NodeSpec) -> Option<usize> {
        let name = node.labels.get(POOL_LABEL)?;
        self.pools.iter().position(|pool| pool.name == *name)
    }
}
