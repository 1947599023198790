//! What Pollux searches: GPUs of each job on each node, how good that is, and what is allowed.
//!
//! Source: Qiao et al., OSDI 2021, section 4.2 (fitness, equations 15 and 16; interference; restarts), with the operators
//! of its artifact.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::front::Values;

/// Added to each speedup, so that a job without GPUs does not make all others worthless.
const LEAST_SPEEDUP: f64 = 1e-3;
/// What a restart is taken to cost.
pub(super) const RESTART_MS: f64 = 30_000.0;
/// Share of jobs that a mutation puts back to what they have, and of those in which it frees GPUs.
const RESET: f64 = 0.1;
const THIN: f64 = 0.1;

/// GPUs by job and node: row after row.
pub(super) type Genes = Vec<u8>;

/// A job in the search.
#[derive(Debug)]
pub(super) struct Contender {
    /// Speedup by nodes and GPUs, relative to a fair share: row after row.
    pub(super) speedups: Vec<f64>,
    /// Fewest GPUs, if it has any.
    pub(super) least: u32,
    /// Most GPUs.
    pub(super) most: u32,
    /// What its speedup is multiplied by if it changes.
    pub(super) changed: f64,
}

/// A round's problem. Jobs come in the order in which they keep contested GPUs.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) jobs: Vec<Contender>,
    /// Free GPUs of each node.
    pub(super) room: Vec<u8>,
    /// What jobs have now.
    pub(super) base: Genes,
    /// GPUs in all, divided by those of a node: nodes' worth of a speedup of 1.
    pub(super) scale: f64,
    /// GPUs of a speedup table's row.
    pub(super) stride: usize,
    /// Fairness: power of the mean.
    pub(super) power: f64,
}

impl Problem {
    pub(super) fn nodes(&self) -> usize {
        self.room.len()
    }

    /// Both objectives of a solution: the mean of speedups, and how well GPUs are used; negative, as small is good.
    pub(super) fn evaluate(&self, genes: &[u8]) -> Values {
        let nodes = self.nodes();
        let mut active = vec![false; nodes];
        let (mut sum, mut used_well) = (0.0, 0.0);
        let rows = genes.chunks_exact(nodes).zip(self.base.chunks_exact(nodes));
        for (job, (row, base)) in self.jobs.iter().zip(rows) {
            let (mut span, mut gpus) = (0usize, 0usize);
            for (node, count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                span += 1;
                gpus += usize::from(*count);
                active[node] = true;
            }
            let speedup = job.speedups[span * self.stride + gpus];
            used_well += speedup;
            let factor = if row == base { 1.0 } else { job.changed };
            sum += (speedup * self.scale * factor + LEAST_SPEEDUP).powf(self.power);
        }
        let mean = (sum / self.jobs.len().max(1) as f64).powf(1.0 / self.power);
        let rooms = active.iter().zip(&self.room).filter(|(active, _)| **active);
        let total: f64 = rooms.map(|(_, room)| f64::from(*room)).sum();
        [-mean, -(used_well / total.max(1.0))]
    }

    /// Puts jobs back, frees GPUs, takes free ones.
    pub(super) fn mutate(&self, genes: &mut [u8], dice: &mut Dice) {
        let nodes = self.nodes();
        for (row, base) in genes
            .chunks_exact_mut(nodes)
            .zip(self.base.chunks_exact(nodes))
        {
            if dice.chance(RESET) {
                row.copy_from_slice(base);
            }
            if dice.chance(THIN) {
                for count in row.iter_mut().filter(|count| **count > 0) {
                    if dice.chance(THIN) {
                        *count = 0;
                    }
                }
            }
        }
        let jobs = self.jobs.len().max(1) as f64;
        for node in 0..nodes {
            let here = |row: usize| row * nodes + node;
            let held = (0..self.jobs.len()).map(|row| genes[here(row)]);
            let (used, holders) = held.fold((0u32, 0u32), |(used, holders), count| {
                (used + u32::from(count), holders + u32::from(count > 0))
            });
            if used >= u32::from(self.room[node]) {
                continue;
            }
            let (anyone, holder) = (1.0 / jobs, 1.0 / f64::from(holders.max(1)));
            for row in 0..self.jobs.len() {
                let count = genes[here(row)];
                let holder = if count > 0 { holder } else { 0.0 };
                if dice.chance(anyone + holder - anyone * holder) {
                    let most = self.room[node].max(count);
                    genes[here(row)] = count + dice.below(u32::from(most - count) + 1) as u8;
                }
            }
        }
    }

