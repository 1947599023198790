//! A job waits for exactly those lost nodes that hold its tasks, and only if its rule says so.

use std::collections::BTreeSet;

use berth_types::{LostNodeRule, NodeId, TaskPhase};

use super::Report;
use crate::state::{Job, State};

pub(super) fn check(state: &State, report: &mut Report) {
    for (id, job) in &state.jobs {
        let lost = lost_nodes(state, job);
        let waits = job.fencing.as_ref();
        let nodes = waits.map(|f| &f.nodes);
        report.expect(
            nodes == Some(&lost).filter(|l| !l.is_empty()),
            "FENCING_NODES",
            || format!("job {id} waits for {nodes:?}, but its lost nodes are {lost:?}"),
        );
        let rule = job.spec.restart.on_lost_node;
        let agrees = waits.is_none_or(|f| match rule {
            LostNodeRule::Restart => false,
            LostNodeRule::Fence => !f.operator_only,
            LostNodeRule::Wait => f.operator_only,
        });
        report.expect(agrees, "FENCING_RULE", || {
            format!("job {id} with rule {rule:?} waits: {waits:?}")
        });
    }
}

/// Lost nodes that hold tasks of the job.
fn lost_nodes(state: &State, job: &Job) -> BTreeSet<NodeId> {
    let tasks = job.attempt.iter().flat_map(|a| a.tasks.iter());
    let live = tasks.filter(|t| !matches!(t.phase, TaskPhase::Ended { .. }));
    let is_lost = |id: &NodeId| state.nodes.get(id).is_some_and(|n| n.lost);
    live.map(|t| t.placement.node).filter(is_lost).collect()
}
