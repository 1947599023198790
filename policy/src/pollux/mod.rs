//! `pollux`: goodput by a genetic search, blind to GPU models.
//!
//! Source: Qiao, Choe, Subramanya, Neiswanger, Ho, Zhang, Ganger and Xing, "Pollux: Co-adaptive Cluster Scheduling for
//! Goodput-Optimized Deep Learning", OSDI 2021, section 4.2, on several GPU models as the Sia artifact (SOSP 2023) runs it:
//! nodes are cut into pieces of the size of the smallest; a job's model of its speed is one for all; an allocation that
//! mixes GPU models keeps only the commonest.
//!
//! Deviations:
//! - Ties between GPU models go to the scarcer one.
//! - Jobs that are being launched or stopped are left out of the search, with their GPUs; so are running jobs whose speed
//!   nobody knows.
//! - Jobs of other shapes than one gang of single-GPU workers are left to the planner, behind the others.

mod front;
mod pieces;
mod problem;
mod search;

use std::collections::{BTreeMap, BTreeSet};

use berth_core::insight::Configuration;
use berth_core::policy::{Backfill, Policy, Proposal, View};
use berth_types::JobId;
use rand_chacha::ChaCha8Rng;

use crate::fleet::{Fleet, Managed, exchange, rest};
use crate::options::{NameError, Options};
use pieces::Pieces;
use problem::{Contender, Dice, Genes, Problem, RESTART_MS};
use search::search;

/// Why a job waits that gets nothing.
const WAITS: &str = "others make more of the GPUs";

/// Goodput by a genetic search.
#[derive(Debug)]
pub struct Pollux {
    power: f64,
    interval_ms: u64,
    last_ms: Option<u64>,
    /// The last round's best solutions, and whose their rows are.
    solutions: Vec<Genes>,
    order: Vec<JobId>,
    /// What each job was last given, piece by piece.
    given: BTreeMap<JobId, Genes>,
}

impl Default for Pollux {
    fn default() -> Self {
        Self {
            power: -1.0,
            interval_ms: 60_000,
            last_ms: None,
            solutions: Vec::new(),
            order: Vec::new(),
            given: BTreeMap::new(),
        }
    }
}

impl Pollux {
    /// With settings: `power` (below 0), `interval` (seconds).
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(options: &mut Options) -> Result<Self, NameError> {
        let usual = Self::default();
        let interval_s: u64 = options.number("interval", usual.interval_ms / 1000, 0..=86_400)?;
        Ok(Self {
            power: options.number("power", usual.power, -10.0..=-0.01)?,
            interval_ms: interval_s * 1000,
            ..usual
        })
    }

    fn is_due(&mut self, now_ms: u64) -> bool {
        let until_ms = self
            .last_ms
            .map(|last| last.saturating_add(self.interval_ms));
        let due = until_ms.is_none_or(|until_ms| now_ms >= until_ms);
        if due {
            self.last_ms = Some(now_ms);
        }
        due
    }

    /// The last round's solutions for today's jobs; what they have now if there are none. As in the artifact, rows go to the
    /// jobs that are still there by rank: jobs that overtook each other change places.
    fn seeds(&self, jobs: &[&Managed<'_>], problem: &Problem) -> Vec<Genes> {
        let nodes = problem.nodes();
        let now: BTreeSet<JobId> = jobs.iter().map(|job| job.job.id).collect();
        let before: BTreeSet<JobId> = self.order.iter().copied().collect();
        let stayed = self
            .order
            .iter()
            .enumerate()
            .filter(|(_, job)| now.contains(job));
        let from: Vec<usize> = stayed.map(|(row, _)| row).collect();
        let known = jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| before.contains(&job.job.id));
        let to: Vec<usize> = known.map(|(row, _)| row).collect();
        let seed = |old: &Genes| {
            let mut seed = vec![0; jobs.len() * nodes];
            for (from, to) in from.iter().zip(&to) {
                let row = &old[from * nodes..(from + 1) * nodes];
                seed[to * nodes..(to + 1) * nodes].copy_from_slice(row);
            }
            seed
        };
        let fits = |old: &&Genes| old.len() == self.order.len() * nodes;
        let seeds: Vec<Genes> = self.solutions.iter().filter(fits).map(seed).collect();
        if seeds.is_empty() {
            vec![problem.base.clone()]
        } else {
            seeds
        }
    }
}

impl Policy for Pollux {
    fn name(&self) -> &str {
        "pollux"
    }

