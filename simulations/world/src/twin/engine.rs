//! The event loop: virtual time jumps from one thing that happens to the next.
//!
//! At one instant, in this order: running jobs that are due end; jobs arrive; if a round is due, the planner asks the
//! policy, its plan is applied, evicted tasks are gone, started ones run. What ends or is vacated thereby belongs to
//! the same instant.

mod ailing;
mod faults;
mod instant;
mod meter;
mod outset;
mod pools;
mod round;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use berth_core::insight::Insights;
use berth_core::planner::Planner;
use berth_core::policy::Policy;
use berth_types::JobId;
use thiserror::Error;

use super::behaviour::{Behaviour, Stop};
use super::checks::{Belief, Checks};
use super::lane::Lane;
use super::outcome::{JobOutcome, Ledger, Outcome, Packed, Span};
use super::setting::{Rounds, Setting};
use crate::calendar::Calendar;
use ailing::Ailing;
use faults::{Mishap, Trouble};
use meter::{Machines, Meter};
use pools::Pools;

/// Instants between two calls of the watcher.
const WATCH_EVERY: u64 = 64;

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Virtual time.
    pub now_ms: u64,
    /// Jobs in the trace.
    pub jobs: usize,
    /// Jobs submitted so far.
    pub submitted: usize,
    /// Jobs that are over.
    pub finished: usize,
    /// Jobs that wait now.
    pub waiting: usize,
    /// Rounds so far.
    pub rounds: u64,
}

/// Why a run could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TwinError {
    /// The cluster has a node that Berth would not accept.
    #[error("node `{node}` cannot be registered: {why}")]
    Node {
        /// Its name.
        node: String,
        /// What is wrong with it.
        why: String,
    },
    /// The trace has a job that Berth would not accept.
    #[error("job `{key}` cannot be submitted: {why}")]
    Job {
        /// Its name in the trace.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The trace is not in the order of submission.
    #[error(
        "job `{key}` is submitted before the job in front of it in the trace; sort the trace by submission"
    )]
    Order {
        /// Its name in the trace.
        key: String,
    },
    /// Rounds of no length.
    #[error("rounds of 0 ms never end; give them a length")]
    Round,
    /// The state refused what the planner or the engine said: one of them is wrong.
    #[error("at {at_ms} ms the state refused a command: {why}")]
    Refused {
        /// Virtual time.
        at_ms: u64,
        /// The state's reason.
        why: String,
    },
    /// A job's behaviour contradicts itself.
    #[error("at {at_ms} ms the model of job `{key}` {what}")]
    Behaviour {
        /// Virtual time.
        at_ms: u64,
        /// The job's name in the trace.
        key: String,
        /// What it did.
        what: String,
    },
    /// The full lane cannot run this.
    #[error(
        "the full lane runs rigid jobs on whole nodes, planned on events at once, without costs and faults; {0}"
    )]
    FullLane(String),
    /// An invariant is broken.
    #[error("at {at_ms} ms {what}")]
    Broken {
        /// Virtual time.
        at_ms: u64,
        /// Which invariant, and how.
        what: String,
    },
}

