//! The last resort for jobs of several groups: a search that misses nothing, within a bound.
//!
//! Seating group after group and never going back misses mixes that fit only another way. Here workers are seated one
//! by one, the most constrained group first, and taken back as soon as some group can no longer be seated. The last
//! group needs no search: one group alone fits if and only if the nodes' room for it adds up.
//!
//! What is equal is tried once: workers of a group go to ascending places, of untouched nodes with the same GPUs, links,
//! labels and free amounts only the first one is tried, and of equal GPUs of a node only the first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use berth_types::{GpuShare, MILLI};

use super::capacity::{Capacity, Leeway};
use super::class::Class;
use super::gpu_pick::Bench;
use super::room::{WHOLE, bytes, signed};
use super::shape::{GpuMatch, Shape};
use super::trial::Workers;

/// Most workers tried at places, about 300 ns each: a search that finds nothing costs at most about 3 ms.
const MAX_STEPS: u64 = 10_000;

/// Most workers in all groups but the last: bounds the depth of the search. Larger jobs go without it.
const MAX_WORKERS: u32 = 256;

/// Node checks that a step counts as.
const CHECKS_PER_STEP: u64 = 16;

/// A node with room for some worker of the job.
#[derive(Clone, Debug)]
struct Spot {
    seat: u32,
    class: usize,
    /// Equal for nodes that are alike before the job touches them.
    kind: u32,
    bench: Bench,
    /// Workers that fit here, by group.
    slots: Vec<u32>,
    /// Workers of the job that sit here.
    seated: u32,
}

/// Class, CPUs, memory and GPUs: what makes nodes alike.
type Alike = (u32, i64, i64, Vec<i32>);

/// Where the next worker of the same group may go: no place before this one.
#[derive(Clone, Copy, Debug, Default)]
struct From {
    spot: usize,
    gpu: u16,
}

struct Search<'s, 'a> {
    shape: &'s Shape<'a>,
    sizes: &'s [u32],
    classes: &'s [Class<'a>],
    /// Groups in the order in which they are seated.
    order: Vec<usize>,
    spots: Vec<Spot>,
    /// By class, then GPU: equal for GPUs that the same groups can use.
    gpu_kinds: BTreeMap<usize, Vec<u16>>,
    /// Workers that fit all spots, by group.
    room: Vec<u64>,
    missing: Vec<u32>,
    seated: Vec<Workers>,
    steps: u64,
}

/// Seats these numbers of workers by group, if that can be done and is found within the bound.
pub(super) fn search(
    capacity: &Capacity<'_>,
    shape: &Shape<'_>,
    sizes: &[u32],
    leeway: Leeway,
    checks: &mut u64,
) -> Option<Vec<Workers>> {
    *checks += capacity.seats.len() as u64;
    let mut search = Search::new(capacity, shape, sizes, leeway);
    let all_but_last = search.order.split_last()?.1.iter();
    let deep = all_but_last.fold(0u32, |sum, &group| sum.saturating_add(sizes[group]));
    if deep > MAX_WORKERS || search.is_hopeless() || search.is_short() {
        return None;
    }
    let found = search.seat_from(0, From::default());
    *checks += CHECKS_PER_STEP * search.steps;
    found.then_some(search.seated)
}

impl<'s, 'a> Search<'s, 'a> {
    fn new(
        capacity: &'s Capacity<'a>,
        shape: &'s Shape<'a>,
        sizes: &'s [u32],
        leeway: Leeway,
    ) -> Self {
        let spots = spots(capacity, shape, sizes, leeway);
        let groups = 0..sizes.len();
        let suiting = |group: usize| spots.iter().filter(|spot| spot.slots[group] > 0).count();
        let mut order: Vec<usize> = groups.clone().collect();
        order.sort_by_cached_key(|&group| {
            let r = &shape.groups[group].resources;
            (
                suiting(group),
                Reverse((r.milligpu, r.millicpu, r.mem_bytes)),
            )
        });
        let room = |group: usize| {
            let slots = spots.iter().map(|spot| u64::from(spot.slots[group]));
            slots.sum()
        };
        let gpu_kinds = (spots.iter().map(|spot| spot.class))
            .collect::<BTreeSet<usize>>()
            .into_iter()
            .map(|class| (class, gpu_kinds(shape, class, &capacity.classes[class])))
            .collect();
        Self {
            shape,
            sizes,
            classes: &capacity.classes,
            order,
            gpu_kinds,
            room: groups.map(room).collect(),
            missing: sizes.to_vec(),
            seated: vec![Vec::new(); sizes.len()],
            steps: 0,
            spots,
        }
    }

    /// True if some group cannot be seated any more, even if it were the only one left.
    fn is_hopeless(&self) -> bool {
        (self.room.iter().zip(&self.missing)).any(|(room, &missing)| *room < u64::from(missing))
    }

