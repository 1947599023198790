//! A new world from what a seed drew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use berth_core::replica::{Bootstrap, ReplicaConfig};
use berth_core::state::State;
use berth_raft::Recovered;
use berth_types::{MasterId, NodeSpec};

use super::{Counts, Event, Fates, LOOK_MS, PowerOn, World};
use crate::PolicyMaker;
use crate::calendar::Calendar;
use crate::checkers::Checkers;
use crate::chronicle::Chronicle;
use crate::client::Client;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::host::{Host, Realm};
use crate::machine::Machine;
use crate::network::Network;
use crate::options::Options;
use crate::stream::Streams;
use crate::workload::{self, Workload};

impl<'p> World<'p> {
    /// A world at time 0: everything is about to start.
    pub(crate) fn new(options: Options, policies: PolicyMaker<'p>, verbose: bool) -> Self {
        let seed = options.seed;
        let mut plan = Dice::new(seed, 2);
        let nodes: Vec<NodeSpec> = (0..options.machines)
            .map(|number| workload::draw_node(number, &mut plan))
            .collect();
        let load = Workload::draw(options.jobs, &nodes, &mut plan);
        let mut world = World::empty(options, load, policies, verbose);
        world.add_masters();
        world.add_machines(nodes, &mut plan);
        world.add_clients();
        for (kind, pace_ms) in world.options.faults.clone() {
            let first = world.fates.fault.between(1_000, 2 * pace_ms);
            world
                .calendar
                .at(first + 3_000, Event::Strike { kind, pace_ms });
        }
        world.calendar.at(LOOK_MS, Event::Look);
        world
    }

    /// A world with nobody in it.
    pub(super) fn empty(
        options: Options,
        load: Workload,
        policies: PolicyMaker<'p>,
        verbose: bool,
    ) -> Self {
        let seed = options.seed;
        World {
            calendar: Calendar::default(),
            log: Chronicle::new(verbose),
            fates: Fates {
                network: Dice::new(seed, 3),
                disk: Dice::new(seed, 4),
                machine: Dice::new(seed, 5),
                client: Dice::new(seed, 6),
                fault: Dice::new(seed, 7),
                master: Dice::new(seed, 8),
            },
            network: Network::new(options.network),
            hosts: Vec::new(),
            host_of: BTreeMap::new(),
            machines: Vec::new(),
            streams: Streams::default(),
            clients: Vec::new(),
            replica_config: replica_config(&options),
            checkers: Checkers::default(),
            counts: Counts::default(),
            faults: BTreeMap::new(),
            newest: (0, State::new()),
            drained: BTreeSet::new(),
            replacing: None,
            members_changed: 0,
            healing: None,
            replay: None,
            violation: None,
            done: false,
            load,
            policies,
            options,
        }
    }

    pub(super) fn add_masters(&mut self) {
        let count = self.options.masters;
        let masters: Vec<_> = (0..count)
            .map(|n| (master_id(n), Host::address(n)))
            .collect();
        let bootstrap = Bootstrap {
            cluster_id: self.options.seed | 1,
            masters,
        };
        for _ in 0..count {
            let number = self.add_host(Realm::Real, Some(bootstrap.clone()));
            let late = self.fates.master.between(0, 300);
            self.calendar.at(late, Event::MasterStarts(number));
        }
    }

    /// A new host with an empty disk; its process is not started.
    pub(crate) fn add_host(&mut self, realm: Realm, bootstrap: Option<Bootstrap>) -> usize {
        let number = self.hosts.len();
        let id = master_id(number);
        let choice = self.options.policy_choice;
        let host = Host {
            number,
            id,
            realm,
            disk: Disk::new(Recovered::default(), self.options.disk),
            replica: None,
            boot: 0,
            doom: None,
            skew_ms: self.fates.master.between(0, self.options.skew_ms),
            policy: (self.policies)(choice),
            bootstrap,
            peers: BTreeMap::new(),
            heard: BTreeMap::new(),
            sessions: BTreeSet::new(),
            calls: BTreeMap::new(),
            next_request: 0,
            leads: None,
            removed: false,
            log: BTreeMap::new(),
            applied: 0,
            history_gap: None,
        };
        self.host_of.insert((realm, id), number);
        self.hosts.push(host);
        number
    }

    fn add_machines(&mut self, nodes: Vec<NodeSpec>, plan: &mut Dice) {
        for (number, spec) in nodes.into_iter().enumerate() {
            let skew = plan.between(0, self.options.skew_ms);
            let incarnation = self.fates.machine.bits() | 1;
            let machine = Machine::new(number, spec, self.options.masters, skew, incarnation);
            let boot = machine.boot;
            self.machines.push(machine);
            let late = self.fates.machine.between(0, 2_000);
            self.calendar.at(late, Event::AgentStarts(number));
            let keeper = PowerOn {
                machine: number,
                boot,
            };
            self.calendar.at(100, Event::KeeperLease(keeper));
        }
    }

    fn add_clients(&mut self) {
        let count = self.options.clients;
        let mut queues = vec![VecDeque::new(); count];
        for job in 0..self.load.jobs.len() {
            if let Some(queue) = queues.get_mut(job % count) {
                queue.push_back(job);
            }
        }
        let per_client = self.load.jobs.len() as u64 / count as u64 + 1;
        let pace = self.options.safety_ms / (2 * per_client);
        for queue in queues {
            let client = Client {
                queue,
                think_ms: pace.clamp(20, 2_000),
                ..Client::default()
            };
            self.clients.push(client);
        }
        let operator = Client {
            operator: true,
            think_ms: 200,
            ..Client::default()
        };
        self.clients.push(operator);
        for number in 0..self.clients.len() {
            let start = self.fates.client.between(0, 3_000);
            self.calendar.at(start, Event::ClientActs(number));
        }
    }

    /// The operator's number among clients.
    pub(crate) fn operator(&self) -> usize {
        self.options.clients
    }
}

/// Masters are numbered from 1, by host.
pub(crate) fn master_id(host: usize) -> MasterId {
    MasterId(host as u64 + 1)
}

fn replica_config(options: &Options) -> ReplicaConfig {
    let (election_ticks, heartbeat_ticks) = if options.tick_ms < 50 {
        (14, 3)
    } else {
        (10, 2)
    };
    ReplicaConfig {
        tick_ms: options.tick_ms,
        election_ticks,
        heartbeat_ticks,
        snapshot_entries: options.snapshot_entries,
        keep_entries: options.keep_entries,
        ..ReplicaConfig::default()
    }
}
