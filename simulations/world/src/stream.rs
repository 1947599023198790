//! Agents' streams: in order or broken. Each end notices a break by itself, at its own time.

use std::collections::{BTreeMap, VecDeque};

use berth_types::{AgentReport, Directive};

use crate::machine::MachineBoot;

/// What travels on a stream.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// Agent to master, first.
    Register {
        /// The keeper's incarnation.
        incarnation: u64,
        /// The cluster served before.
        cluster_id: u64,
        /// What it has.
        inventory: AgentReport,
    },
    /// Agent to master.
    Report(AgentReport),
    /// Master to agent.
    Directive(Box<Directive>),
    /// Master to agent, last: try that host.
    Close(Option<usize>),
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Nothing may arrive before what was sent earlier.
    pub(crate) arrives_ms: u64,
    /// Waits for the way to be mended.
    pub(crate) held: VecDeque<Frame>,
    /// Since when something waits.
    pub(crate) stalled_ms: Option<u64>,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The machine and which of its agents.
    pub(crate) machine: MachineBoot,
    /// The host.
    pub(crate) host: usize,
    /// Which start of the host.
    pub(crate) host_boot: u64,
    /// The agent's end is open.
    pub(crate) agent_open: bool,
    /// The master's end is open.
    pub(crate) master_open: bool,
    /// Agent to master.
    pub(crate) up: Lane,
    /// Master to agent.
    pub(crate) down: Lane,
    /// Since when the agent has been registered with a serving leader over it.
    pub(crate) good_since_ms: Option<u64>,
}

/// All streams that are open at one end at least.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// By session number.
    pub(crate) open: BTreeMap<u64, Stream>,
    next: u64,
}

impl Streams {
    /// A new stream between a machine and a host; both ends count as open.
    pub(crate) fn add(&mut self, machine: MachineBoot, host: usize, host_boot: u64) -> u64 {
        self.next += 1;
        let stream = Stream {
            machine,
            host,
            host_boot,
            agent_open: true,
            master_open: false,
            up: Lane::default(),
            down: Lane::default(),
            good_since_ms: None,
        };
        self.open.insert(self.next, stream);
        self.next
    }

    /// Forgets streams that are closed at both ends.
    pub(crate) fn sweep(&mut self) {
        self.open
            .retain(|_, stream| stream.agent_open || stream.master_open);
    }
}
