//! Nodes: what an agent offers when it registers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One GPU of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInfo {
    /// Stable name of the device, such as `GPU-8f6c…`.
    pub uuid: String,
    /// Model, such as `a100`.
    pub model: String,
    /// Device memory.
    pub mem_bytes: u64,
    /// GPUs of one node with the same number talk over NVLink; each GPU its own number if there is none.
    pub nvlink_group: u16,
    /// NUMA node of the host.
    pub numa: u16,
}

/// What an agent offers. Registered once per agent start, and again when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// The node's name, unique in the cluster; the agent's identity across restarts.
    pub name: String,
    /// Address that other nodes reach its tasks at.
    pub address: String,
    /// Free-form labels that jobs may ask for.
    pub labels: BTreeMap<String, String>,
    /// Rack, for placement; empty if unknown.
    pub rack: String,
    /// CPUs in thousandths.
    pub millicpu: u32,
    /// Host memory that tasks may use.
    pub mem_bytes: u64,
    /// GPUs, in index order.
    pub gpus: Vec<GpuInfo>,
    /// True while the GPUs are declared in a configuration and not read from a driver.
    pub simulated_gpus: bool,
    /// First port that the scheduler may lease to gangs.
    pub port_first: u16,
    /// How many ports from there.
    pub port_count: u16,
    /// The agent's version, for people.
    pub agent_version: String,
}

/// Whether a node can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Registered and in contact.
    Ready,
    /// No new work; what runs may finish.
    Draining,
    /// Out of contact for longer than the node timeout; its tasks count as lost.
    Lost,
}