    /// Makes a solution one that is allowed: one job per node that spans several, no job
    /// above its most or below its least, no node overfull.
    pub(super) fn repair(&self, genes: &mut [u8], dice: &mut Dice) {
        let nodes = self.nodes();
        // As in the artifact, the second one empties the node for all that come after it.
        let mut spread = vec![0u32; nodes];
        for row in genes.chunks_exact_mut(nodes) {
            let is_spread = row.iter().filter(|count| **count > 0).count() > 1;
            for (count, spread) in row.iter_mut().zip(&mut spread) {
                *spread += u32::from(is_spread && *count > 0);
                if *spread > 1 {
                    *count = 0;
                }
            }
        }
        let mut order: Vec<usize> = (0..nodes).collect();
        for (job, row) in self.jobs.iter().zip(genes.chunks_exact_mut(nodes)) {
            let gpus: u32 = row.iter().map(|count| u32::from(*count)).sum();
            if gpus <= job.most {
                continue;
            }
            dice.shuffle(&mut order);
            let mut left = job.most;
            for &node in &order {
                let keep = left.min(u32::from(row[node]));
                row[node] = keep as u8;
                left -= keep;
            }
        }
        for node in 0..nodes {
            let mut left = self.room[node];
            for row in genes.chunks_exact_mut(nodes) {
                row[node] = row[node].min(left);
                left -= row[node];
            }
        }
        for (job, row) in self.jobs.iter().zip(genes.chunks_exact_mut(nodes)) {
            if row.iter().map(|count| u32::from(*count)).sum::<u32>() < job.least {
                row.fill(0);
            }
        }
    }
}

/// A small fast generator, seeded from the round's.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(rng: &mut ChaCha8Rng) -> Self {
        Self(rng.next_u64())
    }

    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// From 0 to below `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }

    pub(super) fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            order.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn contender(most: u32) -> Contender {
        // As fast as it has GPUs, on however many nodes.
        let speedups = (0..3).flat_map(|_| (0..9).map(f64::from)).collect();
        Contender {
            speedups,
            least: 1,
            most,
            changed: 0.5,
        }
    }

    fn problem() -> Problem {
        Problem {
            jobs: vec![contender(6), contender(8)],
            room: vec![4, 4],
            base: vec![2, 0, 0, 2],
            scale: 1.0,
            stride: 9,
            power: -1.0,
        }
    }

    #[test]
    fn repaired_solutions_are_allowed_whatever_they_were() {
        let problem = problem();
        let mut dice = Dice::new(&mut ChaCha8Rng::seed_from_u64(1));
        for _ in 0..500 {
            let mut genes: Genes = (0..4).map(|_| dice.below(9) as u8).collect();
            problem.repair(&mut genes, &mut dice);
            assert!(genes[0] + genes[1] <= 6 && genes[2] + genes[3] <= 8);
            assert!(genes[0] + genes[2] <= 4 && genes[1] + genes[3] <= 4);
            let spread = |row: &[u8]| row.iter().all(|count| *count > 0);
            assert!(!(spread(&genes[..2]) && spread(&genes[2..])));
            let mut again = genes.clone();
            problem.repair(&mut again, &mut dice);
            assert_eq!(again, genes);
        }
    }

    #[test]
    fn changes_cost_and_balance_is_better_than_the_sum() {
        let problem = problem();
        let value = |genes: [u8; 4]| -problem.evaluate(&genes)[0];
        assert!((value([2, 0, 0, 2]) - 2.001).abs() < 1e-9);
        assert!(
            value([3, 0, 0, 3]) < value([2, 0, 0, 2]),
            "half of three is less than two"
        );
        assert!(value([2, 2, 0, 0]) < 0.01, "one has nothing");
        assert!((-problem.evaluate(&[4, 0, 0, 0])[1] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_dice_are_even() {
        let mut dice = Dice::new(&mut ChaCha8Rng::seed_from_u64(7));
        let mut counts = [0u32; 5];
        (0..50_000).for_each(|_| counts[dice.below(5) as usize] += 1);
        assert!(
            counts.iter().all(|count| (9_500..10_500).contains(count)),
            "{counts:?}"
        );
        let hits = (0..50_000).filter(|_| dice.chance(0.1)).count();
        assert!((4_700..5_300).contains(&hits), "{hits}");
    }
}
