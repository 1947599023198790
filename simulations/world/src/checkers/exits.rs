//! An exit is recorded once and truly, and its record is forgotten by the node only after that.

use std::collections::BTreeMap;

use berth_core::State;
use berth_types::{TaskKey, TaskPhase};

use super::Verdict;
use crate::machine::Machine;
use crate::report::Violation;

const PROMISE: &str = "an exit is recorded once and truly, and forgotten only then";

/// Codes that the log has recorded.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    recorded: BTreeMap<TaskKey, i32>,
}

impl Exits {
    /// A state that is further than any before.
    pub(crate) fn on_newest(&mut self, state: &State) -> Verdict {
        for id in &state.active {
            let Some(attempt) = state.job(*id).and_then(|job| job.attempt.as_ref()) else {
                continue;
            };
            for task in &attempt.tasks {
                let key = TaskKey {
                    job: *id,
                    epoch: attempt.epoch,
                    rank: task.placement.rank,
                };
                match (task.phase, self.recorded.get(&key)) {
                    (TaskPhase::Ended { code, .. }, None) => {
                        self.recorded.insert(key, code);
                    }
                    (TaskPhase::Ended { code, .. }, Some(first)) => {
                        Violation::unless(code == *first, PROMISE, || {
                            format!("{key:?} ended with {first} and then with {code}")
                        })?;
                    }
                    (_, Some(first)) => {
                        let text = format!("{key:?} ended with {first} and is back");
                        return Err(Violation::new(PROMISE, text));
                    }
                    (_, None) => {}
                }
            }
        }
        Ok(())
    }

    /// Codes recorded so far agree with what processes did, except for tasks that counted as lost.
    pub(crate) fn check_truth(&self, machines: &[Machine]) -> Verdict {
        for (key, code) in &self.recorded {
            let true_codes: Vec<i32> = machines
                .iter()
                .filter_map(|m| m.ends.get(key).map(|end| end.code))
                .collect();
            Violation::unless(*code == -1 || true_codes.contains(code), PROMISE, || {
                format!("{key:?} is recorded with {code}, but ended with {true_codes:?}")
            })?;
        }
        Ok(())
    }

    /// A machine is told to forget a record.
    pub(crate) fn on_forget(&self, machine: &Machine, key: TaskKey, state: &State) -> Verdict {
        Violation::unless(
            !machine.keeper.processes.contains_key(&key),
            PROMISE,
            || format!("{key:?} was forgotten while it ran"),
        )?;
        let attempt = state
            .job(key.job)
            .and_then(|job| job.attempt.as_ref())
            .filter(|attempt| attempt.epoch == key.epoch);
        let task = attempt.and_then(|a| a.tasks.get(key.rank.0 as usize));
        let open = task.is_some_and(|t| !matches!(t.phase, TaskPhase::Ended { .. }));
        Violation::unless(!open, PROMISE, || {
            format!("{key:?} was forgotten before its end was recorded")
        })
    }
}
