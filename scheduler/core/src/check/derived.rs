//! Indexes and use are exactly what jobs, nodes and reservations say.

use super::Report;
use crate::state::State;

pub(super) fn check(state: &State, report: &mut Report) {
    let mut derived = state.clone();
    derived.rebuild_derived();
    report.expect(derived.pending == state.pending, "PENDING_INDEX", || {
        let (is, should) = (state.pending.len(), derived.pending.len());
        format!("{is} jobs in the pending index, {should} jobs wait")
    });
    report.expect(derived.lines == state.lines, "PENDING_LINES", || {
        let (is, should) = (state.lines.len(), derived.lines.len());
        format!("{is} lines of pending jobs are not the {should} that there should be")
    });
    report.expect(derived.active == state.active, "ACTIVE_INDEX", || {
        let (is, should) = (state.active.len(), derived.active.len());
        format!("{is} jobs in the active index, {should} have an attempt")
    });
    let both = state.pending.iter().find(|k| state.active.contains(&k.job));
    report.expect(both.is_none(), "PENDING_AND_ACTIVE", || format!("{both:?}"));
    report.expect(derived.shapes == state.shapes, "SHAPE_INDEX", || {
        "the count of nodes by shape is not what the nodes are".to_owned()
    });
    report.expect(derived.node_ids == state.node_ids, "NODE_NAMES", || {
        "the index of node names is not what the nodes are called".to_owned()
    });
    for (id, node) in &state.nodes {
        let should = derived.nodes.get(id);
        report.expect(should == Some(node), "NODE_USE", || {
            format!("node {id} is recorded as {node:?} but should be {should:?}")
        });
    }
}
