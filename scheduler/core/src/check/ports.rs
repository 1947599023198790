//! A port of a node is leased to at most one gang, and every gang's port is leased to it.

use std::collections::BTreeMap;

use super::Report;
use crate::state::State;

pub(super) fn check(state: &State, report: &mut Report) {
    let mut leases = BTreeMap::new();
    for (id, job) in &state.jobs {
        let Some(attempt) = &job.attempt else {
            continue;
        };
        let Some(first) = attempt.tasks.first() else {
            continue;
        };
        let port = attempt.master_port;
        report.expect(
            port != 0 || attempt.tasks.len() == 1,
            "PORT_MISSING",
            || format!("the gang of job {id} has no port"),
        );
        if port == 0 {
            continue;
        }
        let other = leases.insert((first.placement.node, port), *id);
        report.expect(other.is_none(), "PORT_TWICE", || {
            format!("jobs {id} and {other:?} lease port {port}")
        });
    }
}
