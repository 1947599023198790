//! Programs of the operator around an attempt's tasks on this node.
//!
//! ```text
//! first task could start --> Prolog --ok--> Entered --last task is over--> Epilog --> (left)
//!                               `--failed--> its waiting tasks end at the node's expense --> (left)
//! ```
//! - A task starts after the prolog of its attempt has ended well; a newer epoch of the job waits for the older one's epilog.
//! - The last end of an attempt is told after its epilog has ended, so that nobody else gets its place before.
//! - A failure is told with each inventory until the task it is told of is forgotten.
//! - An agent that is restarted runs the prolog of attempts that have not begun, and the epilog of those that are over and not
//!   forgotten, once more.

use std::collections::{BTreeMap, BTreeSet};

use berth_types::host::MAX_HOST_TEXT_BYTES;
use berth_types::{
    Epoch, Hook, HostReport, Isolation, JobId, LaunchTask, TaskEvent, TaskExit, TaskKey,
};

use crate::core::AgentCore;
use crate::effect::Effect;
use crate::task::{Phase, Task, TaskMemo};

/// Which hooks an operator has set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// One runs before the first task of an attempt.
    pub prolog: bool,
    /// One runs after the last.
    pub epilog: bool,
}

/// One run of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRun {
    /// Prolog or epilog.
    pub hook: Hook,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub epoch: Epoch,
    /// The job's name.
    pub job_name: String,
    /// Who submitted it.
    pub user: String,
    /// The GPUs that the attempt holds shares of on this node, ascending.
    pub gpus: Vec<u16>,
}

/// Where an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Prolog,
    Entered,
    Epilog,
}

/// What the core knows of attempts with hooks.
#[derive(Clone, Debug, Default)]
pub(crate) struct HookBook {
    stages: BTreeMap<(JobId, Epoch), Stage>,
    /// By a task of the attempt, until that is forgotten.
    failed: BTreeMap<TaskKey, (Hook, String)>,
}

impl HookBook {
    /// Epochs of this job whose hooks run now.
    pub(crate) fn busy(&self, job: JobId) -> impl Iterator<Item = Epoch> {
        let all = (job, Epoch(0))..=(job, Epoch(u32::MAX));
        self.stages
            .range(all)
            .filter(|(_, stage)| matches!(stage, Stage::Prolog | Stage::Epilog))
            .map(|((_, epoch), _)| *epoch)
    }

    pub(crate) fn forget(&mut self, key: TaskKey) {
        self.failed.remove(&key);
    }
}

impl AgentCore {
    /// A task could start. True if nothing of its attempt's hooks stands in the way.
    pub(crate) fn enter(&mut self, launch: &LaunchTask, effects: &mut Vec<Effect>) -> bool {
        let attempt = (launch.key.job, launch.key.epoch);
        match self.attempts.stages.get(&attempt) {
            Some(Stage::Entered) => true,
            Some(Stage::Prolog | Stage::Epilog) => false,
            None if self.config.hooks.prolog => {
                self.attempts.stages.insert(attempt, Stage::Prolog);
                self.run_hook(Hook::Prolog, attempt, effects);
                false
            }
            None => {
                if self.config.hooks.epilog {
                    self.attempts.stages.insert(attempt, Stage::Entered);
                }
                true
            }
        }
    }

    /// A task is over. True if the epilog of its attempt begins with that, so that nobody is to be told yet.
    pub(crate) fn leave(&mut self, key: TaskKey, since_ms: u64, effects: &mut Vec<Effect>) -> bool {
        let attempt = (key.job, key.epoch);
        if self.attempts.stages.get(&attempt) != Some(&Stage::Entered) || !self.all_over(attempt) {
            return false;
        }
        if !self.config.hooks.epilog {
            self.attempts.stages.remove(&attempt);
            return false;
        }
        if let Some(task) = self.tasks.get_mut(&key)
            && let Phase::Ended(exit) = &task.phase
        {
            let exit = exit.clone();
            task.phase = Phase::Leaving { exit, since_ms };
        }
        self.attempts.stages.insert(attempt, Stage::Epilog);
        self.run_hook(Hook::Epilog, attempt, effects);
        true
    }

    pub(crate) fn on_hook_ended(
        &mut self,
        now_ms: u64,
        run: HookRun,
        result: Result<(), String>,
        effects: &mut Vec<Effect>,
    ) {
        let attempt = (run.job, run.epoch);
        let result = result.map_err(|mut reason| {
            berth_types::host::shorten(&mut reason, MAX_HOST_TEXT_BYTES);
            reason
        });
        match (self.attempts.stages.get(&attempt), run.hook) {
            (Some(Stage::Prolog), Hook::Prolog) => {
                self.on_prolog_ended(now_ms, attempt, result, effects);
            }
            (Some(Stage::Epilog), Hook::Epilog) => self.on_epilog_ended(attempt, result),
            // Of another run, or no hook of an attempt.
            (Some(Stage::Prolog | Stage::Entered | Stage::Epilog) | None, _) => return,
        }
        self.start_waiting(run.job, effects);
    }

