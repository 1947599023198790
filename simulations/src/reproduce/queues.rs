//! Queueing policies on the virtual clusters of Philly and on Venus: FIFO, SJF, SRTF and QSSF as in Helios.
//!
//! Source: Hu et al., "Characterization and prediction of deep learning workloads in large-scale GPU datacenters", SC
//! 2021, section 4.2, and its artifact (S-Lab-System-Group/HeliosArtifact, `framework/QSSF Service`): each virtual cluster
//! alone, homogeneous nodes of 8 GPUs, all policies but SRTF blocking behind the first job that does not fit, best fit
//! below a node and whole nodes above, true durations for SJF and SRTF, and for QSSF on Philly durations with an error
//! that is drawn from the distribution which the authors measured on Helios. An eviction costs 7 s (one GPU), 30 s (a
//! node) or 60 s (more).
//!
//! What differs is the jobs: the public lists of Philly are incomplete, and Venus' names no virtual clusters. So figures
//! are not comparable one by one; the order of the policies is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use berth_core::policy::Policy;
use berth_policy::{NameError, by_name};
use berth_types::{JobSpec, MILLI};
use berth_world::twin::{
    self, Cluster, Foresight, Overhead, Overheads, Setting, Trace, TraceJob, Truth, TwinError,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use thiserror::Error;

use super::table::{self, Band};
use crate::cluster;
use crate::input::{InputError, Source};
use crate::load::{self, Extras, Format, Limits, Loaded};

/// GPUs of a node of either cluster.
const GPUS_PER_NODE: u64 = 8;

/// The months that the published runs take from Philly, in seconds since 1970 by the trace's own clock: October and
/// November 2017.
const PHILLY_S: std::ops::Range<u64> = 1_506_816_000..1_512_086_400;

/// A policy of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    /// Its name in the paper.
    pub name: &'static str,
    /// Berth's name for it.
    pub policy: &'static str,
    /// What it is told of durations.
    told: Told,
}

/// What a policy is told of durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Truth,
    /// The truth with an error.
    Estimate,
}

/// The policies, in the order of the published table.
pub const CONTENDERS: [Contender; 4] = [
    Contender {
        name: "FIFO",
        policy: "fifo:backfill=none",
        told: Told::Nothing,
    },
    Contender {
        name: "SJF",
        policy: "sjf:backfill=none",
        told: Told::Truth,
    },
    Contender {
        name: "SRTF",
        policy: "srtf:preempt=yes",
        told: Told::Truth,
    },
    Contender {
        name: "QSSF",
        policy: "qssf:estimate=given,backfill=none",
        told: Told::Estimate,
    },
];

/// Published mean completion times on Philly in seconds, by virtual cluster, in the order of [`CONTENDERS`]. From
/// `plot/result_plot.ipynb` of the artifact; of those with a public job list.
pub const PHILLY: [(&str, [f64; 4]); 9] = [
    ("6214e9", [97_501.0, 23_337.0, 19_532.0, 26_022.0]),
    ("7f04ca", [133_826.0, 133_271.0, 132_980.0, 133_941.0]),
    ("11cb48", [82_540.0, 14_444.0, 9_057.0, 21_051.0]),
    ("b436b2", [28_732.0, 28_610.0, 28_291.0, 28_642.0]),
    ("e13805", [87_265.0, 85_949.0, 85_314.0, 85_886.0]),
    ("2869ce", [70_215.0, 56_388.0, 53_128.0, 58_088.0]),
    ("ed69ec", [28_345.0, 28_346.0, 28_346.0, 28_346.0]),
    ("103959", [24_743.0, 23_283.0, 22_735.0, 23_219.0]),
    ("0e4a51", [233_539.0, 168_747.0, 146_023.0, 196_886.0]),
];

/// The same over all of its eleven virtual clusters: mean completion and mean queueing time in seconds.
pub const PHILLY_ALL: [(f64, f64); 4] = [
    (86_072.0, 56_531.0),
    (34_272.0, 4_731.0),
    (30_683.0, 1_138.0),
    (37_324.0, 7_783.0),
];

/// Why figures of Philly differ.
pub const PHILLY_DIFFERS: &str = "job lists incomplete: of the long jobs only the first 2,000 per virtual cluster, of \
     the short ones a subset, and two of eleven virtual clusters missing";
