//! A job tried on a capacity that stays as it is: on one node, in one rack, anywhere.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use berth_types::{GpuShare, GroupSpec, MILLI};

use super::capacity::{Capacity, Leeway};
use super::gpu_pick::{self, Bench};
use super::room::{bytes, signed};
use super::shape::{GpuMatch, Shape};

/// Racks tried before a gang is spread over several.
const MAX_RACKS_TRIED: usize = 8;

/// Workers of one group, each with its seat and GPUs.
pub(super) type Workers = Vec<(u32, Vec<GpuShare>)>;

/// A node that has room for some workers of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) slots: u32,
    touched: bool,
    whole: u16,
    seat: u32,
}

/// What all workers together need.
struct Demand {
    /// Whole GPUs.
    whole: u32,
    /// The largest share of one GPU.
    share: i32,
    milligpu: u64,
    cpu: i64,
    mem: i64,
}

impl Demand {
    fn of(groups: &[GroupSpec], sizes: &[u32]) -> Self {
        let mut demand = Self {
            whole: 0,
            share: 0,
            milligpu: 0,
            cpu: 0,
            mem: 0,
        };
        for (group, &size) in groups.iter().zip(sizes) {
            let r = &group.resources;
            if r.milligpu >= MILLI {
                demand.whole = demand
                    .whole
                    .saturating_add(r.devices().saturating_mul(size));
            } else {
                demand.share = demand.share.max(signed(r.milligpu));
            }
            demand.milligpu += u64::from(r.milligpu) * u64::from(size);
            demand.cpu += i64::from(r.millicpu) * i64::from(size);
            let mem = bytes(r.mem_bytes).saturating_mul(i64::from(size));
            demand.mem = demand.mem.saturating_add(mem);
        }
        demand
    }
}

/// A job tried on a capacity that stays as it is.
pub(super) struct Trial<'t, 'a> {
    capacity: &'t Capacity<'a>,
    shape: &'t Shape<'a>,
    leeway: Leeway,
    checks: &'t mut u64,
    /// A gang meets on a leased port; a single task does without one where none is left.
    needs_port: bool,
    /// Seats that this job uses already, with what it leaves there.
    touched: BTreeMap<u32, Bench>,
}

impl<'t, 'a> Trial<'t, 'a> {
    pub(super) fn new(
        capacity: &'t Capacity<'a>,
        shape: &'t Shape<'a>,
        leeway: Leeway,
        checks: &'t mut u64,
    ) -> Self {
        Self {
            capacity,
            shape,
            leeway,
            checks,
            needs_port: shape.groups.iter().any(|group| group.max_workers > 1)
                || shape.groups.len() > 1,
            touched: BTreeMap::new(),
        }
    }