    fn on_prolog_ended(
        &mut self,
        now_ms: u64,
        attempt: (JobId, Epoch),
        result: Result<(), String>,
        effects: &mut Vec<Effect>,
    ) {
        let waiting: Vec<TaskKey> = self
            .of_attempt(attempt)
            .filter(|(_, task)| matches!(task.phase, Phase::Waiting(_)))
            .map(|(key, _)| *key)
            .collect();
        match result {
            Ok(()) if waiting.is_empty() && self.config.hooks.epilog => {
                // It was stopped meanwhile, and what was set up is taken down again.
                self.attempts.stages.insert(attempt, Stage::Epilog);
                self.run_hook(Hook::Epilog, attempt, effects);
            }
            Ok(()) if waiting.is_empty() => drop(self.attempts.stages.remove(&attempt)),
            Ok(()) => drop(self.attempts.stages.insert(attempt, Stage::Entered)),
            Err(reason) => {
                self.attempts.stages.remove(&attempt);
                self.hook_failed(attempt, Hook::Prolog, &reason);
                for key in waiting {
                    let exit = TaskExit {
                        code: -1,
                        at_ms: now_ms,
                        reason: format!("never started: the node's prolog failed: {reason}"),
                        node_fault: true,
                    };
                    self.record_exit(key, exit, effects);
                }
            }
        }
    }

    fn on_epilog_ended(&mut self, attempt: (JobId, Epoch), result: Result<(), String>) {
        self.attempts.stages.remove(&attempt);
        if let Err(reason) = result {
            self.hook_failed(attempt, Hook::Epilog, &reason);
        }
        let leaving: Vec<TaskKey> = self
            .of_attempt(attempt)
            .filter(|(_, task)| matches!(task.phase, Phase::Leaving { .. }))
            .map(|(key, _)| *key)
            .collect();
        for key in leaving {
            if let Some(task) = self.tasks.get_mut(&key)
                && let Phase::Leaving { exit, .. } = &task.phase
            {
                task.phase = Phase::Ended(exit.clone());
            }
            self.tell_end(key);
        }
    }

    /// Told at once, and with each inventory until the last task of the attempt is forgotten.
    fn hook_failed(&mut self, attempt: (JobId, Epoch), hook: Hook, reason: &str) {
        let Some(key) = self.of_attempt(attempt).map(|(key, _)| *key).next_back() else {
            return;
        };
        self.attempts.failed.insert(key, (hook, reason.to_owned()));
        self.events.push(TaskEvent::HookFailed {
            key,
            hook,
            reason: reason.to_owned(),
        });
    }

    pub(crate) fn failed_hooks(&self) -> impl Iterator<Item = TaskEvent> {
        self.attempts
            .failed
            .iter()
            .map(|(key, (hook, reason))| TaskEvent::HookFailed {
                key: *key,
                hook: *hook,
                reason: reason.clone(),
            })
    }

    /// After the keeper said what it has: running attempts have entered, those that are over may still owe their epilog.
    pub(crate) fn enter_adopted(&mut self, effects: &mut Vec<Effect>) {
        if !self.config.hooks.epilog && !self.config.hooks.prolog {
            return;
        }
        let attempts: BTreeSet<(JobId, Epoch)> = self
            .tasks
            .iter()
            .filter(|(_, task)| matches!(task.phase, Phase::Running { .. } | Phase::Ended(_)))
            .map(|(key, _)| (key.job, key.epoch))
            .filter(|attempt| !self.attempts.stages.contains_key(attempt))
            .collect();
        for attempt in attempts {
            self.attempts.stages.insert(attempt, Stage::Entered);
            let last = self.of_attempt(attempt).map(|(key, _)| *key).next_back();
            let ended = last.and_then(|key| match &self.tasks.get(&key)?.phase {
                Phase::Ended(exit) => Some((key, exit.at_ms)),
                _ => None,
            });
            if let Some((key, at_ms)) = ended {
                self.leave(key, at_ms, effects);
            }
        }
    }

    fn of_attempt(
        &self,
        (job, epoch): (JobId, Epoch),
    ) -> impl DoubleEndedIterator<Item = (&TaskKey, &Task)> {
        let rank = |rank| TaskKey {
            job,
            epoch,
            rank: berth_types::Rank(rank),
        };
        self.tasks.range(rank(0)..=rank(u32::MAX))
    }

    fn all_over(&self, attempt: (JobId, Epoch)) -> bool {
        self.of_attempt(attempt)
            .all(|(_, task)| matches!(task.phase, Phase::Leaving { .. } | Phase::Ended(_)))
    }

    fn run_hook(&self, hook: Hook, attempt: (JobId, Epoch), effects: &mut Vec<Effect>) {
        let memos = || self.of_attempt(attempt).map(|(_, task)| &task.memo);
        let gpus: BTreeSet<u16> = memos().flat_map(|memo| &memo.gpus).copied().collect();
        let said = |of: fn(&TaskMemo) -> &String| {
            let named = memos().map(of).find(|text| !text.is_empty());
            named.cloned().unwrap_or_default()
        };
        effects.push(Effect::RunHook(HookRun {
            hook,
            job: attempt.0,
            epoch: attempt.1,
            job_name: said(|memo| &memo.job_name),
            user: said(|memo| &memo.user),
            gpus: gpus.into_iter().collect(),
        }));
    }

    pub(crate) fn on_isolation(&mut self, isolation: Isolation) {
        let before = self.host.clone();
        let unfit = before.as_ref().and_then(|host| host.unfit.clone());
        self.say_of_host(HostReport { isolation, unfit });
    }

    pub(crate) fn on_fitness(&mut self, result: Result<(), String>) {
        let before = self.host.clone().unwrap_or_default();
        let unfit = result.err().map(|mut why| {
            berth_types::host::shorten(&mut why, MAX_HOST_TEXT_BYTES);
            why
        });
        self.say_of_host(HostReport { unfit, ..before });
    }

    fn say_of_host(&mut self, report: HostReport) {
        if self.host.as_ref() != Some(&report) {
            self.host = Some(report.clone());
            self.events.push(TaskEvent::Host(report));
        }
    }
}
