//! The full lane: a recorded workload through real replicas, real agents, logs and disks, without faults.
//!
//! The masters come up, the nodes register in the cluster's order, and then the trace begins: each job is submitted by a
//! client of its own at its time. What was done is recorded from the first master's log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use berth_core::codec::decode_entry;
use berth_core::state::{FinishedJob, State};
use berth_raft::Entry;
use berth_types::{JobId, NodeSpec};

use super::{EPOCH_MS, Event, LOOK_MS, PowerOn, World};
use crate::PolicyMaker;
use crate::client::Client;
use crate::disk::DiskSpeed;
use crate::machine::Machine;
use crate::network::NetworkRates;
use crate::options::{LocalDelays, Options, PolicyRates};
use crate::twin::deeds::Deeds;
use crate::twin::lane;
use crate::twin::{End, Faults, Overhead, Rounds, Setting, TraceJob, Truth, TwinError};
use crate::workload::{Behaviour, Ending, PlannedJob, Workload};

/// Time for masters to elect a leader.
const FIRST_AGENT_MS: u64 = 5_000;
/// Time between two agents that start, so that nodes register in order.
const BETWEEN_AGENTS_MS: u64 = 200;
/// From the last agent's start to the trace's beginning.
const BEFORE_TRACE_MS: u64 = 2_000;
/// A run that lasts so many times as long as all jobs one after the other hangs.
const PATIENCE: u64 = 4;

/// How long things take in the full lane; longest times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// A message over the network, each way.
    pub network_ms: u64,
    /// A flush of a master's disk.
    pub flush_ms: u64,
    /// The policy's answer.
    pub policy_ms: u64,
    /// Preparing a task on its machine.
    pub prepare_ms: u64,
    /// A task that was asked to stop.
    pub stop_ms: u64,
}

/// What became of a workload in the full lane.
#[derive(Clone, Debug, PartialEq)]
pub struct FullLane {
    /// Submission, first start and end of each job by the masters' account, from the trace's begin, in its order.
    pub jobs: Vec<(u64, u64, u64)>,
    /// Hash of what was done; see [`Outcome::hash`](crate::twin::Outcome::hash).
    pub hash: u64,
}

impl FullLane {
    /// Mean time from a job's submission in the trace to its end, in seconds.
    pub fn avg_jct_s(&self) -> f64 {
        let sum: u64 = self.jobs.iter().map(|(submit, _, end)| end - submit).sum();
        sum as f64 / 1_000.0 / self.jobs.len().max(1) as f64
    }
}

/// The recorder.
#[derive(Debug)]
pub(crate) struct Replay {
    begin_ms: u64,
    until_ms: u64,
    jobs: usize,
    deeds: Deeds,
    finished: BTreeMap<JobId, (u64, u64)>,
}

impl Replay {
    /// Entries that the first master wrote.
    pub(crate) fn on_entries(&mut self, entries: &[Entry]) {
        for entry in entries.iter().filter(|entry| !entry.data.is_empty()) {
            let Ok(entry) = decode_entry(&entry.data) else {
                continue;
            };
            let Some(now_ms) = entry.stamp_ms.checked_sub(EPOCH_MS + self.begin_ms) else {
                continue;
            };
            for command in &entry.commands {
                self.deeds.on_command(now_ms, command);
            }
        }
    }

    /// Jobs that are over by the first master's account.
    pub(crate) fn on_finished(&mut self, jobs: &[FinishedJob]) {
        let begin_ms = EPOCH_MS + self.begin_ms;
        for finished in jobs {
            let started_ms = finished.job.first_started_ms.unwrap_or(finished.ended_ms);
            let times = (started_ms - begin_ms, finished.ended_ms - begin_ms);
            self.finished.insert(finished.job.id, times);
        }
    }

    /// True if every job is over, or none will be.
    pub(crate) fn is_over(&self, now_ms: u64, state: &State) -> bool {
        state.finished >= self.jobs as u64 || now_ms > self.until_ms
    }
}

