//! What came out of a run: JSON with stable keys, one row per job, a table for people.

use std::collections::BTreeMap;
use std::io::{self, Write};

use berth_types::Outcome;
use berth_world::twin::{JobOutcome, NodeUse};
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use serde::Serialize;

use super::{Measured, Workload};

/// Milliseconds in a second.
const SECOND: f64 = 1_000.0;
/// Milliseconds in an hour.
const HOUR: f64 = 3_600_000.0;
/// Thousandths of a GPU times milliseconds in one GPU-second.
const GPU_SECOND: f64 = 1e6;
/// Arrived load at which packing runs are compared, in percent of the cluster.
const PACKED_AT: std::ops::RangeInclusive<u64> = 80..=130;

/// A run as JSON. Times are in seconds, shares from 0 to 1.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// The policy.
    pub policy: String,
    /// The workload.
    pub trace: String,
    /// Jobs in it.
    pub jobs: u64,
    /// Jobs that came to their own end.
    pub completed: u64,
    /// Mean time from submission to end, over completed jobs.
    pub avg_jct_s: f64,
    /// Median of the same.
    pub p50_jct_s: f64,
    /// 90th percentile.
    pub p90_jct_s: f64,
    /// 99th percentile.
    pub p99_jct_s: f64,
    /// Mean time without a place.
    pub avg_queue_s: f64,
    /// From the first submission to the last end.
    pub makespan_s: f64,
    /// GPU time held.
    pub gpu_hours: f64,
    /// The same as a share of what was in service.
    pub gpu_utilisation: f64,
    /// Attempts beyond the first, per job.
    pub restarts_per_job: f64,
    /// GPU time whose work had to be done again.
    pub lost_gpu_hours: f64,
    /// Share of the free GPU time that a random job of the trace could not have used.
    pub fragmentation: f64,
    /// Times that the policy was asked.
    pub decisions: u64,
    /// Median of what one decision took, in real milliseconds.
    pub decision_ms_p50: f64,
    /// 99th percentile.
    pub decision_ms_p99: f64,
    /// Planning rounds.
    pub rounds: u64,
    /// Real seconds that the run took.
    pub wall_s: f64,
    /// True if Ctrl-C ended the run early: figures are of what had happened until then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// Node time held by all pools, in hours.
    pub node_hours: f64,
    /// What that costs at the pools' prices.
    pub cost: f64,
    /// Pools of the cluster file, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pools: BTreeMap<String, PoolReport>,
    /// Packing runs only: share of all GPUs that is allocated, in percent, by what has arrived, in percent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gpu_allocation_at: BTreeMap<Percent, f64>,
    /// Every job, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_job: Option<Vec<JobRow>>,
}

/// The nodes of a pool over a run.
#[derive(Clone, Debug, Serialize)]
pub struct PoolReport {
    /// Node time held, boots and repairs included.
    pub node_hours: f64,
    /// What that costs.
    pub cost: f64,
    /// Most nodes at once.
    pub most_nodes: u32,
    /// Nodes that were asked for and granted.
    pub granted: u64,
    /// Requests for a node that were denied.
    pub denied: u64,
}

/// A key that is a number of percent, in order of size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u64);

impl Serialize for Percent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// What became of one job.
#[derive(Clone, Debug, Serialize)]
pub struct JobRow {
    /// Its name in the source.
    pub job: String,
    /// Who submitted it.
    pub user: String,
    /// GPUs at the size that it asks for at least.
    pub gpus: f64,
    /// Submission, in seconds from the trace's start.
    pub submit_s: f64,
    /// First placement; none if there was none.
    pub start_s: Option<f64>,
    /// End; none if it has not ended.
    pub end_s: Option<f64>,
    /// From submission to end.
    pub jct_s: Option<f64>,
    /// Time without a place, up to its end.
    pub queue_s: Option<f64>,
    /// Attempts beyond the first.
    pub restarts: u32,
    /// GPU time held.
    pub gpu_s: f64,
    /// Of that, for work that had to be done again.
    pub lost_gpu_s: f64,
    /// Of that, for starting and restarting.
    pub restart_gpu_s: f64,
    /// How it ended: completed, failed, cancelled, timed_out, node_lost, rejected, unfinished.
    pub outcome: &'static str,
    /// GPU models that it used, in the order of first use, with `+` between them.
    pub gpu_models: String,
}

impl RunReport {
    /// The report of a run; with every job if asked for.
    pub fn of(measured: &Measured, workload: &Workload, per_job: bool) -> Self {
        let setting = &workload.setting;
        let figures = (measured.outcome).figures(&measured.policy, &setting.trace.name);
        let capacity = setting.cluster.milligpu();
        let packed = PACKED_AT.filter(|_| workload.packing).filter_map(|at| {
            let allocated = measured.outcome.gpu_allocation_at(at, capacity)?;
            Some((Percent(at), allocated))
        });
        let nodes = measured.outcome.nodes.iter();
        let pools = nodes.clone().filter(|used| !used.pool.is_empty());
        let pools = pools.map(|used| (used.pool.clone(), PoolReport::of(used)));
        Self {
            policy: figures.policy,
            trace: figures.trace,
            jobs: figures.jobs,
            completed: figures.completed,
            avg_jct_s: figures.avg_jct_s,
            p50_jct_s: figures.p50_jct_s,
            p90_jct_s: figures.p90_jct_s,
            p99_jct_s: figures.p99_jct_s,
            avg_queue_s: figures.avg_queue_s,
            makespan_s: figures.makespan_s,
            gpu_hours: figures.gpu_hours,
            gpu_utilisation: figures.gpu_utilisation,
            restarts_per_job: figures.restarts_per_job,
            lost_gpu_hours: figures.lost_gpu_hours,
            fragmentation: figures.fragmentation,
            decisions: figures.decisions,
            decision_ms_p50: measured.decision_ms_p50,
            decision_ms_p99: measured.decision_ms_p99,
            rounds: figures.rounds,
            wall_s: measured.wall_s,
            interrupted: measured.outcome.cut,
            node_hours: nodes.clone().map(|used| used.held_ms as f64 / HOUR).sum(),
            cost: nodes.clone().map(|used| used.cost).sum(),
            pools: pools.collect(),
            gpu_allocation_at: packed.collect(),
            per_job: per_job.then(|| rows(measured, workload)),
        }
    }

