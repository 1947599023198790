//! The keeper of a machine: the parent of its processes, which outlives the agent but not the machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_agent_core::{KeptPhase, KeptTask, Prepared, StopSignal, TaskMemo};
use berth_types::{LaunchTask, TaskExit, TaskKey};

use super::process::Process;
use crate::dice::Dice;
use crate::workload::Workload;

/// What became of a request to start a task.
#[derive(Debug)]
pub(crate) enum Spawned {
    /// It runs (it may have run before): its process id, and when it started.
    Runs(u32, u64),
    /// It has ended, now or before.
    Ended(TaskExit),
}

/// Processes and the records of ended ones.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// Drawn at each start of the machine.
    pub(crate) incarnation: u64,
    /// What is known of each task.
    pub(crate) records: BTreeMap<TaskKey, KeptTask>,
    /// Live processes.
    pub(crate) processes: BTreeMap<TaskKey, Process>,
    /// When the lease ends by which it kills `fence` tasks by itself, in virtual time.
    pub(crate) lease_ends_ms: Option<u64>,
    next_pid: u32,
}

impl Keeper {
    /// A keeper after a machine's start.
    pub(crate) fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            ..Self::default()
        }
    }

    /// A keeper that finds this one's records on the disk: the processes are gone. Returns their keys.
    pub(crate) fn after(before: Self, incarnation: u64, now: Now) -> (Self, Vec<TaskKey>) {
        let gone: Vec<TaskKey> = before.processes.keys().copied().collect();
        let mut records = before.records;
        for record in records.values_mut() {
            if matches!(record.phase, KeptPhase::Running { .. }) {
                record.phase = KeptPhase::Ended(TaskExit {
                    code: -1,
                    at_ms: now.local_ms,
                    reason: "lost with its keeper".into(),
                    node_fault: true,
                });
            }
        }
        let keeper = Self {
            incarnation,
            records,
            next_pid: before.next_pid,
            ..Self::default()
        };
        (keeper, gone)
    }

    /// Everything it has, for an agent that connects.
    pub(crate) fn state(&self) -> Vec<KeptTask> {
        self.records.values().cloned().collect()
    }

    /// Starts a task unless it is known. True if a process was started.
    pub(crate) fn spawn(
        &mut self,
        launch: &Arc<LaunchTask>,
        prepared: &Prepared,
        memo: TaskMemo,
        load: &Workload,
        now: Now,
    ) -> (Spawned, bool) {
        let key = launch.key;
        if let Some(known) = self.records.get(&key) {
            let answer = match &known.phase {
                KeptPhase::Running { pid, since_ms } => Spawned::Runs(*pid, *since_ms),
                KeptPhase::Ended(exit) => Spawned::Ended(exit.clone()),
            };
            return (answer, false);
        }
        self.next_pid += 1;
        let pid = self.next_pid;
        let process = load.behaviour(launch).and_then(|behaviour| {
            Process::start(launch.clone(), prepared, *behaviour, now.virtual_ms)
        });
        let Some(process) = process else {
            let exit = TaskExit {
                code: -1,
                at_ms: now.local_ms,
                reason: "command not found: simulated".into(),
                node_fault: false,
            };
            let phase = KeptPhase::Ended(exit.clone());
            self.records.insert(key, KeptTask { key, memo, phase });
            return (Spawned::Ended(exit), false);
        };
        let since_ms = now.local_ms;
        let phase = KeptPhase::Running { pid, since_ms };
        self.records.insert(key, KeptTask { key, memo, phase });
        self.processes.insert(key, process);
        (Spawned::Runs(pid, since_ms), true)
    }

    /// Signals a process: its new version and end, if that changed.
    pub(crate) fn signal(
        &mut self,
        key: TaskKey,
        signal: StopSignal,
        now: Now,
        dice: &mut Dice,
    ) -> Option<(u64, u64)> {
        let process = self.processes.get_mut(&key)?;
        if !process.signal(signal, now.virtual_ms, dice) {
            return None;
        }
        process.ends_ms.map(|ends| (process.version, ends))
    }

    /// A process has ended: the durable record.
    pub(crate) fn exited(&mut self, key: TaskKey, now: Now) -> Option<(Process, TaskExit)> {
        let process = self.processes.remove(&key)?;
        let exit = TaskExit {
            code: process.code,
            at_ms: now.local_ms,
            reason: if process.by_lease {
                "stopped by its node: the lease was over".into()
            } else {
                String::new()
            },
            node_fault: process.by_lease,
        };
        let record = self.records.get_mut(&key)?;
        record.phase = KeptPhase::Ended(exit.clone());
        Some((process, exit))
    }

    /// Records the end of a task that has no process; the first record counts.
    pub(crate) fn persist_exit(&mut self, key: TaskKey, exit: TaskExit) -> Option<TaskExit> {
        if let Some(known) = self.records.get(&key) {
            return match &known.phase {
                KeptPhase::Ended(first) => Some(first.clone()),
                KeptPhase::Running { .. } => None,
            };
        }
        let memo = TaskMemo::default();
        let phase = KeptPhase::Ended(exit.clone());
        self.records.insert(key, KeptTask { key, memo, phase });
        Some(exit)
    }

    /// Drops the record of an ended task. False if it still runs.
    pub(crate) fn forget(&mut self, key: TaskKey) -> bool {
        if self.processes.contains_key(&key) {
            return false;
        }
        self.records.remove(&key);
        true
    }

    /// `fence` tasks that must be killed because no leader was heard for a lease.
    pub(crate) fn overdue(&self, now_ms: u64) -> Vec<TaskKey> {
        if self.lease_ends_ms.is_none_or(|ends| now_ms < ends) {
            return Vec::new();
        }
        let fenced = |key: &&TaskKey| self.records.get(*key).is_some_and(|r| r.memo.fence);
        self.processes.keys().filter(fenced).copied().collect()
    }
}

/// A moment, as the world and as the machine see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Virtual time.
    pub(crate) virtual_ms: u64,
    /// The machine's clock.
    pub(crate) local_ms: u64,
}
