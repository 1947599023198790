//! Keepers and processes: orders from agents, ends, progress, checkpoints, and the lease of a node without an agent.

use berth_agent_core::{Effect, Input, ReportedCheckpoint, StopSignal};
use berth_types::{CheckpointFile, TaskKey};

use super::{EPOCH_MS, Event, PowerOn, World};
use crate::chronicle::Actor;
use crate::machine::{Keeper, MachineBoot, Now, Spawned, TrueEnd};
use crate::workload::STEP_MS;

/// How often a keeper looks at its lease.
const LEASE_LOOK_MS: u64 = 250;

impl World<'_> {
    fn clock(&self, machine: usize) -> Now {
        let skew = self.machines.get(machine).map_or(0, |m| m.skew_ms);
        let virtual_ms = self.now();
        Now {
            virtual_ms,
            local_ms: EPOCH_MS + virtual_ms + skew,
        }
    }

    /// True if this start of a machine still runs.
    fn has_power(&self, at: PowerOn) -> bool {
        self.machines
            .get(at.machine)
            .is_some_and(|m| m.power && m.boot == at.boot)
    }

    pub(crate) fn on_keeper_acts(&mut self, at: MachineBoot, socket: u64, order: Effect) {
        // What a dead agent left in the pipe still arrives; a newer agent speaks after that.
        let machine = &self.machines[at.machine];
        if machine.socket != socket || !machine.power || machine.agent_boot != at.agent_boot {
            return;
        }
        let now = self.clock(at.machine);
        match order {
            Effect::Spawn {
                launch,
                prepared,
                memo,
            } => {
                let key = launch.key;
                let machine = &mut self.machines[at.machine];
                let (answer, started) = machine
                    .keeper
                    .spawn(&launch, &prepared, memo, &self.load, now);
                if started {
                    self.on_spawned(at.machine, key);
                }
                let input = match answer {
                    Spawned::Runs(pid, at_ms) => Input::Spawned { key, pid, at_ms },
                    Spawned::Ended(exit) => {
                        let machine = &mut self.machines[at.machine];
                        machine.ends.entry(key).or_insert(never_ran(exit.code));
                        Input::TaskExited { key, exit }
                    }
                };
                self.tell_agent(at.machine, input);
            }
            Effect::Signal {
                key,
                signal,
                by_node,
            } => self.signal(at.machine, key, signal, by_node),
            Effect::PersistExit { key, exit } => {
                let machine = &mut self.machines[at.machine];
                if let Some(exit) = machine.keeper.persist_exit(key, exit) {
                    machine.ends.entry(key).or_insert(never_ran(exit.code));
                    self.tell_agent(at.machine, Input::TaskExited { key, exit });
                }
            }
            Effect::Forget { key } => {
                let verdict =
                    self.checkers
                        .exits
                        .on_forget(&self.machines[at.machine], key, &self.newest.1);
                self.judge(verdict);
                self.machines[at.machine].keeper.forget(key);
            }
            Effect::RenewLease { lease_ms } => {
                self.machines[at.machine].keeper.lease_ends_ms = Some(now.virtual_ms + lease_ms);
            }
            _ => {}
        }
    }

    fn tell_agent(&mut self, machine: usize, input: Input) {
        let at = self.agent_of(machine);
        let delay = (self.fates.machine).between(0, self.options.local.answer_ms);
        self.agent_later(at, delay, input);
    }

    fn on_spawned(&mut self, number: usize, key: TaskKey) {
        self.counts.spawned += 1;
        self.note(
            Actor::Machine(number),
            "starts task {}.{}.{}",
            [key.job.0, key.epoch.0.into(), key.rank.0.into(), 0],
        );
        let verdict = self.checkers.on_spawn(&self.machines, number, key);
        self.judge(verdict);
        let machine = &mut self.machines[number];
        machine.spawned.insert(key);
        let at = PowerOn {
            machine: number,
            boot: machine.boot,
        };
        let Some(process) = machine.keeper.processes.get(&key) else {
            return;
        };
        let behaviour = process.behaviour;
        if let Some(ends) = process.ends_ms {
            let machine = at;
            let version = process.version;
            self.calendar.at(
                ends,
                Event::ProcessEnds {
                    machine,
                    key,
                    version,
                },
            );
        }
        let speaks = [
            (behaviour.checkpoint_ms, true),
            (behaviour.progress_ms, false),
        ];
        for (period, checkpoint) in speaks {
            if let (0, Some(period)) = (key.rank.0, period) {
                let event = Event::ProcessSpeaks {
                    machine: at,
                    key,
                    checkpoint,
                };
                self.calendar.after(period, event);
            }
        }
    }

    fn signal(&mut self, number: usize, key: TaskKey, signal: StopSignal, by_lease: bool) {
        let now = self.clock(number);
        let machine = &mut self.machines[number];
        let Some(process) = machine.keeper.processes.get_mut(&key) else {
            return;
        };
        process.by_lease |= by_lease;
        let changed = machine
            .keeper
            .signal(key, signal, now, &mut self.fates.machine);
        let kill = u64::from(signal == StopSignal::Kill);
        self.note(
            Actor::Machine(number),
            "signals task {}.{}.{}, kill {}",
            [key.job.0, key.epoch.0.into(), key.rank.0.into(), kill],
        );
        let machine = &self.machines[number];
        let verdict = self.checkers.tombstones.on_signal(
            machine,
            key,
            by_lease,
            now.virtual_ms,
            &self.newest.1,
        );
        self.judge(verdict);
        if let Some((version, ends)) = changed {
            let machine = PowerOn {
                machine: number,
                boot: self.machines[number].boot,
            };
            self.calendar.at(
                ends,
                Event::ProcessEnds {
                    machine,
                    key,
                    version,
                },
            );
        }
    }

    pub(crate) fn on_process_ends(&mut self, at: PowerOn, key: TaskKey, version: u64) {
        let now = self.clock(at.machine);
        if !self.has_power(at) {
            return;
        }
        let machine = &mut self.machines[at.machine];
        let current = machine.keeper.processes.get(&key);
        if current.is_none_or(|process| process.version != version) {
            return;
        }
        let Some((process, exit)) = machine.keeper.exited(key, now) else {
            return;
        };
        let end = TrueEnd {
            code: exit.code,
            by_itself: !process.dying,
        };
        machine.ends.insert(key, end);
        let code = u64::try_from(exit.code).unwrap_or(u64::MAX);
        self.note(
            Actor::Machine(at.machine),
            "ends task {}.{}.{} with code {}",
            [key.job.0, key.epoch.0.into(), key.rank.0.into(), code],
        );
        self.tell_agent(at.machine, Input::TaskExited { key, exit });
    }

    pub(crate) fn on_process_speaks(&mut self, at: PowerOn, key: TaskKey, checkpoint: bool) {
        let now = self.now();
        if !self.has_power(at) {
            return;
        }
        let Some(process) = self.machines[at.machine].keeper.processes.get(&key) else {
            return;
        };
        let step = process.step(now);
        let behaviour = process.behaviour;
        let period = if checkpoint {
            behaviour.checkpoint_ms
        } else {
            behaviour.progress_ms
        };
        let input = if checkpoint {
            let reported = ReportedCheckpoint {
                step,
                path: format!("{}/step-{step}", process.checkpoint_dir),
                files: vec![CheckpointFile {
                    path: "weights".into(),
                    bytes: 1_000,
                    sha256: "0".repeat(64),
                }],
                save_ms: 10,
                shard: 0,
                shards: 1,
            };
            Input::CheckpointReported {
                key,
                checkpoint: reported,
            }
        } else {
            Input::Progress {
                key,
                step,
                samples: step * 32,
                loss_micros: None,
                step_us: Some(STEP_MS * 1_000),
            }
        };
        self.tell_agent(at.machine, input);
        if let Some(period) = period {
            let machine = at;
            self.calendar.after(
                period,
                Event::ProcessSpeaks {
                    machine,
                    key,
                    checkpoint,
                },
            );
        }
    }

    /// The keeper dies and its tasks with it; a new one finds its records. The agent connects to it anew.
    pub(crate) fn lose_keeper(&mut self, number: usize) -> bool {
        if !self.machines[number].power {
            return false;
        }
        self.note(Actor::Machine(number), "loses its keeper", [0; 4]);
        self.renew_keeper(number);
        let machine = self.agent_of(number);
        let socket = self.machines[number].socket;
        let delay = self.fates.machine.between(4, 50);
        self.calendar
            .after(delay, Event::KeeperAnswers { machine, socket });
        true
    }

    /// The agent has noticed that its keeper is another one, and hears what that has.
    pub(crate) fn on_keeper_answers(&mut self, at: MachineBoot, socket: u64) {
        if !self.agent_runs(at) || self.machines[at.machine].socket != socket {
            return;
        }
        let machine = &mut self.machines[at.machine];
        machine.agent_socket = socket;
        let state = Input::KeeperState {
            incarnation: machine.keeper.incarnation,
            tasks: machine.keeper.state(),
        };
        self.step_agent(at.machine, state);
    }

    /// Puts a new keeper, with the records of the old one, in the old one's place.
    pub(crate) fn renew_keeper(&mut self, number: usize) {
        let now = self.clock(number);
        let incarnation = self.fates.machine.bits() | 1;
        let machine = &mut self.machines[number];
        let before = std::mem::take(&mut machine.keeper);
        let (keeper, gone) = Keeper::after(before, incarnation, now);
        machine.keeper = keeper;
        machine.socket += 1;
        for key in gone {
            machine.ends.insert(key, never_ran(-1));
        }
    }

    pub(crate) fn on_keeper_lease(&mut self, at: PowerOn) {
        if !self.has_power(at) {
            return;
        }
        self.calendar.after(LEASE_LOOK_MS, Event::KeeperLease(at));
        let now = self.now();
        for key in self.machines[at.machine].keeper.overdue(now) {
            self.signal(at.machine, key, StopSignal::Kill, true);
        }
    }
}

/// The end of a task without a process.
fn never_ran(code: i32) -> TrueEnd {
    TrueEnd {
        code,
        by_itself: false,
    }
}
