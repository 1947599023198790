//! The replicated state's own invariants.

use berth_core::State;
use berth_types::MasterId;

use super::Verdict;
use crate::report::Violation;

/// Runs [`State::check`] and looks for an alarm.
pub(crate) fn check(id: MasterId, applied: u64, state: &State) -> Verdict {
    const PROMISE: &str = "the replicated state's invariants hold";
    if let Err(broken) = state.check() {
        let list: Vec<String> = broken.iter().map(ToString::to_string).collect();
        let text = format!("master {id} at index {applied}: {}", list.join("; "));
        return Err(Violation::new(PROMISE, text));
    }
    Violation::unless(state.alarm.is_none(), PROMISE, || {
        format!("master {id} raised an alarm: {:?}", state.alarm)
    })
}
