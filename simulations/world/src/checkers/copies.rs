//! Copies: a task of an attempt starts once; two epochs of a job live at once only across isolation, and those of
//! `fence` and `wait` jobs never.

use std::collections::BTreeMap;

use berth_core::State;
use berth_types::{JobId, LostNodeRule, TaskKey};

use super::Verdict;
use crate::machine::Machine;
use crate::report::Violation;

/// After this long in contact with a serving leader, nothing stale lives on a node any more.
pub(crate) const RECONCILE_MS: u64 = 5_000;
/// The same while faults are still injected: commits may take several elections.
pub(crate) const RECONCILE_UNDER_FAULTS_MS: u64 = 20_000;

/// Machines' contact with the leader, as the world sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contact {
    /// Since when the machine is in contact with a serving leader, if it is.
    pub(crate) since_ms: Option<u64>,
}

/// Looks at processes.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Since when live tasks have been stale.
    stale: BTreeMap<TaskKey, u64>,
}

impl Copies {
    /// A process was started on machine `number`.
    pub(crate) fn on_spawn(&self, machines: &[Machine], number: usize, key: TaskKey) -> Verdict {
        let twice = machines.iter().any(|m| m.spawned.contains(&key));
        Violation::unless(!twice, "a task of an attempt is started once", || {
            format!("{key:?} is started again, on machine {number}")
        })?;
        let others = machines.iter().flat_map(|m| {
            let of_job = move |k: &&TaskKey| k.job == key.job && k.epoch != key.epoch;
            m.keeper
                .processes
                .keys()
                .filter(of_job)
                .map(move |k| (m.number, *k))
        });
        let rule = machines
            .get(number)
            .and_then(|m| m.keeper.processes.get(&key))
            .map_or(LostNodeRule::Restart, |p| p.launch.lost_node);
        for (machine, other) in others {
            Violation::unless(
                rule == LostNodeRule::Restart,
                "fence and wait jobs never have two copies",
                || format!("{key:?} starts on machine {number} while {other:?} lives on {machine}"),
            )?;
            Violation::unless(
                machine != number,
                "one epoch of a job lives on a node at a time",
                || format!("{key:?} starts on machine {number} beside {other:?}"),
            )?;
        }
        Ok(())
    }

    /// Nothing stale lives for long on a node in contact. `bound_ms` is how long it may, beyond the job's grace.
    pub(crate) fn on_look(
        &mut self,
        machines: &[Machine],
        contacts: &[Contact],
        state: &State,
        now_ms: u64,
        bound_ms: u64,
    ) -> Verdict {
        let mut stale = BTreeMap::new();
        for (machine, contact) in machines.iter().zip(contacts) {
            for (key, process) in &machine.keeper.processes {
                if is_current(state, *key) {
                    continue;
                }
                let since = self.stale.get(key).copied().unwrap_or(now_ms);
                stale.insert(*key, since);
                let Some(contact) = contact.since_ms else {
                    continue;
                };
                let age = now_ms - since.max(contact);
                if age > bound_ms + process.launch.grace_ms {
                    let text = format!(
                        "{key:?} lives on machine {} after {age} ms of contact; job is at {:?}",
                        machine.number,
                        state.job(key.job).map(|j| (j.epoch, j.state()))
                    );
                    return Err(Violation::new("a stale copy ends soon after contact", text));
                }
            }
        }
        self.stale = stale;
        Ok(())
    }

    /// Jobs with several live epochs, for the log.
    pub(crate) fn doubled(machines: &[Machine]) -> usize {
        let mut epochs: BTreeMap<JobId, Vec<u32>> = BTreeMap::new();
        for key in machines.iter().flat_map(|m| m.keeper.processes.keys()) {
            let seen = epochs.entry(key.job).or_default();
            if !seen.contains(&key.epoch.0) {
                seen.push(key.epoch.0);
            }
        }
        epochs.values().filter(|seen| seen.len() > 1).count()
    }
}

/// True if the state wants this task, or is still waiting for its end.
fn is_current(state: &State, key: TaskKey) -> bool {
    if key.job.0 >= state.next_job {
        return true;
    }
    let attempt = state.job(key.job).and_then(|job| job.attempt.as_ref());
    attempt.is_some_and(|a| {
        a.epoch == key.epoch && !matches!(a.phase, berth_types::AttemptPhase::Stopping(_))
    })
}
