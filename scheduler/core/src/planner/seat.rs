//! A node in service as the planner sees it, with the ports that it leases.

use crate::state::Node;

/// A node in service.
#[derive(Clone, Debug)]
pub(super) struct Seat<'a> {
    pub(super) node: &'a Node,
    pub(super) class: u32,
    /// Number of its rack; `None` if unknown.
    pub(super) rack: Option<u32>,
    pub(super) first_gpu: u32,
    pub(super) gpu_count: u16,
    /// Ports not yet leased. A node without one takes no more gangs: any task may become rank 0's.
    pub(super) ports_left: u32,
    /// True while it is left out of a search.
    pub(super) closed: bool,
}

impl Seat<'_> {
    /// True if it takes a job now, as far as ports go.
    pub(super) fn is_open(&self, needs_port: bool) -> bool {
        !self.closed && (self.ports_left > 0 || !needs_port)
    }

    pub(super) fn gpu(&self, gpu: u16) -> usize {
        self.first_gpu as usize + usize::from(gpu)
    }

    pub(super) fn gpus(&self) -> std::ops::Range<usize> {
        self.first_gpu as usize..self.first_gpu as usize + usize::from(self.gpu_count)
    }

    pub(super) fn name(&self) -> &str {
        &self.node.spec.name
    }
}

/// Ports that a node leases.
pub(super) struct PortRange {
    pub(super) first: u16,
    pub(super) count: u32,
}

impl PortRange {
    pub(super) fn of(node: &Node) -> Self {
        let first = node.spec.port_first.max(1);
        let room = u32::from(u16::MAX - first) + 1;
        Self {
            first,
            count: u32::from(node.spec.port_count).min(room),
        }
    }

    pub(super) fn left(&self, node: &Node) -> u32 {
        let leased = node.ports.range(self.first..).count();
        self.count
            .saturating_sub(u32::try_from(leased).unwrap_or(u32::MAX))
    }

    pub(super) fn port(&self, step: u64) -> u16 {
        let offset = step % u64::from(self.count.max(1));
        self.first
            .saturating_add(u16::try_from(offset).unwrap_or(u16::MAX))
    }
}