/// Runs a workload in the full lane with so many masters. The setting's trace must be of rigid jobs that end by
/// themselves, and its rounds on events; costs, foresight and faults are not part of it. Its processes save nothing, so
/// under a policy that evicts, the fast lane does the same with [`Overhead::NEVER_SAVES`].
///
/// # Errors
/// If the setting asks for what the full lane does not do, or a promise is broken.
pub fn full_lane(
    setting: &Setting,
    masters: usize,
    latency: &Latency,
    policies: PolicyMaker<'_>,
) -> Result<FullLane, TwinError> {
    if setting.rounds != (Rounds::OnEvent { coalesce_ms: 0 }) {
        return Err(TwinError::FullLane("its rounds are others".to_owned()));
    }
    let overheads = &setting.overheads;
    let is_free = [Overhead::default(), Overhead::NEVER_SAVES].contains(&overheads.usual);
    if !is_free
        || !overheads.by_family.is_empty()
        || setting.faults != Faults::default()
        || setting.outset.is_some()
    {
        let what = "it has costs, faults or an outset".to_owned();
        return Err(TwinError::FullLane(what));
    }
    let planned = (setting.trace.jobs.iter().enumerate())
        .map(|(number, job)| planned(number, job, latency.stop_ms));
    let load = Workload {
        jobs: planned.collect::<Result<_, _>>()?,
    };
    let mut world = World::empty(
        options(setting.seed, masters, latency),
        load,
        policies,
        false,
    );
    world.replica_config.plan_limits = setting.limits.clone();
    // Planned on events alone, as in the fast lane: not every half a second besides.
    world.replica_config.round_tick_ms = u64::MAX / 2;
    let begin_ms = world.add_replay(setting);
    let (mut replay, violation) = world.run_replay()?;
    if let Some(violation) = violation {
        return Err(TwinError::Broken {
            at_ms: 0,
            what: violation,
        });
    }
    let jobs = (setting.trace.jobs.iter().enumerate()).map(|(index, job)| {
        let id = JobId(index as u64 + 1);
        let times = replay.finished.get(&id).copied();
        let (start_ms, end_ms) = times.ok_or_else(|| TwinError::Behaviour {
            at_ms: replay.until_ms - begin_ms,
            key: job.key.clone(),
            what: "has not ended".to_owned(),
        })?;
        Ok((job.submit_ms, start_ms, end_ms))
    });
    let jobs = jobs.collect::<Result<_, TwinError>>()?;
    Ok(FullLane {
        jobs,
        hash: replay.deeds.hash(),
    })
}

/// What the world runs for a job of the trace: its command names it.
fn planned(number: usize, job: &TraceJob, stops_within_ms: u64) -> Result<PlannedJob, TwinError> {
    let refused = |what: &str| Err(TwinError::FullLane(format!("job `{}` {what}", job.key)));
    let Truth::Rigid(rigid) = &job.truth else {
        return refused("is not rigid");
    };
    if rigid.run_ms == 0 || rigid.run_ms == u64::MAX || rigid.end == End::Cancelled {
        return refused("does not run for a while and end by itself");
    }
    let mut spec = (*job.spec).clone();
    for group in &mut spec.groups {
        group.command = vec!["simulated".to_owned(), number.to_string()];
    }
    Ok(PlannedJob {
        spec: Arc::new(spec),
        behaviour: Behaviour {
            run_ms: rigid.run_ms,
            ending: match rigid.end {
                End::Completed | End::Cancelled => Ending::Well,
                End::Failed => Ending::Always(1),
            },
            ignores_stop: false,
            stops_within_ms,
            checkpoint_ms: None,
            progress_ms: None,
            damaged_per_mille: 0,
        },
        fits: true,
    })
}

