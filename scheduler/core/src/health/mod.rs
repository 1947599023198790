//! The health of GPUs and nodes: one model for masters and the simulator.
//!
//! ```text
//!              evidence              too much of it, a forecast         its tasks are gone,
//!   healthy -----------> suspect ------------------------------> leaving ---cooled down-----.
//!      ^  ^----decays------'                                                                v
//!      |            fatal XID, lost, an operator                                         testing
//!      |  (any) ----------------------------------> quarantined ---cooled down----------->  |
//!      |                                                 ^------------fails, longer--------'|
//!      '-----------------------------------------------------passes-------------------------'
//! ```
//!
//! A GPU is taken out of service by itself, and the rest of its node goes on; the node as a whole only for what is not a
//! GPU's: tasks of several jobs that fail there, losses of contact, errors that concern the machine.
//!
//! - `xid`: what NVIDIA's error numbers mean for the GPU, the machine and the job;
//! - `record`: the replicated record and its rules, in integers;
//! - `failures`: when failing tasks are their node's fault;
//! - `signs`: what readings give away, at the leader;
//! - [`due`]: what time alone changes.
//!
//! [`apply`](crate::apply) keeps the records; masters and the simulator only bring evidence, and answer tests.

pub(crate) mod failures;
mod record;
mod signs;
pub mod xid;

use std::sync::Arc;

use berth_types::{GpuDigest, HealthView, NodeId};
use imbl::OrdMap;

pub use failures::Failure;
pub use record::{COOLED, Cooling, Health, NodeHealth, SUSPECT_POINTS, TOO_MUCH_POINTS};
pub(crate) use record::{Consequence, cooling};
pub use signs::Watch;

use crate::state::State;

/// Records by node. A persistent map, so a view shares it.
pub type Records = OrdMap<NodeId, Arc<NodeHealth>>;

/// Newest readings by node, as far as the leader heard any; by GPU. A persistent map, so a view shares it.
pub type Telemetry = OrdMap<NodeId, Arc<Vec<GpuDigest>>>;

/// Records whose time has come at `now_ms`: to be tested, or to be forgiven. Each is a
/// [`ReviewHealth`](crate::Command::ReviewHealth) to propose.
pub fn due(state: &State, now_ms: u64) -> Vec<(NodeId, Option<u16>)> {
    let mut due = Vec::new();
    for (id, health) in &state.health {
        let Some(node) = state.nodes.get(id).filter(|node| !node.lost) else {
            continue;
        };
        if health.machine.is_due(now_ms) {
            due.push((*id, None));
        }
        for (gpu, record) in &health.gpus {
            let idle = node
                .gpus
                .get(usize::from(*gpu))
                .is_none_or(|used| used.milligpu == 0);
            if record.is_due(now_ms) && idle {
                due.push((*id, Some(*gpu)));
            }
        }
    }
    due
}

/// When something will be [`due`] next, lost nodes and GPUs in use apart.
pub fn next_due_ms(state: &State) -> Option<u64> {
    let records = state
        .health
        .values()
        .flat_map(|health| std::iter::once(&health.machine).chain(health.gpus.values()));
    records.filter_map(Health::due_ms).min()
}

/// A node's records for people, its own first.
pub fn views(state: &State, node: NodeId, now_ms: u64) -> Vec<HealthView> {
    let Some(health) = state.health.get(&node) else {
        return Vec::new();
    };
    let machine = (!health.machine.is_blank()).then_some((None, &health.machine));
    let gpus = health.gpus.iter().map(|(gpu, record)| (Some(*gpu), record));
    let all = machine.into_iter().chain(gpus);
    all.map(|(gpu, record)| record.view(gpu, now_ms)).collect()
}
