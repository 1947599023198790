//! A machine: an agent (`berth-agent-core`), its keeper, its processes, and what survives what.
//!
//! An agent's crash leaves keeper and processes; a machine's loss leaves only the fence file and the one beside it on its disk.

mod keeper;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_agent_core::{AgentCore, Fence, Learned, Route};
use berth_types::api::MasterInfo;
use berth_types::{NodeSpec, TaskKey};

use crate::host::Host;
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
    /// The file beside it: where leaders said that masters are.
    pub(crate) masters: Learned,
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
    /// Hosts that its configuration names. Nobody changes that when masters are replaced, unless it was out of contact for all
    /// of it.
    pub(crate) configured: Vec<usize>,
    /// Whom its agent tries next.
    pub(crate) route: Route,
    /// Since when it has known no master that still is one, and been out of contact.
    pub(crate) stranger_since_ms: Option<u64>,
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
            masters: Learned::default(),
            skew_ms,
            dialing: false,
            socket: 0,
            agent_socket: 0,
            pipe_ms: 0,
            session: None,
            configured: (0..hosts).collect(),
            route: Route::new(Vec::new(), &Learned::default(), 0),
            stranger_since_ms: None,
            heard_ms: 0,
            silence_ms: 0,
            spawned: BTreeSet::new(),
            ends: BTreeMap::new(),
        }
    }

    /// Reads configuration and files, as an agent does when it starts.
    pub(crate) fn look_up_masters(&mut self) {
        let configured = self
            .configured
            .iter()
            .map(|host| Host::address(*host).address);
        let known = self.masters.clone().of_cluster(self.fence);
        let seed = self.number as u64 + self.agent_boot;
        self.route = Route::new(configured.collect(), &known, seed);
    }

    /// A leader said where the masters are: its agent writes it down, and looks there.
    pub(crate) fn learn(&mut self, learned: Learned) {
        self.route.learn(&learned);
        self.masters = learned;
    }

    /// The host to connect to next; `None` if the address is nobody's.
    pub(crate) fn next_host(&mut self) -> Option<usize> {
        let address = self.route.choose()?;
        Host::at_address(&MasterInfo { address })
    }

    /// Its agent reached nobody there, or lost the stream.
    pub(crate) fn left(&mut self, host: usize) {
        self.route.failed(&Host::address(host).address);
    }

    /// A master sent its agent on.
    pub(crate) fn sent_on(&mut self, from: usize, leader: Option<usize>) {
        let leader = leader.map(|host| Host::address(host).address);
        let from = Host::address(from).address;
        self.route
            .redirected(&from, leader.as_deref().unwrap_or_default());
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
