//! `berth-sim run`: one workload, one policy.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{RunReport, Workload, WorkloadOptions, bounds, measure, report};
use crate::output::{self, Bar, INTERRUPTED, Interrupt};

/// One run.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// What runs on what.
    #[command(flatten)]
    pub workload: WorkloadOptions,
    /// The policy, by the name that masters are configured with; or an upper bound: `alone` (each job as if no other were
    /// there), `sia-true` or `sia-oracle` (sia that knows all speeds beforehand).
    #[arg(long, value_name = "NAME")]
    pub policy: String,
    /// Where all randomness comes from. The same seed gives the same run.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write the figures as JSON to this file (`-`: standard output) instead of printing a table.
    #[arg(long, value_name = "OUT")]
    pub json: Option<PathBuf>,
    /// Write one row per job to this CSV file, and the same rows into the JSON.
    #[arg(long, value_name = "OUT")]
    pub per_job: Option<PathBuf>,
    /// Check every invariant after every round. Slow.
    #[arg(long)]
    pub check: bool,
}

/// Runs it and writes what was asked for. After Ctrl-C that is what happened until then, marked as such, and the exit code
/// is 130.
///
/// # Errors
/// If an input is not sound, the run breaks off, or an output cannot be written.
pub fn run(options: &RunOptions) -> anyhow::Result<ExitCode> {
    bounds::check(&options.policy, options.workload.format)?;
    for path in [&options.json, &options.per_job].into_iter().flatten() {
        output::check_writable(path)?;
    }
    let mut workload = Workload::open(&options.workload, &options.policy)?;
    workload.setting.checks = options.check;
    let mut policy = workload.policy(&options.policy)?;
    tell(&workload.notes)?;
    let jobs = workload.setting.trace.jobs.len() as u64;
    let mut bar = Bar::new(jobs, "jobs");
    let interrupt = Interrupt::listen();
    let measured = measure(&workload, policy.as_mut(), options.seed, &mut |progress| {
        bar.at(progress.finished as u64);
        bar.tell(format!("({} waiting)", progress.waiting));
        interrupt.control()
    })?;
    drop(bar);
    let report = RunReport::of(&measured, &workload, options.per_job.is_some());
    if let (Some(path), Some(rows)) = (&options.per_job, &report.per_job) {
        output::write(path, |out| report::write_csv(rows, out))?;
    }
    match &options.json {
        Some(path) => output::write(path, |out| {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)
        })?,
        None => writeln!(std::io::stdout(), "{}", report.table())?,
    }
    Ok(match report.interrupted {
        true => ExitCode::from(INTERRUPTED),
        false => ExitCode::SUCCESS,
    })
}

/// Says on standard error what was left out.
pub(crate) fn tell(notes: &[String]) -> std::io::Result<()> {
    let mut err = std::io::stderr().lock();
    notes
        .iter()
        .try_for_each(|note| writeln!(err, "note: {note}"))
}
