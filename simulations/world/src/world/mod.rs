//! The world: one calendar, and everything that lives in it.
//!
//! ```text
//! calendar --event--> masters.rs (replica steps, effects)   peers.rs (messages between masters, history)
//!                     streams.rs (agents' connections)      agents.rs (agent steps, keeper, processes)
//!                     clients.rs (calls and oracle)         nemesis.rs (faults)   heal.rs (phase 2)
//!                     contact.rs (who knows the masters)
//! ```

mod agents;
mod clients;
mod contact;
mod event;
mod heal;
mod keepers;
mod masters;
mod nemesis;
mod peers;
mod replay;
mod setup;
mod streams;

use std::collections::{BTreeMap, BTreeSet};

use berth_core::replica::ReplicaConfig;
use berth_core::state::State;
use berth_types::MasterId;

use crate::PolicyMaker;
use crate::calendar::Calendar;
use crate::checkers::Checkers;
use crate::chronicle::{Actor, Chronicle};
use crate::client::Client;
use crate::dice::Dice;
use crate::host::{Host, Realm};
use crate::machine::Machine;
use crate::network::Network;
use crate::options::{FaultKind, Options};
use crate::report::{SeedReport, Violation};
use crate::stream::Streams;
use crate::workload::Workload;

pub(crate) use event::{Event, HostBoot, PowerOn, Relief};
use heal::Healing;
pub use replay::{FullLane, Latency, full_lane};

/// Virtual time 0 as a date: all clocks of the world count from here.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;
/// How often the world checks and sweeps.
pub(crate) const LOOK_MS: u64 = 250;

/// Independent sources of randomness.
pub(crate) struct Fates {
    pub(crate) network: Dice,
    pub(crate) disk: Dice,
    pub(crate) machine: Dice,
    pub(crate) client: Dice,
    pub(crate) fault: Dice,
    pub(crate) master: Dice,
}

/// Counters for the report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) inputs: u64,
    pub(crate) elections: u64,
    pub(crate) snapshots: u64,
    pub(crate) spawned: u64,
    pub(crate) acknowledged: u64,
    pub(crate) lost_writes: u64,
    pub(crate) calls: u64,
    pub(crate) refused: u64,
}

/// Everything.
pub(crate) struct World<'p> {
    pub(crate) options: Options,
    pub(crate) calendar: Calendar<Event>,
    pub(crate) log: Chronicle,
    pub(crate) fates: Fates,
    pub(crate) network: Network,
    pub(crate) hosts: Vec<Host>,
    pub(crate) host_of: BTreeMap<(Realm, MasterId), usize>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) streams: Streams,
    pub(crate) clients: Vec<Client>,
    pub(crate) load: Workload,
    pub(crate) replica_config: ReplicaConfig,
    pub(crate) policies: PolicyMaker<'p>,
    pub(crate) checkers: Checkers,
    pub(crate) counts: Counts,
    pub(crate) faults: BTreeMap<FaultKind, u64>,
    /// The furthest state that any master of the real cluster has applied, and its index.
    pub(crate) newest: (u64, State),
    /// Nodes that faults have drained.
    pub(crate) drained: BTreeSet<String>,
    /// A master that is being replaced, if one is.
    pub(crate) replacing: Option<nemesis::Replacing>,
    /// Index by which the newest change of members was applied.
    pub(crate) members_changed: u64,
    /// Phase 2, once it has begun.
    pub(crate) healing: Option<Healing>,
    /// A recorded workload is run, and nothing else.
    pub(crate) replay: Option<replay::Replay>,
    /// The first broken promise.
    pub(crate) violation: Option<Violation>,
    /// The run is over.
    pub(crate) done: bool,
}

