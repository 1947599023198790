//! What a campaign has to say: a table, or JSON, and the log of what failed.

use std::collections::BTreeMap;
use std::io::{self, Write};

use berth_world::{Digest, FaultKind, Options};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;

use crate::chaos::{Campaign, Outcome};
use crate::cli::{ChaosOptions, Output};

/// Sums over all seeds. The keys are stable.
#[derive(Debug, Default, Serialize)]
pub struct Totals {
    /// Seeds that ran.
    pub seeds: u64,
    /// Seeds asked for.
    pub seeds_asked: u64,
    /// Virtual time simulated.
    pub virtual_seconds: u64,
    /// Real time.
    pub seconds: f64,
    /// Seeds per second.
    pub seeds_per_second: f64,
    /// Inputs given to masters' replicas.
    pub inputs: u64,
    /// Events in all logs.
    pub events: u64,
    /// Leaders that came to serve.
    pub elections: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Log entries applied.
    pub applied: u64,
    /// Disk writes lost in crashes.
    pub writes_lost: u64,
    /// Messages sent, lost by chance, lost in cuts, doubled, overtaken.
    pub messages: [u64; 5],
    /// Faults that struck, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Jobs acknowledged.
    pub jobs_acknowledged: u64,
    /// Jobs that ended well.
    pub jobs_completed: u64,
    /// Jobs that ended badly, as they should.
    pub jobs_failed: u64,
    /// Jobs cancelled.
    pub jobs_cancelled: u64,
    /// Jobs ended by their limit.
    pub jobs_timed_out: u64,
    /// Attempts beyond each job's first.
    pub jobs_restarted: u64,
    /// Processes started.
    pub processes: u64,
    /// Broken promises.
    pub violations: u64,
    /// Hash over the hashes of all event logs, in order of the seeds.
    pub hash: String,
    /// What failed.
    pub failures: Vec<Failure>,
}

/// A seed that broke a promise.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The promise, and how it was broken.
    pub what: String,
    /// Runs it again.
    pub command: String,
}

impl Totals {
    /// Sums up a campaign.
    pub fn of(campaign: &Campaign) -> Self {
        let mut totals = Totals {
            seeds: campaign.outcomes.len() as u64,
            seeds_asked: campaign.asked as u64,
            seconds: campaign.took.as_secs_f64(),
            ..Totals::default()
        };
        let mut hashes = Vec::new();
        let mut virtual_ms = 0;
        for report in campaign.reports() {
            virtual_ms += report.virtual_ms;
            totals.inputs += report.inputs;
            totals.events += report.events;
            totals.elections += report.elections;
            totals.snapshots += report.snapshots;
            totals.applied += report.applied;
            totals.writes_lost += report.lost_writes;
            let n = report.network;
            let counts = [n.sent, n.lost, n.cut, n.doubled, n.late];
            for (sum, count) in totals.messages.iter_mut().zip(counts) {
                *sum += count;
            }
            for (kind, count) in &report.faults {
                *totals.faults.entry(kind.name()).or_default() += count;
            }
            totals.jobs_acknowledged += report.jobs.acknowledged;
            totals.jobs_completed += report.jobs.completed;
            totals.jobs_failed += report.jobs.failed;
            totals.jobs_cancelled += report.jobs.cancelled;
            totals.jobs_timed_out += report.jobs.timed_out;
            totals.jobs_restarted += report.jobs.restarts;
            totals.processes += report.jobs.spawned;
            hashes.push((report.seed, report.hash));
        }
        totals.virtual_seconds = virtual_ms / 1000;
        totals.seeds_per_second = totals.seeds as f64 / totals.seconds.max(0.001);
        totals.hash = format!("{:016x}", Digest::of(&hashes));
        totals.failures = campaign.failures().map(Failure::of).collect();
        totals.violations = totals.failures.len() as u64;
        totals
    }
}

impl Failure {
    fn of(outcome: &Outcome) -> Self {
        let seed = outcome.seed();
        Self {
            seed,
            what: outcome.failure().unwrap_or_default(),
            command: format!("berth-sim chaos --seed {seed} --verbose"),
        }
    }
}

/// Prints a campaign as asked.
///
/// # Errors
/// If the output cannot be written.
pub fn print(campaign: &Campaign, options: &ChaosOptions) -> anyhow::Result<()> {
    let totals = Totals::of(campaign);
    let mut out = io::stdout().lock();
    if options.output == Output::Json {
        serde_json::to_writer_pretty(&mut out, &totals)?;
        writeln!(out)?;
        return Ok(());
    }
    if let (Some(seed), true) = (options.seed, options.verbose) {
        writeln!(out, "{:#?}", Options::draw(seed))?;
        for line in campaign.reports().flat_map(|report| &report.lines) {
            writeln!(out, "{line}")?;
        }
    }
    let told = options.seed.is_some() && options.verbose;
    for outcome in campaign.failures() {
        print_failure(&mut out, outcome, !told)?;
    }
    writeln!(out, "{}", table(&totals))?;
    Ok(())
}

fn print_failure(out: &mut impl Write, outcome: &Outcome, with_lines: bool) -> io::Result<()> {
    let failure = Failure::of(outcome);
    if let (Outcome::Ran(report), true) = (outcome, with_lines) {
        writeln!(out, "seed {}: the last lines of its log", failure.seed)?;
        for line in &report.lines {
            writeln!(out, "  {line}")?;
        }
    }
    writeln!(
        out,
        "seed {} broke a promise: {}",
        failure.seed, failure.what
    )?;
    writeln!(out, "again: {}\n", failure.command)
}

fn table(totals: &Totals) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    let faults: u64 = totals.faults.values().sum();
    let [sent, lost, cut, doubled, late] = totals.messages;
    let rows = [
        (
            "seeds",
            format!("{} of {}", totals.seeds, totals.seeds_asked),
        ),
        (
            "seeds per second",
            format!("{:.1}", totals.seeds_per_second),
        ),
        ("virtual time", format!("{} s", totals.virtual_seconds)),
        ("real time", format!("{:.1} s", totals.seconds)),
        ("inputs to masters", totals.inputs.to_string()),
        ("events", totals.events.to_string()),
        ("leaders elected", totals.elections.to_string()),
        ("entries applied", totals.applied.to_string()),
        ("snapshots", totals.snapshots.to_string()),
        ("disk writes lost", totals.writes_lost.to_string()),
        (
            "messages",
            format!(
                "{sent}, of which {lost} lost, {cut} cut off, {doubled} doubled, {late} overtaken"
            ),
        ),
        ("faults injected", faults.to_string()),
    ];
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    for kind in FaultKind::ALL {
        let count = totals.faults.get(kind.name()).copied().unwrap_or(0);
        table.add_row([format!("  {kind}"), count.to_string()]);
    }
    let rows = [
        ("jobs acknowledged", totals.jobs_acknowledged.to_string()),
        ("  completed", totals.jobs_completed.to_string()),
        ("  failed as they should", totals.jobs_failed.to_string()),
        ("  cancelled", totals.jobs_cancelled.to_string()),
        ("  timed out", totals.jobs_timed_out.to_string()),
        ("restarts", totals.jobs_restarted.to_string()),
        ("processes", totals.processes.to_string()),
        ("violations", totals.violations.to_string()),
        ("hash of hashes", totals.hash.clone()),
    ];
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    table
}
