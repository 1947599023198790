//! Masters: starts and crashes, steps of replicas, and what a shell owes them.

use berth_core::codec::encode_state;
use berth_core::planner;
use berth_core::policy::{Policy, View};
use berth_core::replica::{Effect, HistoryLookup, Input, Replica};
use berth_core::state::FinishedJob;
use berth_types::MasterId;
use berth_types::api::MasterInfo;
use bytes::Bytes;

use super::{EPOCH_MS, Event, HostBoot, World};
use crate::chronicle::Actor;
use crate::digest::Digest;
use crate::garbage::Garbage;
use crate::host::{Doom, Host, Realm};
use crate::report::Violation;
use crate::stream::{Frame, Stream};

impl World<'_> {
    /// The running process of a host.
    pub(crate) fn boot_of(&self, host: usize) -> HostBoot {
        let boot = self.hosts.get(host).map_or(0, |h| h.boot);
        HostBoot { host, boot }
    }

    /// True if that process still runs.
    pub(crate) fn runs(&self, at: HostBoot) -> bool {
        self.hosts
            .get(at.host)
            .is_some_and(|h| h.boot == at.boot && h.is_up())
    }

    pub(crate) fn on_master_starts(&mut self, number: usize) {
        let now = self.now();
        let (seed, proposer) = (self.fates.master.bits(), self.fates.master.bits());
        let host = &mut self.hosts[number];
        if host.is_up() || host.removed {
            return;
        }
        host.boot += 1;
        host.doom = None;
        host.skew_ms = self.fates.master.between(0, self.options.skew_ms);
        let recovered = host.disk.recovered();
        host.log = recovered
            .entries
            .iter()
            .map(|e| (e.index, entry_digest(e)))
            .collect();
        host.leads = None;
        host.heard.clear();
        let config = host.config(&self.replica_config, seed, proposer);
        let boot = host.boot;
        let last = recovered.last_index();
        self.note(
            Actor::Master(number),
            "starts for the {}. time, log ends at {}",
            [boot, last, 0, 0],
        );
        match Replica::new(config, recovered) {
            Ok((replica, effects)) => {
                let host = &mut self.hosts[number];
                host.applied = 0;
                host.history_gap = missing_history(host, replica.state().finished);
                let gap = host.history_gap.is_some();
                host.replica = Some(replica);
                let at = HostBoot { host: number, boot };
                self.calendar.at(now, Event::Tick(at));
                if gap {
                    self.calendar.at(now + 100, Event::HistoryFetch(at));
                }
                self.after_step(number);
                self.carry_out(number, effects);
            }
            Err(error) => {
                let verdict = Violation::new("a master starts from its own disk", error);
                self.judge(Err(verdict));
            }
        }
    }

    /// A host's process ends without warning.
    pub(crate) fn crash_master(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        if host.replica.take().is_none() {
            return;
        }
        let lost = host.disk.crash(&mut self.fates.disk);
        host.leads = None;
        host.calls.clear();
        self.counts.lost_writes += lost as u64;
        host.sessions.clear();
        let of_host =
            |(session, stream): (&u64, &Stream)| (stream.host == number).then_some(*session);
        let sessions: Vec<u64> = self.streams.open.iter().filter_map(of_host).collect();
        self.note(
            Actor::Master(number),
            "crashes, {} writes lost",
            [lost as u64, 0, 0, 0],
        );
        for session in sessions {
            self.host_end_lost(session);
        }
    }

    pub(crate) fn on_master_tick(&mut self, at: HostBoot) {
        if !self.runs(at) {
            return;
        }
        self.calendar.after(self.options.tick_ms, Event::Tick(at));
        self.step_master(at.host, Input::Tick);
    }

    /// One input for a running replica.
    pub(crate) fn step_master(&mut self, number: usize, input: Input) {
        let now = self.now();
        let host = &mut self.hosts[number];
        let clock = EPOCH_MS + now + host.skew_ms;
        let Some(replica) = host.replica.as_mut() else {
            return;
        };
        let mut effects = Vec::new();
        replica.step(clock, input, &mut effects);
        self.counts.inputs += 1;
        let applied = replica.applied();
        self.log
            .mark(now, Actor::Master(number), effects.len() as u64, applied);
        // A batch is in the log before anything of it can be applied, so it is looked at first.
        for effect in &effects {
            if let Effect::Persist(batch) = effect {
                let host = &mut self.hosts[number];
                if batch.reset_log {
                    host.log.clear();
                }
                for entry in &batch.entries {
                    host.log.insert(entry.index, entry_digest(entry));
                }
                if let Some(replay) = self.replay.as_mut().filter(|_| number == 0) {
                    replay.on_entries(&batch.entries);
                }
            }
        }
        self.after_step(number);
        self.carry_out(number, effects);
    }

    /// Looks at what a step has applied.
    fn after_step(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let Some(replica) = host.replica.as_ref() else {
            return;
        };
        let applied = replica.applied();
        if host.realm == Realm::Impostor || applied == host.applied {
            return;
        }
        let before = std::mem::replace(&mut host.applied, applied);
        let verdict = self.checkers.prefix.on_applied(host, before, applied);
        let newest = applied > self.newest.0;
        if newest {
            self.newest = (applied, replica.state().clone());
        }
        self.judge(verdict);
        if newest {
            let verdict = self.checkers.on_newest(&self.newest.1);
            self.judge(verdict);
        }
    }

    /// Executes effects, those of different kinds in an order of chance.
    pub(crate) fn carry_out(&mut self, number: usize, mut effects: Vec<Effect>) {
        if effects.len() > 1 {
            let turn = self.fates.master.bits();
            effects.sort_by_key(|effect| (kind_of(effect) ^ turn) & 0x0f);
        }
        let doom = self.hosts[number].doom;
        let mut left = match doom {
            Some((Doom::MidStep, _)) if effects.len() > 1 => {
                1 + self.fates.master.index(effects.len() - 1)
            }
            _ => usize::MAX,
        };
        for effect in effects {
            if left == 0 {
                let pause_ms = doom.map_or(0, |(_, pause_ms)| pause_ms);
                self.on_master_dies(self.boot_of(number), pause_ms);
            }
            left = left.saturating_sub(1);
            if self.hosts[number].is_up() {
                self.on_master_effect(number, effect);
            }
        }
    }

    pub(crate) fn on_master_dies(&mut self, at: HostBoot, pause_ms: u64) {
        if self.runs(at) {
            self.crash_master(at.host);
            let pause_ms = if self.healing.is_some() { 50 } else { pause_ms };
            self.calendar.after(pause_ms, Event::MasterStarts(at.host));
        }
    }

    fn on_master_effect(&mut self, number: usize, effect: Effect) {
        let at = self.boot_of(number);
        match effect {
            Effect::Persist(batch) => {
                let host = &mut self.hosts[number];
                let flush = host.disk.persist(batch, &mut self.fates.disk);
                if let (Some(flush), Some((Doom::MidFlush, pause_ms))) = (flush, host.doom) {
                    let host = at;
                    let delay = self.fates.disk.between(0, flush);
                    self.calendar
                        .after(delay, Event::MasterDies { host, pause_ms });
                }
                self.schedule_flush(at, flush);
            }
            Effect::SendPeer { to, message } => self.send_peer(number, to, message),
            Effect::SendAgent { session, directive } => {
                self.send_down(session, Frame::Directive(Box::new(directive)));
            }
            Effect::CloseAgent {
                session,
                reason,
                leader,
            } => self.close_agent(session, &reason, leader),
            Effect::AskPolicy { round, view } => self.ask_policy(at, round, &view),
            Effect::Reply { id, response } => self.reply(number, id, response),
            Effect::AppendHistory(jobs) => self.append_history(at, jobs),
            Effect::LookUpHistory { token, lookup } => self.look_up(at, token, &lookup),
            Effect::HistoryGap { through } => {
                let host = &mut self.hosts[number];
                host.history_gap = missing_history(host, through);
                self.calendar.after(20, Event::HistoryFetch(at));
            }
            Effect::Publish(_) if self.hosts[number].realm == Realm::Impostor => {}
            Effect::Publish(events) => {
                let verdict = self.checkers.events.on_published(&events);
                self.judge(verdict);
            }
            Effect::LeaderChanged {
                leader,
                term,
                is_self,
            } => self.on_leader_changed(number, leader, term, is_self),
            Effect::MastersChanged(masters) => {
                self.hosts[number].peers = masters.into_iter().collect();
            }
            Effect::TakeSnapshot { index, state } => {
                self.counts.snapshots += 1;
                let data = encode_state(&state);
                let delay = self.fates.master.between(1, 40);
                let host = at;
                self.calendar
                    .after(delay, Event::SnapshotTaken { host, index, data });
            }
            Effect::Stopped(reason) => self.on_stopped(number, &reason),
        }
    }

    fn on_leader_changed(
        &mut self,
        number: usize,
        leader: Option<(MasterId, MasterInfo)>,
        term: u64,
        is_self: bool,
    ) {
        let host = &mut self.hosts[number];
        host.leads = is_self.then_some(term);
        let id = host.id;
        let real = host.realm == Realm::Real;
        let known = leader.map_or(0, |(id, _)| id.0);
        self.note(
            Actor::Master(number),
            "sees leader {} in term {}",
            [known, term, 0, 0],
        );
        if is_self {
            self.note(Actor::Master(number), "serves term {}", [term, 0, 0, 0]);
        }
        if is_self && real {
            self.counts.elections += 1;
            let verdict = self.checkers.leaders.on_serves(id, term);
            self.judge(verdict);
        }
    }

    fn on_stopped(&mut self, number: usize, reason: &str) {
        self.say(Actor::Master(number), "stopped for good", [0; 4], reason);
        let expected = reason.contains("injected") || self.hosts[number].removed;
        self.judge(Violation::unless(
            expected,
            "a master stops only when its disk fails",
            || format!("master on host {number} stopped: {reason}"),
        ));
        self.crash_master(number);
        let pause = self.fates.master.between(500, 3_000);
        self.calendar.after(pause, Event::MasterStarts(number));
    }

    fn ask_policy(&mut self, host: HostBoot, round: u64, view: &View) {
        let rates = self.options.policy;
        let calm = self.healing.is_some();
        let limits = self.replica_config.plan_limits.clone();
        let dice = &mut self.fates.master;
        if !calm && dice.chance(rates.late_per_mille) {
            let event = Event::PolicyAnswers {
                host,
                round,
                plan: None,
            };
            self.calendar.after(rates.latency_max_ms + 100, event);
            return;
        }
        let plan = if !calm && dice.chance(rates.garbage_per_mille) {
            planner::decide(&mut Garbage, view, &limits)
        } else {
            let policy: &mut dyn Policy = self.hosts[host.host].policy.as_mut();
            planner::decide(policy, view, &limits)
        };
        let delay = self.fates.master.between(0, rates.latency_max_ms);
        let plan = Some(Box::new(plan));
        self.calendar
            .after(delay, Event::PolicyAnswers { host, round, plan });
    }

    pub(crate) fn on_policy_answers(
        &mut self,
        host: HostBoot,
        round: u64,
        plan: Option<Box<planner::Plan>>,
    ) {
        if self.runs(host) {
            self.step_master(host.host, Input::PolicyAnswer { round, plan });
        }
    }

    pub(crate) fn on_snapshot_taken(&mut self, host: HostBoot, index: u64, data: Bytes) {
        if self.runs(host) {
            self.step_master(host.host, Input::SnapshotTaken { index, data });
        }
    }

    fn append_history(&mut self, at: HostBoot, jobs: Vec<FinishedJob>) {
        let real = self.hosts[at.host].realm == Realm::Real;
        if let Some(replay) = self.replay.as_mut().filter(|_| at.host == 0) {
            replay.on_finished(&jobs);
        }
        if real {
            for job in &jobs {
                let verdict = self.checkers.finished.on_finished(job, &self.machines);
                self.judge(verdict);
            }
        }
        let flush = self.hosts[at.host]
            .disk
            .append_history(jobs, &mut self.fates.disk);
        self.schedule_flush(at, flush);
    }

    pub(crate) fn schedule_flush(&mut self, at: HostBoot, flush: Option<u64>) {
        if let Some(delay) = flush {
            self.calendar.after(delay, Event::DiskDone(at));
        }
    }

    pub(crate) fn on_disk_done(&mut self, at: HostBoot) {
        if !self.runs(at) {
            return;
        }
        let (newest, next) = self.hosts[at.host].disk.flushed(&mut self.fates.disk);
        self.schedule_flush(at, next);
        if let Some(number) = newest {
            self.step_master(at.host, Input::Persisted(number));
        }
    }

    fn look_up(&mut self, host: HostBoot, token: u64, lookup: &HistoryLookup) {
        let jobs = history_of(&self.hosts[host.host], lookup);
        let delay = self.fates.disk.between(0, 5);
        self.calendar
            .after(delay, Event::HistoryAnswers { host, token, jobs });
    }
}