    /// True if all groups together ask for more GPUs than are free.
    fn is_short(&self) -> bool {
        let (mut whole, mut milligpu) = (0i64, 0i64);
        for (group, &size) in self.shape.groups.iter().zip(self.sizes) {
            let r = &group.resources;
            if r.milligpu >= MILLI {
                whole += i64::from(r.devices()) * i64::from(size);
            }
            milligpu += i64::from(r.milligpu) * i64::from(size);
        }
        let free = || self.spots.iter().flat_map(|spot| &spot.bench.gpus);
        let wholly_free = free().filter(|&&free| free >= WHOLE).count();
        let free: i64 = free().map(|&free| i64::from(free.max(0))).sum();
        free < milligpu || i64::try_from(wholly_free).unwrap_or(i64::MAX) < whole
    }

    /// Seats all that is missing of the groups from `at` in the order. True if that worked; else nothing has changed.
    fn seat_from(&mut self, at: usize, from: From) -> bool {
        let Some(&group) = self.order.get(at) else {
            return true;
        };
        if at + 1 == self.order.len() {
            self.seat_last(group);
            return true;
        }
        if self.missing[group] == 0 {
            return self.seat_from(at + 1, From::default());
        }
        let mut kinds = BTreeSet::new();
        for index in from.spot..self.spots.len() {
            let spot = &self.spots[index];
            let is_equal = spot.seated == 0 && !kinds.insert(spot.kind);
            if is_equal || spot.slots[group] == 0 {
                continue;
            }
            let first_gpu = if index == from.spot { from.gpu } else { 0 };
            for gpus in self.choices(index, group, first_gpu) {
                if self.steps >= MAX_STEPS {
                    return false;
                }
                self.steps += 1;
                let gpu = if self.is_shared(group) { gpus[0] } else { 0 };
                let before = self.take(index, group, &gpus);
                if !self.is_hopeless() && self.seat_from(at, From { spot: index, gpu }) {
                    return true;
                }
                self.undo(index, group, before);
            }
        }
        false
    }

    fn is_shared(&self, group: usize) -> bool {
        (1..MILLI).contains(&self.shape.groups[group].resources.milligpu)
    }

    /// Sets of GPUs that a worker could get on a spot: one of each kind, the fullest or least useful first.
    fn choices(&self, index: usize, group: usize, first_gpu: u16) -> Vec<Vec<u16>> {
        let spot = &self.spots[index];
        let resources = &self.shape.groups[group].resources;
        let suits = &self.shape.matches[group][spot.class];
        let kinds = &self.gpu_kinds[&spot.class];
        let need = signed(resources.milligpu).min(WHOLE);
        let fitting = (0u16..).zip(&spot.bench.gpus).filter(|&(gpu, &free)| {
            gpu >= first_gpu && free >= need && suits.suits(usize::from(gpu))
        });
        if need == 0 {
            return vec![Vec::new()];
        }
        if need < WHOLE {
            let mut by_kind: BTreeMap<(i32, u16), u16> = BTreeMap::new();
            for (gpu, &free) in fitting {
                by_kind
                    .entry((free, kinds[usize::from(gpu)]))
                    .or_insert(gpu);
            }
            return by_kind.into_values().map(|gpu| vec![gpu]).collect();
        }
        let mut free: BTreeMap<u16, usize> = BTreeMap::new();
        for (gpu, _) in fitting {
            *free.entry(kinds[usize::from(gpu)]).or_default() += 1;
        }
        let free: Vec<(u16, usize)> = free.into_iter().collect();
        let class = &self.classes[spot.class];
        let mut mixes = Vec::new();
        mix(
            &free,
            resources.devices() as usize,
            &mut Vec::new(),
            &mut mixes,
        );
        let pick = |mix: Vec<(u16, usize)>| {
            let mut gpus: Vec<u16> = (mix.into_iter())
                .flat_map(|(kind, count)| {
                    let marks = kinds.iter().map(|&of| of == kind).collect();
                    (spot.bench).pick_whole(class, &GpuMatch::Some(marks), count)
                })
                .collect();
            gpus.sort_unstable();
            gpus
        };
        mixes.into_iter().map(pick).collect()
    }

    /// Seats a worker; returns what the spot was before.
    fn take(&mut self, index: usize, group: usize, gpus: &[u16]) -> Spot {
        let resources = &self.shape.groups[group].resources;
        let milligpu = resources.milligpu.min(MILLI);
        let before = self.spots[index].clone();
        let spot = &mut self.spots[index];
        spot.bench.cpu -= i64::from(resources.millicpu);
        spot.bench.mem -= bytes(resources.mem_bytes);
        for &gpu in gpus {
            spot.bench.gpus[usize::from(gpu)] -= signed(milligpu);
        }
        spot.seated += 1;
        let shares = gpus.iter().map(|&gpu| GpuShare { gpu, milligpu });
        self.seated[group].push((spot.seat, shares.collect()));
        self.missing[group] -= 1;
        self.recount(index);
        before
    }

