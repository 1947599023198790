//! `berth-sim describe`: what a workload is like.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use anyhow::ensure;
use berth_world::twin::{End, TraceJob, Truth};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use serde::Serialize;

use crate::cluster;
use crate::experiment::run::tell;
use crate::experiment::workload::notes;
use crate::input::Source;
use crate::load::{self, Extras, Format, Limits, Loaded};
use crate::output;

/// Milliseconds in an hour.
const HOUR_MS: u64 = 3_600_000;
/// Milliseconds in a day.
const DAY_MS: u64 = 24 * HOUR_MS;
/// 1970 began on a Thursday: hours from a Monday's midnight to it.
const FIRST_MONDAY_HOURS: i64 = 72;
/// Widest bar of the patterns.
const BAR: f64 = 40.0;
/// Percentiles that are told.
const PERCENTILES: [usize; 8] = [1, 10, 25, 50, 75, 90, 99, 100];

/// Which workload.
#[derive(Clone, Debug, Args)]
pub struct DescribeOptions {
    /// The workload's file, plain or gzip; `-` is standard input.
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,
    /// How it is written.
    #[arg(long, value_enum)]
    pub format: Format,
    /// Compare it with what this cluster offers.
    #[arg(long, value_name = "FILE-OR-NAME")]
    pub cluster: Option<String>,
    /// Leave jobs out that are larger than the cluster.
    #[arg(long, requires = "cluster")]
    pub skip_oversized: bool,
    /// Profiles or rates that belong to the workload.
    #[arg(long, value_name = "FILE")]
    pub profiles: Option<PathBuf>,
    /// Write JSON to this file (`-`: standard output) instead of printing tables.
    #[arg(long, value_name = "OUT")]
    pub json: Option<PathBuf>,
}

/// What a workload is like. Times are in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// The workload.
    pub trace: String,
    /// Jobs.
    pub jobs: u64,
    /// Users.
    pub users: u64,
    /// Share of the jobs that the busiest tenth of the users submitted.
    pub top_tenth_of_users: f64,
    /// Queues.
    pub queues: u64,
    /// Days from the first to the last submission.
    pub days: f64,
    /// Jobs per hour, in the mean.
    pub jobs_per_hour: f64,
    /// Variance of the jobs of an hour over their mean: 1 if they came independently at one rate.
    pub dispersion: f64,
    /// Arrivals by hour of the day, relative to the mean; from midnight if the source has a calendar, else from the
    /// first submission.
    pub by_hour: Vec<f64>,
    /// Arrivals by day of the week, relative to the mean; from Monday if the source has a calendar.
    pub by_day: Vec<f64>,
    /// Whether hours and days are those of a calendar.
    pub has_calendar: bool,
    /// Duration of recorded jobs by percentile.
    pub run_s: BTreeMap<usize, f64>,
    /// Mean duration.
    pub mean_run_s: f64,
    /// Recorded jobs that never end.
    pub endless: u64,
    /// Jobs by GPUs.
    pub gpus: BTreeMap<String, u64>,
    /// GPUs per job, in the mean.
    pub mean_gpus: f64,
    /// GPU hours of recorded jobs that end.
    pub gpu_hours: f64,
    /// Jobs by end: completed, failed, cancelled; unknown if a model decides.
    pub ends: BTreeMap<&'static str, u64>,
    /// GPU hours over what the cluster offers between the first and the last submission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
}

/// Describes it and prints that.
///
/// # Errors
/// If an input is not sound or an output cannot be written.
pub fn run(options: &DescribeOptions) -> anyhow::Result<()> {
    let cluster = options.cluster.as_deref().map(cluster::open).transpose()?;
    let mut limits = match &cluster {
        Some(file) => Limits::of(&file.cluster),
        None => Limits::none(),
    };
    limits.skip_oversized = options.skip_oversized;
    let extras = Extras {
        profiles: options.profiles.clone(),
        ..Extras::default()
    };
    let source = Source::open(&options.trace)?;
    let loaded = load::load(options.format, source, &extras, &limits)?;
    ensure!(
        !loaded.trace.jobs.is_empty(),
        "{}: no job that could be replayed; hint: is --format right?",
        options.trace.display()
    );
    tell(&notes(&loaded))?;
    let milligpu = cluster.map(|file| file.cluster.milligpu());
    let description = Description::of(&loaded, milligpu);
    match &options.json {
        Some(path) => output::write(path, |out| {
            serde_json::to_writer_pretty(&mut *out, &description)?;
            writeln!(out)
        })?,
        None => description.print()?,
    }
    Ok(())
}

