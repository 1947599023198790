//! Many runs on several threads.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_world::twin::Span;
use thiserror::Error;

use crate::experiment::{RunReport, Workload, measure};
use crate::output::{Bar, Interrupt};

/// How often the one that waits looks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Points of a curve over time.
const CURVE_POINTS: usize = 500;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'p> {
    /// On what, by policy.
    pub workloads: &'p [Workload],
    /// By whom.
    pub policies: &'p [String],
    /// How often each, with seeds from 0.
    pub seeds: u64,
    /// Threads; one per core if 0.
    pub threads: usize,
}

/// A run that came to its end.
#[derive(Clone, Debug)]
pub struct Run {
    /// The policy, as asked for.
    pub policy: String,
    /// The seed.
    pub seed: u64,
    /// The figures.
    pub report: RunReport,
    /// For the pictures.
    pub curves: Curves,
}

/// What is drawn of a run.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    /// Times to completion in seconds, sorted.
    pub jct_s: Vec<f64>,
    /// Time in seconds, jobs that waited, share of the GPUs that was held.
    pub series: Vec<(f64, f64, f64)>,
    /// Who held what, of the first seed only.
    pub timeline: Vec<Span>,
}

/// A run that broke off.
#[derive(Clone, Debug, Error)]
#[error("{policy} with seed {seed}: {why}")]
pub struct RunFailed {
    /// The policy, as asked for.
    pub policy: String,
    /// The seed.
    pub seed: u64,
    /// What went wrong.
    pub why: String,
}

type Finished = (usize, Result<Run, RunFailed>);

impl Plan<'_> {
    /// Runs all, or until Ctrl-C: then what is under way is dropped. What came out is in the order of policies and
    /// seeds, whatever the number of threads.
    pub fn carry_out(&self, interrupt: &Interrupt) -> (Vec<Run>, Vec<RunFailed>) {
        let seeds = 0..self.seeds;
        let all = (self.policies.iter()).flat_map(|p| seeds.clone().map(move |seed| (p, seed)));
        let turns: Vec<(usize, (&String, u64))> = all.enumerate().collect();
        let mut bar = Bar::new(turns.len() as u64, "runs");
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            asked => asked,
        };
        let threads = threads.min(turns.len()).max(1);
        let queue = Mutex::new(turns.iter().copied());
        let (results, done) = channel::<Finished>();
        let mut found = BTreeMap::new();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let results = results.clone();
                scope.spawn(|| self.work(&queue, results, interrupt));
            }
            drop(results);
            loop {
                match done.recv_timeout(LOOK_EVERY) {
                    Ok((turn, result)) => {
                        found.insert(turn, result);
                    }
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                }
                bar.at(found.len() as u64);
            }
        });
        let (mut finished, mut failed) = (Vec::new(), Vec::new());
        for result in found.into_values() {
            match result {
                Ok(run) => finished.push(run),
                Err(failure) => failed.push(failure),
            }
        }
        (finished, failed)
    }

    fn work<'q>(
        &self,
        queue: &Mutex<impl Iterator<Item = (usize, (&'q String, u64))>>,
        results: Sender<Finished>,
        interrupt: &Interrupt,
    ) {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((turn, (policy, seed))) = next else {
                return;
            };
            let ran = catch_unwind(AssertUnwindSafe(|| self.one(policy, seed, interrupt)));
            let result = match ran {
                Ok(Ok(run)) => Ok(run),
                Ok(Err(why)) => Err(why),
                Err(panic) => Err(told(panic.as_ref())),
            };
            if interrupt.pressed() {
                return;
            }
            let result = result.map_err(|why| RunFailed {
                policy: policy.clone(),
                seed,
                why,
            });
            if results.send((turn, result)).is_err() {
                return;
            }
        }
    }

    fn one(&self, name: &str, seed: u64, interrupt: &Interrupt) -> Result<Run, String> {
        let index = self.policies.iter().position(|policy| policy == name);
        let workload = index.and_then(|index| self.workloads.get(index));
        let mut workload = workload.ok_or("no workload")?.clone();
        let mut policy = workload.policy(name).map_err(|error| error.to_string())?;
        workload.setting.timeline = seed == 0;
        let measured = measure(&workload, policy.as_mut(), seed, &mut |_| {
            interrupt.control()
        });
        let measured = measured.map_err(|error| error.to_string())?;
        let ended = measured.outcome.jobs.iter().filter(|job| {
            job.outcome != Some(berth_types::Outcome::Rejected) && job.end_ms.is_some()
        });
        let mut jct_s: Vec<f64> = ended
            .map(|job| job.end_ms.unwrap_or(0).saturating_sub(job.submit_ms) as f64 / 1_000.0)
            .collect();
        jct_s.sort_by(f64::total_cmp);
        let points = measured.outcome.series.points();
        let step = points.len().div_ceil(CURVE_POINTS).max(1);
        let series = points.chunks(step).map(|chunk| {
            let count = chunk.len() as f64;
            let waiting: f64 = chunk.iter().map(|p| p.waiting).sum();
            let used: f64 = chunk.iter().map(|p| p.used_milligpu).sum();
            let all: f64 = used + chunk.iter().map(|p| p.free_milligpu).sum::<f64>();
            let at_s = chunk.first().map_or(0.0, |p| p.at_ms as f64 / 1_000.0);
            (
                at_s,
                waiting / count,
                if all > 0.0 { used / all } else { 0.0 },
            )
        });
        Ok(Run {
            policy: name.to_owned(),
            seed,
            curves: Curves {
                jct_s,
                series: series.collect(),
                timeline: measured.outcome.timeline.clone(),
            },
            report: RunReport::of(&measured, &workload, false),
        })
    }
}

fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without words"))
}
