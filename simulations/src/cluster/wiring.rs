//! The network in three layers: nodes in racks, racks in pods, pods on spines.

use berth_types::NodeSpec;

use super::section::Section;
use crate::input::InputError;

/// Most of anything below one of the next layer.
const MOST: u64 = 1 << 20;

/// How nodes are wired. A count of 0 means that this layer is not described.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wiring {
    /// Nodes below one top-of-rack switch.
    pub nodes_per_rack: u64,
    /// Racks below one pod (aggregation) switch.
    pub racks_per_pod: u64,
    /// Pods below one spine (core) switch.
    pub pods_per_spine: u64,
}

impl Wiring {
    pub(super) fn read(mut section: Section<'_>) -> Result<Self, InputError> {
        let mut count = |key| section.count(key, 1..=MOST).map(Option::unwrap_or_default);
        let (nodes, racks, pods) = (
            count("nodes_per_rack")?,
            count("racks_per_pod")?,
            count("pods_per_spine")?,
        );
        if racks > 0 && nodes == 0 {
            return Err(section.missing("nodes_per_rack", "racks have a size before pods do"));
        }
        if pods > 0 && racks == 0 {
            return Err(section.missing("racks_per_pod", "pods have a size before spines do"));
        }
        section.finish()?;
        Ok(Self {
            nodes_per_rack: nodes,
            racks_per_pod: racks,
            pods_per_spine: pods,
        })
    }

    /// Puts node number `index` of the cluster into its rack, pod and spine, unless the node has one.
    pub(super) fn place(&self, index: u64, node: &mut NodeSpec) {
        let Some(rack) = index.checked_div(self.nodes_per_rack) else {
            return;
        };
        if !node.rack.is_empty() {
            return;
        }
        node.rack = format!("rack{rack}");
        let Some(pod) = rack.checked_div(self.racks_per_pod) else {
            return;
        };
        node.labels.insert("pod".into(), format!("pod{pod}"));
        if let Some(spine) = pod.checked_div(self.pods_per_spine) {
            node.labels.insert("spine".into(), format!("spine{spine}"));
        }
    }
}