/// Digest of one log entry.
fn entry_digest(entry: &berth_raft::Entry) -> u64 {
    let mut digest = Digest::default();
    digest.word(entry.term);
    digest.word(Digest::of_bytes(&entry.data));
    digest.word(Digest::of_bytes(&entry.change));
    digest.value()
}

/// The highest sequence number that a host should have, if it lacks any up to there.
pub(crate) fn missing_history(host: &Host, through: u64) -> Option<u64> {
    let history = host.disk.history();
    let held = history.range(..=through).count() as u64;
    (held < through).then_some(through)
}

fn history_of(host: &Host, lookup: &HistoryLookup) -> Vec<FinishedJob> {
    let history = host.disk.history();
    match lookup {
        HistoryLookup::Job(id) => history
            .values()
            .filter(|job| job.job.id == *id)
            .map(|job| (*job).clone())
            .collect(),
        HistoryLookup::List {
            filter,
            before,
            limit,
        } => history
            .range(..before)
            .rev()
            .filter(|(_, job)| berth_core::query::matches_finished(filter, job))
            .take(*limit as usize)
            .map(|(_, job)| (*job).clone())
            .collect(),
    }
}

/// A number per kind of effect, for the order in which they are carried out.
fn kind_of(effect: &Effect) -> u64 {
    match effect {
        Effect::Persist(_) => 0,
        Effect::SendPeer { .. } => 1,
        // Directives before a close of the same stream.
        Effect::SendAgent { .. } | Effect::CloseAgent { .. } => 2,
        Effect::AskPolicy { .. } => 3,
        Effect::Reply { .. } => 4,
        // One store: a look-up sees what was appended before it.
        Effect::AppendHistory(_) | Effect::LookUpHistory { .. } | Effect::HistoryGap { .. } => 5,
        Effect::Publish(_) => 8,
        Effect::LeaderChanged { .. } => 9,
        Effect::MastersChanged(_) => 10,
        Effect::TakeSnapshot { .. } => 11,
        Effect::Stopped(_) => 12,
    }
}