    /// Groups with the largest workers first: what is hard to place goes while there is most room.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.shape.groups.len()).collect();
        order.sort_by_key(|&index| {
            let r = &self.shape.groups[index].resources;
            Reverse((r.milligpu, r.millicpu, r.mem_bytes))
        });
        order
    }

    pub(super) fn on_one_node(&mut self, sizes: &[u32]) -> Option<Vec<Workers>> {
        let demand = Demand::of(self.shape.groups, sizes);
        if let ([group], [1]) = (self.shape.groups, sizes)
            && (1..MILLI).contains(&group.resources.milligpu)
            && let Some(seat) = self.fullest_shared(signed(group.resources.milligpu), &demand)
        {
            return self.seat_all(seat, sizes);
        }
        let whole = u16::try_from(demand.whole).ok()?;
        let order = self.order();
        let mut best: Option<((u16, u32), Vec<Workers>)> = None;
        for class in (0u32..).take(self.capacity.classes.len()) {
            if !self.shape.suits_class(class) {
                continue;
            }
            let room = self.capacity.room(class, self.leeway);
            for (whole, seat) in room.seats_with(class, whole, demand.share) {
                if best.as_ref().is_some_and(|(key, _)| *key <= (whole, seat)) {
                    break;
                }
                *self.checks += 1;
                if !self.host_holds(seat, &demand) {
                    continue;
                }
                if let Some(seated) = self.seat_groups(seat, sizes, &order) {
                    best = Some(((whole, seat), seated));
                    break;
                }
            }
        }
        best.map(|(_, seated)| seated)
    }

    /// The node whose fullest shared GPU still has room for a fraction.
    fn fullest_shared(&mut self, need: i32, demand: &Demand) -> Option<u32> {
        let mut best: Option<(i32, u32)> = None;
        for class in (0u32..).take(self.capacity.classes.len()) {
            let suits = &self.shape.matches[0][class as usize];
            if *suits == GpuMatch::No {
                continue;
            }
            let room = self.capacity.room(class, self.leeway);
            let found =
                room.partial[class as usize]
                    .range((need, 0, 0)..)
                    .find(|(_, seat, gpu)| {
                        *self.checks += 1;
                        suits.suits(usize::from(*gpu)) && self.host_holds(*seat, demand)
                    });
            let found = found.map(|&(free, seat, _)| (free, seat));
            best = best.into_iter().chain(found).min();
        }
        best.map(|(_, seat)| seat)
    }

    fn host_holds(&self, seat: u32, demand: &Demand) -> bool {
        let info = &self.capacity.seats[seat as usize];
        let amounts = &self.capacity.room(info.class, self.leeway).amounts;
        info.is_open(self.needs_port)
            && amounts.cpu[seat as usize] >= demand.cpu
            && amounts.mem[seat as usize] >= demand.mem
            && u64::from(info.gpu_count) * u64::from(MILLI) >= demand.milligpu
    }

    fn seat_all(&self, seat: u32, sizes: &[u32]) -> Option<Vec<Workers>> {
        self.seat_groups(seat, sizes, &self.order())
    }

    /// Every worker on one node, or none.
    fn seat_groups(&self, seat: u32, sizes: &[u32], order: &[usize]) -> Option<Vec<Workers>> {
        let class_id = self.capacity.seats[seat as usize].class as usize;
        let class = &self.capacity.classes[class_id];
        let mut bench = Bench::of(self.capacity, seat, self.leeway);
        let mut seated: Vec<Workers> = vec![Vec::new(); sizes.len()];
        for &index in order {
            let resources = &self.shape.groups[index].resources;
            let suits = &self.shape.matches[index][class_id];
            let mut shares = Vec::with_capacity(sizes[index] as usize);
            if !bench.seat(class, suits, resources, sizes[index], &mut shares) {
                return None;
            }
            seated[index] = shares.into_iter().map(|gpus| (seat, gpus)).collect();
        }
        Some(seated)
    }

    /// The rack that needs fewest nodes for the largest workers, then the one with least to spare.
    pub(super) fn in_one_rack(&mut self, sizes: &[u32]) -> Option<Vec<Workers>> {
        if self.capacity.rack_names.is_empty() {
            return None;
        }
        let lead = *self.order().first()?;
        let mut by_rack: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for option in self.options(lead, None, sizes[lead]) {
            if let Some(rack) = self.capacity.seats[option.seat as usize].rack {
                by_rack.entry(rack).or_default().push(option.slots);
            }
        }
        let mut racks: Vec<(usize, u64, u32)> = Vec::new();
        for (rack, mut slots) in by_rack {
            let total: u64 = slots.iter().map(|&n| u64::from(n)).sum();
            if total < u64::from(sizes[lead]) {
                continue;
            }
            slots.sort_unstable_by_key(|&n| Reverse(n));
            let mut missing = sizes[lead];
            let used = slots.iter().take_while(|&&n| {
                let needed = missing > 0;
                missing = missing.saturating_sub(n);
                needed
            });
            racks.push((used.count(), total, rack));
        }
        racks.sort_unstable();
        racks
            .iter()
            .take(MAX_RACKS_TRIED)
            .find_map(|&(_, _, rack)| self.spread(sizes, Some(rack)))
    }

    /// As few nodes as possible, of one rack or of all.
    pub(super) fn spread(&mut self, sizes: &[u32], rack: Option<u32>) -> Option<Vec<Workers>> {
        self.spread_in(&self.order(), sizes, rack)
    }

    /// Groups by how few nodes have room for them, largest workers first among equals; `None` if one does not fit even
    /// without the others.
    pub(super) fn scarcest_first(&mut self, sizes: &[u32]) -> Option<Vec<usize>> {
        self.touched.clear();
        let mut order = self.order();
        let mut suiting = vec![0; sizes.len()];
        for &index in &order {
            let options = self.options(index, None, sizes[index]);
            let fit: u64 = options.iter().map(|option| u64::from(option.slots)).sum();
            if fit < u64::from(sizes[index]) {
                return None;
            }
            suiting[index] = options.len();
        }
        order.sort_by_key(|&index| suiting[index]);
        Some(order)
    }

    /// As few nodes as possible, the groups one after the other in this order.
    pub(super) fn spread_in(
        &mut self,
        order: &[usize],
        sizes: &[u32],
        rack: Option<u32>,
    ) -> Option<Vec<Workers>> {
        self.touched.clear();
        let mut seated: Vec<Workers> = vec![Vec::new(); sizes.len()];
        for &index in order {
            seated[index] = self.spread_group(index, sizes[index], rack)?;
        }
        Some(seated)
    }

    fn spread_group(&mut self, index: usize, size: u32, rack: Option<u32>) -> Option<Workers> {
        let mut options = self.options(index, rack, size);
        let fit: u64 = options.iter().map(|option| u64::from(option.slots)).sum();
        if fit < u64::from(size) {
            return None;
        }
        options.sort_unstable_by_key(|o| (Reverse(o.slots), !o.touched, o.whole, o.seat));
        let mut workers = Workers::with_capacity(size as usize);
        let mut remaining = size;
        let mut largest = options.iter();
        while remaining > 0 {
            let rest = largest.as_slice();
            let enough = rest.partition_point(|o| o.slots >= remaining);
            let tightest =
                (rest[..enough].iter()).min_by_key(|o| (o.slots, !o.touched, o.whole, o.seat));
            let option = match tightest {
                Some(option) => option,
                None => largest.next()?,
            };
            let count = option.slots.min(remaining);
            self.seat_some(option.seat, index, count, &mut workers)?;
            remaining -= count;
        }
        Some(workers)
    }

    fn seat_some(
        &mut self,
        seat: u32,
        index: usize,
        count: u32,
        workers: &mut Workers,
    ) -> Option<()> {
        let class_id = self.capacity.seats[seat as usize].class as usize;
        let class = &self.capacity.classes[class_id];
        let mut bench = self
            .touched
            .remove(&seat)
            .unwrap_or_else(|| Bench::of(self.capacity, seat, self.leeway));
        let mut shares = Vec::with_capacity(count as usize);
        let resources = &self.shape.groups[index].resources;
        let suits = &self.shape.matches[index][class_id];
        let held = bench.seat(class, suits, resources, count, &mut shares);
        self.touched.insert(seat, bench);
        workers.extend(shares.into_iter().map(|gpus| (seat, gpus)));
        held.then_some(())
    }

    /// Nodes with room for at least one worker of a group.
    pub(super) fn options(&mut self, index: usize, rack: Option<u32>, most: u32) -> Vec<Candidate> {
        let resources = &self.shape.groups[index].resources;
        let is_whole = resources.milligpu >= MILLI;
        let whole = if is_whole { resources.devices() } else { 0 };
        let share = if is_whole {
            0
        } else {
            signed(resources.milligpu)
        };
        let Ok(whole) = u16::try_from(whole) else {
            return Vec::new();
        };
        let mut options = Vec::new();
        for class in (0u32..).take(self.capacity.classes.len()) {
            let suits = &self.shape.matches[index][class as usize];
            if *suits == GpuMatch::No {
                continue;
            }
            let room = self.capacity.room(class, self.leeway);
            for (whole, seat) in room.seats_with(class, whole, share) {
                *self.checks += 1;
                let info = &self.capacity.seats[seat as usize];
                if !info.is_open(self.needs_port) || (rack.is_some() && info.rack != rack) {
                    continue;
                }
                let touched = self.touched.get(&seat);
                let slots = match touched {
                    Some(bench) => bench.slots(resources, suits, most),
                    None => {
                        let gpus = &room.amounts.gpus[info.gpus()];
                        let (cpu, mem) = (
                            room.amounts.cpu[seat as usize],
                            room.amounts.mem[seat as usize],
                        );
                        gpu_pick::slots(gpus, cpu, mem, resources, suits, most)
                    }
                };
                if slots > 0 {
                    options.push(Candidate {
                        slots,
                        touched: touched.is_some(),
                        whole,
                        seat,
                    });
                }
            }
        }
        options
    }
}
