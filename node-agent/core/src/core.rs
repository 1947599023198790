//! The state machine's frame: what it holds, one step, and the clock-driven part.

use std::collections::BTreeMap;

use berth_types::{AgentReport, Epoch, HostReport, JobId, Rank, TaskEvent, TaskExit, TaskKey};

use crate::checkpoints::AttemptCheckpoints;
use crate::effect::{Effect, StopSignal, TaskMessage};
use crate::fence::Fence;
use crate::gpus::GpuBook;
use crate::health::HealthBook;
use crate::hooks::{HookBook, Hooks};
use crate::input::Input;
use crate::lease::Lease;
use crate::masters::Learned;
use crate::memory::BoundedMap;
use crate::task::{Phase, Stop, Task};

/// Tombstones kept; older ones guard only against directives that the fence refuses anyway.
const TOMBSTONES: usize = 8_192;
/// Forgotten tasks that are remembered, so that a late repeat of their launch does not start them again.
const FORGOTTEN: usize = 8_192;
/// Pause between repeated KILLs of a group that does not go away.
const KILL_AGAIN_MS: u64 = 1_000;

/// Times and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Longest silence towards the leader.
    pub heartbeat_ms: u64,
    /// Progress is reported at most so often.
    pub progress_ms: u64,
    /// Readings of GPUs are reported so often.
    pub digest_ms: u64,
    /// A full inventory is repeated so often, to mend whatever was lost.
    pub inventory_ms: u64,
    /// The lease until a leader names one.
    pub lease_ms: u64,
    /// Most tasks and records held; further launches are refused. All of them fit one registration (1 MiB).
    pub max_tasks: usize,
    /// Which hooks run around attempts.
    pub hooks: Hooks,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 1_000,
            progress_ms: 500,
            digest_ms: 5_000,
            inventory_ms: 300_000,
            lease_ms: 8_000,
            max_tasks: 4_096,
            hooks: Hooks::default(),
        }
    }
}

/// Everything that an agent decides.
#[derive(Clone, Debug)]
pub struct AgentCore {
    pub(crate) config: AgentConfig,
    pub(crate) fence: Fence,
    pub(crate) masters: Learned,
    pub(crate) incarnation: Option<u64>,
    pub(crate) session: Option<u64>,
    pub(crate) registered: bool,
    pub(crate) lease: Lease,
    pub(crate) tasks: BTreeMap<TaskKey, Task>,
    pub(crate) tombstones: BoundedMap<JobId, Epoch>,
    pub(crate) forgotten: BoundedMap<TaskKey, ()>,
    pub(crate) checkpoints: BTreeMap<(JobId, Epoch), AttemptCheckpoints>,
    pub(crate) gpus: GpuBook,
    pub(crate) attempts: HookBook,
    pub(crate) host: Option<HostReport>,
    pub(crate) health: HealthBook,
    pub(crate) events: Vec<TaskEvent>,
    pub(crate) inventory_due: bool,
    reported_ms: u64,
    inventory_at_ms: u64,
    progress_at_ms: u64,
}

impl AgentCore {
    /// An agent that has just started; `fence` is what [`Effect::SaveFence`] last said.
    pub fn new(config: AgentConfig, fence: Fence, now_ms: u64) -> Self {
        Self {
            config,
            fence,
            masters: Learned::default(),
            incarnation: None,
            session: None,
            registered: false,
            lease: Lease::new(now_ms, config.lease_ms),
            tasks: BTreeMap::new(),
            tombstones: BoundedMap::new(TOMBSTONES),
            forgotten: BoundedMap::new(FORGOTTEN),
            checkpoints: BTreeMap::new(),
            gpus: GpuBook::default(),
            attempts: HookBook::default(),
            host: None,
            health: HealthBook::default(),
            events: Vec::new(),
            inventory_due: false,
            reported_ms: now_ms,
            inventory_at_ms: now_ms,
            progress_at_ms: now_ms,
        }
    }

    /// The same agent, which remembers what [`Effect::SaveMasters`] last said: nothing of it if that is of another cluster.
    #[must_use]
    pub fn knowing(mut self, learned: Learned) -> Self {
        self.masters = learned.of_cluster(self.fence);
        self
    }

