//! What the keeper, the shell and the tasks themselves say.

use std::collections::BTreeSet;

use berth_types::{JobId, TaskEvent, TaskExit, TaskKey};

use crate::core::{AgentCore, ask_to_stop};
use crate::effect::Effect;
use crate::input::{KeptPhase, KeptTask};
use crate::inventory::lost_with_keeper;
use crate::prepare::{PrepareFault, Prepared};
use crate::task::{Phase, Progress, Task, TaskMemo};

impl AgentCore {
    pub(crate) fn on_connected(&mut self, now_ms: u64, session: u64, effects: &mut Vec<Effect>) {
        self.session = Some(session);
        self.registered = false;
        self.register(now_ms, effects);
    }

    pub(crate) fn on_disconnected(&mut self, session: u64) {
        if self.session == Some(session) {
            self.session = None;
            self.registered = false;
        }
    }

    /// The keeper's word on what runs is final: adopt what it has, record as lost what it lacks.
    pub(crate) fn on_keeper_state(
        &mut self,
        now_ms: u64,
        incarnation: u64,
        kept: Vec<KeptTask>,
        effects: &mut Vec<Effect>,
    ) {
        let renewed = self.incarnation.is_some_and(|before| before != incarnation);
        self.incarnation = Some(incarnation);
        let mut missing: BTreeSet<TaskKey> = self.tasks.keys().copied().collect();
        for task in kept {
            missing.remove(&task.key);
            self.adopt(now_ms, task, effects);
        }
        for key in missing {
            self.on_missing(now_ms, key, renewed, effects);
        }
        self.enter_adopted(effects);
        self.soil_all_gpus(effects);
        let jobs: BTreeSet<JobId> = self.tasks.keys().map(|key| key.job).collect();
        for job in jobs {
            self.start_waiting(job, effects);
        }
        if renewed && self.registered {
            // Leaders learn of a new incarnation from a registration only.
            self.disconnect(effects);
        } else if self.registered {
            self.inventory_due = true;
        } else {
            self.register(now_ms, effects);
        }
    }

    /// Gives up the stream.
    pub(crate) fn disconnect(&mut self, effects: &mut Vec<Effect>) {
        self.registered = false;
        if let Some(session) = self.session.take() {
            effects.push(Effect::Disconnect { session });
        }
    }

    fn adopt(&mut self, now_ms: u64, kept: KeptTask, effects: &mut Vec<Effect>) {
        let task = self.tasks.entry(kept.key).or_insert_with(|| {
            Task::new(
                kept.memo.clone(),
                Phase::Recording(lost_with_keeper(now_ms)),
            )
        });
        task.memo = kept.memo;
        match kept.phase {
            KeptPhase::Running { pid, since_ms } => {
                task.phase = Phase::Running { pid, since_ms };
                if let Some(stop) = &task.stop {
                    ask_to_stop(kept.key, stop, effects);
                }
            }
            KeptPhase::Ended(exit) if !matches!(task.phase, Phase::Leaving { .. }) => {
                task.phase = Phase::Ended(exit);
            }
            KeptPhase::Ended(_) => {}
        }
    }

    /// The keeper does not have this task.
    fn on_missing(&mut self, now_ms: u64, key: TaskKey, renewed: bool, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get(&key) else {
            return;
        };
        match &task.phase {
            // A new keeper registers as one that runs nothing older: masters give its GPUs to others at once, so what
            // was launched under the keeper before must not start any more.
            Phase::Waiting(_) | Phase::Preparing(_) | Phase::Spawning(..) if renewed => {
                self.record_exit(key, lost_with_keeper(now_ms), effects);
            }
            Phase::Waiting(_) | Phase::Preparing(_) => {}
            // The order was lost on its way.
            Phase::Spawning(launch, prepared) if task.stop.is_none() => {
                effects.push(Effect::Spawn {
                    launch: launch.clone(),
                    prepared: prepared.clone(),
                    memo: task.memo.clone(),
                })
            }
            Phase::Spawning(..) | Phase::Running { .. } => {
                self.record_exit(key, lost_with_keeper(now_ms), effects);
            }
            Phase::Recording(exit) | Phase::Leaving { exit, .. } | Phase::Ended(exit) => {
                let exit = exit.clone();
                self.record_exit(key, exit, effects);
            }
        }
    }

