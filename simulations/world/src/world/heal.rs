//! Phase 2: everything is mended, and from then on progress is demanded.
//!
//! A run is over when every client knows its answers, every job has ended as it should, all masters are in the same
//! state at the same index, and nothing is held any more.

use berth_core::codec::encode_state;
use berth_types::{JobId, JobState};

use super::{Event, LOOK_MS, World};
use crate::checkers::copies::{Contact, Copies, RECONCILE_MS, RECONCILE_UNDER_FAULTS_MS};
use crate::checkers::{invariants, leaks};
use crate::chronicle::Actor;
use crate::client::Operation;
use crate::digest::Digest;
use crate::host::Realm;
use crate::report::Violation;
use crate::workload::Ending;

/// A leader serves by then.
const LEADER_WITHIN_MS: u64 = 8_000;
/// Every agent is in contact with it by then.
const AGENTS_WITHIN_MS: u64 = 20_000;
/// Something happens at least this often until all is over: the longest task, back-off, lease and fence together.
const STALL_MS: u64 = 60_000;
/// Jobs that would run for ever are cancelled then.
const CANCEL_AFTER_MS: u64 = 10_000;
/// Whatever happens, a run is over by then.
const END_WITHIN_MS: u64 = 900_000;
/// How often states are compared.
const COMPARE_MS: u64 = 3_000;

/// How far phase 2 has come.
#[derive(Clone, Debug)]
pub(crate) struct Healing {
    /// When everything was mended.
    pub(crate) since_ms: u64,
    /// What progress is measured by, and when it last changed.
    mark: (u64, u64, u64, u64, usize),
    moved_ms: u64,
    /// When a leader was last seen to serve.
    led_ms: u64,
    asked: Vec<JobId>,
}

