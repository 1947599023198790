//! `best-fit-decreasing`: the order of `fifo`, with slots chosen for all jobs of the round together so that nodes fill up.
//!
//! Source: best fit decreasing; Johnson, "Fast algorithms for bin packing", Journal of Computer and System Sciences 8
//! (1974).
//!
//! Who starts is decided in the order of priority and arrival, as in `fifo`. Where they start is decided for all of
//! them at once, the largest first, each into the node that it leaves fullest; small jobs then fill the gaps instead of
//! breaking up nodes that a larger one in the same round needs whole. If the second pass cannot seat everybody that
//! the first one admitted, the first one's places stand.
//!
//! Deviations: bins are several-dimensional (GPUs, CPUs, memory), and size is measured in GPUs first. Jobs that the
//! planner lets go behind a promise may get other slots than proposed.

use std::cmp::Reverse;

use berth_core::planner::{Capacity, Leeway, Placed, ShapeId, Shapes, largest, place};
use berth_core::policy::{Action, Backfill, Policy, Proposal, ProposedBundle, View};
use berth_core::state::Job;
use berth_types::{JobId, TaskPlacement};
use rand_chacha::ChaCha8Rng;

/// Most jobs that get slots of its choice in one round: as many as a plan starts.
const MAX_PLACED: usize = 512;

/// Priority and arrival for the order, best fit decreasing for the places.
#[derive(Clone, Copy, Debug, Default)]
pub struct BestFitDecreasing;

/// A job that fits, with the places found so far.
struct Admitted<'a> {
    job: &'a Job,
    shape: ShapeId,
    placed: Placed,
}

impl Policy for BestFitDecreasing {
    fn name(&self) -> &str {
        "best-fit-decreasing"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let empty = Capacity::of(&view.state);
        let mut shapes = Shapes::new();
        let mut admitted = admit(view, empty.clone(), &mut shapes);
        if let Some(tighter) = pack(&admitted, empty, &shapes) {
            for (entry, placed) in admitted.iter_mut().zip(tighter) {
                entry.placed = placed;
            }
        }
        let mut places = admitted.into_iter().peekable();
        let bundles = (view.state.pending.iter())
            .map(
                |key| match places.next_if(|entry| entry.job.id == key.job) {
                    Some(entry) => start_at(key.job, entry.placed.tasks),
                    None => ProposedBundle::start(key.job),
                },
            )
            .collect();
        Proposal {
            bundles,
            backfill: Backfill::BehindReservation,
            ..Proposal::default()
        }
    }
}

/// Jobs that fit beside each other, in order.
fn admit<'a>(
    view: &'a View,
    mut capacity: Capacity<'a>,
    shapes: &mut Shapes<'a>,
) -> Vec<Admitted<'a>> {
    let mut admitted = Vec::new();
    let mut failed: Vec<bool> = Vec::new();
    let mut checks = 0;
    for key in &view.state.pending {
        if admitted.len() >= MAX_PLACED {
            break;
        }
        let Some(job) = view.state.jobs.get(&key.job) else {
            continue;
        };
        if job.not_before_ms > view.now_ms || view.state.reservations.contains_key(&job.id) {
            continue;
        }
        let shape = shapes.intern(&job.spec, &capacity);
        failed.resize(shapes.len(), false);
        if failed[shape.index()] {
            continue;
        }
        match largest(&capacity, shapes.get(shape), Leeway::ALL, &mut checks) {
            Some(placed) => {
                capacity.take(&job.spec.groups, &placed.tasks, Leeway::ALL);
                admitted.push(Admitted { job, shape, placed });
            }
            None => failed[shape.index()] = true,
        }
    }
    admitted
}

/// Places for the same jobs at the same sizes, found largest first; `None` if that does not seat them all.
fn pack(
    admitted: &[Admitted<'_>],
    mut capacity: Capacity<'_>,
    shapes: &Shapes<'_>,
) -> Option<Vec<Placed>> {
    let mut order: Vec<usize> = (0..admitted.len()).collect();
    order.sort_by_key(|&index| Reverse(demand(&admitted[index])));
    let mut packed: Vec<Option<Placed>> = vec![None; admitted.len()];
    let mut checks = 0;
    for index in order {
        let entry = &admitted[index];
        let shape = shapes.get(entry.shape);
        let placed = place(
            &capacity,
            shape,
            &entry.placed.sizes,
            Leeway::ALL,
            &mut checks,
        )?;
        capacity.take(shape.groups, &placed.tasks, Leeway::ALL);
        packed[index] = Some(placed);
    }
    packed.into_iter().collect()
}

/// GPUs of all workers, then of one worker, then CPUs.
fn demand(entry: &Admitted<'_>) -> (u64, u32, u64) {
    let groups = &entry.job.spec.groups;
    let total = |each: fn(&berth_types::Resources) -> u32| -> u64 {
        (groups.iter().zip(&entry.placed.sizes))
            .map(|(group, &size)| u64::from(each(&group.resources)) * u64::from(size))
            .sum()
    };
    let largest_worker = groups.iter().map(|group| group.resources.milligpu).max();
    (
        total(|r| r.milligpu),
        largest_worker.unwrap_or(0),
        total(|r| r.millicpu),
    )
}

fn start_at(job: JobId, slots: Vec<TaskPlacement>) -> ProposedBundle {
    ProposedBundle {
        actions: vec![Action::Start {
            job,
            workers: None,
            slots: Some(slots),
        }],
        score: 0.0,
        reason: String::new(),
    }
}