    pub(crate) fn on_prepared(
        &mut self,
        now_ms: u64,
        key: TaskKey,
        result: Result<Prepared, PrepareFault>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.tasks.get_mut(&key) else {
            return;
        };
        let Phase::Preparing(launch) = &task.phase else {
            return;
        };
        match result {
            Ok(prepared) => {
                let launch = launch.clone();
                let memo = TaskMemo::of(&launch, prepared.checkpoint_dir.clone());
                task.memo = memo.clone();
                task.damaged = prepared.damaged.clone();
                self.events.extend(damaged_events(key, task));
                task.phase = Phase::Spawning(launch.clone(), prepared.clone());
                let fence = memo.fence;
                effects.push(Effect::Spawn {
                    launch,
                    prepared,
                    memo,
                });
                if fence {
                    effects.push(Effect::RenewLease {
                        lease_ms: self.lease.left_ms(now_ms),
                    });
                }
            }
            Err(fault) => {
                let exit = TaskExit {
                    code: -1,
                    at_ms: now_ms,
                    node_fault: fault.node_fault(),
                    reason: fault.to_string(),
                };
                self.record_exit(key, exit, effects);
            }
        }
    }

    pub(crate) fn on_spawned(
        &mut self,
        now_ms: u64,
        key: TaskKey,
        pid: u32,
        at_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let running = Phase::Running {
            pid,
            since_ms: at_ms,
        };
        // A process that nobody here asked for would be out of every leader's sight.
        let task = self
            .tasks
            .entry(key)
            .or_insert_with(|| Task::new(TaskMemo::default(), running.clone()));
        if matches!(
            task.phase,
            Phase::Recording(_) | Phase::Leaving { .. } | Phase::Ended(_)
        ) {
            return;
        }
        task.phase = running;
        self.events.push(TaskEvent::State(key, task.inventory()));
        if let Some(stop) = &mut task.stop {
            stop.kill_at_ms = stop.kill_at_ms.max(now_ms);
            ask_to_stop(key, stop, effects);
        }
    }

    pub(crate) fn on_task_exited(
        &mut self,
        key: TaskKey,
        mut exit: TaskExit,
        effects: &mut Vec<Effect>,
    ) {
        if self.forgotten.get(&key).is_some() {
            effects.push(Effect::Forget { key });
            return;
        }
        let task = self
            .tasks
            .entry(key)
            .or_insert_with(|| Task::new(TaskMemo::default(), Phase::Recording(exit.clone())));
        if matches!(task.phase, Phase::Leaving { .. } | Phase::Ended(_)) {
            return;
        }
        let by_itself = task.stop.is_none() && exit.code != 0;
        if let Some(stop) = task.stop.take() {
            exit.node_fault |= stop.by_node;
            exit.reason = match exit.reason.as_str() {
                "" => stop.reason,
                how => format!("{}; {how}", stop.reason),
            };
        }
        let since_ms = match task.phase {
            Phase::Running { since_ms, .. } => since_ms,
            _ => exit.at_ms,
        };
        task.phase = Phase::Ended(exit);
        let last_words = task.progress.is_some_and(|p| p.fresh);
        if last_words {
            self.report_progress();
        }
        self.soil_gpus(key, effects);
        if !(self.leave(key, since_ms, effects) || by_itself && self.withhold(key)) {
            self.tell_end(key);
        }
        self.start_waiting(key.job, effects);
    }

    /// Reports the end of a task.
    pub(crate) fn tell_end(&mut self, key: TaskKey) {
        if let Some(task) = self.tasks.get(&key) {
            self.events.push(TaskEvent::State(key, task.inventory()));
        }
    }

    pub(crate) fn on_progress(
        &mut self,
        key: TaskKey,
        step: u64,
        samples: u64,
        loss_micros: Option<i64>,
        step_us: Option<u64>,
    ) {
        if let Some(task) = self.tasks.get_mut(&key)
            && matches!(task.phase, Phase::Spawning(..) | Phase::Running { .. })
        {
            task.progress = Some(Progress {
                step,
                samples,
                loss_micros,
                step_us,
                fresh: true,
            });
        }
    }
}

/// The damaged checkpoints that a task's preparation found, as events.
pub(crate) fn damaged_events(key: TaskKey, task: &Task) -> impl Iterator<Item = TaskEvent> {
    task.damaged
        .iter()
        .map(move |damaged| TaskEvent::CheckpointDamaged {
            job: key.job,
            epoch: damaged.epoch,
            step: damaged.step,
            reason: damaged.reason.clone(),
        })
}
