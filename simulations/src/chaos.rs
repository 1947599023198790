//! Many seeds of faults, on several threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_core::policy::Policy;
use berth_policy::registry;
use berth_world::{SeedReport, run_seed};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::ChaosOptions;

/// What became of one seed.
#[derive(Debug)]
pub enum Outcome {
    /// It ran to its end; the report may name a broken promise.
    Ran(Box<SeedReport>),
    /// The code under test panicked.
    Panicked {
        /// The seed.
        seed: u64,
        /// What it said.
        message: String,
    },
}

/// All seeds of one call.
#[derive(Debug)]
pub struct Campaign {
    /// In order of their seeds' turn.
    pub outcomes: Vec<Outcome>,
    /// How long it took.
    pub took: Duration,
    /// Seeds asked for.
    pub asked: usize,
}

impl Outcome {
    /// The seed.
    pub fn seed(&self) -> u64 {
        match self {
            Outcome::Ran(report) => report.seed,
            Outcome::Panicked { seed, .. } => *seed,
        }
    }

    /// What went wrong, if anything did.
    pub fn failure(&self) -> Option<String> {
        match self {
            Outcome::Ran(report) => report.violation.as_ref().map(ToString::to_string),
            Outcome::Panicked { message, .. } => Some(format!("panic: {message}")),
        }
    }
}

impl Campaign {
    /// Outcomes with a failure.
    pub fn failures(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.failure().is_some())
    }

    /// Reports of seeds that ran to their end.
    pub fn reports(&self) -> impl Iterator<Item = &SeedReport> {
        self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Ran(report) => Some(report.as_ref()),
            Outcome::Panicked { .. } => None,
        })
    }
}

/// Policies that think at intervals of minutes; a healed cluster is given less than that to make progress.
const UNHURRIED: [&str; 4] = ["flow", "gavel", "pollux", "sia"];

/// Beyond the names alone: those that evict, and those that go by what they learn.
const WITH_SETTINGS: [&str; 6] = [
    "srtf:preempt=yes",
    "srtf:preempt=yes,durations=predicted",
    "sjf:durations=predicted",
    "las:queues=10/100",
    "soft+las",
    "soft+sia:interval=1",
];

/// One of the policies that masters can be configured with.
pub fn policy(choice: u64) -> Box<dyn Policy> {
    let known = registry::NAMES.into_iter().chain(WITH_SETTINGS);
    let count = (registry::NAMES.len() + WITH_SETTINGS.len()) as u64;
    let name = known
        .cycle()
        .nth(usize::try_from(choice % count).unwrap_or(0));
    let name = name.unwrap_or(registry::NAMES[0]);
    let policy = match UNHURRIED.contains(&name) {
        true => registry::by_name(&format!("{name}:interval=1")),
        false => registry::by_name(name),
    };
    policy.expect("every name listed is that of a policy, and these have an interval")
}

/// Runs the seeds asked for. `quiet` shows no progress.
pub fn run(options: &ChaosOptions, quiet: bool) -> Campaign {
    let seeds = options.seeds();
    let begin = Instant::now();
    let bar = progress_bar(seeds.len() as u64, quiet);
    let queue = Mutex::new(seeds.iter().copied().enumerate());
    let outcomes = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let verbose = options.verbose && options.seed.is_some();
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let next = queue.lock().ok().and_then(|mut queue| queue.next());
            let Some((turn, seed)) = next else { break };
            let outcome = run_one(seed, verbose);
            if outcome.failure().is_some() && !options.keep_going {
                stop.store(true, Ordering::Relaxed);
            }
            if let Ok(mut done) = outcomes.lock() {
                done.push((turn, outcome));
            }
            bar.inc(1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads(options.jobs).min(seeds.len().max(1)) {
            scope.spawn(worker);
        }
    });
    bar.finish_and_clear();
    let mut outcomes = outcomes.into_inner().unwrap_or_default();
    outcomes.sort_by_key(|(turn, _)| *turn);
    Campaign {
        outcomes: outcomes.into_iter().map(|(_, outcome)| outcome).collect(),
        took: begin.elapsed(),
        asked: seeds.len(),
    }
}

fn run_one(seed: u64, verbose: bool) -> Outcome {
    let run = || Box::new(run_seed(seed, &policy, verbose));
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(report) => Outcome::Ran(report),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let message = text.unwrap_or_else(|| "without words".to_owned());
            Outcome::Panicked { seed, message }
        }
    }
}

fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        asked => asked,
    }
}

fn progress_bar(seeds: u64, quiet: bool) -> ProgressBar {
    let target = if quiet || seeds < 2 {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(seeds), target);
    let style = "{bar:40} {pos}/{len} seeds, {per_sec}, {elapsed} so far, {eta} to go";
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
