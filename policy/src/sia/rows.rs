//! A job's row of the integer program: its configurations and what each costs.
//!
//! Source: SOSP 2023, sections 3.3 and 3.4: goodputs relative to the job's least; a discount on every change; a power; and
//! rounding to hundredths, as in the paper's simulator.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::insight::{Configuration, Speed};
use berth_types::JobId;

use super::{HUNDREDTHS, SiaConfig};
use crate::fleet::{self, Candidate, Fleet, Managed};

/// Goodputs below this are taken for none.
const LEAST_GOODPUT: f64 = 1e-4;

/// Estimates asked for once, for as long as they are the same.
#[derive(Debug, Default)]
pub(super) struct Rows {
    known: BTreeMap<JobId, Known>,
}

#[derive(Debug)]
struct Known {
    speed: Arc<dyn Speed>,
    most: u32,
    options: Vec<Option_>,
}

/// A configuration with its goodput relative to the least.
#[derive(Clone, Copy, Debug)]
struct Option_ {
    kind: usize,
    gpus: u32,
    relative: f64,
}

impl Rows {
    /// Forgets jobs that are gone.
    pub(super) fn retain(&mut self, fleet: &Fleet<'_>) {
        self.known.retain(|job, _| fleet.position(*job).is_some());
    }

    /// What the job may get, with costs below that of going without; what it has first, then by kind and size.
    pub(super) fn candidates(
        &mut self,
        fleet: &Fleet<'_>,
        index: usize,
        now_ms: u64,
        config: &SiaConfig,
    ) -> Vec<Candidate> {
        let job = &fleet.jobs[index];
        let options = self.options(fleet, job);
        let discount = discount(job, now_ms);
        let held = job.share();
        let without = (config.without * HUNDREDTHS).round() as i64;
        let candidate = |option: &Option_| {
            let keeps = held == Some((option.kind, option.gpus));
            let factor = if held.is_some() && !keeps {
                discount
            } else {
                1.0
            };
            let power = (option.relative * factor).powf(config.power);
            let cost = (power * HUNDREDTHS).round_ties_even();
            let cost = cost.min(f64::from(u32::MAX)) as i64 - without;
            Candidate {
                kind: option.kind,
                gpus: option.gpus,
                cost,
            }
        };
        let mut candidates: Vec<Candidate> = options.iter().map(candidate).collect();
        // A job without GPUs begins where there are most, which leaves scarce ones to those that know their worth.
        let plenty = |c: &Candidate| match held {
            None => (Reverse(fleet.kinds[c.kind].gpus()), Reverse(c.kind)),
            Some(_) => (Reverse(0), Reverse(usize::MAX - c.kind)),
        };
        candidates.sort_by_key(|c| (held != Some((c.kind, c.gpus)), plenty(c), c.gpus));
        fleet::undominated(&candidates)
    }

    fn options(&mut self, fleet: &Fleet<'_>, job: &Managed<'_>) -> Vec<Option_> {
        let id = job.job.id;
        let speed = job.insight.and_then(|insight| insight.speed.as_ref());
        let most = job.insight.map_or(0, |insight| insight.max_workers);
        let Some(speed) = speed else {
            return relative(first_options(fleet, job));
        };
        if let Some(known) = self.known.get(&id)
            && known.most == most
            && Arc::ptr_eq(&known.speed, speed)
        {
            return known.options.clone();
        }
        let options = options(fleet, job, &**speed, most);
        let known = Known {
            speed: Arc::clone(speed),
            most,
            options: options.clone(),
        };
        self.known.insert(id, known);
        options
    }
}

/// How much a change is worth, given the restarts that the job has had: Pollux's factor (OSDI 2021, section 4.2.1).
fn discount(job: &Managed<'_>, now_ms: u64) -> f64 {
    let age = now_ms.saturating_sub(job.job.submitted_ms) as f64;
    let Some(insight) = job.insight else {
        return 1.0;
    };
    let cost = insight.restart_ms as f64;
    if age < cost {
        return 1.0;
    }
    let lost = f64::from(insight.restarts) * cost;
    (age - lost).max(0.0) / (age + cost).max(1.0)
}

fn options(fleet: &Fleet<'_>, job: &Managed<'_>, speed: &dyn Speed, most: u32) -> Vec<Option_> {
    let (least, all) = job.bounds;
    if least == all {
        return rigid(fleet, job, speed);
    }
    let most = if most == 0 {
        all
    } else {
        most.clamp(least, all)
    };
    let mut found = Vec::new();
    for (index, kind) in fleet
        .kinds
        .iter()
        .enumerate()
        .filter(|(_, k)| k.suits(job.job))
    {
        for gpus in kind.sizes().filter(|gpus| (least..=most).contains(gpus)) {
            let configuration = Configuration {
                gpu_model: &kind.gpu_model,
                nodes: kind.span(gpus),
                workers: gpus,
            };
            let goodput = speed.goodput(&configuration);
            if let Some(goodput) = goodput.filter(|goodput| *goodput > LEAST_GOODPUT) {
                found.push((index, gpus, goodput));
            }
        }
    }
    if found.is_empty() {
        return relative(first_options(fleet, job));
    }
    relative(found)
}

/// Of a job about which nothing is known: its least size, the same everywhere.
fn first_options(fleet: &Fleet<'_>, job: &Managed<'_>) -> Vec<(usize, u32, f64)> {
    let least = job.bounds.0;
    let kinds = fleet.kinds.iter().enumerate();
    let kinds = kinds.filter(|(_, kind)| kind.suits(job.job) && kind.gpus() >= least);
    kinds.map(|(index, _)| (index, least, 1.0)).collect()
}

/// A job of a fixed size: its speed on each kind, the slowest being worth its GPUs.
fn rigid(fleet: &Fleet<'_>, job: &Managed<'_>, speed: &dyn Speed) -> Vec<Option_> {
    let gpus = job.bounds.0;
    let kinds = fleet.kinds.iter().enumerate();
    let kinds = kinds.filter(|(_, kind)| kind.suits(job.job) && kind.gpus() >= gpus);
    let speeds = kinds.filter_map(|(index, kind)| {
        let configuration = Configuration {
            gpu_model: &kind.gpu_model,
            nodes: kind.span(gpus),
            workers: gpus,
        };
        let steps = speed.steps_per_s(&configuration)?;
        (steps > 0.0).then_some((index, gpus, steps))
    });
    let mut found: Vec<(usize, u32, f64)> = speeds.collect();
    if found.is_empty() {
        found = first_options(fleet, job);
    }
    let mut options = relative(found);
    for option in &mut options {
        option.relative *= f64::from(gpus);
    }
    options
}

/// Goodputs relative to the least.
fn relative(found: Vec<(usize, u32, f64)>) -> Vec<Option_> {
    let least = found
        .iter()
        .map(|(.., goodput)| *goodput)
        .fold(f64::INFINITY, f64::min);
    let option = |(kind, gpus, goodput): (usize, u32, f64)| Option_ {
        kind,
        gpus,
        relative: goodput / least,
    };
    found.into_iter().map(option).collect()
}