impl World<'_> {
    pub(crate) fn on_look(&mut self) {
        let now = self.now();
        self.calendar.after(LOOK_MS, Event::Look);
        self.look_at_streams();
        self.look_at_copies();
        self.watch_replacement();
        self.look_at_strangers();
        if now % COMPARE_MS < LOOK_MS {
            self.compare_states();
        }
        if let Some(replay) = &self.replay {
            self.done = replay.is_over(now, &self.newest.1);
            return;
        }
        if self.healing.is_none() && now >= self.options.safety_ms {
            self.heal();
        }
        if self.healing.is_some() {
            self.demand_progress();
        }
    }

    fn look_at_copies(&mut self) {
        let contact = |session: Option<u64>| {
            let stream = session.and_then(|s| self.streams.open.get(&s));
            Contact {
                since_ms: stream.and_then(|s| s.good_since_ms),
            }
        };
        let contacts: Vec<Contact> = self.machines.iter().map(|m| contact(m.session)).collect();
        let healed = self.healing.as_ref().map(|h| h.since_ms);
        let now = self.now();
        let bound = match healed {
            Some(since) if now > since + LEADER_WITHIN_MS => RECONCILE_MS,
            _ => RECONCILE_UNDER_FAULTS_MS,
        };
        let state = &self.newest.1;
        let verdict = self
            .checkers
            .copies
            .on_look(&self.machines, &contacts, state, now, bound);
        let doubled = Copies::doubled(&self.machines) as u64;
        self.log.mark(now, Actor::World, 1, doubled);
        self.judge(verdict);
    }

    /// Samples every master's state: its invariants, and its digest at its index.
    fn compare_states(&mut self) {
        for number in 0..self.hosts.len() {
            let host = &self.hosts[number];
            let Some(replica) = host.replica.as_ref() else {
                continue;
            };
            if host.realm == Realm::Impostor {
                continue;
            }
            let (id, applied) = (host.id, replica.applied());
            let state = replica.state();
            let digest = Digest::of_bytes(&encode_state(state));
            let verdict = invariants::check(id, applied, state)
                .and_then(|()| self.checkers.prefix.on_state(id, applied, digest));
            let now = self.now();
            self.log.mark(now, Actor::Master(number), applied, digest);
            self.judge(verdict);
        }
    }

    /// Mends everything.
    fn heal(&mut self) {
        let now = self.now();
        self.note(Actor::World, "HEALS", [0; 4]);
        self.network.mend_all();
        self.network.rates.loss_per_mille = 0;
        self.network.rates.duplicate_per_mille = 0;
        self.network.rates.late_per_mille = 0;
        for number in 0..self.hosts.len() {
            let host = &mut self.hosts[number];
            host.disk.crawling = false;
            host.doom = None;
            host.disk.speed.slow_per_mille = 0;
            if host.realm == Realm::Impostor && !host.removed {
                self.on_relief(super::Relief::ImpostorLeaves(number));
            } else {
                self.calendar.after(10, Event::MasterStarts(number));
            }
        }
        for number in 0..self.machines.len() {
            self.calendar.after(10, Event::MachineStarts(number));
            self.calendar.after(20, Event::AgentStarts(number));
            self.on_relief(super::Relief::Undrain(number));
            if self.machines[number].spec != self.machines[number].full_spec {
                self.change_gpus(number, 0);
            }
        }
        self.healing = Some(Healing {
            since_ms: now,
            mark: (0, 0, 0, 0, 0),
            moved_ms: now,
            led_ms: now,
            asked: Vec::new(),
        });
    }

    fn demand_progress(&mut self) {
        let now = self.now();
        let Some(healing) = self.healing.clone() else {
            return;
        };
        let age = now - healing.since_ms;
        let leader = self
            .hosts
            .iter()
            .any(|h| h.realm == Realm::Real && h.leads.is_some());
        if let (true, Some(healing)) = (leader, self.healing.as_mut()) {
            healing.led_ms = now;
        }
        // Leaders may still hand over, when they are being replaced.
        let leaderless = if leader { 0 } else { now - healing.led_ms };
        self.judge(Violation::unless(
            leaderless < LEADER_WITHIN_MS,
            "a healed cluster has a leader soon",
            || format!("none for {leaderless} ms: {}", self.what_is_left()),
        ));
        self.demand_agents(age);
        self.repeat_undrains();
        self.demand_movement();
        self.end_the_endless(age);
        let quiet = self.clients.iter().all(|c| c.is_idle()) && self.newest.1.jobs.is_empty();
        if quiet && self.replacing.is_none() && self.all_agree() && self.all_forgotten() {
            self.finish();
        }
    }

    fn demand_agents(&mut self, age: u64) {
        let contact = |session: Option<u64>| {
            let stream = session.and_then(|s| self.streams.open.get(&s));
            stream.is_some_and(|s| s.good_since_ms.is_some())
        };
        let away: Vec<usize> = self
            .machines
            .iter()
            .filter(|m| !contact(m.session))
            .map(|m| m.number)
            .collect();
        let lost: Vec<String> = self
            .newest
            .1
            .nodes
            .values()
            .filter(|n| n.lost)
            .map(|n| n.spec.name.clone())
            .collect();
        let quiet = away.is_empty() && lost.is_empty();
        self.judge(Violation::unless(
            quiet || age < AGENTS_WITHIN_MS,
            "healed nodes are soon in service",
            || format!("after {age} ms machines {away:?} are away and {lost:?} count as lost"),
        ));
    }

    fn demand_movement(&mut self) {
        let now = self.now();
        let state = &self.newest.1;
        let idle = self.clients.iter().filter(|c| c.is_idle()).count();
        let mark = (
            state.finished,
            state.next_job,
            self.counts.spawned,
            self.counts.acknowledged + self.counts.refused,
            idle,
        );
        let Some(healing) = self.healing.as_mut() else {
            return;
        };
        if mark != healing.mark {
            healing.mark = mark;
            healing.moved_ms = now;
        }
        let (still, age) = (now - healing.moved_ms, now - healing.since_ms);
        let kept = still < STALL_MS && age < END_WITHIN_MS;
        if !kept {
            let text = self.what_is_left();
            self.judge(Err(Violation::new(
                "a healed cluster makes progress",
                format!("nothing moved for {still} ms, {age} ms after healing: {text}"),
            )));
        }
    }

    /// A drain that a client gave up on can still be carried out after the order that undid it: both are told again.
    fn repeat_undrains(&mut self) {
        let operator = self.operator();
        if !self.clients[operator].is_idle() {
            return;
        }
        let draining = self.newest.1.nodes.values().find(|n| n.drain.is_some());
        if let Some(name) = draining.map(|node| node.spec.name.clone()) {
            self.operate(Operation::Drain {
                name,
                drain: false,
                evict: false,
            });
        }
    }

    /// Everything that keeps the run from being over.
    fn what_is_left(&self) -> String {
        let state = &self.newest.1;
        let mut left: Vec<String> = state
            .jobs
            .values()
            .map(|job| {
                let phase = job.attempt.as_ref().map(|a| (a.epoch, &a.phase));
                let nodes: Vec<_> = job
                    .attempt
                    .iter()
                    .flat_map(|a| &a.tasks)
                    .map(|t| (t.placement.rank.0, t.placement.node.0, t.phase))
                    .collect();
                let why = berth_core::planner::why(state, job, None, state.time_ms);
                format!(
                    "job {} ({}) is {:?} {phase:?} {nodes:?}, fencing {:?}, because {:?}",
                    job.id,
                    job.spec.name,
                    job.state(),
                    job.fencing,
                    why
                )
            })
            .collect();
        for (number, client) in self.clients.iter().enumerate() {
            if !client.is_idle() {
                let purpose = client.call.as_ref().map(|c| &c.purpose);
                left.push(format!(
                    "client {number} waits for {purpose:?}, then {} and {:?}",
                    client.queue.len(),
                    client.operations
                ));
            }
        }
        for host in self
            .hosts
            .iter()
            .filter(|h| h.realm == Realm::Real && !h.removed)
        {
            let status = host.replica.as_ref().map(|r| r.status());
            left.push(format!(
                "master {} applied {} leads {:?} gap {:?} {status:?}",
                host.id, host.applied, host.leads, host.history_gap
            ));
        }
        for machine in &self.machines {
            if !machine.keeper.records.is_empty() {
                let keys: Vec<_> = machine.keeper.records.keys().collect();
                left.push(format!("machine {} keeps {keys:?}", machine.number));
            }
        }
        left.push(format!("replacing {:?}", self.replacing));
        left.join("; ")
    }

    /// Jobs that would never end by themselves are cancelled, once they had their chance.
    fn end_the_endless(&mut self, age: u64) {
        if age < CANCEL_AFTER_MS {
            return;
        }
        let endless: Vec<(JobId, JobState)> = self
            .newest
            .1
            .jobs
            .values()
            .filter(|job| {
                let plan = self.planned(&job.spec.name);
                plan.is_some_and(|p| {
                    let forever = p.behaviour.ending == Ending::Never && p.spec.time_limit_ms == 0;
                    forever || (!p.fits && job.is_pending())
                })
            })
            .map(|job| (job.id, job.state()))
            .collect();
        for (job, state) in endless {
            let Some(healing) = self.healing.as_mut() else {
                return;
            };
            if healing.asked.contains(&job) {
                continue;
            }
            healing.asked.push(job);
            if state == JobState::Pending {
                self.operate(Operation::Why { job });
            }
            self.checkers.submissions.on_cancel_asked(job);
            self.operate(Operation::Cancel { job });
        }
    }

    pub(crate) fn planned(&self, name: &str) -> Option<&crate::workload::PlannedJob> {
        let number = name.strip_prefix("job-")?.parse::<usize>().ok()?;
        self.load.jobs.get(number)
    }

    /// All members run and have applied the same, with their whole history.
    fn all_agree(&self) -> bool {
        let newest = self.newest.0;
        self.hosts
            .iter()
            .filter(|h| h.realm == Realm::Real && !h.removed)
            .all(|h| h.is_up() && h.applied == newest && h.history_gap.is_none())
    }

    fn all_forgotten(&self) -> bool {
        self.machines
            .iter()
            .all(|m| m.keeper.records.is_empty() && m.keeper.processes.is_empty())
    }

    /// The last word of every checker.
    fn finish(&mut self) {
        self.compare_states();
        let verdict = self.last_verdicts();
        self.judge(verdict);
        self.note(Actor::World, "is content", [0; 4]);
        self.done = true;
    }

    fn last_verdicts(&self) -> Result<(), Violation> {
        leaks::check(&self.newest.1, &self.machines)?;
        self.checkers.exits.check_truth(&self.machines)?;
        let submissions = &self.checkers.submissions;
        for (job, known) in &submissions.jobs {
            let done = self.checkers.finished.get(*job);
            Violation::unless(done.is_some(), "an acknowledged job is never lost", || {
                format!("job {job} (key {:032x}) is nowhere", known.key)
            })?;
            let name = &self.load.jobs[known.planned].spec.name;
            let same = done.is_some_and(|d| d.job.spec.name == *name);
            Violation::unless(same, "a key never makes two jobs", || {
                format!("job {job} should be {name}")
            })?;
        }
        for host in self
            .hosts
            .iter()
            .filter(|h| h.realm == Realm::Real && !h.removed)
        {
            let held = host.disk.history().len() as u64;
            let all = self.newest.1.finished;
            Violation::unless(held == all, "an acknowledged job is never lost", || {
                format!(
                    "master {} has {held} of {all} finished jobs in its history",
                    host.id
                )
            })?;
        }
        let cancel_asked = |job| submissions.cancel_asked(job);
        let plan_of =
            |done: &berth_core::state::FinishedJob| self.planned(&done.job.spec.name).cloned();
        self.checkers.finished.check_ends(plan_of, cancel_asked)
    }
}
