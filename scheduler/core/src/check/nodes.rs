//! Node names and ids are one to one, and only a lost node is fenced.

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
        report.expect(node.lost || !node.fenced, "FENCED_IN_CONTACT", || {
            format!("node {id} is in contact but fenced")
        });
    }
}