impl World<'_> {
    /// Virtual time.
    pub(crate) fn now(&self) -> u64 {
        self.calendar.now_ms()
    }

    /// Adds a line to the log.
    pub(crate) fn note(&mut self, actor: Actor, what: &'static str, numbers: [u64; 4]) {
        let now = self.now();
        self.log.note(now, actor, what, numbers);
    }

    /// Adds a line with words to the log.
    pub(crate) fn say(&mut self, actor: Actor, what: &'static str, numbers: [u64; 4], text: &str) {
        let now = self.now();
        self.log.say(now, actor, what, numbers, text);
    }

    /// Records a broken promise; the first one ends the run.
    pub(crate) fn judge(&mut self, verdict: Result<(), Violation>) {
        if let (Err(violation), None) = (verdict, &self.violation) {
            let text = violation.to_string();
            self.say(Actor::World, "PROMISE BROKEN", [0; 4], &text);
            self.violation = Some(violation);
        }
    }

    /// Runs to the end and reports.
    pub(crate) fn run(mut self) -> SeedReport {
        while self.violation.is_none() && !self.done {
            match self.calendar.pop(u64::MAX) {
                Some(event) => self.on_event(event),
                None => break,
            }
        }
        self.into_report()
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Tick(host) => self.on_master_tick(host),
            Event::PeerArrives {
                host,
                from,
                report_to,
                message,
            } => self.on_peer_arrives(host, from, report_to, *message),
            Event::SnapshotFate { sender, to, ok } => self.on_snapshot_fate(sender, to, ok),
            Event::PeerUnreachable { sender, to } => self.on_peer_unreachable(sender, to),
            Event::DiskDone(host) => self.on_disk_done(host),
            Event::PolicyAnswers { host, round, plan } => {
                self.on_policy_answers(host, round, plan);
            }
            Event::SnapshotTaken { host, index, data } => {
                self.on_snapshot_taken(host, index, data);
            }
            Event::HistoryAnswers { host, token, jobs } => {
                self.on_history_answers(host, token, jobs);
            }
            Event::HistoryFetch(host) => self.on_history_fetch(host),
            Event::MasterDies { host, pause_ms } => self.on_master_dies(host, pause_ms),
            Event::MasterStarts(host) => self.on_master_starts(host),
            Event::Dial(machine) => self.on_dial(machine),
            Event::Dialed { machine, host, ok } => self.on_dialed(machine, host, ok),
            Event::FrameArrives { session, up, frame } => {
                self.on_frame_arrives(session, up, *frame);
            }
            Event::EndNotices {
                session,
                agent: true,
            } => self.on_stream_breaks(session),
            Event::EndNotices { session, .. } => self.on_end_notices(session, false),
            Event::AgentTick(machine) => self.on_agent_tick(machine),
            Event::AgentStarts(machine) => self.on_agent_starts(machine),
            Event::AgentHears { machine, input } => self.on_agent_hears(machine, *input),
            Event::KeeperActs {
                machine,
                socket,
                order,
            } => self.on_keeper_acts(machine, socket, *order),
            Event::KeeperAnswers { machine, socket } => self.on_keeper_answers(machine, socket),
            Event::MachineStarts(machine) => self.on_machine_starts(machine),
            Event::ProcessEnds {
                machine,
                key,
                version,
            } => self.on_process_ends(machine, key, version),
            Event::ProcessSpeaks {
                machine,
                key,
                checkpoint,
            } => self.on_process_speaks(machine, key, checkpoint),
            Event::KeeperLease(machine) => self.on_keeper_lease(machine),
            Event::ClientActs(client) => self.on_client_acts(client),
            Event::CallArrives {
                host,
                caller,
                request,
            } => self.on_call_arrives(host, caller, *request),
            Event::ReplyArrives { caller, response } => self.on_reply_arrives(caller, *response),
            Event::CallTimesOut(caller) => self.on_call_times_out(caller),
            Event::Strike { kind, pace_ms } => self.on_strike(kind, pace_ms),
            Event::Relief(relief) => self.on_relief(relief),
            Event::Look => self.on_look(),
        }
    }

    fn into_report(self) -> SeedReport {
        let state = &self.newest.1;
        let jobs = crate::report::JobCounts {
            planned: self.load.jobs.len() as u64,
            acknowledged: self.counts.acknowledged,
            completed: state.finished_by_class[0],
            failed: state.finished_by_class[1],
            cancelled: state.finished_by_class[2],
            timed_out: state.finished_by_class[3],
            spawned: self.counts.spawned,
            restarts: self.checkers.restarts(),
        };
        SeedReport {
            seed: self.options.seed,
            hash: self.log.hash(),
            events: self.log.events(),
            virtual_ms: self.calendar.now_ms(),
            healed_ms: self.healing.as_ref().map(|h| h.since_ms),
            inputs: self.counts.inputs,
            elections: self.counts.elections,
            snapshots: self.counts.snapshots,
            lost_writes: self.counts.lost_writes,
            applied: self.newest.0,
            faults: self.faults,
            network: self.network.counts,
            jobs,
            violation: self.violation,
            lines: self.log.lines(),
        }
    }
}
