//! Only a committed decision stops a task, or the lease of a `fence` job: never an empty, restored or foreign master.

use berth_core::State;
use berth_types::{AttemptPhase, LostNodeRule, TaskKey, TaskPhase};

use super::Verdict;
use crate::machine::Machine;
use crate::report::Violation;

/// The lease that masters name, and the part of it after which an agent may begin to stop.
const LEASE_HALF_MS: u64 = 4_000;

/// Looks at signals.
#[derive(Debug, Default)]
pub(crate) struct Tombstones;

impl Tombstones {
    /// A process is about to be signalled, by the agent or by the keeper's lease.
    pub(crate) fn on_signal(
        &self,
        machine: &Machine,
        key: TaskKey,
        by_lease: bool,
        now_ms: u64,
        state: &State,
    ) -> Verdict {
        let Some(process) = machine.keeper.processes.get(&key) else {
            return Ok(());
        };
        let fence = process.launch.lost_node == LostNodeRule::Fence;
        let heard = machine.heard_ms;
        let just_heard = now_ms.saturating_sub(heard) < 100;
        let silence = now_ms.saturating_sub(heard);
        // The lease is looked at before the directive that ends a silence.
        let silent =
            silence >= LEASE_HALF_MS || (just_heard && machine.silence_ms >= LEASE_HALF_MS);
        if process.dying || (fence && silent) {
            return Ok(());
        }
        let decided = !wants(state, key);
        Violation::unless(decided, "only a committed decision stops a task", || {
            let job = state.job(key.job);
            format!(
                "{key:?} on machine {} was signalled (by the node's lease: {by_lease}); its job is {:?} at epoch {:?}",
                machine.number,
                job.map(|j| j.state()),
                job.map(|j| j.epoch),
            )
        })
    }
}

/// True if the state wants this task to run, or does not know its job.
fn wants(state: &State, key: TaskKey) -> bool {
    if key.job.0 >= state.next_job {
        return true;
    }
    let Some(job) = state.job(key.job) else {
        return false;
    };
    let attempt = job.attempt.as_ref().filter(|a| a.epoch == key.epoch);
    let Some(attempt) = attempt else {
        return key.epoch > job.epoch;
    };
    let task = attempt.tasks.get(key.rank.0 as usize);
    let ended = task.is_none_or(|t| matches!(t.phase, TaskPhase::Ended { .. }));
    !ended && !matches!(attempt.phase, AttemptPhase::Stopping(_))
}
