//! The workload and the cluster that a command line names.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use berth_core::policy::Policy;
use berth_policy::packing::Workload as Typical;
use berth_policy::{Fifo, NameError, by_name_for};
use berth_world::twin::{Cluster, Faults, Foresight, Rounds, Setting, Trace};
use clap::{Args, ValueEnum};

use super::bounds::Bound;
use crate::cluster;
use crate::input::Source;
use crate::load::openb::Arrivals;
use crate::load::sia::Reading;
use crate::load::{self, Extras, Format, Limits, Loaded};
use crate::reproduce::sia;

/// Highest factor on the arrival rate.
const MAX_LOAD: f64 = 1e6;

/// Said when an order's ranks are replaced.
const RANKS: &str = "the order's node ranks are those that FGD's simulator draws if nothing else draws; the published \
                     runs' are taken instead (docs/policies/fgd.md)";

/// What runs on what.
#[derive(Clone, Debug, Args)]
pub struct WorkloadOptions {
    /// The workload's file, plain or gzip; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// How it is written.
    #[arg(long, value_enum)]
    pub format: Format,
    /// A cluster file, or the name of a published cluster: sia-het64, sia-hom64-t4, openb, venus, philly-vc, lingjun.
    /// The format berth has its own nodes if none is named.
    #[arg(long, value_name = "FILE-OR-NAME")]
    pub cluster: Option<String>,
    /// Arrivals come this many times as fast.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub load: f64,
    /// Profiles or rates that belong to the workload; looked for beside it and below BERTH_TRACES if not named.
    #[arg(long, value_name = "FILE")]
    pub profiles: Option<PathBuf>,
    /// Jobs on the same GPU slow each other down as this table says, Gavel's simulation_throughputs.json; without a
    /// file, the one below BERTH_TRACES. Pairs that were not measured lose as much as the mean of those that were.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub interference: Option<Option<PathBuf>>,
    /// A recorded order of arrivals, for packing runs: whoever does not fit is rejected, and nobody leaves.
    #[arg(long, value_name = "TSV", requires = "arrival_seed")]
    pub arrivals: Option<PathBuf>,
    /// Which of the recorded orders.
    #[arg(long, value_name = "N", requires = "arrivals")]
    pub arrival_seed: Option<u64>,
    /// Leave jobs out that are larger than the cluster, instead of refusing the workload.
    #[arg(long)]
    pub skip_oversized: bool,
    /// Only the first N jobs.
    #[arg(long, value_name = "N")]
    pub first: Option<usize>,
    /// Plan at multiples of this time instead of whenever something happens; for the format sia it is
    /// as published, 60s or 360s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub round: Option<Duration>,
    /// What policies are told of how long recorded jobs run.
    #[arg(long, value_enum, default_value_t = Known::Asked)]
    pub durations: Known,
}

/// What policies are told of durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Known {
    /// What users said.
    Asked,
    /// The truth, for published policies that assume it.
    True,
}

/// A workload on its cluster, ready to run under any policy and seed.
#[derive(Clone, Debug)]
pub struct Workload {
    /// All but the seed.
    pub setting: Setting,
    /// Whether it is a packing run.
    pub packing: bool,
    /// What is known beforehand of what jobs ask for; empty if nothing is.
    pub typical: Typical,
    /// What was left out when it was read, in words.
    pub notes: Vec<String>,
    /// If it is no policy that is measured but a bound: its name, and which.
    pub bound: Option<(String, Bound)>,
}

