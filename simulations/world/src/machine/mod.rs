//! A machine: an agent (`berth-agent-core`), its keeper, its processes, and what survives what.
//!
//! An agent's crash leaves keeper and processes; a machine's loss leaves only the fence file on its disk.

mod keeper;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_agent_core::{AgentCore, Fence};
use berth_types::{NodeSpec, TaskKey};

pub(crate) use keeper::{Keeper, Now, Spawned};

/// One machine.
pub(crate) struct Machine {
    /// Its number.
    pub(crate) number: usize,
    /// What it offers now.
    pub(crate) spec: Arc<NodeSpec>,
    /// What it offers when nothing is broken.
    pub(crate) full_spec: Arc<NodeSpec>,
    /// False while it has no power.
    pub(crate) power: bool,
    /// Counts machine starts.
    pub(crate) boot: u64,
    /// The agent, while it runs.
    pub(crate) agent: Option<AgentCore>,
    /// Counts agent starts.
    pub(crate) agent_boot: u64,
    /// The keeper.
    pub(crate) keeper: Keeper,
    /// The fence file.
    pub(crate) fence: Fence,
    /// How far its clock is ahead.
    pub(crate) skew_ms: u64,
    /// True while the agent looks for a master.
    pub(crate) dialing: bool,
    /// Number of the keeper's socket; a new keeper has a new one.
    pub(crate) socket: u64,
    /// The socket that the agent uses: what it sends over an older one is lost.
    pub(crate) agent_socket: u64,
    /// When the newest order arrives at the keeper.
    pub(crate) pipe_ms: u64,
    /// The stream that the agent uses or opens.
    pub(crate) session: Option<u64>,
    /// Hosts that it knows.
    pub(crate) addresses: Vec<usize>,
    /// Host to try first.
    pub(crate) hint: Option<usize>,
    /// Which address comes next.
    pub(crate) turn: usize,
    /// When an accepted directive arrived last, in virtual time.
    pub(crate) heard_ms: u64,
    /// How long the silence before that was.
    pub(crate) silence_ms: u64,
    /// Every task that was ever started here, with how often.
    pub(crate) spawned: BTreeSet<TaskKey>,
    /// Ends of processes that truly happened here.
    pub(crate) ends: BTreeMap<TaskKey, TrueEnd>,
}

impl Machine {
    /// A machine that has just started, with its agent not yet running.
    pub(crate) fn new(
        number: usize,
        spec: NodeSpec,
        hosts: usize,
        skew_ms: u64,
        incarnation: u64,
    ) -> Self {
        Self {
            number,
            full_spec: Arc::new(spec.clone()),
            spec: Arc::new(spec),
            power: true,
            boot: 1,
            agent: None,
            agent_boot: 0,
            keeper: Keeper::new(incarnation),
            fence: Fence::default(),
            skew_ms,
            dialing: false,
            socket: 0,
            agent_socket: 0,
            pipe_ms: 0,
            session: None,
            addresses: (0..hosts).collect(),
            hint: None,
            turn: number,
            heard_ms: 0,
            silence_ms: 0,
            spawned: BTreeSet::new(),
            ends: BTreeMap::new(),
        }
    }

    /// The host to connect to next: the hint once, then the addresses in turn.
    pub(crate) fn next_address(&mut self) -> Option<usize> {
        if let Some(hint) = self.hint.take() {
            return Some(hint);
        }
        self.turn += 1;
        self.addresses
            .get(self.turn % self.addresses.len().max(1))
            .copied()
    }

    /// Remembers a host that a master named.
    pub(crate) fn learn(&mut self, host: usize) {
        self.hint = Some(host);
        if !self.addresses.contains(&host) {
            self.addresses.push(host);
        }
    }
}

/// One start of a machine's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MachineBoot {
    /// The machine.
    pub(crate) machine: usize,
    /// Which start of its agent.
    pub(crate) agent_boot: u64,
}

/// How a task truly ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrueEnd {
    /// Its exit code.
    pub(crate) code: i32,
    /// No signal was needed.
    pub(crate) by_itself: bool,
}
