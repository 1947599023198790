//! Events are bounded and their numbers have no gaps.

use super::Report;
use crate::state::{MAX_EVENTS, State};

pub(super) fn check(state: &State, report: &mut Report) {
    let count = state.events.len();
    report.expect(count <= MAX_EVENTS, "EVENTS_TOO_MANY", || {
        format!("{count} events")
    });
    let first = state.next_event.checked_sub(count as u64);
    let expected = first.unwrap_or(0)..;
    let gap = state
        .events
        .iter()
        .zip(expected)
        .find(|(event, seq)| event.seq != *seq);
    report.expect(first.is_some() && gap.is_none(), "EVENT_GAP", || {
        format!("next event is {}, found {gap:?}", state.next_event)
    });
}