impl Workload {
    /// Reads all files. How jobs of the format sia behave, and how often the scheduler looks at them, depends on the
    /// policy.
    ///
    /// # Errors
    /// If a file is not sound, or an option is out of its range.
    pub fn open(options: &WorkloadOptions, policy: &str) -> anyhow::Result<Self> {
        ensure!(
            options.load.is_finite() && options.load > 0.0 && options.load <= MAX_LOAD,
            "--load {}: arrivals cannot come that many times as fast; hint: a number above 0, such as 1.5",
            options.load
        );
        let (mut cluster, faults) = open_cluster(options)?;
        let mut limits = Limits::of(&cluster);
        limits.skip_oversized = options.skip_oversized;
        let (reading, round) = match options.format {
            Format::Sia => sia_rules(policy),
            _ => (Reading::default(), None),
        };
        let extras = Extras {
            profiles: options.profiles.clone(),
            arrivals: options.arrivals.clone().zip(options.arrival_seed),
            reading,
        };
        let source = Source::open(&options.trace)?;
        let loaded = load::load(options.format, source, &extras, &limits)?;
        ensure!(
            !loaded.trace.jobs.is_empty(),
            "{}: no job that could be replayed; hint: is --format right?",
            options.trace.display()
        );
        let mut notes = notes(&loaded);
        if let (Some(path), Some(seed)) = (&options.arrivals, options.arrival_seed) {
            let mut arrivals = Arrivals::read(Source::open(path)?, seed)?;
            if arrivals.as_published(seed, &loaded.typical, cluster.milligpu()) {
                notes.push(RANKS.to_owned());
            }
            arrivals.arrange(&mut cluster)?;
        }
        let typical = Typical::of(loaded.typical.iter().map(|spec| &**spec));
        let trace = scaled(loaded.trace, options.load, options.first);
        let mut workload = Self::of(cluster, trace);
        workload.notes = notes;
        workload = workload.under(policy);
        workload.setting.faults = faults;
        if let Some(named) = &options.interference {
            let path = match named {
                Some(named) => named.clone(),
                None => load::interference::usual_file()?,
            };
            let cluster = &workload.setting.cluster;
            workload.setting.faults.interference = load::interference::read(&path, cluster)?;
        }
        workload.typical = typical;
        workload.packing = extras.arrivals.is_some();
        if let Some(round) = options.round.or(round) {
            let ms = u64::try_from(round.as_millis()).unwrap_or(u64::MAX);
            ensure!(ms > 0, "--round 0: rounds have a length; hint: such as 60s");
            workload.setting.rounds = Rounds::Every { ms };
        }
        workload.setting.foresight = match options.durations {
            Known::Asked => Foresight::Blind,
            Known::True => Foresight::True,
        };
        Ok(workload)
    }

    /// The same for another policy or bound, if jobs behave under both alike.
    pub fn under(mut self, policy: &str) -> Self {
        self.bound = Bound::of(policy).map(|bound| (policy.to_owned(), bound));
        self
    }

    /// A policy by name, told what is known beforehand of the jobs. Under a bound it is the policy behind it; if there is
    /// none, one that is never asked.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn policy(&self, name: &str) -> Result<Box<dyn Policy>, NameError> {
        match Bound::of(name) {
            Some(Bound::Knowing { policy }) => by_name_for(&policy, &self.typical),
            Some(Bound::Alone) => Ok(Box::new(Fifo::default())),
            None => by_name_for(name, &self.typical),
        }
    }

    /// A trace on a cluster, rounds whenever something happens.
    pub fn of(cluster: Cluster, trace: Trace) -> Self {
        Self {
            setting: Setting::new(Arc::new(cluster), Arc::new(trace)),
            packing: false,
            typical: Typical::default(),
            notes: Vec::new(),
            bound: None,
        }
    }
}

/// How jobs of Sia's workloads are read for a policy, and how often the scheduler looks. A policy that the published
/// setting does not know does not resize jobs, and looks as often as Sia.
fn sia_rules(policy: &str) -> (Reading, Option<Duration>) {
    let inner = policy.rsplit('+').next().unwrap_or(policy);
    let name = inner.split(':').next().unwrap_or(inner);
    let (reading, round_ms) = match sia::rules(name) {
        Ok((reading, round_ms, _)) => (reading, round_ms),
        Err(_) if Bound::of(name).is_some() => (Reading::default(), 60_000),
        Err(_) => (Reading::as_asked(), 60_000),
    };
    (reading, Some(Duration::from_millis(round_ms)))
}

/// The cluster that is named, or the backup's own.
fn open_cluster(options: &WorkloadOptions) -> anyhow::Result<(Cluster, Faults)> {
    match &options.cluster {
        Some(named) => {
            let file = cluster::open(named)?;
            let faults = file.faults();
            Ok((file.cluster, faults))
        }
        None if options.format == Format::Berth => {
            Ok((load::berth::cluster(&options.trace)?, Faults::default()))
        }
        None => bail!(
            "--cluster is missing; hint: a cluster file, or one of {}",
            cluster::NAMES.join(", ")
        ),
    }
}

/// What was left out when a workload was read, in words.
pub(crate) fn notes(loaded: &Loaded) -> Vec<String> {
    let mut notes = Vec::new();
    if loaded.oversized > 0 {
        notes.push(format!(
            "{} jobs left out: larger than the cluster",
            loaded.oversized
        ));
    }
    let skipped = loaded.skipped.iter();
    notes.extend(skipped.map(|(why, count)| format!("{count} rows left out: {why}")));
    notes
}

/// The same jobs `load` times as fast, and only the first so many.
fn scaled(mut trace: Trace, load: f64, first: Option<usize>) -> Trace {
    if let Some(first) = first {
        trace.jobs.truncate(first);
    }
    if load != 1.0 {
        for job in &mut trace.jobs {
            job.submit_ms = (job.submit_ms as f64 / load).round() as u64;
        }
    }
    trace
}
