//! A node's replicated record.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_types::api::Drain;
use berth_types::{JobId, NodeId, NodeSpec, NodeState};
use serde::{Deserialize, Serialize};

/// What is used of one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuUse {
    /// Held by tasks, in thousandths.
    pub milligpu: u32,
    /// Kept by reservations, in thousandths.
    pub reserved: u32,
    /// Out of service: nothing new may be placed on it. Derived from [`State::health`](super::State::health).
    pub blocked: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// What it offers.
    pub spec: Arc<NodeSpec>,
    /// The newest registration's incarnation.
    pub incarnation: u64,
    /// True once it was marked lost, until it registers again.
    pub lost: bool,
    /// True once a lost node has been fenced.
    pub fenced: bool,
    /// Set while it is out of service.
    pub drain: Option<Drain>,
    /// Since when it is in this state.
    pub since_ms: u64,
    /// For people: why it is lost.
    pub reason: String,
    /// Use of each GPU, by index. Derived from attempts and reservations.
    #[serde(skip)]
    pub gpus: Vec<GpuUse>,
    /// CPUs in use, in thousandths (reservations included). Derived.
    #[serde(skip)]
    pub used_millicpu: u32,
    /// Memory in use (reservations included). Derived.
    #[serde(skip)]
    pub used_mem_bytes: u64,
    /// What of `used_millicpu` only reservations keep. Derived.
    #[serde(skip)]
    pub reserved_millicpu: u32,
    /// What of `used_mem_bytes` only reservations keep. Derived.
    #[serde(skip)]
    pub reserved_mem_bytes: u64,
    /// Tasks that hold resources here, per job. Derived.
    #[serde(skip)]
    pub jobs: BTreeMap<JobId, u32>,
    /// Ports leased to gangs. Derived.
    #[serde(skip)]
    pub ports: BTreeMap<u16, JobId>,
    /// Out of service for its health: nothing new may be placed here. Derived from
    /// [`State::health`](super::State::health).
    #[serde(skip)]
    pub resting: bool,
}

impl Node {
    /// A node that registers for the first time.
    pub fn new(id: NodeId, spec: Arc<NodeSpec>, incarnation: u64, now_ms: u64) -> Self {
        let gpus = vec![GpuUse::default(); spec.gpus.len()];
        Self {
            id,
            spec,
            incarnation,
            lost: false,
            fenced: false,
            drain: None,
            since_ms: now_ms,
            reason: String::new(),
            gpus,
            used_millicpu: 0,
            used_mem_bytes: 0,
            reserved_millicpu: 0,
            reserved_mem_bytes: 0,
            jobs: BTreeMap::new(),
            ports: BTreeMap::new(),
            resting: false,
        }
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Whether it can be used.
    pub fn state(&self) -> NodeState {
        match (self.lost, &self.drain) {
            (true, _) => NodeState::Lost,
            (false, Some(_)) => NodeState::Draining,
            (false, None) => NodeState::Ready,
        }
    }

    /// True if new tasks may be placed here.
    pub fn is_schedulable(&self) -> bool {
        self.state() == NodeState::Ready && !self.resting
    }

    /// True if this GPU is out of service.
    pub fn is_blocked(&self, gpu: u16) -> bool {
        self.gpus.get(usize::from(gpu)).is_some_and(|g| g.blocked)
    }

    /// GPUs in service, whatever the node itself is.
    pub fn usable_gpus(&self) -> usize {
        self.gpus.iter().filter(|gpu| !gpu.blocked).count()
    }
}
