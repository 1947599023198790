//! `berth-sim compare`: several policies on one workload, with several seeds each, side by side.
//!
//! [`runs`] spreads the runs over threads, [`statistics`] makes means with confidence intervals of them, `markdown`
//! writes the report and `plots` the pictures beside it. Ctrl-C ends with a report of what is finished.

mod markdown;
mod plots;
pub mod runs;
pub mod statistics;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;

use crate::experiment::run::tell;
use crate::experiment::{Workload, WorkloadOptions, bounds};
use crate::load::Format;
use crate::output::{self, INTERRUPTED, Interrupt};
use markdown::Report;
use runs::{Run, RunFailed};

/// What to compare.
#[derive(Clone, Debug, Args)]
pub struct CompareOptions {
    /// What runs on what.
    #[command(flatten)]
    pub workload: WorkloadOptions,
    /// Policies with commas between them, such as `fifo,las:queues=3,srtf`; the first one is what the others are
    /// compared with. Upper bounds as in `run`.
    #[arg(long, value_name = "A,B")]
    pub policies: String,
    /// How many seeds each policy runs with, from 0.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub seeds: u64,
    /// The report, in Markdown. Pictures go beside it, as SVG.
    #[arg(long, value_name = "OUT.md")]
    pub report: PathBuf,
    /// Threads; one per core if 0.
    #[arg(long, short = 'j', default_value_t = 0)]
    pub jobs: usize,
}

/// Runs all of it and writes the report.
///
/// # Errors
/// If an input is not sound or an output cannot be written. A run that breaks off is told in the report.
pub fn run(options: &CompareOptions) -> anyhow::Result<ExitCode> {
    let policies = split(&options.policies);
    for policy in &policies {
        bounds::check(policy, options.workload.format)?;
    }
    ensure!(
        !policies.is_empty(),
        "--policies: empty; hint: such as fifo,srtf"
    );
    ensure!(
        options.report.as_os_str() != "-",
        "--report -: pictures lie beside the report; hint: name a file, such as report.md"
    );
    output::check_writable(&options.report)?;
    let first = Workload::open(&options.workload, &policies[0])?;
    tell(&first.notes)?;
    // Only jobs of Sia's workloads are read differently for different policies.
    let differ = options.workload.format == Format::Sia;
    let mut workloads = vec![first];
    for policy in &policies[1..] {
        let next = match differ {
            true => Workload::open(&options.workload, policy)?,
            false => workloads[0].clone().under(policy),
        };
        workloads.push(next);
    }
    let workload = &workloads[0];
    let interrupt = Interrupt::listen();
    let wanted = runs::Plan {
        workloads: &workloads,
        policies: &policies,
        seeds: options.seeds,
        threads: options.jobs,
    };
    let (finished, failed) = wanted.carry_out(&interrupt);
    let is_whole = finished.len() as u64 == policies.len() as u64 * options.seeds;
    write_report(options, &policies, workload, &finished, &failed)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", markdown::table_for_people(&policies, &finished))?;
    writeln!(out, "report: {}", options.report.display())?;
    for failure in &failed {
        writeln!(std::io::stderr(), "error: {failure}")?;
    }
    Ok(match (interrupt.pressed(), is_whole) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

/// Commas stand between policies, and between the settings of one: what has a value and no name of its own is a setting
/// of the policy before.
fn split(text: &str) -> Vec<String> {
    let mut policies: Vec<String> = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let named = part
            .split('=')
            .next()
            .is_some_and(|head| head.contains([':', '+']));
        match policies.last_mut() {
            Some(last) if part.contains('=') && !named => {
                last.push(',');
                last.push_str(part.trim());
            }
            _ => policies.push(part.trim().to_owned()),
        }
    }
    policies
}

fn write_report(
    options: &CompareOptions,
    policies: &[String],
    workload: &Workload,
    finished: &[Run],
    failed: &[RunFailed],
) -> anyhow::Result<()> {
    let pictures = plots::draw(policies, workload, finished)?;
    let stem = options
        .report
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let mut names = Vec::new();
    for picture in &pictures {
        let name = format!("{stem}-{}.svg", picture.name);
        let path = options.report.with_file_name(&name);
        output::write(&path, |out| out.write_all(picture.svg.as_bytes()))?;
        names.push((picture.title.clone(), name));
    }
    let report = Report {
        policies,
        seeds: options.seeds,
        workload,
        load: options.workload.load,
        finished,
        failed,
        pictures: &names,
    };
    output::write(&options.report, |out| report.write(out))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn settings_stay_with_their_policy() {
        let cases = [
            ("fifo,srtf", vec!["fifo", "srtf"]),
            (
                "las:queues=3,base=2,fifo",
                vec!["las:queues=3,base=2", "fifo"],
            ),
            (
                "soft+fifo:backfill=easy, srtf",
                vec!["soft+fifo:backfill=easy", "srtf"],
            ),
            ("", vec![]),
        ];
        for (text, wanted) in cases {
            assert_eq!(super::split(text), wanted, "{text}");
        }
    }
}