    /// Takes one fact. `now_ms` never goes back. The lease is looked at first, so that a leader that speaks after it
    /// is over does not save the tasks that others may have replaced by then.
    pub fn step(&mut self, now_ms: u64, input: Input, effects: &mut Vec<Effect>) {
        self.gpus.now_ms = now_ms;
        self.enforce_lease(now_ms, effects);
        match input {
            Input::KeeperState { incarnation, tasks } => {
                self.on_keeper_state(now_ms, incarnation, tasks, effects)
            }
            Input::Connected { session } => self.on_connected(now_ms, session, effects),
            Input::Disconnected { session } => self.on_disconnected(session),
            Input::Directive { session, directive } => {
                self.on_directive(now_ms, session, directive, effects)
            }
            Input::Prepared { key, result } => self.on_prepared(now_ms, key, result, effects),
            Input::Spawned { key, pid, at_ms } => self.on_spawned(now_ms, key, pid, at_ms, effects),
            Input::TaskExited { key, exit } => self.on_task_exited(key, exit, effects),
            Input::Progress {
                key,
                step,
                samples,
                loss_micros,
                step_us,
            } => self.on_progress(key, step, samples, loss_micros, step_us),
            Input::CheckpointReported { key, checkpoint } => {
                self.on_checkpoint_reported(key, checkpoint, effects)
            }
            Input::CheckpointVerified {
                job,
                epoch,
                step,
                result,
            } => self.on_checkpoint_verified(job, epoch, step, result, effects),
            Input::HookEnded { run, result } => self.on_hook_ended(now_ms, run, result, effects),
            Input::Isolation(isolation) => self.on_isolation(isolation),
            Input::Fitness(result) => self.on_fitness(result),
            Input::Gpus { count } => self.on_gpus(count),
            Input::Gpu { gpu, fact } => self.on_gpu(gpu, fact, effects),
            Input::Xid { gpu, xid, at_ms } => self.on_xid(gpu, xid, at_ms),
            Input::Checked {
                check,
                passed,
                text,
            } => self.on_checked(check, passed, text),
            Input::Tick => self.on_tick(now_ms, effects),
        }
        self.flush(now_ms, effects);
    }

    /// The newest directive accepted.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Where the masters are, as far as leaders said so.
    pub fn masters(&self) -> &Learned {
        &self.masters
    }

    /// True if the shell should look for a master: the keeper has answered and no stream stands.
    pub fn wants_connection(&self) -> bool {
        self.incarnation.is_some() && self.session.is_none()
    }

    /// Tasks that may have a process, in order.
    pub fn live(&self) -> impl Iterator<Item = TaskKey> {
        self.tasks
            .iter()
            .filter(|(_, t)| t.may_live())
            .map(|(k, _)| *k)
    }

    /// Tasks and records held.
    pub fn held(&self) -> usize {
        self.tasks.len()
    }

    /// True if the agent has this task and its process may still write.
    pub fn may_write(&self, key: TaskKey) -> bool {
        self.tasks.get(&key).is_some_and(|task| match task.phase {
            Phase::Waiting(_)
            | Phase::Preparing(_)
            | Phase::Spawning(..)
            | Phase::Running { .. } => true,
            Phase::Recording(_) | Phase::Leaving { .. } | Phase::Ended(_) => false,
        })
    }

    fn on_tick(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        for (key, task) in &mut self.tasks {
            if !matches!(task.phase, Phase::Running { .. }) {
                continue;
            }
            if let Some(stop) = &mut task.stop
                && now_ms >= stop.kill_at_ms
            {
                stop.kill_at_ms = now_ms + KILL_AGAIN_MS;
                effects.push(Effect::Signal {
                    key: *key,
                    signal: StopSignal::Kill,
                    by_node: stop.by_node,
                });
            }
        }
        self.retry_for_gpus(effects);
        self.tick_health(now_ms, effects);
        if now_ms >= self.progress_at_ms + self.config.progress_ms {
            self.progress_at_ms = now_ms;
            self.report_progress();
        }
        if now_ms >= self.inventory_at_ms + self.config.inventory_ms {
            self.inventory_due = true;
        }
    }