    /// A short table for people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        let hours = |seconds: f64| {
            let whole = std::time::Duration::from_secs(seconds.max(0.0) as u64);
            format!("{seconds:.1} s ({})", humantime::format_duration(whole))
        };
        let share = |share: f64| format!("{:.1} %", share * 100.0);
        let rows = [
            ("policy", self.policy.clone()),
            ("workload", self.trace.clone()),
            (
                "jobs completed",
                format!("{} of {}", self.completed, self.jobs),
            ),
            ("time to completion, mean", hours(self.avg_jct_s)),
            ("  median", hours(self.p50_jct_s)),
            ("  90th percentile", hours(self.p90_jct_s)),
            ("  99th percentile", hours(self.p99_jct_s)),
            ("time in the queue, mean", hours(self.avg_queue_s)),
            ("first submission to last end", hours(self.makespan_s)),
            ("GPU hours held", format!("{:.1}", self.gpu_hours)),
            ("  of what was there", share(self.gpu_utilisation)),
            (
                "  lost to work done again",
                format!("{:.1}", self.lost_gpu_hours),
            ),
            ("restarts per job", format!("{:.2}", self.restarts_per_job)),
            ("fragmentation", share(self.fragmentation)),
            ("decisions", self.decisions.to_string()),
            ("  each, median", format!("{:.3} ms", self.decision_ms_p50)),
            (
                "  each, 99th percentile",
                format!("{:.3} ms", self.decision_ms_p99),
            ),
            ("rounds", self.rounds.to_string()),
            ("real time", format!("{:.2} s", self.wall_s)),
            ("node-hours", format!("{:.1}", self.node_hours)),
        ];
        for (name, value) in rows {
            table.add_row([name.to_owned(), value]);
        }
        if self.cost > 0.0 {
            table.add_row(["  cost".to_owned(), format!("{:.2}", self.cost)]);
        }
        if self.interrupted {
            let so_far = "so far: Ctrl-C ended the run early";
            table.add_row(["interrupted", so_far]);
        }
        for (at, allocated) in &self.gpu_allocation_at {
            if matches!(at.0, 80 | 90 | 95 | 100 | 110 | 130) {
                let name = format!("GPUs allocated at {} % arrived", at.0);
                table.add_row([name, format!("{allocated:.2} %")]);
            }
        }
        table
    }
}

impl PoolReport {
    fn of(used: &NodeUse) -> Self {
        Self {
            node_hours: used.held_ms as f64 / HOUR,
            cost: used.cost,
            most_nodes: used.most,
            granted: used.granted,
            denied: used.denied,
        }
    }
}

fn rows(measured: &Measured, workload: &Workload) -> Vec<JobRow> {
    let jobs = workload.setting.trace.jobs.iter();
    let rows = jobs.zip(&measured.outcome.jobs).map(|(job, outcome)| {
        let gpus = (job.spec.groups.iter())
            .map(|g| f64::from(g.min_workers) * f64::from(g.resources.milligpu) / SECOND)
            .sum();
        JobRow::of(outcome, &job.spec.user, gpus)
    });
    rows.collect()
}

impl JobRow {
    fn of(job: &JobOutcome, user: &str, gpus: f64) -> Self {
        let seconds = |ms: u64| ms as f64 / SECOND;
        let jct_ms = job.end_ms.map(|end| end.saturating_sub(job.submit_ms));
        let models: Vec<&str> = job.gpu_models.iter().map(AsRef::as_ref).collect();
        Self {
            job: job.key.clone(),
            user: user.to_owned(),
            gpus,
            submit_s: seconds(job.submit_ms),
            start_s: job.first_start_ms.map(seconds),
            end_s: job.end_ms.map(seconds),
            jct_s: jct_ms.map(seconds),
            queue_s: jct_ms.map(|jct| seconds(jct.saturating_sub(job.placed_ms))),
            restarts: job.restarts,
            gpu_s: job.ledger.held() as f64 / GPU_SECOND,
            lost_gpu_s: job.ledger.lost as f64 / GPU_SECOND,
            restart_gpu_s: job.ledger.restart as f64 / GPU_SECOND,
            outcome: match job.outcome {
                None => "unfinished",
                Some(Outcome::Completed) => "completed",
                Some(Outcome::Failed { .. }) => "failed",
                Some(Outcome::Cancelled) => "cancelled",
                Some(Outcome::TimedOut) => "timed_out",
                Some(Outcome::NodeLost) => "node_lost",
                Some(Outcome::Rejected) => "rejected",
            },
            gpu_models: models.join("+"),
        }
    }
}

/// Writes one line per job, after a line of names.
///
/// # Errors
/// If it cannot be written.
pub fn write_csv(rows: &[JobRow], out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    for row in rows {
        csv.serialize(row)?;
    }
    csv.flush()
}
