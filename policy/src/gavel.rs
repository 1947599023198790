//! `gavel`: time shares of GPU models from a linear program, received in rounds.
//!
//! Source: Narayanan, Santhanam, Kazhamiaka, Phanishayee and Zaharia, "Heterogeneity-Aware Cluster Scheduling Policies for
//! Deep Learning Workloads", OSDI 2020, sections 4.1 and 5. The program says which share of its time each job should
//! run on each GPU model; in each round, those run that have received least of what they should have (figure 5 there).
//! `objective=max-sum` maximises the sum of steps per second, `objective=las` the least of the shares that count
//! (least attained service, section 4.1).
//!
//! Deviations:
//! - Jobs that are alike (same speed everywhere, same GPUs) get equal shares. The program has many optima then; the
//!   paper's interior-point solver finds one like this, a simplex method would pick some of them.
//! - As in the implementation that the Sia artifact compares with, a job without a place keeps no share of the time that
//!   went by, and GPUs are handed out in order of nodes, so that a job may span more nodes than it needs.
//! - Jobs of other shapes than one gang of single-GPU workers are left to the planner, behind the others; elastic jobs get
//!   their least size.
//! - A running job whose speed nobody knows keeps what it has until it ends.
//! - What jobs have received is the leader's memory: after a change of leader, counting begins anew.

use std::collections::BTreeMap;

use berth_core::insight::Configuration;
use berth_core::policy::{Backfill, Policy, Proposal, View};
use berth_types::JobId;
use microlp::{ComparisonOp, LinearExpr, OptimizationDirection, Problem};
use rand_chacha::ChaCha8Rng;

use crate::fleet::{Fleet, Managed, Order, Share, exchange, rest, seat};
use crate::options::{NameError, Options};

/// Steps per second of a job that cannot run on a kind, so that the program has an entry for it.
const HARDLY: f64 = 0.1;
/// Shares are rounded to this many parts of 1.
const SHARE_PARTS: f64 = 1e5;

/// Why a job waits that gets nothing.
const WAITS: &str = "others are owed more of this round";

/// What the program maximises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Objective {
    /// The sum of steps per second.
    #[default]
    MaxSum,
    /// The least share, counted in speed: least attained service.
    Las,
}

/// Time shares in rounds.
#[derive(Debug)]
pub struct Gavel {
    objective: Objective,
    interval_ms: u64,
    last_ms: Option<u64>,
    /// Time received, by job and kind.
    received: BTreeMap<JobId, Vec<f64>>,
    /// Time of all jobs ever, by kind.
    total: Vec<f64>,
}

/// A job with its row of the program.
struct Row<'f, 'a> {
    index: usize,
    job: &'f Managed<'a>,
    gpus: u32,
    /// Steps per second by kind.
    speeds: Vec<f64>,
}

impl Default for Gavel {
    fn default() -> Self {
        Self {
            objective: Objective::MaxSum,
            interval_ms: 360_000,
            last_ms: None,
            received: BTreeMap::new(),
            total: Vec::new(),
        }
    }
}

