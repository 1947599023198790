//! The fast lane: commands go straight into the replicated state, one entry per instant and cause.

use std::sync::Arc;

use berth_core::apply::{Applied, CommandResult, apply};
use berth_core::command::{Bundle, Command, LogEntry, ProposalTag};
use berth_core::state::State;
use berth_types::{JobId, JobSpec, NodeId, NodeSpec, TaskExit, TaskInventory, TaskKey, TaskPhase};

use super::TwinError;
use super::deeds::Deeds;

/// Ports that a node leases if its description does not say: gangs need one.
const PORTS: (u16, u16) = (20_000, 40_000);
/// Exit code of a task that was asked to stop.
pub(super) const EXIT_STOPPED: i32 = 143;

/// State and log of the run.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) state: State,
    index: u64,
    plan: u64,
    deeds: Deeds,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            state: State::new(),
            ..Self::default()
        }
    }

    /// Carries out commands. Each must be accepted: the engine only says what follows from the state.
    pub(super) fn commit(
        &mut self,
        now_ms: u64,
        commands: Vec<Command>,
    ) -> Result<Applied, TwinError> {
        let entry = LogEntry {
            tag: ProposalTag::default(),
            stamp_ms: now_ms,
            commands,
        };
        for command in &entry.commands {
            self.deeds.on_command(now_ms, command);
        }
        self.index += 1;
        let applied = apply(&mut self.state, self.index, &entry);
        for result in &applied.results {
            let refused = match result {
                CommandResult::Rejected(rejection) => Some(rejection),
                CommandResult::Bundles(bundles) => bundles.iter().find_map(|b| b.as_ref().err()),
                CommandResult::Done
                | CommandResult::Submitted { .. }
                | CommandResult::CertificateIssued { .. } => None,
            };
            if let Some(rejection) = refused {
                return Err(TwinError::Refused {
                    at_ms: now_ms,
                    why: rejection.to_string(),
                });
            }
        }
        Ok(applied)
    }

    /// Hash of all that was done so far.
    pub(super) fn hash(&mut self) -> u64 {
        self.deeds.hash()
    }

    pub(super) fn apply_plan(&mut self, bundles: Vec<Bundle>) -> Command {
        self.plan += 1;
        Command::ApplyPlan {
            plan: self.plan,
            bundles,
        }
    }

    /// What the nodes of a job's current attempt say of all its tasks that have not ended.
    pub(super) fn report(&self, job: JobId, said: &TaskInventory, out: &mut Vec<Command>) {
        let Some(attempt) = self.state.job(job).and_then(|job| job.attempt.as_ref()) else {
            return;
        };
        let first = out.len();
        for task in &attempt.tasks {
            if matches!(task.phase, TaskPhase::Ended { .. }) {
                continue;
            }
            let node = task.placement.node;
            let key = TaskKey {
                job,
                epoch: attempt.epoch,
                rank: task.placement.rank,
            };
            let known = out[first..]
                .iter_mut()
                .rev()
                .find_map(|command| match command {
                    Command::RecordTasks { node: n, tasks } if *n == node => Some(tasks),
                    _ => None,
                });
            match known {
                Some(tasks) => tasks.push((key, said.clone())),
                None => out.push(Command::RecordTasks {
                    node,
                    tasks: vec![(key, said.clone())],
                }),
            }
        }
    }
}

/// A task's end, as its node reports it.
pub(super) fn exit(code: i32, at_ms: u64) -> TaskInventory {
    TaskInventory::Ended(TaskExit {
        code,
        at_ms,
        reason: String::new(),
        node_fault: false,
    })
}

/// The submission of the trace's `number`th job at `now_ms`.
pub(super) fn submit(number: u64, spec: &Arc<JobSpec>, now_ms: u64) -> Command {
    let key = u128::from(now_ms) << 80 | 7 << 76 | 0b10 << 62 | u128::from(number);
    Command::SubmitJob {
        key,
        hash: u128::from(number),
        spec: Arc::clone(spec),
    }
}

/// What a node offers, with what a recorded cluster does not tell filled in.
pub(crate) fn offer(spec: &NodeSpec) -> Arc<NodeSpec> {
    let mut spec = spec.clone();
    if spec.address.is_empty() {
        spec.address.clone_from(&spec.name);
    }
    if spec.port_count == 0 {
        (spec.port_first, spec.port_count) = PORTS;
    }
    Arc::new(spec)
}

/// Index in the trace of a job, which is submitted in the trace's order.
pub(super) fn index_of(job: JobId) -> usize {
    usize::try_from(job.0).unwrap_or(usize::MAX).wrapping_sub(1)
}

/// Index in the cluster of a node, which is registered in the cluster's order.
pub(super) fn node_index(node: NodeId) -> usize {
    usize::try_from(node.0)
        .unwrap_or(usize::MAX)
        .wrapping_sub(1)
}