/// Why figures of Venus differ.
pub const VENUS_DIFFERS: &str = "the list names no virtual clusters, so all jobs share one cluster of 1,064 GPUs, and it \
     covers March to August instead of September";

/// A measured figure beside the published one.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The virtual cluster, or `all`.
    pub cluster: String,
    /// The policy's name in the paper.
    pub policy: &'static str,
    /// Jobs that ended.
    pub jobs: u64,
    /// Mean time from submission to end, in seconds.
    pub avg_jct_s: f64,
    /// Mean time of that without a place.
    pub avg_queue_s: f64,
    /// Published mean time from submission to end.
    pub published_jct_s: Option<f64>,
    /// Published mean time without a place.
    pub published_queue_s: Option<f64>,
    /// Evictions.
    pub evictions: u64,
    /// Why the two differ.
    pub differs: &'static str,
}

/// Why a comparison could not be made.
#[derive(Debug, Error)]
pub enum QueuesError {
    /// A file is not as it should be.
    #[error(transparent)]
    Input(#[from] InputError),
    /// No such policy.
    #[error(transparent)]
    Policy(#[from] NameError),
    /// A run broke off.
    #[error("the run of `{cluster}` under `{policy}` broke off")]
    Run {
        /// The virtual cluster.
        cluster: String,
        /// The policy.
        policy: &'static str,
        /// Why.
        #[source]
        source: TwinError,
    },
}

/// The rows of Philly, one per virtual cluster and policy, then `all`. `traces` is the folder of recorded traces; `seed`
/// draws the errors of QSSF's estimates.
///
/// # Errors
/// If a file is missing or wrong, or a run breaks off.
pub fn philly(traces: &Path, seed: u64) -> Result<Vec<Row>, QueuesError> {
    let lists = philly_jobs(traces)?;
    let sizes = cluster::open("philly-vc")?.cluster;
    let mut rows = Vec::new();
    let mut sums = CONTENDERS.map(|_| Row::default_of("all", PHILLY_DIFFERS));
    for (vc, published) in PHILLY {
        let nodes = sizes.nodes.iter();
        let mine = nodes.filter(|node| node.labels.get("vc").is_some_and(|label| label == vc));
        let cluster = Cluster {
            name: vc.to_owned(),
            nodes: mine.cloned().collect(),
            ..Cluster::default()
        };
        let most = cluster.milligpu();
        let jobs = lists.get(vc).into_iter().flatten();
        let jobs: Vec<TraceJob> = jobs
            .filter(|job| asked(&job.spec) <= most)
            .cloned()
            .collect();
        let setting = setting(cluster, vc, jobs);
        for (index, contender) in CONTENDERS.iter().enumerate() {
            let mut row = measure(&setting, contender, seed, PHILLY_DIFFERS)?;
            row.published_jct_s = Some(published[index]);
            sums[index].add(&row);
            rows.push(row);
        }
    }
    for ((sum, contender), (jct_s, queue_s)) in sums.iter_mut().zip(CONTENDERS).zip(PHILLY_ALL) {
        sum.policy = contender.name;
        sum.published_jct_s = Some(jct_s);
        sum.published_queue_s = Some(queue_s);
    }
    rows.extend(sums);
    Ok(rows)
}

/// The rows of Venus, on one cluster, with arrivals `load` times as fast as recorded. Nothing comparable is published for
/// these months; FIFO's figure is September's, over virtual clusters (Helios, table 3), and stands beside the recorded
/// load only. One shared cluster has room for nearly everybody at that load (the mean wait is below a second), so policies
/// can be told apart only at a higher one, such as 1.6.
///
/// # Errors
/// If a file is missing or wrong, or a run breaks off.
pub fn venus(traces: &Path, load: f64, seed: u64) -> Result<Vec<Row>, QueuesError> {
    let path = traces.join("helios-venus-2020/jobs.csv.gz");
    let mut cluster = cluster::open("venus")?.cluster;
    cluster
        .nodes
        .iter_mut()
        .for_each(|node| node.labels.clear());
    let mut limits = Limits::of(&cluster);
    limits.skip_oversized = true;
    let mut loaded = load::load(
        Format::Helios,
        Source::open(&path)?,
        &Extras::default(),
        &limits,
    )?;
    for job in &mut loaded.trace.jobs {
        job.submit_ms = (job.submit_ms as f64 / load) as u64;
    }
    let setting = setting(cluster, "venus", loaded.trace.jobs);
    let mut rows = Vec::new();
    for contender in &CONTENDERS {
        let mut row = measure(&setting, contender, seed, VENUS_DIFFERS)?;
        row.published_jct_s = (contender.name == "FIFO" && load == 1.0).then_some(64_702.0);
        rows.push(row);
    }
    Ok(rows)
}

impl Row {
    fn default_of(cluster: &str, differs: &'static str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            policy: "",
            jobs: 0,
            avg_jct_s: 0.0,
            avg_queue_s: 0.0,
            published_jct_s: None,
            published_queue_s: None,
            evictions: 0,
            differs,
        }
    }

    /// Takes another row's jobs in.
    fn add(&mut self, other: &Row) {
        let (mine, others) = (self.jobs as f64, other.jobs as f64);
        let mean = |a: f64, b: f64| (a * mine + b * others) / (mine + others).max(1.0);
        self.avg_jct_s = mean(self.avg_jct_s, other.avg_jct_s);
        self.avg_queue_s = mean(self.avg_queue_s, other.avg_queue_s);
        self.jobs += other.jobs;
        self.evictions += other.evictions;
    }
}

/// The policies from the best to the worst, as published.
pub const ORDER: [&str; 4] = ["SRTF", "SJF", "QSSF", "FIFO"];

/// The rows for a table: every figure is told, and of each cluster's mean over all its jobs the published order is asked.
pub fn told(rows: &[Row]) -> Vec<table::Row> {
    let mut told = Vec::new();
    for row in rows {
        let what = |figure: &str| format!("{} under {}, {figure}", row.cluster, row.policy);
        let figures = [
            ("avg JCT s", row.avg_jct_s, row.published_jct_s),
            ("avg queue s", row.avg_queue_s, row.published_queue_s),
        ];
        let figures = figures.map(|(figure, measured, published)| {
            let band = Band::Told;
            table::Row::new("queues", what(figure), measured, published, band).because(row.differs)
        });
        told.extend(figures);
    }
    let last = rows.last_chunk::<{ CONTENDERS.len() }>();
    let mean = |policy: &str| last?.iter().find(|row| row.policy == policy);
    for pair in ORDER.windows(2) {
        if let (Some(better), Some(worse)) = (mean(pair[0]), mean(pair[1])) {
            let what = format!(
                "{}: avg JCT under {} over {}",
                better.cluster, pair[0], pair[1]
            );
            let share = better.avg_jct_s / worse.avg_jct_s;
            told.push(table::Row::new(
                "queues",
                what,
                share,
                Some(1.0),
                Band::AtMost,
            ));
        }
    }
    told
}

/// Both lists of Philly by virtual cluster, by submission, in the published months; a job that is in both counts once.
fn philly_jobs(traces: &Path) -> Result<BTreeMap<String, Vec<TraceJob>>, QueuesError> {
    let mut known: BTreeMap<(String, u64, u64), Vec<u64>> = BTreeMap::new();
    let mut lists: BTreeMap<String, Vec<TraceJob>> = BTreeMap::new();
    for file in ["derived_jobs_ge20min.csv.gz", "jobs.csv.gz"] {
        let path = traces.join("philly-2017").join(file);
        let limits = Limits::none();
        let loaded = load::load(
            Format::Philly,
            Source::open(&path)?,
            &Extras::default(),
            &limits,
        )?;
        let mut fresh = Vec::new();
        for job in dated(loaded, file) {
            let seconds = job.submit_ms / 1_000;
            let key = (job.spec.queue.clone(), seconds, asked(&job.spec));
            let Truth::Rigid(truth) = &job.truth else {
                continue;
            };
            if !PHILLY_S.contains(&seconds) {
                continue;
            }
            let run_ms = truth.run_ms;
            let same = (known.get_mut(&key)).and_then(|runs| {
                let at = runs.iter().position(|run| run.abs_diff(run_ms) <= 2_000)?;
                Some(runs.swap_remove(at))
            });
            if same.is_none() {
                fresh.push((key, run_ms, job));
            }
        }
        for (key, run_ms, job) in fresh {
            lists.entry(key.0.clone()).or_default().push(job);
            known.entry(key).or_default().push(run_ms);
        }
    }
    for jobs in lists.values_mut() {
        jobs.sort_by_key(|job| job.submit_ms);
        for job in jobs {
            job.submit_ms -= PHILLY_S.start * 1_000;
        }
    }
    Ok(lists)
}

/// The jobs with submission times since 1970, and keys of their own.
fn dated(loaded: Loaded, file: &str) -> impl Iterator<Item = TraceJob> {
    let began_s = loaded
        .began_s
        .and_then(|s| u64::try_from(s).ok())
        .unwrap_or(0);
    let prefix = file.split('.').next().unwrap_or(file).to_owned();
    loaded.trace.jobs.into_iter().map(move |mut job| {
        job.submit_ms += began_s * 1_000;
        job.key = format!("{prefix}-{}", job.key);
        job
    })
}

fn asked(spec: &JobSpec) -> u64 {
    (spec.groups.iter())
        .map(|group| u64::from(group.min_workers) * u64::from(group.resources.milligpu))
        .sum()
}

/// These jobs on this cluster, with the published costs of evictions by size.
fn setting(cluster: Cluster, name: &str, mut jobs: Vec<TraceJob>) -> Setting {
    let sizes = [("one", 7_000), ("node", 30_000), ("more", 60_000)];
    for job in &mut jobs {
        let gpus = asked(&job.spec) / u64::from(MILLI);
        let size = match gpus {
            0..=1 => "one",
            2..=GPUS_PER_NODE => "node",
            _ => "more",
        };
        let labels = &mut Arc::make_mut(&mut job.spec).labels;
        labels.insert("family".to_owned(), size.to_owned());
    }
    let trace = Trace {
        name: name.to_owned(),
        jobs,
    };
    let mut setting = Setting::new(Arc::new(cluster), Arc::new(trace));
    setting.overheads = Overheads {
        by_family: sizes
            .map(|(size, restart_ms)| {
                let overhead = Overhead {
                    restart_ms,
                    ..Overhead::default()
                };
                (size.to_owned(), overhead)
            })
            .into(),
        ..Overheads::default()
    };
    setting
}

fn measure(
    setting: &Setting,
    contender: &Contender,
    seed: u64,
    differs: &'static str,
) -> Result<Row, QueuesError> {
    let mut setting = setting.clone();
    match contender.told {
        Told::Nothing => {}
        Told::Truth => setting.foresight = Foresight::True,
        Told::Estimate => setting.trace = Arc::new(estimated(&setting.trace, seed)),
    }
    let mut policy: Box<dyn Policy> = by_name(contender.policy)?;
    let name = setting.trace.name.clone();
    let run = twin::run(&setting, policy.as_mut(), &mut twin::unwatched);
    let outcome = run.map_err(|source| QueuesError::Run {
        cluster: name.clone(),
        policy: contender.policy,
        source,
    })?;
    let figures = outcome.figures(contender.policy, &name);
    Ok(Row {
        policy: contender.name,
        jobs: figures.completed,
        avg_jct_s: figures.avg_jct_s,
        avg_queue_s: figures.avg_queue_s,
        evictions: outcome.evictions,
        ..Row::default_of(&name, differs)
    })
}

/// The same jobs with the durations that users would have said, if they erred as the published estimates do.
fn estimated(trace: &Trace, seed: u64) -> Trace {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut trace = trace.clone();
    for job in &mut trace.jobs {
        if let Truth::Rigid(truth) = &job.truth {
            let expected_ms = (truth.run_ms as f64 * factor(&mut rng)).max(1.0) as u64;
            Arc::make_mut(&mut job.spec).expected_ms = expected_ms;
        }
    }
    trace
}

/// Estimate over truth: off by at most 10 % for a tenth of the jobs, by 50 % for half, by 100 % for 70 %, by a factor of 10
/// for 90 %, by a factor of 100 for all, to either side (`estimators/philly_estimate.py` of the artifact). Estimates
/// below nothing count as nothing.
fn factor(rng: &mut ChaCha8Rng) -> f64 {
    let mut unit = || rng.next_u32() as f64 / f64::from(u32::MAX);
    let (least, most) = match unit() {
        level if level <= 0.1 => (0.0, 0.1),
        level if level <= 0.5 => (0.1, 0.5),
        level if level <= 0.7 => (0.5, 1.0),
        level if level <= 0.9 => (1.0, 10.0),
        _ => (10.0, 100.0),
    };
    let error = least + (most - least) * unit();
    let sign = if unit() < 0.5 { -1.0 } else { 1.0 };
    (1.0 + sign * error).max(0.0)
}