fn milligpu(job: &TraceJob) -> u64 {
    let groups = job.spec.groups.iter();
    groups
        .map(|g| u64::from(g.min_workers) * u64::from(g.resources.milligpu))
        .sum()
}

impl Description {
    /// What a workload is like, and what it is for a cluster of so many thousandths of GPUs.
    pub fn of(loaded: &Loaded, cluster_milligpu: Option<u64>) -> Self {
        let jobs = &loaded.trace.jobs;
        let count = jobs.len() as f64;
        let first_ms = jobs.first().map_or(0, |job| job.submit_ms);
        let span_ms = jobs.last().map_or(0, |job| job.submit_ms) - first_ms;
        let arrivals = Arrivals::of(jobs, loaded.began_s);
        let mut run_ms = Vec::new();
        let (mut gpu_ms, mut endless) = (0.0, 0);
        let mut gpus: BTreeMap<u64, u64> = BTreeMap::new();
        let mut ends: BTreeMap<&'static str, u64> = BTreeMap::new();
        for job in jobs {
            let milligpu = milligpu(job);
            *gpus.entry(milligpu).or_default() += 1;
            let end = match &job.truth {
                Truth::Rigid(rigid) if rigid.run_ms == u64::MAX => {
                    endless += 1;
                    "endless"
                }
                Truth::Rigid(rigid) => {
                    run_ms.push(rigid.run_ms);
                    gpu_ms += rigid.run_ms as f64 * milligpu as f64;
                    match rigid.end {
                        End::Completed => "completed",
                        End::Failed => "failed",
                        End::Cancelled => "cancelled",
                    }
                }
                _ => "unknown",
            };
            *ends.entry(end).or_default() += 1;
        }
        run_ms.sort_unstable();
        let at = |percent: usize| {
            let index = (run_ms.len() * percent / 100).min(run_ms.len().saturating_sub(1));
            run_ms.get(index).map_or(0.0, |ms| *ms as f64 / 1_000.0)
        };
        let all_gpus: u64 = gpus.iter().map(|(size, jobs)| size * jobs).sum();
        let offered = cluster_milligpu.map(|offered| offered as f64 * span_ms as f64);
        let queues: BTreeSet<&str> = jobs.iter().map(|job| job.spec.queue.as_str()).collect();
        let (users, top_tenth_of_users) = users(jobs);
        Self {
            trace: loaded.trace.name.clone(),
            jobs: jobs.len() as u64,
            users,
            top_tenth_of_users,
            queues: queues.len() as u64,
            days: span_ms as f64 / DAY_MS as f64,
            jobs_per_hour: count / (span_ms as f64 / HOUR_MS as f64).max(1e-9),
            dispersion: arrivals.dispersion,
            by_hour: arrivals.by_hour,
            by_day: arrivals.by_day,
            has_calendar: loaded.began_s.is_some(),
            run_s: PERCENTILES.into_iter().map(|p| (p, at(p))).collect(),
            mean_run_s: run_ms.iter().map(|ms| *ms as f64).sum::<f64>()
                / (run_ms.len() as f64).max(1.0)
                / 1_000.0,
            endless,
            mean_gpus: all_gpus as f64 / 1_000.0 / count.max(1.0),
            gpus: (gpus.into_iter())
                .map(|(size, jobs)| (format!("{}", size as f64 / 1_000.0), jobs))
                .collect(),
            gpu_hours: gpu_ms / 1_000.0 / HOUR_MS as f64,
            ends,
            load: offered
                .filter(|offered| *offered > 0.0)
                .map(|offered| gpu_ms / offered),
        }
    }

    /// What there is to say, line by line.
    fn rows(&self) -> Vec<(String, String)> {
        let seconds = |s: f64| {
            let whole = std::time::Duration::from_secs(s as u64);
            format!("{s:.1} s ({})", humantime::format_duration(whole))
        };
        let mut rows = vec![
            ("workload".to_owned(), self.trace.clone()),
            (
                "jobs".into(),
                format!("{} over {:.1} days", self.jobs, self.days),
            ),
            (
                "users".into(),
                format!(
                    "{}; the busiest tenth sent {:.0} %",
                    self.users,
                    self.top_tenth_of_users * 100.0
                ),
            ),
            ("queues".into(), self.queues.to_string()),
            (
                "arrivals".into(),
                format!(
                    "{:.1} per hour, variance {:.1} x the mean",
                    self.jobs_per_hour, self.dispersion
                ),
            ),
            ("duration, mean".into(), seconds(self.mean_run_s)),
        ];
        let runs = self.run_s.iter();
        rows.extend(runs.map(|(percent, s)| (format!("  {percent} %"), seconds(*s))));
        rows.push((
            "GPUs per job, mean".into(),
            format!("{:.2}", self.mean_gpus),
        ));
        rows.push(("GPU hours".into(), format!("{:.1}", self.gpu_hours)));
        let ends = self.ends.iter();
        rows.extend(ends.map(|(end, jobs)| {
            let share = *jobs as f64 / self.jobs as f64 * 100.0;
            (format!("  {end}"), format!("{jobs} ({share:.1} %)"))
        }));
        if let Some(load) = self.load {
            rows.push((
                "load of the cluster".into(),
                format!("{:.1} %", load * 100.0),
            ));
        }
        rows
    }