    fn undo(&mut self, index: usize, group: usize, before: Spot) {
        self.seated[group].pop();
        self.missing[group] += 1;
        let after = std::mem::replace(&mut self.spots[index], before);
        let slots = after.slots.iter().zip(&self.spots[index].slots);
        for (room, (after, before)) in self.room.iter_mut().zip(slots) {
            *room = *room + u64::from(*before) - u64::from(*after);
        }
    }

    fn recount(&mut self, index: usize) {
        let spot = &mut self.spots[index];
        for (group, slots) in spot.slots.iter_mut().enumerate() {
            let resources = &self.shape.groups[group].resources;
            let suits = &self.shape.matches[group][spot.class];
            let fit = spot.bench.slots(resources, suits, self.sizes[group]);
            self.room[group] = self.room[group] + u64::from(fit) - u64::from(*slots);
            *slots = fit;
        }
    }

    /// Seats the last group: on as few nodes as possible, since its room is known to suffice.
    fn seat_last(&mut self, group: usize) {
        let mut indexes: Vec<usize> = (0..self.spots.len()).collect();
        indexes.sort_by_key(|&index| {
            let spot = &self.spots[index];
            (Reverse(spot.slots[group]), Reverse(spot.seated), index)
        });
        for index in indexes {
            let spot = &mut self.spots[index];
            let count = spot.slots[group].min(self.missing[group]);
            let mut shares = Vec::with_capacity(count as usize);
            let class = &self.classes[spot.class];
            let suits = &self.shape.matches[group][spot.class];
            let resources = &self.shape.groups[group].resources;
            if spot.bench.seat(class, suits, resources, count, &mut shares) {
                self.missing[group] -= count;
                let seat = spot.seat;
                self.seated[group].extend(shares.into_iter().map(|gpus| (seat, gpus)));
            }
        }
    }
}

/// Nodes with room for some worker, the least useful first; of nodes that are alike no more than there are workers.
fn spots(capacity: &Capacity<'_>, shape: &Shape<'_>, sizes: &[u32], leeway: Leeway) -> Vec<Spot> {
    let workers = sizes.iter().fold(0u32, |sum, &n| sum.saturating_add(n));
    let mut kinds: BTreeMap<Alike, (u32, u32)> = BTreeMap::new();
    let mut spots: Vec<Spot> = Vec::new();
    for (seat, info) in (0u32..).zip(&capacity.seats) {
        let class = info.class as usize;
        if !info.is_open(true) || shape.matches.iter().all(|m| m[class] == GpuMatch::No) {
            continue;
        }
        let bench = Bench::of(capacity, seat, leeway);
        let slots: Vec<u32> = (shape.groups.iter().zip(shape.matches.iter()).zip(sizes))
            .map(|((group, suits), &size)| bench.slots(&group.resources, &suits[class], size))
            .collect();
        if slots.iter().all(|&slots| slots == 0) {
            continue;
        }
        let next = u32::try_from(kinds.len()).unwrap_or(u32::MAX);
        let alike = (info.class, bench.cpu, bench.mem, bench.gpus.clone());
        let (kind, count) = kinds.entry(alike).or_insert((next, 0));
        *count += 1;
        if *count <= workers {
            spots.push(Spot {
                seat,
                class,
                kind: *kind,
                bench,
                slots,
                seated: 0,
            });
        }
    }
    spots.sort_by_cached_key(|spot| {
        let useful = spot.slots.iter().filter(|&&slots| slots > 0).count();
        let whole = spot.bench.gpus.iter().filter(|&&free| free >= WHOLE);
        (useful, whole.count(), spot.seat)
    });
    spots
}

/// By GPU of a class: which groups can use it, as a number; those that fewer groups can use have the smaller ones.
fn gpu_kinds(shape: &Shape<'_>, class: usize, known: &Class<'_>) -> Vec<u16> {
    let marks = |gpu: usize| -> (usize, Vec<bool>) {
        let uses = |suits: &Vec<GpuMatch>| suits[class].suits(gpu);
        let marks: Vec<bool> = shape.matches.iter().map(uses).collect();
        (marks.iter().filter(|&&suits| suits).count(), marks)
    };
    let all: Vec<(usize, Vec<bool>)> = (0..known.gpus.len()).map(marks).collect();
    let mut distinct: Vec<&(usize, Vec<bool>)> = all.iter().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let number = |marks| distinct.binary_search(&marks).unwrap_or(0);
    (all.iter())
        .map(|marks| u16::try_from(number(marks)).unwrap_or(u16::MAX))
        .collect()
}

/// All ways to take `count` things of kinds of which so many are there, most of the first kind first.
fn mix(
    free: &[(u16, usize)],
    count: usize,
    taken: &mut Vec<(u16, usize)>,
    out: &mut Vec<Vec<(u16, usize)>>,
) {
    if count == 0 {
        out.push(taken.clone());
        return;
    }
    let Some((&(kind, here), rest)) = free.split_first() else {
        return;
    };
    for n in (0..=here.min(count)).rev() {
        if n > 0 {
            taken.push((kind, n));
        }
        mix(rest, count - n, taken, out);
        if n > 0 {
            taken.pop();
        }
    }
}