impl Gavel {
    /// With settings: `objective` (`max-sum` or `las`), `interval` (seconds).
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(options: &mut Options) -> Result<Self, NameError> {
        let names = [("max-sum", Objective::MaxSum), ("las", Objective::Las)];
        let usual = Self::default();
        let interval_s: u64 = options.number("interval", usual.interval_ms / 1000, 0..=86_400)?;
        Ok(Self {
            objective: options.choice("objective", &names)?,
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

    /// New jobs count as if they had received half a round of each kind.
    fn admit(&mut self, fleet: &Fleet<'_>) {
        self.total.resize(fleet.kinds.len(), 0.0);
        self.received
            .retain(|job, _| fleet.position(*job).is_some());
        let half = self.interval_ms.max(1) as f64 / 2.0;
        for job in &fleet.jobs {
            let total = &mut self.total;
            let received = self.received.entry(job.job.id).or_insert_with(|| {
                total.iter_mut().for_each(|total| *total += half);
                Vec::new()
            });
            received.resize(fleet.kinds.len(), half);
        }
    }

    /// Pairs of a row and a kind: what is owed most first, then the larger share, then in order.
    fn turns(&self, rows: &[Row<'_, '_>], shares: &[Vec<f64>]) -> Vec<(usize, usize)> {
        let kinds = self.total.len();
        let mut turns: Vec<(f64, f64, usize, usize)> = Vec::with_capacity(rows.len() * kinds);
        for kind in 0..kinds {
            for (row, shares) in rows
                .iter()
                .zip(shares)
                .map(|(row, shares)| (row, shares[kind]))
            {
                let received = self.received.get(&row.job.job.id).map_or(0.0, |r| r[kind]);
                let fraction = received / self.total[kind].max(1.0);
                let owed = if fraction > 0.0 {
                    shares / fraction
                } else {
                    shares * 1e9
                };
                turns.push((owed, shares, kind, row.index));
            }
        }
        // Stable: by kind and submission where nothing else decides.
        turns.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
        turns
            .into_iter()
            .map(|(_, _, kind, index)| (index, kind))
            .collect()
    }
}

impl Policy for Gavel {
    fn name(&self) -> &str {
        "gavel"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
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
        self.admit(&fleet);
        let rows = rows(&fleet);
        let capacity: Vec<u32> = fleet.kinds.iter().map(|kind| kind.gpus()).collect();
        let shares = time_shares(&rows, &capacity, self.objective);
        let mut room = capacity;
        let mut chosen: Vec<(usize, Share)> = Vec::new();
        let mut placed = vec![false; fleet.jobs.len()];
        for (index, job) in fleet.jobs.iter().enumerate().filter(|(_, job)| job.pinned) {
            if let Some((kind, gpus)) = job.share() {
                room[kind] = room[kind].saturating_sub(gpus);
                chosen.push((index, Share { kind, gpus }));
            }
            placed[index] = true;
        }
        for (index, kind) in self.turns(&rows, &shares) {
            let job = &fleet.jobs[index];
            let gpus = job.bounds.0;
            let suits = fleet.kinds[kind].suits(job.job);
            if !placed[index] && suits && gpus <= room[kind] {
                room[kind] -= gpus;
                placed[index] = true;
                chosen.push((index, Share { kind, gpus }));
                let interval = self.interval_ms.max(1) as f64;
                self.total[kind] += interval;
                if let Some(received) = self.received.get_mut(&job.job.id) {
                    received[kind] += interval;
                }
            }
        }
        let seats = seat(&fleet, &chosen, Order::ByNode);
        proposal.bundles = exchange(&fleet, &seats, |_| String::new());
        let most = fleet
            .kinds
            .iter()
            .map(|kind| kind.gpus())
            .max()
            .unwrap_or(0);
        let fits = |index: usize| fleet.jobs[index].bounds.0 <= most;
        proposal.bundles.extend(rest(&fleet, &seats, fits, WAITS));
        proposal
    }
}

/// Jobs that may run in this round, with their speeds.
fn rows<'f, 'a>(fleet: &'f Fleet<'a>) -> Vec<Row<'f, 'a>> {
    let jobs = fleet.jobs.iter().enumerate().filter(|(_, job)| !job.pinned);
    let row = |(index, job): (usize, &'f Managed<'a>)| {
        let gpus = job.bounds.0;
        let speed = job.insight.and_then(|insight| insight.speed.as_ref());
        let kinds = fleet.kinds.iter().map(|kind| {
            if gpus > kind.gpus() || !kind.suits(job.job) {
                return HARDLY;
            }
            let configuration = Configuration {
                gpu_model: &kind.gpu_model,
                nodes: kind.span(gpus),
                workers: gpus,
            };
            let known = speed.map(|speed| speed.steps_per_s(&configuration).unwrap_or(HARDLY));
            known.unwrap_or(1.0)
        });
        Row {
            index,
            job,
            gpus,
            speeds: kinds.collect(),
        }
    };
    jobs.map(row).collect()
}

/// The share of its time that each job should run on each kind.
fn time_shares(rows: &[Row<'_, '_>], capacity: &[u32], objective: Objective) -> Vec<Vec<f64>> {
    let mut classes: Vec<(&Row<'_, '_>, f64)> = Vec::new();
    let mut class_of: Vec<usize> = Vec::with_capacity(rows.len());
    for row in rows {
        let same = |(other, _): &(&Row<'_, '_>, f64)| {
            (&other.speeds, other.gpus) == (&row.speeds, row.gpus)
        };
        let class = classes.iter().position(same).unwrap_or_else(|| {
            classes.push((row, 0.0));
            classes.len() - 1
        });
        classes[class].1 += 1.0;
        class_of.push(class);
    }
    let solved = solve(&classes, capacity, objective);
    let nothing = || vec![0.0; capacity.len()];
    let round = |share: f64| ((share * SHARE_PARTS).round() / SHARE_PARTS).clamp(0.0, 1.0);
    let share = |class: &usize| match &solved {
        Some(shares) => shares[*class]
            .iter()
            .map(|s| round(s / classes[*class].1))
            .collect(),
        None => nothing(),
    };
    class_of.iter().map(share).collect()
}

/// Shares of classes of alike jobs, summed over the class; `None` if the program has no solution, which cannot be.
fn solve(
    classes: &[(&Row<'_, '_>, f64)],
    capacity: &[u32],
    objective: Objective,
) -> Option<Vec<Vec<f64>>> {
    let mut problem = Problem::new(OptimizationDirection::Maximize);
    let weigh = |speed: f64| match objective {
        Objective::MaxSum => speed,
        Objective::Las => 0.0,
    };
    let variables: Vec<Vec<microlp::Variable>> = (classes.iter())
        .map(|(row, count)| {
            let speeds = row.speeds.iter();
            speeds
                .map(|speed| problem.add_var(weigh(*speed), (0.0, *count)))
                .collect()
        })
        .collect();
    for (variables, (_, count)) in variables.iter().zip(classes) {
        let mut sum = LinearExpr::empty();
        variables
            .iter()
            .for_each(|variable| sum.add(*variable, 1.0));
        problem.add_constraint(sum, ComparisonOp::Le, *count);
    }
    for (kind, capacity) in capacity.iter().enumerate() {
        let mut sum = LinearExpr::empty();
        for (variables, (row, _)) in variables.iter().zip(classes) {
            sum.add(variables[kind], f64::from(row.gpus));
        }
        problem.add_constraint(sum, ComparisonOp::Le, f64::from(*capacity));
    }
    if objective == Objective::Las {
        let least = problem.add_var(1.0, (0.0, f64::INFINITY));
        let all: f64 = capacity.iter().map(|capacity| f64::from(*capacity)).sum();
        for (variables, (row, count)) in variables.iter().zip(classes) {
            // Speed with an equal share of everything, which a job's speed is measured by.
            let equal = row.speeds.iter().zip(capacity);
            let equal: f64 = equal
                .map(|(speed, c)| speed * f64::from(*c) / all.max(1.0))
                .sum();
            let mut sum = LinearExpr::empty();
            for (variable, speed) in variables.iter().zip(&row.speeds) {
                let counted = speed / equal.max(f64::MIN_POSITIVE) * f64::from(row.gpus) / count;
                sum.add(*variable, counted);
            }
            sum.add(least, -1.0);
            problem.add_constraint(sum, ComparisonOp::Ge, 0.0);
        }
    }
    let microlp::SolveOutcome::Solution(solution) = problem.solve().ok()? else {
        return None;
    };
    let value = |variable: &microlp::Variable| solution.var_value(*variable);
    Some(
        variables
            .iter()
            .map(|row| row.iter().map(value).collect())
            .collect(),
    )
}
