//! Seats for all jobs at once: whole nodes first, then what fits into one node, and whoever can stay, stays.
//!
//! Sizes of powers of two up to a node, and whole nodes above, always fit if the sum does: in the order of decreasing
//! size, what is left of each node is a multiple of the size at hand. Other sizes are split over nodes where they must.

use std::collections::{BTreeMap, BTreeSet};

use berth_types::{GpuShare, JobId, MILLI, NodeId, Rank, TaskPlacement};

use super::kinds::{Fleet, Kind, Managed};

/// What a job is to have: index of the kind, and GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Index of the kind.
    pub kind: usize,
    /// GPUs.
    pub gpus: u32,
}

/// How seats are found for jobs that do not stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// On as few nodes as possible, where the fewest others have to move.
    Packed,
    /// The first free GPUs in the order of nodes.
    ByNode,
}

/// Where a job is to sit: GPUs, ascending by node and index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seated(pub Vec<(NodeId, u16)>);

impl Seated {
    /// A task for each GPU.
    pub fn slots(&self) -> Vec<TaskPlacement> {
        let ranked = self.0.iter().zip(0u32..);
        let slot = |((node, gpu), rank): (&(NodeId, u16), u32)| TaskPlacement {
            rank: Rank(rank),
            group: 0,
            node: *node,
            gpus: vec![GpuShare {
                gpu: *gpu,
                milligpu: MILLI,
            }],
        };
        ranked.map(slot).collect()
    }
}

/// Seats for jobs with these shares, by job. Jobs that do not fit after all are left out.
pub fn seat(
    fleet: &Fleet<'_>,
    shares: &[(usize, Share)],
    order_of: Order,
) -> BTreeMap<JobId, Seated> {
    let mut seated = BTreeMap::new();
    for (index, kind) in fleet.kinds.iter().enumerate() {
        let mut room = Room::of(kind);
        let here = shares.iter().filter(|(_, share)| share.kind == index);
        let mut order: Vec<(&Managed<'_>, u32)> = here
            .map(|&(job, share)| (&fleet.jobs[job], share.gpus))
            .collect();
        let keeps = |job: &Managed<'_>, gpus: u32| job.share() == Some((index, gpus));
        for (job, gpus) in &order {
            if keeps(job, *gpus) {
                room.claim(job);
            }
        }
        // Pinned jobs first, as nothing can move them; then the larger, and of equal ones those that can stay.
        order
            .sort_by_key(|(job, gpus)| (!job.pinned, std::cmp::Reverse(*gpus), !keeps(job, *gpus)));
        for (job, gpus) in order {
            let stays = keeps(job, gpus) && room.still_there(job);
            room.disclaim(job);
            let found = match stays {
                true => job.held.as_ref().map(|held| held.gpus.clone()),
                false => match order_of {
                    Order::Packed => room.find(kind, gpus),
                    Order::ByNode => room.first(gpus),
                },
            };
            let Some(mut found) = found else {
                continue;
            };
            found.sort_unstable();
            room.take(&found);
            seated.insert(job.job.id, Seated(found));
        }
    }
    seated
}

/// What is left of a kind while its jobs are seated.
struct Room {
    free: BTreeMap<NodeId, BTreeSet<u16>>,
    /// GPUs that jobs would rather keep.
    claimed: BTreeMap<(NodeId, u16), JobId>,
}

impl Room {
    fn of(kind: &Kind) -> Self {
        let nodes = kind.nodes.iter();
        Self {
            free: nodes
                .map(|node| (node.node, node.gpus.iter().copied().collect()))
                .collect(),
            claimed: BTreeMap::new(),
        }
    }

    fn claim(&mut self, job: &Managed<'_>) {
        let gpus = job.held.iter().flat_map(|held| &held.gpus);
        self.claimed.extend(gpus.map(|gpu| (*gpu, job.job.id)));
    }

    fn disclaim(&mut self, job: &Managed<'_>) {
        let gpus = job.held.iter().flat_map(|held| &held.gpus);
        for gpu in gpus {
            if self.claimed.get(gpu) == Some(&job.job.id) {
                self.claimed.remove(gpu);
            }
        }
    }

    fn still_there(&self, job: &Managed<'_>) -> bool {
        let mut gpus = job.held.iter().flat_map(|held| &held.gpus);
        gpus.all(|(node, gpu)| self.free.get(node).is_some_and(|free| free.contains(gpu)))
    }

    fn take(&mut self, gpus: &[(NodeId, u16)]) {
        for (node, gpu) in gpus {
            if let Some(free) = self.free.get_mut(node) {
                free.remove(gpu);
            }
        }
    }

    fn first(&self, gpus: u32) -> Option<Vec<(NodeId, u16)>> {
        let free = self
            .free
            .iter()
            .flat_map(|(node, free)| free.iter().map(|gpu| (*node, *gpu)));
        let found: Vec<(NodeId, u16)> = free.take(gpus as usize).collect();
        (found.len() == gpus as usize).then_some(found)
    }

    fn find(&self, kind: &Kind, gpus: u32) -> Option<Vec<(NodeId, u16)>> {
        let each = kind.gpus_per_node.max(1);
        let mut found = Vec::with_capacity(gpus as usize);
        let mut used: BTreeSet<NodeId> = BTreeSet::new();
        let mut left = gpus;
        while left > 0 {
            let wanted = left.min(each);
            // A node that holds it at once; else, for odd sizes, as much as the emptiest has.
            let (node, free) = self
                .node_for(wanted, &used)
                .or_else(|| self.emptiest(&used))?;
            used.insert(node);
            let take = (wanted as usize).min(free.len());
            left -= take as u32;
            // Those that nobody claims first.
            let mut by_claim: Vec<(bool, u16)> = (free.iter())
                .map(|&gpu| (self.claimed.contains_key(&(node, gpu)), gpu))
                .collect();
            by_claim.sort_unstable();
            found.extend(by_claim.into_iter().take(take).map(|(_, gpu)| (node, gpu)));
        }
        Some(found)
    }

    /// The node that holds so many with the fewest claims in the way, and then with the least left over.
    fn node_for(&self, wanted: u32, used: &BTreeSet<NodeId>) -> Option<(NodeId, &BTreeSet<u16>)> {
        let fits = self
            .free
            .iter()
            .filter(|(node, free)| free.len() as u32 >= wanted && !used.contains(node));
        let least = fits.min_by_key(|(node, free)| {
            let claimed = free
                .iter()
                .filter(|&&gpu| self.claimed.contains_key(&(**node, gpu)));
            let open = free.len() - claimed.count();
            ((wanted as usize).saturating_sub(open), open, **node)
        });
        least.map(|(node, free)| (*node, free))
    }

    fn emptiest(&self, used: &BTreeSet<NodeId>) -> Option<(NodeId, &BTreeSet<u16>)> {
        let open = self
            .free
            .iter()
            .filter(|(node, free)| !free.is_empty() && !used.contains(node));
        let most = open.max_by_key(|(node, free)| (free.len(), std::cmp::Reverse(**node)));
        most.map(|(node, free)| (*node, free))
    }
}
