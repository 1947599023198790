//! What goes wrong, and how often: nodes that fail and return, GPUs that slow down, slow ranks, neighbours.
//!
//! All of it is drawn from streams that belong to one node, or to one attempt of one job, so two policies meet the same
//! faults at the same times, and one job more changes nothing for the others.

use std::collections::BTreeMap;

use crate::dice::Dice;

/// Everything that goes wrong. The default is a perfect world.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Of nodes that are not listed.
    pub usual: NodeFaults,
    /// By node name.
    pub by_node: BTreeMap<String, NodeFaults>,
    /// Attempts with a slow rank.
    pub stragglers: Stragglers,
    /// What jobs on the same GPU do to each other.
    pub interference: Interference,
}

/// What goes wrong with one node. Times between events are exponential with these means; 0 switches an event off.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NodeFaults {
    /// In service until it dies with all that runs on it, in milliseconds.
    pub fails_every_ms: u64,
    /// From there until it can be started again.
    pub repair_ms: u64,
    /// Time between two slow-downs of one of its GPUs.
    pub degrades_every_ms: u64,
    /// How long a slow-down lasts.
    pub degraded_ms: u64,
    /// Share of its speed that is left then, in thousandths.
    pub degraded_per_mille: u32,
    /// Time between two breakdowns of one of its GPUs, which end what runs on it with an XID.
    pub gpu_fails_every_ms: u64,
    /// From there until that GPU is mended.
    pub gpu_repair_ms: u64,
    /// True if it is not there at first: it is asked for at time 0.
    pub cold: bool,
    /// From being asked for to being in service, exactly.
    pub boot_ms: u64,
    /// In how many of 1000 cases it is denied when it is asked for (no quota, no capacity).
    pub denied_per_mille: u32,
    /// When it is asked for again then, exactly; at least 1.
    pub retry_ms: u64,
}

/// Attempts with a slow rank, which slows its whole gang.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stragglers {
    /// In how many of 1000 attempts.
    pub per_mille: u32,
    /// Share of its speed that is left then, in thousandths.
    pub left_per_mille: u32,
}

/// What jobs on the same GPU do to each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interference {
    /// By GPU model, as nodes report it.
    pub by_gpu: BTreeMap<String, Neighbours>,
    /// On all other GPUs.
    pub elsewhere: Neighbours,
}

/// The same on one model of GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// Share of its speed that the first family has beside the second; with several neighbours, the product. A family is
    /// the job's label `family`, or else its name.
    pub beside: BTreeMap<(String, String), f64>,
    /// The same for pairs that are not listed.
    pub usual: f64,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self {
            beside: BTreeMap::new(),
            usual: 1.0,
        }
    }
}

impl Interference {
    /// True if neighbours never matter.
    pub(super) fn is_off(&self) -> bool {
        let mut all = self.by_gpu.values().chain([&self.elsewhere]);
        all.all(|neighbours| neighbours.beside.is_empty() && neighbours.usual == 1.0)
    }

    /// What a neighbour leaves on such a GPU.
    pub(super) fn share(&self, gpu_model: &str, family: &str, neighbour: &str) -> f64 {
        let neighbours = self.by_gpu.get(gpu_model).unwrap_or(&self.elsewhere);
        let pair = (family.to_owned(), neighbour.to_owned());
        *neighbours.beside.get(&pair).unwrap_or(&neighbours.usual)
    }
}

impl Faults {
    /// What goes wrong with this node.
    pub(super) fn of(&self, node: &str) -> NodeFaults {
        *self.by_node.get(node).unwrap_or(&self.usual)
    }

    /// True if the speed of jobs may change while they run, or differ between attempts.
    pub(super) fn disturb(&self) -> bool {
        let degrade = |node: &NodeFaults| node.degrades_every_ms > 0;
        degrade(&self.usual)
            || self.by_node.values().any(degrade)
            || self.stragglers.per_mille > 0
            || !self.interference.is_off()
    }

    /// The speed share of one attempt of a job, as far as it is the attempt's own.
    pub(super) fn straggle(&self, seed: u64, job: usize, attempt: u32) -> f64 {
        let stragglers = &self.stragglers;
        if stragglers.per_mille == 0 {
            return 1.0;
        }
        let mut dice = Dice::new(
            seed ^ u64::from(attempt).rotate_left(32),
            label(Kind::Rank, job),
        );
        if dice.chance(stragglers.per_mille) {
            f64::from(stragglers.left_per_mille) / 1_000.0
        } else {
            1.0
        }
    }
}

/// What a stream is for.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Life,
    Speed,
    Rank,
    Pool,
    Breakdown,
}

/// The stream that the requests for nodes of a pool are granted by.
pub(super) fn pool_dice(seed: u64, pool: usize) -> Dice {
    Dice::new(seed, label(Kind::Pool, pool))
}

