//! Node names and ids are one to one, and nothing runs on a lost node.

use super::Report;
use crate::state::State;

pub(super) fn check(state: &State, report: &mut Report) {
    let (names, nodes) = (state.node_ids.len(), state.nodes.len());
    report.expect(names == nodes, "NODE_NAME_TWICE", || {
        format!("{nodes} nodes have {names} names")
    });
    for (id, node) in &state.nodes {
        report.expect(*id == node.id && id.0 > 0, "NODE_ID", || {
            format!("node {} is kept as {id}", node.id)
        });
        let empty = node.jobs.is_empty();
        report.expect(!node.lost || empty, "LOST_NODE_USED", || {
            format!("lost node {id} holds tasks of {:?}", node.jobs)
        });
        let fenced = node.lost || (!node.fenced && node.fencing_jobs.is_empty());
        report.expect(fenced, "FENCED_IN_CONTACT", || {
            format!("node {id} is in contact but fenced or waited for")
        });
    }
}
