//! The Sia setting: what the authors' simulator measured, beside what the twin gives.
//!
//! Reference: `sia-2023/REFERENCE.csv` (one row per setting, workload and policy) and `sia-2023/reference/` (per job) of
//! the folder of traces, both measured with the simulator of the Sia artifact.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use berth_core::policy::Policy;
use berth_policy::registry;
use berth_world::twin::adaptive::{Knowledge, Tuning};
use berth_world::twin::{self, Outcome, Rounds, Setting};

use crate::cluster;
use crate::input::{Dialect, Source, Table};
use crate::load::sia::{self, Reading};
use crate::load::{Limits, Loaded};

/// One cell of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Cluster, as the reference names it: `het64` or `hom64-t4`.
    pub setting: String,
    /// Workload, as `philly/workload-1`.
    pub workload: String,
    /// Policy, as the reference names it.
    pub policy: String,
}

/// Figures that are compared, times in hours.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Mean job completion time.
    pub avg_jct_h: f64,
    /// The second-longest of 160: 99 %.
    pub p99_jct_h: f64,
    /// First submission to last end.
    pub makespan_h: f64,
    /// Restarts per job.
    pub restarts: f64,
    /// GPU hours per job.
    pub gpu_hours: f64,
}

/// A case with what came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Which.
    pub case: Case,
    /// What the twin gives.
    pub measured: Figures,
    /// What the authors' simulator gave.
    pub reference: Figures,
    /// Median over jobs of the relative difference of completion times, if the reference has them.
    pub job_error: Option<f64>,
    /// By job: ours and theirs in seconds, restarts ours and theirs.
    pub jobs: Vec<(String, [f64; 4])>,
}

impl Figures {
    /// Name, value, and the band within which it has to agree, for all but GPU hours.
    pub fn named(&self) -> [(&'static str, f64, f64); 4] {
        [
            ("avg JCT h", self.avg_jct_h, 0.05),
            ("p99 JCT h", self.p99_jct_h, 0.10),
            ("makespan h", self.makespan_h, 0.10),
            ("restarts", self.restarts, 0.10),
        ]
    }
}

impl Compared {
    /// Name, ours, theirs, relative difference, and whether that is within the band. Of `pollux`, which draws at random,
    /// only the mean is held against its band, which is 10 %.
    pub fn rows(&self) -> Vec<(&'static str, f64, f64, f64, bool)> {
        let random = self.case.policy == "pollux";
        let pairs = self
            .measured
            .named()
            .into_iter()
            .zip(self.reference.named());
        let mut rows: Vec<_> = pairs
            .map(|((name, ours, band), (_, theirs, _))| {
                let off = ours / theirs - 1.0;
                let band = if random { 0.10 } else { band };
                let counts = !random || name == "avg JCT h";
                (name, ours, theirs, off, !counts || off.abs() <= band)
            })
            .collect();
        if let Some(error) = self.job_error {
            rows.push((
                "median job error",
                error,
                0.0,
                error,
                random || error <= 0.10,
            ));
        }
        rows
    }
}

/// Every case of the reference, in its order.
///
/// # Errors
/// If the reference cannot be read.
pub fn cases(traces: &Path) -> anyhow::Result<Vec<(Case, Figures)>> {
    let path = traces.join("sia-2023/REFERENCE.csv");
    let mut table = Table::open(Source::open(&path)?, Dialect::CSV)?;
    let [setting, workload, policy] = ["setting", "workload", "policy"].map(|c| table.column(c));
    let (setting, workload, policy) = (setting?, workload?, policy?);
    let (avg, p99) = (table.column("avg_jct_h")?, table.column("p99_jct_h")?);
    let (makespan, gpus) = (
        table.column("makespan_h")?,
        table.column("gpu_hours_per_job")?,
    );
    let restarts = table.column("restarts_per_job")?;
    let mut cases = Vec::new();
    while let Some(row) = table.next_row()? {
        let case = Case {
            setting: row.text(&setting)?.to_owned(),
            workload: row.text(&workload)?.to_owned(),
            policy: row.text(&policy)?.to_owned(),
        };
        let figures = Figures {
            avg_jct_h: row.number(&avg)?,
            p99_jct_h: row.number(&p99)?,
            makespan_h: row.number(&makespan)?,
            restarts: row.number(&restarts)?,
            gpu_hours: row.number(&gpus)?,
        };
        cases.push((case, figures));
    }
    Ok(cases)
}

/// How jobs are read, how long rounds last, and which policy decides, for a policy of the reference.
///
/// # Errors
/// If there is none of this name.
pub fn rules(policy: &str) -> anyhow::Result<(Reading, u64, &'static str)> {
    Ok(match policy {
        "sia" => (Reading::default(), 60_000, "sia"),
        "sia-oracle" => (knowing(Knowledge::Seeded), 60_000, "sia"),
        "sia-true" => (knowing(Knowledge::True), 60_000, "sia"),
        "gavel" => (Reading::as_asked(), 360_000, "gavel"),
        "pollux" => (
            Reading {
                tuning: Tuning::Blind,
                ..Reading::default()
            },
            60_000,
            "pollux",
        ),
        other => bail!("no case is run under `{other}`"),
    })
}

fn knowing(knowledge: Knowledge) -> Reading {
    Reading {
        knowledge,
        ..Reading::default()
    }
}

/// The run of a case, ready to go.
///
/// # Errors
/// If the workload, its profiles or the cluster cannot be read.
pub fn setting(case: &Case, traces: &Path) -> anyhow::Result<Setting> {
    let (reading, round_ms, _) = rules(&case.policy)?;
    let cluster = cluster::open(&format!("sia-{}", case.setting))?.cluster;
    let path = traces.join(format!("sia-2023/workloads/{}.csv", case.workload));
    let profiles: PathBuf = traces.join("sia-2023/scaling_profiles.tar.gz");
    let limits = Limits::of(&cluster);
    let Loaded { trace, .. } = sia::load(Source::open(&path)?, Some(&profiles), &limits, &reading)?;
    let mut setting = Setting::new(Arc::new(cluster), Arc::new(trace));
    setting.rounds = Rounds::Every { ms: round_ms };
    Ok(setting)
}

/// Draws of one workload under `pollux`, whose figures are their means: one draw differs from the next by 7 % and more,
/// mostly by the GPU models that the longest job happens to get, which says nothing about the policy.
pub const POLLUX_DRAWS: u64 = 3;

/// Runs a case and holds it against the reference: under `pollux` the mean of some draws, with seeds from 0.
///
/// # Errors
/// As [`compare`].
pub fn measure(case: &Case, reference: Figures, traces: &Path) -> anyhow::Result<Compared> {
    let (_, _, name) = rules(&case.policy)?;
    let draws = if case.policy == "pollux" {
        POLLUX_DRAWS
    } else {
        1
    };
    let mut runs = Vec::new();
    for seed in 0..draws {
        let mut policy = registry::by_name(name)?;
        runs.push(compare(case, reference, policy.as_mut(), seed, traces)?);
    }
    let mean = |figure: fn(&Compared) -> f64| runs.iter().map(figure).sum::<f64>() / draws as f64;
    let measured = Figures {
        avg_jct_h: mean(|run| run.measured.avg_jct_h),
        p99_jct_h: mean(|run| run.measured.p99_jct_h),
        makespan_h: mean(|run| run.measured.makespan_h),
        restarts: mean(|run| run.measured.restarts),
        gpu_hours: mean(|run| run.measured.gpu_hours),
    };
    let errors: Option<Vec<f64>> = runs.iter().map(|run| run.job_error).collect();
    let job_error = errors.map(|errors| errors.iter().sum::<f64>() / draws as f64);
    let Some(first) = runs.into_iter().next() else {
        bail!("no run of {}", case.workload);
    };
    Ok(Compared {
        measured,
        job_error,
        ..first
    })
}

/// Runs a case under this policy, with this seed for what it draws, and holds it against the reference.
///
/// # Errors
/// If something cannot be read or the run fails.
pub fn compare(
    case: &Case,
    reference: Figures,
    policy: &mut dyn Policy,
    seed: u64,
    traces: &Path,
) -> anyhow::Result<Compared> {
    let mut setting = setting(case, traces)?;
    setting.seed = seed;
    let outcome = twin::run(&setting, policy, &mut twin::unwatched)
        .with_context(|| format!("{} under {}", case.workload, case.policy))?;
    let figures = outcome.figures(&case.policy, &case.workload);
    let count = figures.jobs.max(1) as f64;
    let measured = Figures {
        avg_jct_h: figures.avg_jct_s / 3600.0,
        p99_jct_h: figures.p99_jct_s / 3600.0,
        makespan_h: figures.makespan_s / 3600.0,
        restarts: jobs_restarts(&outcome) / count,
        gpu_hours: figures.gpu_hours / count,
    };
    let jobs = per_job(case, &outcome, traces)?;
    let mut errors: Vec<f64> = (jobs.iter())
        .map(|(_, [ours, theirs, ..])| (ours / theirs - 1.0).abs())
        .collect();
    errors.sort_by(f64::total_cmp);
    Ok(Compared {
        case: case.clone(),
        measured,
        reference,
        job_error: median(&errors),
        jobs,
    })
}

/// Of sorted values; of an even number, the mean of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    let high = sorted.get(sorted.len() / 2)?;
    let low = sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some((low + high) / 2.0)
}

