//! Whether the slots that a policy proposes hold.

use std::collections::BTreeMap;

use berth_types::{MILLI, Resources, TaskPlacement};

use super::capacity::{Capacity, Leeway};
use super::gpu_pick::Bench;
use super::place::{Placed, Spread};
use super::room::{WHOLE, bytes, signed};
use super::shape::{GpuMatch, Shape};

/// The proposed places, if every hard rule holds for them.
pub(super) fn check(
    capacity: &Capacity<'_>,
    shape: &Shape<'_>,
    slots: &[TaskPlacement],
    leeway: Leeway,
) -> Option<Placed> {
    let sizes = sizes(shape, slots)?;
    let mut benches: BTreeMap<u32, Bench> = BTreeMap::new();
    for task in slots {
        let index = capacity.seat_of(task.node)?;
        let seat = &capacity.seats[index as usize];
        let group = usize::from(task.group);
        let resources = &shape.groups[group].resources;
        let suits = &shape.matches[group][seat.class as usize];
        if !seat.is_open(slots.len() > 1) || *suits == GpuMatch::No {
            return None;
        }
        let bench = benches
            .entry(index)
            .or_insert_with(|| Bench::of(capacity, index, leeway));
        if !seat_one(bench, resources, suits, task) {
            return None;
        }
    }
    let spread = if benches.len() == 1 {
        Spread::Node
    } else {
        Spread::Wide
    };
    Some(Placed {
        tasks: slots.to_vec(),
        sizes,
        spread,
    })
}

/// Workers by group, if ranks count from 0 and groups follow the spec's order within their bounds.
fn sizes(shape: &Shape<'_>, slots: &[TaskPlacement]) -> Option<Vec<u32>> {
    let ranks_hold = (0u32..).zip(slots).all(|(rank, task)| task.rank.0 == rank);
    if !ranks_hold || !slots.is_sorted_by_key(|task| task.group) {
        return None;
    }
    let mut sizes = vec![0u32; shape.groups.len()];
    for task in slots {
        *sizes.get_mut(usize::from(task.group))? += 1;
    }
    let held = (shape.groups.iter().zip(&sizes))
        .all(|(group, size)| (group.min_workers..=group.max_workers).contains(size));
    held.then_some(sizes)
}

fn seat_one(
    bench: &mut Bench,
    resources: &Resources,
    suits: &GpuMatch,
    task: &TaskPlacement,
) -> bool {
    bench.cpu -= i64::from(resources.millicpu);
    bench.mem -= bytes(resources.mem_bytes);
    let share = resources.milligpu.min(MILLI);
    let shares_hold = task.gpus.len() == resources.devices() as usize
        && task.gpus.is_sorted_by(|a, b| a.gpu < b.gpu)
        && task
            .gpus
            .iter()
            .all(|s| s.milligpu == share && suits.suits(usize::from(s.gpu)));
    let gpus_hold = task.gpus.iter().all(|s| {
        let Some(free) = bench.gpus.get_mut(usize::from(s.gpu)) else {
            return false;
        };
        *free -= signed(s.milligpu).min(WHOLE);
        *free >= 0
    });
    shares_hold && gpus_hold && bench.cpu >= 0 && bench.mem >= 0
}
