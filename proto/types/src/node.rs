//! Nodes: what an agent offers when it registers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Fault;
use crate::job::name_faults;

/// Most GPUs of one node.
pub const MAX_GPUS: usize = 256;
/// Most CPUs of one node, in thousandths.
pub const MAX_MILLICPU: u32 = 1_000_000_000;
/// Most memory of one node.
pub const MAX_MEM_BYTES: u64 = 1 << 60;
/// Most bytes of names, labels and addresses of one node together.
pub const MAX_NODE_TEXT_BYTES: usize = 32 * 1024;

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

impl NodeSpec {
    /// Every fault of the offer by itself. Empty if it is sound.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        name_faults("name", &self.name, &mut faults);
        if self.address.is_empty() {
            let hint = "give the host name or IP address of this machine";
            faults.push(Fault::new("address", "empty", hint));
        }
        let mut at_most = |field: &str, found: u64, most: u64| {
            if found > most {
                faults.push(Fault::new(
                    field,
                    format!("{found}"),
                    format!("at most {most}"),
                ));
            }
        };
        at_most("gpus", self.gpus.len() as u64, MAX_GPUS as u64);
        at_most(
            "millicpu",
            u64::from(self.millicpu),
            u64::from(MAX_MILLICPU),
        );
        at_most("mem_bytes", self.mem_bytes, MAX_MEM_BYTES);
        at_most(
            "labels",
            self.text_bytes() as u64,
            MAX_NODE_TEXT_BYTES as u64,
        );
        let last_port = u32::from(self.port_first) + u32::from(self.port_count);
        if self.port_count > 0 && (self.port_first == 0 || last_port > 1 << 16) {
            let what = format!("{} ports from {}", self.port_count, self.port_first);
            faults.push(Fault::new("port_first", what, "ports are 1 to 65535"));
        }
        for (i, gpu) in self.gpus.iter().enumerate() {
            let twin = self.gpus[..i].iter().any(|g| g.uuid == gpu.uuid);
            if twin && !gpu.uuid.is_empty() {
                let what = format!("`{}` is there twice", gpu.uuid);
                let hint = "each GPU has its own uuid";
                faults.push(Fault::new(format!("gpus[{i}].uuid"), what, hint));
            }
        }
        faults
    }

    /// Bytes of free text, which is what makes an offer large.
    pub fn text_bytes(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(k, v)| k.len() + v.len()).sum();
        let gpus: usize = self.gpus.iter().map(|g| g.uuid.len() + g.model.len()).sum();
        labels + gpus + self.address.len() + self.rack.len() + self.agent_version.len()
    }
}
