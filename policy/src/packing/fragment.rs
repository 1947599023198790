//! Fragmentation: how much of what is free would be of no use to the next worker.
//!
//! Weng et al. (USENIX ATC 2023, section 3.2): for a node, `F = sum over typical workers m of p_m * f_m`, where `f_m` is
//! all that is free on the node's GPUs if `m` cannot run there (too little CPU, too little GPU, a model that it does not
//! accept, or it asks for no GPU), else what is free on GPUs that have less left than `m` takes of each.
//!
//! Here `F` is kept as an integer, multiplied by the workload's weight, so that equal nodes have equal figures. A node
//! with GPUs of several models counts as one node per model, each with all of the node's free CPUs.

use berth_core::state::State;

use super::fleet::Fleet;
use super::seat::{Part, Seat};
use super::workload::Workload;

/// A workload, prepared for nodes of given GPU models.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    /// Workers counted in all.
    weight: u64,
    /// By number of the GPU model.
    by_model: Vec<Vec<Demand>>,
}

/// Typical workers that ask for the same of GPUs, and accept a model.
#[derive(Clone, Debug)]
struct Demand {
    share: u32,
    gpus: u32,
    /// CPUs that they ask for, ascending, each with the weight of all up to it.
    cpus: Vec<(u32, u64)>,
}

impl Gauge {
    /// Prepares a workload.
    pub fn new(workload: &Workload, models: &[String]) -> Self {
        Self {
            weight: workload.weight(),
            by_model: models
                .iter()
                .map(|model| demands(workload, model))
                .collect(),
        }
    }

    /// True if it knows these many models.
    pub fn covers(&self, models: &[String]) -> bool {
        self.by_model.len() == models.len()
    }

    /// Workers counted in all: what [`node`](Self::node) is multiplied by, at least 1.
    pub fn weight(&self) -> u64 {
        self.weight.max(1)
    }

    /// `F` of a node with these free amounts, in thousandths of a GPU times [`weight`](Self::weight).
    pub fn node(&self, parts: &[Part], millicpu: u32, gpus: &[u32]) -> u64 {
        parts
            .iter()
            .map(|part| self.part(part, millicpu, gpus))
            .sum()
    }

    fn part(&self, part: &Part, millicpu: u32, gpus: &[u32]) -> u64 {
        let free = || part.gpus.iter().map(|&gpu| gpus[usize::from(gpu)]);
        let total: u64 = free().map(u64::from).sum();
        if total == 0 {
            return 0;
        }
        let mut usable = 0;
        let (mut share, mut below, mut holding) = (0, 0, u32::MAX);
        for demand in self.by_model.get(part.model).into_iter().flatten() {
            if demand.share != share {
                (share, below, holding) = (demand.share, 0, 0);
                for free in free() {
                    let holds = free >= share;
                    below += if holds { 0 } else { u64::from(free) };
                    holding += u32::from(holds);
                }
            }
            if holding >= demand.gpus {
                usable += demand.weight_within(millicpu) * (total - below);
            }
        }
        (self.weight() * total).saturating_sub(usable)
    }
}

impl Demand {
    /// Weight of those that ask for at most so many CPUs.
    fn weight_within(&self, millicpu: u32) -> u64 {
        let within = self.cpus.partition_point(|(cpu, _)| *cpu <= millicpu);
        within.checked_sub(1).map_or(0, |last| self.cpus[last].1)
    }
}

fn demands(workload: &Workload, model: &str) -> Vec<Demand> {
    let mut tasks: Vec<(u32, u32, u32, u64)> = (workload.tasks().iter())
        .filter(|(task, _)| task.gpus > 0 && task.accepts_model(model))
        .map(|(task, count)| (task.share, task.gpus, task.millicpu, *count))
        .collect();
    tasks.sort_unstable();
    let mut demands: Vec<Demand> = Vec::new();
    for (share, gpus, millicpu, count) in tasks {
        match demands.last_mut() {
            Some(last) if (last.share, last.gpus) == (share, gpus) => {
                let before = last.cpus.last().map_or(0, |(_, weight)| *weight);
                last.cpus.push((millicpu, before + count));
            }
            _ => demands.push(Demand {
                share,
                gpus,
                cpus: vec![(millicpu, count)],
            }),
        }
    }
    demands
}

/// Measures the fragmentation of a cluster from time to time. Reads only the nodes that changed since the last time.
#[derive(Debug)]
pub struct FragmentMeter {
    workload: Workload,
    fleet: Fleet,
    gauge: Gauge,
    /// By seat: stamp, `F`, and what is free.
    known: Vec<(u64, u64, u64)>,
}

/// What is free on a cluster's GPUs, and what of it is in fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fragmentation {
    /// Sum of `F` over the nodes in service, in thousandths of a GPU.
    pub fragmented_milligpu: f64,
    /// Free on their GPUs, in thousandths.
    pub free_milligpu: u64,
}

impl Fragmentation {
    /// The share of what is free that is in fragments, 0 to 1; 0 if nothing is free.
    pub fn ratio(&self) -> f64 {
        if self.free_milligpu == 0 {
            return 0.0;
        }
        self.fragmented_milligpu / self.free_milligpu as f64
    }
}

impl FragmentMeter {
    /// Measures by this workload.
    pub fn new(workload: Workload) -> Self {
        Self {
            workload,
            fleet: Fleet::default(),
            gauge: Gauge::default(),
            known: Vec::new(),
        }
    }

    /// The fragmentation now.
    pub fn measure(&mut self, state: &State) -> Fragmentation {
        let renumbered = self.fleet.refresh(state);
        if renumbered || !self.gauge.covers(self.fleet.models()) {
            self.gauge = Gauge::new(&self.workload, self.fleet.models());
            self.known.clear();
        }
        self.known.resize(self.fleet.seats().len(), (0, 0, 0));
        let seats = self.fleet.seats().iter().zip(self.fleet.stamps());
        let (mut sum, mut free_milligpu) = (0u128, 0);
        for (known, (seat, &stamp)) in self.known.iter_mut().zip(seats) {
            if known.0 != stamp {
                let open = seat.is_open();
                let fragments = self.gauge.node(&seat.parts, seat.millicpu, &seat.gpus);
                *known = match open {
                    true => (stamp, fragments, seat.free_milligpu()),
                    false => (stamp, 0, 0),
                };
            }
            sum += u128::from(known.1);
            free_milligpu += known.2;
        }
        Fragmentation {
            fragmented_milligpu: sum as f64 / self.gauge.weight() as f64,
            free_milligpu,
        }
    }
}

/// `F` of a seat as it is.
pub(super) fn of_seat(gauge: &Gauge, seat: &Seat) -> u64 {
    gauge.node(&seat.parts, seat.millicpu, &seat.gpus)
}
