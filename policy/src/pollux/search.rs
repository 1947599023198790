//! The genetic search of Pollux: NSGA-II over solutions, seeded with the last round's best.
//!
//! Source: Qiao et al., OSDI 2021, section 4.2.1; Deb et al., 2002. Numbers as in the artifact: 100 solutions, 100
//! generations, nine of ten pairs crossed at one job.

use std::collections::BTreeSet;

use super::front::{Values, crowding, dominates, fronts};
use super::problem::{Dice, Genes, Problem};

const POPULATION: usize = 100;
const GENERATIONS: usize = 100;
const CROSSED: f64 = 0.9;
/// Times that parents are paired for what a generation lacks of new solutions before it stays smaller.
const TRIES: usize = 100;

/// A solution.
#[derive(Clone, Debug)]
struct Solution {
    genes: Genes,
    values: Values,
    crowding: f64,
}

/// The best solutions found, by the first objective: the front of the last generation.
pub(super) fn search(problem: &Problem, seeds: Vec<Genes>, dice: &mut Dice) -> Vec<Genes> {
    let mut known: BTreeSet<Genes> = BTreeSet::new();
    let mut population: Vec<Solution> = Vec::new();
    for mut genes in seeds {
        problem.repair(&mut genes, dice);
        add(problem, genes, &mut known, &mut population);
    }
    population = survivors(population, dice);
    for _ in 1..GENERATIONS {
        known = population
            .iter()
            .map(|solution| solution.genes.clone())
            .collect();
        let mut offspring: Vec<Solution> = Vec::with_capacity(POPULATION);
        for _ in 0..TRIES {
            let missing = POPULATION - offspring.len();
            for genes in children(problem, &population, missing, dice) {
                add(problem, genes, &mut known, &mut offspring);
            }
            if offspring.len() == POPULATION {
                break;
            }
        }
        population.append(&mut offspring);
        population = survivors(population, dice);
    }
    let values: Vec<Values> = population.iter().map(|solution| solution.values).collect();
    let front = fronts(&values).into_iter().next().unwrap_or_default();
    front
        .into_iter()
        .map(|index| std::mem::take(&mut population[index].genes))
        .collect()
}

fn add(problem: &Problem, genes: Genes, known: &mut BTreeSet<Genes>, to: &mut Vec<Solution>) {
    if known.contains(&genes) {
        return;
    }
    let values = problem.evaluate(&genes);
    known.insert(genes.clone());
    to.push(Solution {
        genes,
        values,
        crowding: 0.0,
    });
}

/// Solutions made of pairs of parents.
fn children(
    problem: &Problem,
    population: &[Solution],
    count: usize,
    dice: &mut Dice,
) -> Vec<Genes> {
    let mut children = Vec::with_capacity(count + 1);
    let mut lots = Lots::of(population.len());
    while children.len() < count {
        let mut winner = || tournament(&population[lots.draw(dice)], &population[lots.draw(dice)]);
        let (mut a, mut b) = (winner().genes.clone(), winner().genes.clone());
        if dice.chance(CROSSED) {
            let at = dice.below(problem.jobs.len() as u32) as usize * problem.nodes();
            a[..at].swap_with_slice(&mut b[..at]);
        }
        for mut child in [a, b] {
            problem.mutate(&mut child, dice);
            problem.repair(&mut child, dice);
            children.push(child);
        }
    }
    children.truncate(count);
    children
}

/// Draws of whom to pair: everyone has a turn before anyone has another.
struct Lots {
    order: Vec<usize>,
    next: usize,
}

impl Lots {
    fn of(count: usize) -> Self {
        Self {
            order: (0..count).collect(),
            next: count,
        }
    }

    fn draw(&mut self, dice: &mut Dice) -> usize {
        if self.next == self.order.len() {
            dice.shuffle(&mut self.order);
            self.next = 0;
        }
        self.next += 1;
        self.order[self.next - 1]
    }
}

/// The better of two: by dominance, then the lonelier.
fn tournament<'p>(a: &'p Solution, b: &'p Solution) -> &'p Solution {
    if dominates(b.values, a.values) {
        return b;
    }
    let lonelier = !dominates(a.values, b.values) && b.crowding > a.crowding;
    if lonelier { b } else { a }
}

/// The best so many: whole fronts, and of the last one the loneliest; of equally lonely ones some, so that the search does not
/// come back to the same of many equal solutions for ever.
fn survivors(mut all: Vec<Solution>, dice: &mut Dice) -> Vec<Solution> {
    let values: Vec<Values> = all.iter().map(|solution| solution.values).collect();
    let mut kept: Vec<Solution> = Vec::with_capacity(POPULATION);
    for front in fronts(&values) {
        let distance = crowding(&values, &front);
        let mut order: Vec<usize> = (0..front.len()).collect();
        if kept.len() + front.len() > POPULATION {
            dice.shuffle(&mut order);
            order.sort_by(|&a, &b| distance[b].total_cmp(&distance[a]));
            order.truncate(POPULATION - kept.len());
        }
        for at in order {
            let solution = &mut all[front[at]];
            kept.push(Solution {
                genes: std::mem::take(&mut solution.genes),
                values: solution.values,
                crowding: distance[at],
            });
        }
        if kept.len() == POPULATION {
            break;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::super::problem::Contender;
    use super::*;

    #[test]
    fn the_best_shares_are_found_again_and_again() {
        // Two jobs that gain from each GPU up to four, and two nodes of four: one node each is best.
        let contender = || Contender {
            speedups: (0..3)
                .flat_map(|span| {
                    (0..9).map(move |gpus| match (span, gpus) {
                        (0, _) => 0.0,
                        (1, gpus) => f64::from(gpus),
                        (_, gpus) => f64::from(gpus) / 2.0,
                    })
                })
                .collect(),
            least: 1,
            most: 8,
            changed: 1.0,
        };
        let problem = Problem {
            jobs: vec![contender(), contender()],
            room: vec![4, 4],
            base: vec![0; 4],
            scale: 1.0,
            stride: 9,
            power: -1.0,
        };
        for seed in 0..5 {
            let mut dice = Dice::new(&mut ChaCha8Rng::seed_from_u64(seed));
            let best = search(&problem, vec![vec![0; 4]], &mut dice);
            let mut again = Dice::new(&mut ChaCha8Rng::seed_from_u64(seed));
            assert_eq!(best, search(&problem, vec![vec![0; 4]], &mut again));
            assert!(
                best[0] == [4, 0, 0, 4] || best[0] == [0, 4, 4, 0],
                "{:?}",
                best[0]
            );
        }
    }
}
