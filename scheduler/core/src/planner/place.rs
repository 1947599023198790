//! Where a job goes: best fit that keeps a gang together.
//!
//! Tried in this order: one node, the one that stays fullest; one rack, the one that needs fewest nodes and stays
//! fullest; any nodes, as few as possible, the last one the tightest. Inside a node, [`gpu_pick`](super::gpu_pick)
//! keeps to one NVLink group where it can.
//!
//! For one group this is complete: it finds a place if there is one. Several groups are seated one after the other,
//! the largest workers first; if that fails, the group that the fewest nodes suit first; if that fails, too, a
//! [`search`](super::search) decides that goes back, and so finds a place if there is one, within its bound. Ranks
//! follow the spec's order whatever the order of seating.

use berth_types::{Rank, TaskPlacement};

use super::capacity::{Capacity, Leeway};
use super::search::search;
use super::shape::Shape;
use super::trial::{Trial, Workers};

/// Places for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// By rank.
    pub tasks: Vec<TaskPlacement>,
    /// Workers by group.
    pub sizes: Vec<u32>,
    /// How far apart.
    pub(super) spread: Spread,
}

/// How far apart a gang sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// On one node.
    Node,
    /// In one rack.
    Rack,
    /// Anywhere.
    Wide,
}

/// Finds places for a job with these numbers of workers by group. Adds the nodes looked at to `checks`.
pub fn place(
    capacity: &Capacity<'_>,
    shape: &Shape<'_>,
    sizes: &[u32],
    leeway: Leeway,
    checks: &mut u64,
) -> Option<Placed> {
    if sizes.len() != shape.groups.len() || sizes.iter().all(|&n| n == 0) {
        return None;
    }
    let mut trial = Trial::new(capacity, shape, leeway, checks);
    let together = (trial.on_one_node(sizes).map(|s| (s, Spread::Node)))
        .or_else(|| trial.in_one_rack(sizes).map(|s| (s, Spread::Rack)))
        .or_else(|| trial.spread(sizes, None).map(|s| (s, Spread::Wide)));
    let (seated, spread) = match together {
        Some(found) => found,
        None if sizes.len() < 2 => return None,
        None => {
            let order = trial.scarcest_first(sizes)?;
            let seated = (trial.spread_in(&order, sizes, None))
                .or_else(|| search(capacity, shape, sizes, leeway, checks))?;
            let spread = spread_of(&seated);
            (seated, spread)
        }
    };
    let tasks = (0u16..)
        .zip(seated)
        .flat_map(|(group, workers)| workers.into_iter().map(move |worker| (group, worker)))
        .zip(0u32..)
        .map(|((group, (seat, gpus)), rank)| TaskPlacement {
            rank: Rank(rank),
            group,
            node: capacity.seats[seat as usize].node.id,
            gpus,
        })
        .collect();
    Some(Placed {
        tasks,
        sizes: sizes.to_vec(),
        spread,
    })
}

fn spread_of(seated: &[Workers]) -> Spread {
    let mut seats = seated.iter().flatten().map(|(seat, _)| seat);
    let first = seats.next();
    match seats.all(|seat| Some(seat) == first) {
        true => Spread::Node,
        false => Spread::Wide,
    }
}

/// Finds places for the largest size between each group's least and most workers that fits.
///
/// With several elastic groups, earlier ones grow first.
pub fn largest(
    capacity: &Capacity<'_>,
    shape: &Shape<'_>,
    leeway: Leeway,
    checks: &mut u64,
) -> Option<Placed> {
    let most: Vec<u32> = shape.groups.iter().map(|group| group.max_workers).collect();
    if let Some(placed) = place(capacity, shape, &most, leeway, checks) {
        return Some(placed);
    }
    let mut sizes = shape.least();
    if sizes == most {
        return None;
    }
    if let ([group], [size]) = (shape.groups, sizes.as_mut_slice()) {
        let options =
            Trial::new(capacity, shape, leeway, checks).options(0, None, group.max_workers);
        let fit = options
            .iter()
            .fold(0u32, |sum, option| sum.saturating_add(option.slots));
        if fit < group.min_workers {
            return None;
        }
        *size = fit.min(group.max_workers);
        return place(capacity, shape, &sizes, leeway, checks);
    }
    let mut best = place(capacity, shape, &sizes, leeway, checks)?;
    for group in 0..sizes.len() {
        let (mut fits, mut fails) = (sizes[group], most[group].saturating_add(1));
        while fails - fits > 1 {
            sizes[group] = fits + (fails - fits) / 2;
            match place(capacity, shape, &sizes, leeway, checks) {
                Some(placed) => (fits, best) = (sizes[group], placed),
                None => fails = sizes[group],
            }
        }
        sizes[group] = fits;
    }
    Some(best)
}

/// How many workers of one group fit, beside nothing else of the job.
pub(super) fn workers_that_fit(
    capacity: &Capacity<'_>,
    shape: &Shape<'_>,
    group: usize,
    leeway: Leeway,
) -> u32 {
    let most = shape.groups[group].max_workers;
    let mut checks = 0;
    let options = Trial::new(capacity, shape, leeway, &mut checks).options(group, None, most);
    options
        .iter()
        .fold(0, |sum: u32, option| sum.saturating_add(option.slots))
}