/// Restarts of all jobs. The reference does not count those that cost nothing: moves in the same shape.
fn jobs_restarts(outcome: &Outcome) -> f64 {
    outcome
        .jobs
        .iter()
        .map(|job| f64::from(job.restarts - job.free_restarts))
        .sum()
}

/// By job of the reference: completion time ours and theirs in seconds, restarts ours and theirs. Nothing if the reference
/// has none.
///
/// # Errors
/// If the reference cannot be read, or one of its jobs has not ended.
pub fn per_job(
    case: &Case,
    outcome: &Outcome,
    traces: &Path,
) -> anyhow::Result<Vec<(String, [f64; 4])>> {
    let name = format!(
        "{}-{}-{}",
        case.setting,
        case.workload.replace('/', "-"),
        case.policy
    );
    let path = traces.join(format!("sia-2023/reference/{name}.jobs.csv.gz"));
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let ours: BTreeMap<&str, (f64, f64)> = (outcome.jobs.iter())
        .filter_map(|job| {
            let jct_s = job.end_ms?.saturating_sub(job.submit_ms) as f64 / 1000.0;
            Some((
                &*job.key,
                (jct_s, f64::from(job.restarts - job.free_restarts)),
            ))
        })
        .collect();
    let mut table = Table::open(Source::open(&path)?, Dialect::CSV)?;
    let (name, jct) = (table.column("name")?, table.column("jct")?);
    let restarts = table.column("restarts")?;
    let mut jobs = Vec::new();
    while let Some(row) = table.next_row()? {
        let key = row.text(&name)?;
        let Some((jct_s, restarted)) = ours.get(key) else {
            bail!("job `{key}` of {} has not ended", path.display());
        };
        let figures = [
            *jct_s,
            row.number(&jct)?,
            *restarted,
            row.number(&restarts)?,
        ];
        jobs.push((key.to_owned(), figures));
    }
    Ok(jobs)
}