fn options(seed: u64, masters: usize, latency: &Latency) -> Options {
    Options {
        seed,
        masters,
        machines: 0,
        clients: 0,
        jobs: 0,
        safety_ms: u64::MAX,
        tick_ms: 50,
        snapshot_entries: 5_000,
        keep_entries: 500,
        encode_peers: false,
        network: NetworkRates {
            delay_min_ms: 0,
            delay_max_ms: latency.network_ms,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            late_per_mille: 0,
            late_ms: 1,
        },
        disk: DiskSpeed {
            flush_min_ms: 0,
            flush_max_ms: latency.flush_ms,
            slow_per_mille: 0,
            slow_ms: 0,
        },
        local: LocalDelays {
            prepare_ms: (0, latency.prepare_ms),
            order_ms: 0,
            answer_ms: 0,
        },
        policy: PolicyRates {
            latency_max_ms: latency.policy_ms,
            late_per_mille: 0,
            garbage_per_mille: 0,
        },
        policy_choice: 0,
        faults: Vec::new(),
        skew_ms: 0,
        spawn_fault_per_mille: 0,
    }
}

impl World<'_> {
    /// Masters, the cluster's machines, and a client for each job. When the trace begins.
    fn add_replay(&mut self, setting: &Setting) -> u64 {
        self.add_masters();
        for (number, node) in setting.cluster.nodes.iter().enumerate() {
            self.add_machine(number, node);
        }
        let agents = setting.cluster.nodes.len() as u64;
        let begin_ms = FIRST_AGENT_MS + agents * BETWEEN_AGENTS_MS + BEFORE_TRACE_MS;
        let jobs = &setting.trace.jobs;
        for (number, job) in jobs.iter().enumerate() {
            self.clients.push(Client {
                queue: VecDeque::from([number]),
                prompt: true,
                ..Client::default()
            });
            self.calendar
                .at(begin_ms + job.submit_ms, Event::ClientActs(number));
        }
        let work_ms = jobs.iter().fold(0u64, |sum, job| match &job.truth {
            Truth::Rigid(rigid) => sum.saturating_add(rigid.run_ms),
            Truth::Model(_) => sum,
        });
        let last_ms = jobs.last().map_or(0, |job| job.submit_ms);
        let longest_ms = last_ms.saturating_add(work_ms).saturating_mul(PATIENCE);
        let until_ms = setting.until_ms.unwrap_or(longest_ms);
        self.replay = Some(Replay {
            begin_ms,
            until_ms: begin_ms.saturating_add(until_ms),
            jobs: jobs.len(),
            deeds: Deeds::default(),
            finished: BTreeMap::new(),
        });
        self.calendar.at(LOOK_MS, Event::Look);
        begin_ms
    }

    fn add_machine(&mut self, number: usize, spec: &NodeSpec) {
        let spec = (*lane::offer(spec)).clone();
        let incarnation = self.fates.machine.bits() | 1;
        let machine = Machine::new(number, spec, self.options.masters, 0, incarnation);
        let boot = machine.boot;
        self.machines.push(machine);
        let start_ms = FIRST_AGENT_MS + number as u64 * BETWEEN_AGENTS_MS;
        self.calendar.at(start_ms, Event::AgentStarts(number));
        let keeper = PowerOn {
            machine: number,
            boot,
        };
        self.calendar.at(100, Event::KeeperLease(keeper));
    }

    /// Runs until every job is over. The record, and the first broken promise.
    fn run_replay(mut self) -> Result<(Replay, Option<String>), TwinError> {
        while self.violation.is_none() && !self.done {
            match self.calendar.pop(u64::MAX) {
                Some(event) => self.on_event(event),
                None => break,
            }
        }
        let violation = self.violation.take().map(|violation| violation.to_string());
        let missing = || TwinError::FullLane("nothing was recorded".to_owned());
        Ok((self.replay.take().ok_or_else(missing)?, violation))
    }
}
