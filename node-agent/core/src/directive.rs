//! What a leader says: fence, masters, tombstones, launches, committed records.

use std::sync::Arc;

use berth_types::{Directive, Epoch, JobId, LaunchTask, TaskKey, Tombstone};

use crate::core::{AgentCore, job_range};
use crate::effect::Effect;
use crate::fence::Refusal;
use crate::task::{Phase, Stop, Task, TaskMemo};

impl AgentCore {
    pub(crate) fn on_directive(
        &mut self,
        now_ms: u64,
        session: u64,
        directive: Directive,
        effects: &mut Vec<Effect>,
    ) {
        if self.session != Some(session) || !self.registered {
            return;
        }
        match self
            .fence
            .advance(directive.cluster_id, directive.term, directive.applied)
        {
            Ok(fence) if fence != self.fence => {
                self.fence = fence;
                effects.push(Effect::SaveFence(fence));
            }
            Ok(_) => {}
            Err(refusal) => {
                effects.push(Effect::Refused { session, refusal });
                self.disconnect(effects);
                return;
            }
        }
        self.lease.renew(now_ms, directive.lease_ms);
        if let Some(learned) = self.masters.after(directive.cluster_id, directive.masters) {
            self.masters = learned.clone();
            effects.push(Effect::SaveMasters(learned));
        }
        for tombstone in directive.stop {
            self.on_tombstone(now_ms, tombstone, effects);
        }
        for key in directive.forget {
            self.on_forget(key, effects);
        }
        for launch in directive.launch {
            self.on_launch(now_ms, session, launch, effects);
        }
        for (job, epoch, step) in directive.checkpoints_recorded {
            self.on_checkpoint_recorded(job, epoch, step, effects);
        }
        for check in directive.checks {
            self.on_check(check, effects);
        }
        // Last, so that it covers tasks that this directive starts.
        if self.tasks.values().any(|t| t.memo.fence && t.may_live()) {
            effects.push(Effect::RenewLease {
                lease_ms: self.lease.left_ms(now_ms),
            });
        }
    }

    fn on_tombstone(&mut self, now_ms: u64, tombstone: Tombstone, effects: &mut Vec<Effect>) {
        self.raise_tombstone(tombstone.job, tombstone.through);
        let reason = "stopped by the scheduler";
        if !self.stop_epochs(now_ms, tombstone, reason, effects) {
            // Nothing of it is here: only an inventory can say so.
            self.inventory_due = true;
        }
    }

    /// Stops every task of the job up to that epoch. False if there was none, not even a record.
    fn stop_epochs(
        &mut self,
        now_ms: u64,
        tombstone: Tombstone,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let doomed: Vec<(TaskKey, u64)> = self
            .tasks
            .range(job_range(tombstone.job))
            .filter(|(key, _)| key.epoch <= tombstone.through)
            .map(|(key, task)| (*key, now_ms.saturating_add(task.memo.grace_ms)))
            .collect();
        for (key, kill_at_ms) in &doomed {
            let stop = Stop {
                kill_at_ms: *kill_at_ms,
                reason: reason.to_owned(),
                by_node: false,
            };
            self.stop_task(now_ms, *key, stop, effects);
        }
        !doomed.is_empty()
    }

    fn raise_tombstone(&mut self, job: JobId, through: Epoch) {
        let before = self.tombstones.get(&job).copied().unwrap_or_default();
        self.tombstones.insert(job, before.max(through));
    }

    fn on_forget(&mut self, key: TaskKey, effects: &mut Vec<Effect>) {
        let ended = self
            .tasks
            .get(&key)
            .is_some_and(|task| matches!(task.phase, Phase::Ended(_)));
        if ended {
            self.tasks.remove(&key);
            self.attempts.forget(key);
            self.forgotten.insert(key, ());
            effects.push(Effect::Forget { key });
            self.drop_idle_checkpoints(key);
        }
    }

    fn on_launch(
        &mut self,
        now_ms: u64,
        session: u64,
        launch: LaunchTask,
        effects: &mut Vec<Effect>,
    ) {
        let key = launch.key;
        let known = self.tasks.contains_key(&key) || self.forgotten.get(&key).is_some();
        let dead = self
            .tombstones
            .get(&key.job)
            .is_some_and(|t| key.epoch <= *t);
        if known || dead {
            return;
        }
        let newest = self.tasks.range(job_range(key.job)).next_back();
        if newest.is_some_and(|(newest, _)| newest.epoch > key.epoch) {
            return;
        }
        if self.tasks.len() >= self.config.max_tasks {
            let refusal = Refusal::TooManyTasks {
                held: self.tasks.len(),
            };
            effects.push(Effect::Refused { session, refusal });
            return;
        }
        self.retire_older_epochs(now_ms, key, effects);
        let memo = TaskMemo::of(&launch, launch.checkpoint_dir.clone());
        let phase = Phase::Waiting(Arc::new(launch));
        self.tasks.insert(key, Task::new(memo, phase));
        self.start_waiting(key.job, effects);
    }

    /// A new epoch of a job supersedes the older ones.
    fn retire_older_epochs(&mut self, now_ms: u64, key: TaskKey, effects: &mut Vec<Effect>) {
        if key.epoch.0 <= 1 {
            return;
        }
        let older = Tombstone {
            job: key.job,
            through: Epoch(key.epoch.0 - 1),
        };
        self.raise_tombstone(older.job, older.through);
        let reason = format!("superseded by attempt {}", key.epoch);
        self.stop_epochs(now_ms, older, &reason, effects);
    }

    /// Prepares the waiting tasks of a job if no older epoch of it can have a process here and their GPUs are free.
    pub(crate) fn start_waiting(&mut self, job: JobId, effects: &mut Vec<Effect>) {
        let alive = self.tasks.range(job_range(job));
        let alive = alive
            .filter(|(_, task)| task.may_live())
            .map(|(key, _)| key.epoch);
        let oldest_alive = alive.chain(self.attempts.busy(job)).min();
        let ready: Vec<(TaskKey, Arc<LaunchTask>)> = self
            .tasks
            .range(job_range(job))
            .filter(|(key, _)| oldest_alive.is_none_or(|oldest| oldest >= key.epoch))
            .filter_map(|(key, task)| match &task.phase {
                Phase::Waiting(launch) => Some((*key, Arc::clone(launch))),
                _ => None,
            })
            .collect();
        for (key, launch) in ready {
            if !self.gpus_are_free(key, &launch.gpus, effects) || !self.enter(&launch, effects) {
                continue;
            }
            if let Some(task) = self.tasks.get_mut(&key) {
                task.phase = Phase::Preparing(Arc::clone(&launch));
                effects.push(Effect::Prepare { launch });
            }
        }
    }
}