    fn propose(&mut self, view: &View, rng: &mut ChaCha8Rng) -> Proposal {
        let mut proposal = Proposal {
            bundles: Vec::new(),
            backfill: Backfill::Greedy,
            ..Proposal::default()
        };
        let due = self.is_due(view.now_ms);
        // Nothing else may happen until the next round is due.
        proposal.wake_ms = self
            .last_ms
            .map(|last| last.saturating_add(self.interval_ms));
        if !due {
            return proposal;
        }
        let fleet = Fleet::of(view).keeping_unknown();
        let pieces = Pieces::of(&fleet);
        let mut jobs: Vec<&Managed<'_>> = fleet.jobs.iter().filter(|job| !job.pinned).collect();
        // Least served first: they keep contested GPUs.
        jobs.sort_by_key(|job| (attained(job, view.now_ms), job.job.submitted_ms));
        let mut given: BTreeMap<JobId, Genes> = BTreeMap::new();
        if !jobs.is_empty() && pieces.count() > 0 {
            let problem = self.problem(&fleet, &pieces, &jobs, view.now_ms);
            let seeds = self.seeds(&jobs, &problem);
            let solutions = search(&problem, seeds, &mut Dice::new(rng));
            let best = solutions.first().map_or(&[][..], Vec::as_slice);
            let rows = best.chunks_exact(problem.nodes()).map(<[u8]>::to_vec);
            given = jobs.iter().map(|job| job.job.id).zip(rows).collect();
            self.order = jobs.iter().map(|job| job.job.id).collect();
            self.solutions = solutions;
            given
                .values_mut()
                .for_each(|row| pieces.keep_commonest(row));
            given.retain(|_, row| row.iter().any(|count| *count > 0));
        }
        let least = |job: &Managed<'_>, row: &Genes| {
            row.iter().map(|count| u32::from(*count)).sum::<u32>() >= job.bounds.0
        };
        given.retain(|id, row| {
            fleet
                .position(*id)
                .is_some_and(|index| least(&fleet.jobs[index], row))
        });
        let seats = pieces.seat(&fleet, &given);
        self.given = given;
        proposal.bundles = exchange(&fleet, &seats, |_| String::new());
        let smallest = fleet
            .kinds
            .iter()
            .map(|kind| kind.gpus())
            .min()
            .unwrap_or(0);
        // Where the search found nothing for an idle cluster, the planner will.
        let is_idle = seats.is_empty() && fleet.jobs.iter().all(|job| job.held.is_none());
        let fits = |index: usize| !is_idle && fleet.jobs[index].bounds.0 <= smallest;
        proposal.bundles.extend(rest(&fleet, &seats, fits, WAITS));
        proposal
    }
}

impl Pollux {
    fn problem(
        &self,
        fleet: &Fleet<'_>,
        pieces: &Pieces,
        jobs: &[&Managed<'_>],
        now_ms: u64,
    ) -> Problem {
        let room = pieces.room();
        let gpus: u32 = room.iter().map(|room| u32::from(*room)).sum();
        let smallest = fleet
            .kinds
            .iter()
            .map(|kind| kind.gpus())
            .min()
            .unwrap_or(0);
        let most_of = |job: &Managed<'_>| {
            let known = job.insight.map_or(0, |insight| insight.max_workers);
            let known = if known == 0 { u32::MAX } else { known };
            known
                .min(job.bounds.1)
                .min(smallest)
                .max(job.bounds.0)
                .min(gpus)
        };
        let stride = jobs.iter().map(|job| most_of(job)).max().unwrap_or(0) as usize + 1;
        let fair = gpus.div_ceil(jobs.len().max(1) as u32).max(1);
        let contenders = jobs.iter().map(|job| Contender {
            speedups: speedups(job, room.len(), stride, fair),
            least: job.bounds.0,
            most: most_of(job),
            changed: changed(job, now_ms),
        });
        Problem {
            jobs: contenders.collect(),
            base: jobs
                .iter()
                .flat_map(|job| pieces.held(job, &self.given))
                .collect(),
            scale: room.len() as f64 / f64::from(gpus.max(1)),
            room,
            stride,
            power: self.power,
        }
    }
}

/// What a change is worth, given the restarts that the job has had.
fn changed(job: &Managed<'_>, now_ms: u64) -> f64 {
    let age = now_ms.saturating_sub(job.job.submitted_ms) as f64;
    let restarts = job.insight.map_or(0, |insight| insight.restarts);
    (age - f64::from(restarts) * RESTART_MS).max(0.0) / (age + RESTART_MS)
}

/// Speedup over a fair share on one node, by nodes and GPUs; in proportion to GPUs if nothing is known.
fn speedups(job: &Managed<'_>, pieces: usize, stride: usize, fair: u32) -> Vec<f64> {
    let speed = job.insight.and_then(|insight| insight.speed.as_ref());
    let goodput = |nodes: usize, gpus: u32| {
        speed.and_then(|speed| {
            speed.goodput(&Configuration {
                gpu_model: "",
                nodes: nodes as u32,
                workers: gpus,
            })
        })
    };
    let base = goodput(1, fair).filter(|base| *base > 0.0);
    let mut table = vec![0.0; (pieces + 1) * stride];
    for nodes in 1..=pieces {
        for gpus in nodes..stride {
            table[nodes * stride + gpus] = match (base, nodes) {
                (None, _) => gpus as f64 / f64::from(fair),
                (Some(base), 1 | 2) => goodput(nodes, gpus as u32).unwrap_or(0.0) / base,
                // The model of speed tells one node from several, and no more.
                (Some(_), _) => table[2 * stride + gpus],
            };
        }
    }
    table
}

/// GPU time that a job has had.
fn attained(job: &Managed<'_>, now_ms: u64) -> u64 {
    let now = job.job.attempt.as_ref().map_or(0, |attempt| {
        now_ms.saturating_sub(attempt.started_ms)
            * job.held.as_ref().map_or(0, |h| h.gpus.len() as u64)
    });
    job.job.attained_gpu_ms + now
}
