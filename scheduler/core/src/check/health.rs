//! Health is kept of known nodes and GPUs only, within its bounds.

use super::Report;
use crate::health::failures::MAX_FAILURES;
use crate::state::State;

pub(super) fn check(state: &State, report: &mut Report) {
    for (id, health) in &state.health {
        let node = state.nodes.get(id);
        report.expect(node.is_some(), "HEALTH_NODE", || {
            format!("health is kept of node {id}, which does not exist")
        });
        let gpus = node.map_or(0, |node| node.spec.gpus.len());
        let beyond = health.gpus.keys().find(|gpu| usize::from(**gpu) >= gpus);
        report.expect(beyond.is_none(), "HEALTH_GPU", || {
            format!("health is kept of GPU {beyond:?} of node {id}, which has {gpus}")
        });
        let failures = health.failures.len();
        report.expect(failures <= MAX_FAILURES, "HEALTH_BOUND", || {
            format!("{failures} failures are kept of node {id}")
        });
        for record in std::iter::once(&health.machine).chain(health.gpus.values()) {
            let fault = record.fault();
            report.expect(fault.is_none(), "HEALTH_RECORD", || {
                format!("health of node {id}: {}", fault.unwrap_or_default())
            });
        }
    }
}
