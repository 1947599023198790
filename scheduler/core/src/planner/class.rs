//! Classes of nodes that are equal in the eyes of a request: same labels, same GPUs, same links between them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use berth_types::{GpuInfo, NodeSpec};

/// GPU indexes of a node by NVLink group.
pub(super) type Links = Vec<Vec<u16>>;

/// Equal nodes.
#[derive(Clone, Debug)]
pub(super) struct Class<'a> {
    /// Labels of each of its nodes.
    pub(super) labels: &'a BTreeMap<String, String>,
    /// GPUs of each of its nodes.
    pub(super) gpus: &'a [GpuInfo],
    /// GPU indexes by NVLink group.
    pub(super) links: Arc<Links>,
}

impl<'a> Class<'a> {
    /// `links` as [`links`] finds them.
    pub(super) fn of(spec: &'a NodeSpec, links: Arc<Links>) -> Self {
        Self {
            labels: &spec.labels,
            gpus: &spec.gpus,
            links,
        }
    }

    /// Such as `a100x8`, with mixed models joined by `+`.
    pub(super) fn name(&self) -> String {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for gpu in self.gpus {
            match counts.iter_mut().find(|(model, _)| *model == gpu.model) {
                Some((_, count)) => *count += 1,
                None => counts.push((&gpu.model, 1)),
            }
        }
        if counts.is_empty() {
            return "without GPUs".to_owned();
        }
        let parts: Vec<String> = counts
            .iter()
            .map(|(model, count)| format!("{model}x{count}"))
            .collect();
        parts.join("+")
    }
}

/// The NVLink groups of a node.
pub(super) fn links(spec: &NodeSpec) -> Arc<Links> {
    let mut links: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    for (index, gpu) in (0u16..).zip(&spec.gpus) {
        links.entry(gpu.nvlink_group).or_default().push(index);
    }
    Arc::new(links.into_values().collect())
}

/// Sort key that makes equal nodes equal. Borrows from the node's spec.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClassKey<'a>(pub(super) &'a NodeSpec);

impl ClassKey<'_> {
    fn gpus(&self) -> impl Iterator<Item = (u64, u16, &str)> {
        self.0
            .gpus
            .iter()
            .map(|gpu| (gpu.mem_bytes, gpu.nvlink_group, gpu.model.as_str()))
    }
}

impl Ord for ClassKey<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.gpus.len().cmp(&other.0.gpus.len()))
            .then_with(|| self.gpus().cmp(other.gpus()))
            .then_with(|| self.0.labels.cmp(&other.0.labels))
    }
}

impl PartialOrd for ClassKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ClassKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ClassKey<'_> {}
