//! Agents: starts and crashes of agents and machines, steps of agent cores, and what a shell owes them.

use berth_agent_core::{
    AgentConfig, AgentCore, DamagedCheckpoint, Effect, Input, PrepareFault, Prepared,
};
use berth_types::{CheckpointRecord, HealthCheck, JobId, LaunchTask, Rank};

use super::{EPOCH_MS, Event, PowerOn, World};
use crate::chronicle::Actor;
use crate::digest::Digest;
use crate::machine::{Keeper, MachineBoot};
use crate::report::Violation;
use crate::stream::Frame;

/// How often an agent's tick is due.
const AGENT_TICK_MS: u64 = 100;

impl World<'_> {
    pub(crate) fn on_machine_starts(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        if machine.power {
            return;
        }
        machine.power = true;
        machine.boot += 1;
        machine.keeper.incarnation = self.fates.machine.bits() | 1;
        let boot = machine.boot;
        self.note(
            Actor::Machine(number),
            "gets power for the {}. time",
            [boot, 0, 0, 0],
        );
        self.calendar.after(100, Event::AgentStarts(number));
        let keeper = PowerOn {
            machine: number,
            boot,
        };
        self.calendar.after(100, Event::KeeperLease(keeper));
    }

    /// Power is gone: agent, keeper and processes with it.
    pub(crate) fn lose_machine(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        if !machine.power {
            return;
        }
        machine.power = false;
        machine.agent = None;
        let session = machine.session.take();
        self.note(Actor::Machine(number), "loses power", [0; 4]);
        self.renew_keeper(number);
        if self.fates.machine.chance(500) {
            // The disk is gone, too.
            self.machines[number].keeper = Keeper::default();
        }
        if let Some(session) = session {
            self.agent_end_lost(session, true);
        }
    }

    pub(crate) fn on_agent_starts(&mut self, number: usize) {
        let now = self.now();
        let machine = &mut self.machines[number];
        if !machine.power || machine.agent.is_some() {
            return;
        }
        machine.agent_boot += 1;
        machine.agent_socket = machine.socket;
        machine.skew_ms = self.fates.machine.between(0, self.options.skew_ms);
        machine.dialing = false;
        machine.session = None;
        let clock = EPOCH_MS + now + machine.skew_ms;
        let config = AgentConfig::default();
        let agent = AgentCore::new(config, machine.fence, clock);
        machine.agent = Some(agent.knowing(machine.masters.clone()));
        machine.look_up_masters();
        let state = Input::KeeperState {
            incarnation: machine.keeper.incarnation,
            tasks: machine.keeper.state(),
        };
        let boot = machine.agent_boot;
        self.note(
            Actor::Machine(number),
            "starts its agent for the {}. time",
            [boot, 0, 0, 0],
        );
        let at = self.agent_of(number);
        self.calendar.after(AGENT_TICK_MS, Event::AgentTick(at));
        self.step_agent(number, state);
    }

    /// The agent's process ends without warning; keeper and tasks live on.
    pub(crate) fn crash_agent(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        if machine.agent.take().is_none() {
            return;
        }
        let session = machine.session.take();
        self.note(Actor::Machine(number), "loses its agent", [0; 4]);
        if let Some(session) = session {
            self.agent_end_lost(session, false);
        }
    }

    pub(crate) fn on_agent_tick(&mut self, at: MachineBoot) {
        if self.agent_runs(at) {
            self.calendar.after(AGENT_TICK_MS, Event::AgentTick(at));
            self.step_agent(at.machine, Input::Tick);
        }
    }

    pub(crate) fn on_agent_hears(&mut self, at: MachineBoot, input: Input) {
        if self.agent_runs(at) {
            self.step_agent(at.machine, input);
        }
    }

    /// One input for a running agent.
    pub(crate) fn step_agent(&mut self, number: usize, input: Input) {
        let now = self.now();
        let machine = &mut self.machines[number];
        let clock = EPOCH_MS + now + machine.skew_ms;
        let Some(agent) = machine.agent.as_mut() else {
            return;
        };
        let spoke = matches!(input, Input::Directive { .. });
        let mut effects = Vec::new();
        agent.step(clock, input, &mut effects);
        let refused = effects.iter().any(|e| matches!(e, Effect::Refused { .. }));
        if spoke && !refused {
            machine.silence_ms = now - machine.heard_ms;
            machine.heard_ms = now;
        }
        let held = agent.held() as u64;
        let dial = agent.wants_connection() && !machine.dialing;
        machine.dialing |= dial;
        let at = self.agent_of(number);
        self.log.mark(
            now,
            Actor::Machine(number),
            effects.len() as u64,
            (held << 1) | u64::from(spoke),
        );
        if dial {
            let pause = self.fates.machine.between(0, 100);
            self.calendar.after(pause, Event::Dial(at));
        }
        for effect in effects {
            self.on_agent_effect(at, effect);
        }
    }

    fn on_agent_effect(&mut self, at: MachineBoot, effect: Effect) {
        match effect {
            Effect::Register {
                session,
                incarnation,
                fence,
                inventory,
            } => {
                let cluster_id = fence.cluster_id;
                let frame = Frame::Register {
                    incarnation,
                    cluster_id,
                    inventory,
                };
                self.send_up(session, frame);
            }
            Effect::Report { session, report } => self.send_up(session, Frame::Report(report)),
            Effect::SaveFence(fence) => self.machines[at.machine].fence = fence,
            Effect::SaveMasters(learned) => self.machines[at.machine].learn(learned),
            Effect::Prepare { launch } => {
                let result = self.prepare(&launch);
                let (least, most) = self.options.local.prepare_ms;
                let delay = self.fates.machine.between(least, most);
                let key = launch.key;
                self.agent_later(at, delay, Input::Prepared { key, result });
            }
            Effect::Spawn { .. }
            | Effect::Signal { .. }
            | Effect::PersistExit { .. }
            | Effect::Forget { .. }
            | Effect::RenewLease { .. } => self.order_keeper(at, effect),
            Effect::VerifyCheckpoint {
                job,
                epoch,
                step,
                path,
                save_ms,
                ..
            } => {
                let record = CheckpointRecord {
                    epoch,
                    step,
                    path,
                    bytes: 1_000,
                    manifest_sha256: format!("{job}-{epoch}-{step}"),
                    save_ms,
                };
                self.verified(at, job, record);
            }
            Effect::PruneCheckpoints { .. } | Effect::TellTask { .. } => {}
            Effect::LookAtGpus { .. } | Effect::EndProcess { .. } | Effect::RunHook(_) => {} // No GPUs of a driver, no hooks.
            Effect::RunCheck { check } => self.run_check(check, at),
            Effect::Disconnect { session } => {
                let machine = &mut self.machines[at.machine];
                if machine.session == Some(session) {
                    machine.session = None;
                }
                self.agent_gives_up(at.machine, session);
            }
            Effect::Refused { session, refusal } => {
                let text = refusal.to_string();
                self.say(
                    Actor::Machine(at.machine),
                    "refuses a directive of session {}",
                    [session, 0, 0, 0],
                    &text,
                );
            }
        }
    }

    /// The agent itself ends a stream, and tries somebody else first.
    fn agent_gives_up(&mut self, machine: usize, session: u64) {
        if let Some(stream) = self.streams.open.get(&session) {
            self.machines[machine].left(stream.host);
        }
        self.agent_end_lost(session, false);
    }

    /// Machines of this world are sound whenever they answer.
    fn run_check(&mut self, check: HealthCheck, machine: MachineBoot) {
        let input = Box::new(Input::Checked {
            check,
            passed: true,
            text: "sound".to_owned(),
        });
        self.calendar.after(1, Event::AgentHears { machine, input });
    }

    /// Files never go bad here: every checkpoint that is looked at is good.
    fn verified(&mut self, at: MachineBoot, job: JobId, record: CheckpointRecord) {
        let (epoch, step) = (record.epoch, record.step);
        let delay = self.fates.machine.between(5, 50);
        let input = Input::CheckpointVerified {
            job,
            epoch,
            step,
            result: Ok(record),
        };
        self.agent_later(at, delay, input);
    }

    /// An order to the keeper, through a pipe that keeps the order.
    fn order_keeper(&mut self, at: MachineBoot, effect: Effect) {
        let socket = self.machines[at.machine].agent_socket;
        let pipe = &mut self.machines[at.machine].pipe_ms;
        let arrives =
            self.calendar.now_ms() + self.fates.machine.between(0, self.options.local.order_ms);
        *pipe = arrives.max(*pipe);
        let event = Event::KeeperActs {
            machine: at,
            socket,
            order: Box::new(effect),
        };
        self.calendar.at(*pipe, event);
    }

    /// A fact for this agent, if it still runs then.
    pub(crate) fn agent_later(&mut self, machine: MachineBoot, delay_ms: u64, input: Input) {
        let input = Box::new(input);
        self.calendar
            .after(delay_ms, Event::AgentHears { machine, input });
    }

    fn prepare(&mut self, launch: &LaunchTask) -> Result<Prepared, PrepareFault> {
        let faulty = self.healing.is_none();
        if faulty && launch.key.rank == Rank(0) {
            let rate = self.options.spawn_fault_per_mille;
            if self.fates.machine.chance(rate) {
                let port = launch.master_port;
                return Err(PrepareFault::PortInUse { port });
            }
        }
        let rate = self
            .load
            .behaviour(launch)
            .map_or(0, |b| b.damaged_per_mille);
        let mut prepared = Prepared {
            checkpoint_dir: format!("/checkpoints/{}/{}", launch.key.job, launch.key.epoch),
            ..Prepared::default()
        };
        for record in &launch.resume_from {
            let sum = Digest::of_bytes(record.manifest_sha256.as_bytes());
            if sum % 1_000 >= u64::from(rate) {
                prepared.resume = Some(record.clone());
                break;
            }
            prepared.damaged.push(DamagedCheckpoint {
                epoch: record.epoch,
                step: record.step,
                reason: "simulated damage".into(),
            });
        }
        let ordered = launch
            .resume_from
            .windows(2)
            .all(|w| (w[0].epoch, w[0].step) > (w[1].epoch, w[1].step));
        let older = launch
            .resume_from
            .iter()
            .all(|c| c.epoch < launch.key.epoch);
        self.judge(Violation::unless(
            ordered && older,
            "a job resumes from its newest checkpoint",
            || format!("{:?} was handed {:?}", launch.key, launch.resume_from),
        ));
        Ok(prepared)
    }
}