fn label(kind: Kind, index: usize) -> u64 {
    let kind: u64 = match kind {
        Kind::Life => 0x10,
        Kind::Speed => 0x11,
        Kind::Rank => 0x12,
        Kind::Pool => 0x13,
        Kind::Breakdown => 0x14,
    };
    kind << 40 | index as u64
}

/// The fate of one node.
#[derive(Clone, Debug)]
pub(super) struct NodeFate {
    pub(super) faults: NodeFaults,
    life: Dice,
    speed: Dice,
    breakdowns: Dice,
}

impl NodeFate {
    pub(super) fn new(faults: NodeFaults, seed: u64, node: usize) -> Self {
        Self {
            faults,
            life: Dice::new(seed, label(Kind::Life, node)),
            speed: Dice::new(seed, label(Kind::Speed, node)),
            breakdowns: Dice::new(seed, label(Kind::Breakdown, node)),
        }
    }

    /// Time in service until it fails; `None` if it does not.
    pub(super) fn fails_in_ms(&mut self) -> Option<u64> {
        let mean_ms = self.faults.fails_every_ms;
        (mean_ms > 0).then(|| exponential(&mut self.life, mean_ms).max(1))
    }

    /// Time from now until it is in service, if it is asked for after `pause_ms`.
    pub(super) fn boots_in_ms(&mut self, pause_ms: u64) -> u64 {
        let mut in_ms = pause_ms;
        // Denied for ever would be a node that there is not.
        let denied = self.faults.denied_per_mille.min(999);
        while self.life.chance(denied) {
            in_ms += self.faults.retry_ms.max(1);
        }
        in_ms + self.faults.boot_ms
    }

    /// Time that a repair takes.
    pub(super) fn repair_ms(&mut self) -> u64 {
        exponential(&mut self.life, self.faults.repair_ms).max(1)
    }

    /// When a GPU slows down, which one, and for how long; `None` if that does not happen.
    pub(super) fn degrades(&mut self, gpus: usize) -> Option<(u64, usize, u64)> {
        let every_ms = self.faults.degrades_every_ms;
        (every_ms > 0 && gpus > 0).then(|| {
            let in_ms = exponential(&mut self.speed, every_ms).max(1);
            let gpu = self.speed.index(gpus);
            let for_ms = exponential(&mut self.speed, self.faults.degraded_ms).max(1);
            (in_ms, gpu, for_ms)
        })
    }
}

impl NodeFate {
    /// When a GPU breaks, which one, and for how long; `None` if that does not happen.
    pub(super) fn breaks(&mut self, gpus: usize) -> Option<(u64, usize, u64)> {
        let every_ms = self.faults.gpu_fails_every_ms;
        (every_ms > 0 && gpus > 0).then(|| {
            let in_ms = exponential(&mut self.breakdowns, every_ms).max(1);
            let gpu = self.breakdowns.index(gpus);
            let for_ms = exponential(&mut self.breakdowns, self.faults.gpu_repair_ms).max(1);
            (in_ms, gpu, for_ms)
        })
    }
}

/// An exponential time with this mean, by comparing uniform numbers alone, so that it is the same on every machine
/// (von Neumann, "Various techniques used in connection with random digits", 1951).
fn exponential(dice: &mut Dice, mean_ms: u64) -> u64 {
    let mut whole = 0u64;
    loop {
        let first = dice.bits();
        let mut last = first;
        let mut falls = 1;
        loop {
            let next = dice.bits();
            if next >= last {
                break;
            }
            last = next;
            falls += 1;
        }
        if falls % 2 == 1 {
            let part = (u128::from(first) * u128::from(mean_ms)) >> 64;
            let part = u64::try_from(part).unwrap_or(u64::MAX);
            return whole.saturating_mul(mean_ms).saturating_add(part);
        }
        whole += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_mean_and_the_tail_of_an_exponential() {
        let mut dice = Dice::new(5, 1);
        let drawn: Vec<u64> = (0..20_000)
            .map(|_| exponential(&mut dice, 10_000))
            .collect();
        let mean = drawn.iter().sum::<u64>() / drawn.len() as u64;
        assert!((9_800..10_200).contains(&mean), "mean {mean}");
        let beyond = drawn.iter().filter(|&&ms| ms > 30_000).count();
        assert!(
            (900..1_100).contains(&beyond),
            "{beyond} of 20000 beyond 3 means, expected 996"
        );
    }

    #[test]
    fn a_denied_node_comes_later() {
        let faults = NodeFaults {
            boot_ms: 100,
            denied_per_mille: 500,
            retry_ms: 10,
            ..NodeFaults::default()
        };
        let boots: Vec<u64> = (0..200)
            .map(|node| NodeFate::new(faults, 3, node).boots_in_ms(7))
            .collect();
        assert!(boots.iter().all(|ms| *ms >= 107 && (ms - 107) % 10 == 0));
        let at_once = boots.iter().filter(|&&ms| ms == 107).count();
        assert!((70..130).contains(&at_once), "{at_once} of 200");
    }
}
