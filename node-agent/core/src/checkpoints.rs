//! When a checkpoint counts.
//!
//! ```text
//! reported (all shards) --> verifying --ok--> verified --recorded in the log--> acknowledged; older ones pruned
//!        \ --superseded        \ --bad--> refused
//! ```

use std::collections::{BTreeMap, BTreeSet};

use berth_types::{CheckpointFile, CheckpointRecord, Epoch, JobId, TaskEvent, TaskKey};

use crate::core::{AgentCore, job_range};
use crate::effect::{Effect, TaskMessage};
use crate::input::ReportedCheckpoint;

/// Checkpoints of one attempt that may be under way at once; more come faster than they can be verified.
const MOST_OPEN: usize = 8;
/// Shards of one checkpoint; far above the tasks of a node.
const MOST_SHARDS: u32 = 1_024;

/// Checkpoints of one attempt that are under way, by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AttemptCheckpoints {
    open: BTreeMap<u64, Open>,
    /// Newest step that the log has recorded.
    recorded: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
struct Open {
    path: String,
    shards: u32,
    files: BTreeMap<u32, Vec<CheckpointFile>>,
    save_ms: u64,
    /// Who wants to hear how it went.
    askers: BTreeSet<TaskKey>,
    phase: OpenPhase,
}

#[derive(Clone, Debug, PartialEq)]
enum OpenPhase {
    Collecting,
    Verifying,
    Verified(CheckpointRecord),
}

impl AttemptCheckpoints {
    /// Verified checkpoints that the log has not acknowledged, oldest first.
    pub(crate) fn unrecorded(&self, job: JobId) -> impl Iterator<Item = TaskEvent> {
        self.open
            .values()
            .filter_map(move |open| match &open.phase {
                OpenPhase::Verified(record) => Some(TaskEvent::CheckpointVerified {
                    job,
                    record: record.clone(),
                }),
                OpenPhase::Collecting | OpenPhase::Verifying => None,
            })
    }
}

impl AgentCore {
    pub(crate) fn on_checkpoint_reported(
        &mut self,
        key: TaskKey,
        reported: ReportedCheckpoint,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.tasks.get(&key).filter(|task| task.may_live()) else {
            return;
        };
        let checkpoint_dir = task.memo.checkpoint_dir.clone();
        let step = reported.step;
        let attempt = self.checkpoints.entry((key.job, key.epoch)).or_default();
        if attempt.recorded.is_some_and(|recorded| step <= recorded) {
            // Said again by a task that missed the answer, or older than what is safe already.
            effects.push(ack(key, step, Ok(())));
            return;
        }
        match attempt.collect(key, reported) {
            Err(reason) => effects.push(ack(key, step, Err(reason))),
            Ok(None) => {}
            Ok(Some(complete)) => effects.push(Effect::VerifyCheckpoint {
                job: key.job,
                epoch: key.epoch,
                step,
                checkpoint_dir,
                path: complete.path,
                files: complete.files,
                save_ms: complete.save_ms,
            }),
        }
    }

    pub(crate) fn on_checkpoint_verified(
        &mut self,
        job: JobId,
        epoch: Epoch,
        step: u64,
        result: Result<CheckpointRecord, String>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(attempt) = self.checkpoints.get_mut(&(job, epoch)) else {
            return;
        };
        let Some(open) = attempt.open.get_mut(&step) else {
            return;
        };
        if open.phase != OpenPhase::Verifying {
            return;
        }
        match result {
            Ok(record) => {
                open.phase = OpenPhase::Verified(record.clone());
                self.events
                    .push(TaskEvent::CheckpointVerified { job, record });
            }
            Err(reason) => {
                for key in &open.askers {
                    effects.push(ack(*key, step, Err(reason.clone())));
                }
                attempt.open.remove(&step);
            }
        }
    }

    pub(crate) fn on_checkpoint_recorded(
        &mut self,
        job: JobId,
        epoch: Epoch,
        step: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(attempt) = self.checkpoints.get_mut(&(job, epoch)) else {
            return;
        };
        let Some(open) = attempt.open.remove(&step) else {
            return;
        };
        attempt.recorded = attempt.recorded.max(Some(step));
        for key in &open.askers {
            effects.push(ack(*key, step, Ok(())));
        }
        let memo = open
            .askers
            .first()
            .and_then(|key| self.tasks.get(key))
            .map(|task| &task.memo);
        if let Some(memo) = memo {
            effects.push(Effect::PruneCheckpoints {
                job,
                epoch,
                step,
                checkpoint_dir: memo.checkpoint_dir.clone(),
                keep: memo.checkpoint_keep.max(1),
            });
        }
    }

    /// Drops what is under way for an attempt that has no task here any more.
    pub(crate) fn drop_idle_checkpoints(&mut self, gone: TaskKey) {
        let idle = !self
            .tasks
            .range(job_range(gone.job))
            .any(|(key, _)| key.epoch == gone.epoch);
        if idle {
            self.checkpoints.remove(&(gone.job, gone.epoch));
        }
    }
}

struct Complete {
    path: String,
    files: Vec<CheckpointFile>,
    save_ms: u64,
}

impl AttemptCheckpoints {
    /// Adds a report. Returns the checkpoint when its last shard has come.
    fn collect(
        &mut self,
        key: TaskKey,
        reported: ReportedCheckpoint,
    ) -> Result<Option<Complete>, String> {
        let ReportedCheckpoint {
            step,
            path,
            files,
            save_ms,
            shard,
            shards,
        } = reported;
        if shards == 0 || shards > MOST_SHARDS || shard >= shards {
            return Err(format!(
                "shard {shard} of {shards} is not possible (at most {MOST_SHARDS} shards)"
            ));
        }
        self.make_room(step)?;
        let open = self.open.entry(step).or_insert_with(|| Open {
            path: path.clone(),
            shards,
            files: BTreeMap::new(),
            save_ms: 0,
            askers: BTreeSet::new(),
            phase: OpenPhase::Collecting,
        });
        if open.path != path || open.shards != shards {
            return Err(format!(
                "step {step} was reported before with directory {} and {} shards",
                open.path, open.shards
            ));
        }
        open.askers.insert(key);
        if open.phase != OpenPhase::Collecting {
            return Ok(None);
        }
        open.save_ms = open.save_ms.max(save_ms);
        open.files.insert(shard, files);
        if open.files.len() < open.shards as usize {
            return Ok(None);
        }
        open.phase = OpenPhase::Verifying;
        Ok(Some(Complete {
            path: open.path.clone(),
            files: std::mem::take(&mut open.files)
                .into_values()
                .flatten()
                .collect(),
            save_ms: open.save_ms,
        }))
    }

    /// Bounds what is under way: a new step pushes out the oldest that still waits for shards.
    fn make_room(&mut self, step: u64) -> Result<(), String> {
        if self.open.contains_key(&step) || self.open.len() < MOST_OPEN {
            return Ok(());
        }
        let oldest = self
            .open
            .iter()
            .find(|(_, open)| open.phase == OpenPhase::Collecting)
            .map(|(step, _)| *step);
        match oldest {
            Some(oldest) => {
                self.open.remove(&oldest);
                Ok(())
            }
            None => Err(format!(
                "{MOST_OPEN} checkpoints of this attempt are still being verified or recorded"
            )),
        }
    }
}

fn ack(key: TaskKey, step: u64, result: Result<(), String>) -> Effect {
    let (accepted, reason) = match result {
        Ok(()) => (true, String::new()),
        Err(reason) => (false, reason),
    };
    let message = TaskMessage::Ack {
        step,
        accepted,
        reason,
    };
    Effect::TellTask { key, message }
}