    fn enforce_lease(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let lease = self.lease;
        if now_ms < lease.term_at_ms(u64::MAX) {
            return;
        }
        let due: Vec<(TaskKey, u64)> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.memo.fence && now_ms >= lease.term_at_ms(task.memo.grace_ms))
            .map(|(key, _)| (*key, lease.kill_at_ms()))
            .collect();
        let reason = format!(
            "stopped by its node: no leader was heard for most of the lease of {} ms, and the job's rule for lost nodes is `fence`",
            lease.length_ms()
        );
        for (key, kill_at_ms) in due {
            let stop = Stop {
                kill_at_ms,
                reason: reason.clone(),
                by_node: true,
            };
            self.stop_task(now_ms, key, stop, effects);
        }
    }

    /// Sees to it that a task ends: at once if it has no process, else TERM now and KILL at `order.kill_at_ms`.
    pub(crate) fn stop_task(
        &mut self,
        now_ms: u64,
        key: TaskKey,
        order: Stop,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.tasks.get_mut(&key) else {
            return;
        };
        match &task.phase {
            Phase::Waiting(_) | Phase::Preparing(_) => {
                let exit = TaskExit {
                    code: -1,
                    at_ms: now_ms,
                    reason: format!("never started: {}", order.reason),
                    node_fault: order.by_node,
                };
                self.record_exit(key, exit, effects);
            }
            Phase::Spawning(..) | Phase::Running { .. } => match &mut task.stop {
                Some(stop) => stop.kill_at_ms = stop.kill_at_ms.min(order.kill_at_ms),
                None => {
                    if matches!(task.phase, Phase::Running { .. }) {
                        ask_to_stop(key, &order, effects);
                    }
                    task.stop = Some(order);
                }
            },
            Phase::Recording(_) | Phase::Leaving { .. } | Phase::Ended(_) => {}
        }
    }

    /// Has the end of a task without a process recorded.
    pub(crate) fn record_exit(&mut self, key: TaskKey, exit: TaskExit, effects: &mut Vec<Effect>) {
        if let Some(task) = self.tasks.get_mut(&key) {
            task.phase = Phase::Recording(exit.clone());
            effects.push(Effect::PersistExit { key, exit });
        }
    }

    /// Sends what this step has to tell, or a heartbeat if one is due.
    fn flush(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(session) = self.session.filter(|_| self.registered) else {
            // An inventory will say it all.
            self.events.clear();
            return;
        };
        let full_inventory = std::mem::take(&mut self.inventory_due);
        let events = if full_inventory {
            self.events.clear();
            self.inventory_at_ms = now_ms;
            self.inventory()
        } else {
            std::mem::take(&mut self.events)
        };
        let heartbeat = now_ms >= self.reported_ms + self.config.heartbeat_ms;
        if full_inventory || heartbeat || !events.is_empty() {
            self.reported_ms = now_ms;
            let report = AgentReport {
                full_inventory,
                events,
            };
            effects.push(Effect::Report { session, report });
        }
    }

    /// A stream stands: the first report on it is the registration.
    pub(crate) fn register(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let (Some(session), Some(incarnation)) = (self.session, self.incarnation) else {
            return;
        };
        self.events.clear();
        self.registered = true;
        self.inventory_due = false;
        self.inventory_at_ms = now_ms;
        self.reported_ms = now_ms;
        effects.push(Effect::Register {
            session,
            incarnation,
            fence: self.fence,
            inventory: AgentReport {
                full_inventory: true,
                events: self.inventory(),
            },
        });
    }
}

/// Tells the task and signals its group.
pub(crate) fn ask_to_stop(key: TaskKey, stop: &Stop, effects: &mut Vec<Effect>) {
    effects.push(Effect::TellTask {
        key,
        message: TaskMessage::Stop {
            deadline_ms: stop.kill_at_ms,
            reason: stop.reason.clone(),
        },
    });
    effects.push(Effect::Signal {
        key,
        signal: StopSignal::Term,
        by_node: stop.by_node,
    });
}

/// All keys of a job.
pub(crate) fn job_range(job: JobId) -> std::ops::RangeInclusive<TaskKey> {
    let key = |epoch, rank| TaskKey {
        job,
        epoch: Epoch(epoch),
        rank: Rank(rank),
    };
    key(0, 0)..=key(u32::MAX, u32::MAX)
}