    fn print(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        for (name, value) in self.rows() {
            table.add_row([name, value]);
        }
        writeln!(out, "{table}")?;
        let sizes = self
            .gpus
            .iter()
            .map(|(size, jobs)| (size.clone(), *jobs as f64));
        let mut sizes: Vec<(String, f64)> = sizes.collect();
        sizes.sort_by(|a, b| b.1.total_cmp(&a.1));
        sizes.truncate(16);
        bars(&mut out, "jobs by GPUs, the commonest sizes", &sizes)?;
        let hours = (0..)
            .zip(&self.by_hour)
            .map(|(hour, share)| (format!("{hour:02}"), *share));
        let origin = if self.has_calendar {
            ""
        } else {
            ", counted from the first"
        };
        let title = format!("arrivals by hour of the day, 1 is the mean{origin}");
        bars(&mut out, &title, &hours.collect::<Vec<_>>())?;
        let names = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        let days = (0..)
            .zip(&self.by_day)
            .map(|(day, share)| match self.has_calendar {
                true => (names[day % 7].to_owned(), *share),
                false => (format!("day {}", day + 1), *share),
            });
        bars(
            &mut out,
            "arrivals by day of the week, 1 is the mean",
            &days.collect::<Vec<_>>(),
        )
    }
}

fn users(jobs: &[TraceJob]) -> (u64, f64) {
    let mut by_user: BTreeMap<&str, u64> = BTreeMap::new();
    for job in jobs {
        *by_user.entry(job.spec.user.as_str()).or_default() += 1;
    }
    let mut counts: Vec<u64> = by_user.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let top: u64 = counts.iter().take(counts.len().div_ceil(10)).sum();
    (
        counts.len() as u64,
        top as f64 / (jobs.len() as f64).max(1.0),
    )
}

struct Arrivals {
    by_hour: Vec<f64>,
    by_day: Vec<f64>,
    dispersion: f64,
}

impl Arrivals {
    fn of(jobs: &[TraceJob], began_s: Option<i64>) -> Self {
        // Hours since some Monday's midnight, if there is a calendar.
        let offset_ms = began_s.map_or(0, |s| {
            (s + FIRST_MONDAY_HOURS * 3_600).rem_euclid(7 * 86_400) * 1_000
        });
        let offset_ms = offset_ms.unsigned_abs();
        let mut hours: BTreeMap<u64, u64> = BTreeMap::new();
        for job in jobs {
            *hours
                .entry((job.submit_ms + offset_ms) / HOUR_MS)
                .or_default() += 1;
        }
        let (mut by_hour, mut by_day) = ([0u64; 24], [0u64; 7]);
        for (hour, count) in &hours {
            by_hour[(hour % 24) as usize] += count;
            by_day[(hour / 24 % 7) as usize] += count;
        }
        let first = hours.keys().next().copied().unwrap_or(0);
        let last = hours.keys().next_back().copied().unwrap_or(0);
        let span = (last - first + 1) as f64;
        let mean = jobs.len() as f64 / span;
        let squares: f64 = hours.values().map(|count| (*count as f64).powi(2)).sum();
        let shares = |counts: &[u64]| {
            let mean = jobs.len() as f64 / counts.len() as f64;
            counts.iter().map(|count| *count as f64 / mean).collect()
        };
        Self {
            by_hour: shares(&by_hour),
            by_day: shares(&by_day),
            dispersion: (squares / span - mean * mean) / mean,
        }
    }
}

fn bars(out: &mut impl Write, title: &str, rows: &[(String, f64)]) -> std::io::Result<()> {
    writeln!(out, "\n{title}")?;
    let most = rows.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    for (name, value) in rows {
        let width = if most > 0.0 {
            (value / most * BAR).round()
        } else {
            0.0
        };
        let bar = "█".repeat(width as usize);
        let value = if value.fract() == 0.0 {
            format!("{value:.0}")
        } else {
            format!("{value:.2}")
        };
        writeln!(out, "  {name:>6} {bar} {value}")?;
    }
    Ok(())
}
