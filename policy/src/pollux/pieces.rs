//! Nodes cut into pieces of equal size, as Pollux sees them, and back.

use std::collections::BTreeMap;

use berth_types::{JobId, NodeId};

use super::problem::Genes;
use crate::fleet::{Fleet, Managed, Seated};

/// A part of a node.
#[derive(Clone, Copy, Debug)]
struct Piece {
    kind: usize,
    node: NodeId,
    gpus: u8,
}

/// A job, how many GPUs it still wants of each node, and those that it has.
type Wanted = (JobId, BTreeMap<NodeId, u8>, Vec<(NodeId, u16)>);

/// All nodes in pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    /// GPUs by kind.
    gpus: Vec<u32>,
}

impl Pieces {
    /// Pieces of the size of the smallest node; what jobs that are left out hold is not part of them.
    pub(super) fn of(fleet: &Fleet<'_>) -> Self {
        let size = fleet
            .kinds
            .iter()
            .map(|kind| kind.gpus_per_node)
            .min()
            .unwrap_or(1)
            .max(1);
        let mut gone: BTreeMap<NodeId, u32> = BTreeMap::new();
        for job in fleet.jobs.iter().filter(|job| job.pinned) {
            for (node, _) in job.held.iter().flat_map(|held| &held.gpus) {
                *gone.entry(*node).or_default() += 1;
            }
        }
        let mut pieces = Vec::new();
        for (index, kind) in fleet.kinds.iter().enumerate() {
            for node in &kind.nodes {
                let gone = gone.get(&node.node).copied().unwrap_or(0);
                let mut left = (node.gpus.len() as u32).saturating_sub(gone);
                for _ in 0..kind.gpus_per_node.div_ceil(size) {
                    let gpus = left.min(size);
                    left -= gpus;
                    pieces.push(Piece {
                        kind: index,
                        node: node.node,
                        gpus: u8::try_from(gpus).unwrap_or(u8::MAX),
                    });
                }
            }
        }
        Self {
            pieces,
            gpus: fleet.kinds.iter().map(|kind| kind.gpus()).collect(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn room(&self) -> Vec<u8> {
        self.pieces.iter().map(|piece| piece.gpus).collect()
    }

    /// What a job holds, piece by piece: as it was given, if that is still so.
    pub(super) fn held(&self, job: &Managed<'_>, given: &BTreeMap<JobId, Genes>) -> Genes {
        let mut held: BTreeMap<NodeId, u8> = BTreeMap::new();
        for (node, _) in job.held.iter().flat_map(|held| &held.gpus) {
            *held.entry(*node).or_default() += 1;
        }
        if let Some(row) = given
            .get(&job.job.id)
            .filter(|row| row.len() == self.pieces.len())
            && self.by_node(row) == held
        {
            return row.clone();
        }
        let part = |piece: &Piece| {
            let here = held.get_mut(&piece.node);
            here.map_or(0, |left| {
                let part = piece.gpus.min(*left);
                *left -= part;
                part
            })
        };
        self.pieces.iter().map(part).collect()
    }

    fn by_node(&self, row: &[u8]) -> BTreeMap<NodeId, u8> {
        let mut counts = BTreeMap::new();
        for (piece, count) in self.pieces.iter().zip(row).filter(|(_, count)| **count > 0) {
            *counts.entry(piece.node).or_default() += count;
        }
        counts
    }

    /// Gives up all GPUs but those of the kind that there are most of; of equally many, of the scarcer kind.
    pub(super) fn keep_commonest(&self, row: &mut [u8]) {
        let mut counts = vec![0u32; self.gpus.len()];
        for (piece, count) in self.pieces.iter().zip(row.iter()) {
            counts[piece.kind] += u32::from(*count);
        }
        let rank = |kind: &usize| (counts[*kind], std::cmp::Reverse(self.gpus[*kind]), *kind);
        let Some(kept) = (0..counts.len()).max_by_key(rank) else {
            return;
        };
        for (piece, count) in self.pieces.iter().zip(row.iter_mut()) {
            if piece.kind != kept {
                *count = 0;
            }
        }
    }

    /// GPUs for these rows: jobs keep those that they hold as far as they still have some on the node.
    pub(super) fn seat(
        &self,
        fleet: &Fleet<'_>,
        given: &BTreeMap<JobId, Genes>,
    ) -> BTreeMap<JobId, Seated> {
        let nodes = fleet.kinds.iter().flat_map(|kind| &kind.nodes);
        let mut free: BTreeMap<NodeId, Vec<u16>> =
            nodes.map(|node| (node.node, node.gpus.clone())).collect();
        let mut take = |node: NodeId, gpu: u16| {
            let free = free.get_mut(&node)?;
            let at = free.iter().position(|known| *known == gpu)?;
            Some((node, free.remove(at)))
        };
        for job in fleet.jobs.iter().filter(|job| job.pinned) {
            for (node, gpu) in job.held.iter().flat_map(|held| &held.gpus) {
                take(*node, *gpu);
            }
        }
        let mut wanted: Vec<Wanted> = Vec::new();
        for job in fleet.jobs.iter().filter(|job| !job.pinned) {
            let Some(row) = given.get(&job.job.id) else {
                continue;
            };
            let mut counts = self.by_node(row);
            let mut seat = Vec::new();
            for (node, gpu) in job.held.iter().flat_map(|held| &held.gpus) {
                if let Some(left) = counts.get_mut(node).filter(|left| **left > 0) {
                    *left -= 1;
                    seat.extend(take(*node, *gpu));
                }
            }
            wanted.push((job.job.id, counts, seat));
        }
        let mut seats = BTreeMap::new();
        for (job, counts, mut seat) in wanted {
            for (node, left) in counts {
                let free = free
                    .get_mut(&node)
                    .map(|free| free.drain(..usize::from(left).min(free.len())));
                seat.extend(free.into_iter().flatten().map(|gpu| (node, gpu)));
            }
            seat.sort_unstable();
            seats.insert(job, Seated(seat));
        }
        seats
    }
}