/// Runs a workload to its end: until every job is over, or nothing can happen any more.
///
/// `watch` is told now and then how far it is, and may end the run there; what is unfinished then stays so in the
/// outcome. The same setting and an equal policy give the same outcome.
///
/// # Errors
/// If the trace or the cluster is not acceptable, a model contradicts itself, or, with
/// [`checks`](Setting::checks), an invariant is broken.
pub fn run(
    setting: &Setting,
    policy: &mut dyn Policy,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Outcome, TwinError> {
    let mut run = Run::new(setting)?;
    while let Some(at_ms) = run.next_ms() {
        run.instant(at_ms, policy)?;
        run.instants += 1;
        if run.instants.is_multiple_of(WATCH_EVERY) {
            run.outcome.cut = watch(run.progress()).is_break();
            if run.outcome.cut {
                break;
            }
        }
    }
    run.close()?;
    // There is nothing left to end.
    let _ = watch(run.progress());
    Ok(run.into_outcome())
}

/// For [`run`]: nobody watches.
pub fn unwatched(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A job of the trace.
#[derive(Debug)]
struct Entry {
    /// From its submission to its end.
    behaviour: Option<Box<dyn Behaviour>>,
    attempt: Option<Running>,
    /// Counts up with everything that makes an earlier due time void.
    version: u32,
    /// Attempts so far.
    starts: u32,
    outcome: JobOutcome,
}

/// The attempt that a job has.
#[derive(Clone, Copy, Debug)]
struct Running {
    since_ms: u64,
    milligpu: u64,
    /// Share of their speed that its GPUs run at.
    share: f64,
}

/// Something that will happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A job's behaviour is due, unless its version has moved on.
    Due { job: usize, version: u32 },
    /// The time limit of a job's attempt is over, unless that is not its newest one.
    Expires { job: usize, starts: u32 },
    /// Something happens to a machine.
    Mishap(Mishap),
}

/// A run under way.
struct Run<'a> {
    setting: &'a Setting,
    machines: Machines,
    trouble: Trouble,
    pools: Pools,
    ailing: Ailing,
    lane: Lane,
    insights: Insights,
    planner: Planner,
    entries: Vec<Entry>,
    calendar: Calendar<Event>,
    /// Jobs submitted so far; the next one to arrive.
    arrived: usize,
    finished: usize,
    /// Jobs with an attempt.
    placed: BTreeSet<usize>,
    /// True once the outset, if there is one, is behind.
    is_taken_up: bool,
    /// When the next round is due.
    round_ms: Option<u64>,
    /// Rounds in a row that changed nothing, with nothing due.
    fruitless: u32,
    meter: Meter,
    checks: Option<Checks>,
    /// Of all attempts that are over.
    ledger: Ledger,
    arrived_milligpu: u64,
    instants: u64,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(setting: &'a Setting) -> Result<Self, TwinError> {
        if setting.rounds == (Rounds::Every { ms: 0 }) {
            return Err(TwinError::Round);
        }
        let jobs = &setting.trace.jobs;
        let unsorted = jobs
            .windows(2)
            .find(|pair| pair[1].submit_ms < pair[0].submit_ms);
        if let Some(pair) = unsorted {
            let key = pair[1].key.clone();
            return Err(TwinError::Order { key });
        }
        let entries = jobs.iter().map(|job| Entry {
            behaviour: None,
            attempt: None,
            version: 0,
            starts: 0,
            outcome: JobOutcome {
                key: job.key.clone(),
                submit_ms: job.submit_ms,
                ..JobOutcome::default()
            },
        });
        let mut run = Self {
            setting,
            machines: Machines::new(&setting.cluster),
            trouble: Trouble::default(),
            pools: Pools::new(&setting.cluster, setting.seed),
            ailing: Ailing::default(),
            lane: Lane::new(),
            insights: Insights::new(),
            planner: Planner::new(),
            entries: entries.collect(),
            calendar: Calendar::default(),
            arrived: 0,
            finished: 0,
            placed: BTreeSet::new(),
            is_taken_up: false,
            round_ms: None,
            fruitless: 0,
            meter: Meter::new(&setting.trace),
            checks: setting.checks.then(Checks::default),
            ledger: Ledger::default(),
            arrived_milligpu: 0,
            instants: 0,
            outcome: Outcome::default(),
        };
        run.power_on()?;
        Ok(run)
    }

    fn progress(&self) -> Progress {
        Progress {
            now_ms: self.calendar.now_ms(),
            jobs: self.entries.len(),
            submitted: self.arrived,
            finished: self.finished,
            waiting: self.lane.state.pending.len(),
            rounds: self.outcome.rounds,
        }
    }

    /// When something happens next.
    fn next_ms(&self) -> Option<u64> {
        if self.finished == self.entries.len() || self.trouble.is_all_there_is() {
            return None;
        }
        let arrival_ms = (self.setting.trace.jobs.get(self.arrived)).map(|job| job.submit_ms);
        let outset_ms = self.outset().map(|outset| outset.at_ms);
        let times = [
            arrival_ms,
            self.calendar.next_ms(),
            self.round_ms,
            outset_ms,
            self.review_ms(),
        ];
        let next_ms = times.into_iter().flatten().min()?;
        (next_ms <= self.setting.until_ms.unwrap_or(u64::MAX)).then_some(next_ms)
    }

    /// Ends what is still open, so that the ledger is complete.
    fn close(&mut self) -> Result<(), TwinError> {
        let now_ms = match self.setting.until_ms {
            Some(until_ms) if self.finished < self.entries.len() && !self.outcome.cut => until_ms,
            _ => self.calendar.now_ms(),
        };
        let now_ms = now_ms.max(self.calendar.now_ms());
        self.meter.on_time(now_ms);
        for index in self.placed.clone() {
            if let Some(behaviour) = &mut self.entries[index].behaviour {
                let _ = behaviour.advance(now_ms);
            }
            self.leave(index, now_ms, now_ms, Stop::Unfinished)?;
        }
        for entry in &mut self.entries {
            if let Some(mut behaviour) = entry.behaviour.take() {
                entry.outcome.served = behaviour.served(now_ms);
            }
        }
        self.outcome.end_ms = now_ms;
        if self.finished < self.entries.len() {
            self.pools.on_time(now_ms);
            self.outcome.nodes = self.pools.usage(&self.setting.cluster);
        }
        Ok(())
    }

    /// An attempt is over: its ledger, its part of the chart.
    fn leave(
        &mut self,
        index: usize,
        now_ms: u64,
        ended_ms: u64,
        why: Stop,
    ) -> Result<(), TwinError> {
        let entry = &mut self.entries[index];
        let (Some(attempt), Some(behaviour)) = (entry.attempt.take(), &mut entry.behaviour) else {
            return Ok(());
        };
        entry.version += 1;
        self.placed.remove(&index);
        let spent = behaviour.on_stop(now_ms, why);
        let held_ms = now_ms - attempt.since_ms;
        if spent.sum_ms() != held_ms {
            return Err(TwinError::Behaviour {
                at_ms: now_ms,
                key: entry.outcome.key.clone(),
                what: format!("accounts for {} ms of {held_ms} ms", spent.sum_ms()),
            });
        }
        let ledger = Ledger::of(attempt.milligpu, &spent);
        entry.outcome.ledger.add(&ledger);
        let was_free = entry.outcome.restarts > 0 && spent.restart_ms == 0;
        entry.outcome.free_restarts += u32::from(was_free);
        self.ledger.add(&ledger);
        entry.outcome.placed_ms += ended_ms - attempt.since_ms;
        if self.setting.timeline {
            self.draw(index, attempt.since_ms, now_ms);
        }
        Ok(())
    }

    /// Every invariant, if that is wished for.
    fn check(&mut self, now_ms: u64) -> Result<(), TwinError> {
        let Some(checks) = &mut self.checks else {
            return Ok(());
        };
        let open = (self.placed.iter()).filter_map(|&index| self.entries[index].attempt);
        let belief = Belief {
            state: &self.lane.state,
            arrived: self.arrived,
            finished: self.finished,
            ledger: self.ledger,
            open: open
                .map(|running| (running.since_ms, running.milligpu))
                .collect(),
        };
        let verdict = checks.on_instant(&belief);
        verdict.map_err(|what| TwinError::Broken {
            at_ms: now_ms,
            what,
        })
    }

    /// Adds what a job holds to the chart.
    fn draw(&mut self, index: usize, start_ms: u64, end_ms: u64) {
        let job = self.lane.state.job(job_id(index));
        let Some(attempt) = job.and_then(|job| job.attempt.as_ref()) else {
            return;
        };
        for task in &attempt.tasks {
            let node = self.machines.index(task.placement.node);
            let spans = task.placement.gpus.iter().map(|share| Span {
                job: index,
                node,
                gpu: share.gpu,
                milligpu: share.milligpu,
                start_ms,
                end_ms,
            });
            self.outcome.timeline.extend(spans);
        }
    }

    /// Takes over what a job publishes.
    fn publish(&mut self, index: usize) {
        let insight = (self.entries[index].behaviour.as_mut()).and_then(|b| b.insight());
        if let Some(insight) = insight {
            self.insights.insert(job_id(index), insight);
        }
    }

    fn into_outcome(mut self) -> Outcome {
        self.outcome.jobs = self
            .entries
            .into_iter()
            .map(|entry| entry.outcome)
            .collect();
        self.outcome.unfinished = (self.outcome.jobs.iter())
            .filter(|job| job.outcome.is_none())
            .count() as u64;
        self.outcome.hash = self.lane.hash();
        self.outcome.fragmentation = self.meter.series.fragmentation();
        self.outcome.series = self.meter.series;
        self.outcome
    }

    /// Notes how full the cluster is after a round in which jobs arrived that start now or never.
    fn sample_packing(&mut self) {
        self.outcome.packed.push(Packed {
            arrived_milligpu: self.arrived_milligpu,
            allocated_milligpu: self.meter.used_milligpu(),
        });
    }
}

/// Id of the trace's job at this index: ids count from 1, in the order of submission.
fn job_id(index: usize) -> JobId {
    JobId(index as u64 + 1)
}
