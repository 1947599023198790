//! The report.

use std::io::{self, Write};

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;

use super::runs::{Run, RunFailed};
use super::statistics::Mean;
use crate::experiment::{RunReport, Workload};

/// A column: its name, decimals, and the figure.
type Column = (&'static str, usize, fn(&RunReport) -> f64);

const COLUMNS: [Column; 11] = [
    ("avg JCT, h", 3, |r| r.avg_jct_s / 3_600.0),
    ("p50 JCT, h", 3, |r| r.p50_jct_s / 3_600.0),
    ("p99 JCT, h", 2, |r| r.p99_jct_s / 3_600.0),
    ("avg queue, h", 3, |r| r.avg_queue_s / 3_600.0),
    ("makespan, h", 2, |r| r.makespan_s / 3_600.0),
    ("GPU use, %", 1, |r| r.gpu_utilisation * 100.0),
    ("restarts per job", 2, |r| r.restarts_per_job),
    ("lost GPU h", 1, |r| r.lost_gpu_hours),
    ("fragmentation, %", 1, |r| r.fragmentation * 100.0),
    ("completed", 0, |r| r.completed as f64),
    ("decision p99, ms", 2, |r| r.decision_ms_p99),
];

/// All that the report tells.
pub(super) struct Report<'r> {
    pub(super) policies: &'r [String],
    pub(super) seeds: u64,
    pub(super) workload: &'r Workload,
    pub(super) load: f64,
    pub(super) finished: &'r [Run],
    pub(super) failed: &'r [RunFailed],
    pub(super) pictures: &'r [(String, String)],
}

fn of_policy<'r>(policy: &'r str, runs: &'r [Run]) -> impl Iterator<Item = &'r RunReport> {
    let of = runs.iter().filter(move |run| run.policy == policy);
    of.map(|run| &run.report)
}

fn mean(policy: &str, runs: &[Run], figure: fn(&RunReport) -> f64) -> Option<Mean> {
    let values: Vec<f64> = of_policy(policy, runs).map(figure).collect();
    Mean::of(&values)
}

/// A few columns for a terminal.
pub(super) fn table_for_people(policies: &[String], runs: &[Run]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    let shown = [0, 2, 3, 4, 5, 6].map(|index| COLUMNS[index]);
    let names = shown.iter().map(|(name, _, _)| (*name).to_owned());
    table.set_header(["policy".to_owned()].into_iter().chain(names));
    for policy in policies {
        let cells = shown.iter().map(|(_, decimals, figure)| {
            mean(policy, runs, *figure).map_or_else(|| "-".to_owned(), |m| m.text(*decimals))
        });
        table.add_row([policy.clone()].into_iter().chain(cells));
    }
    table
}

impl Report<'_> {
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let setting = &self.workload.setting;
        let gpus = setting.cluster.milligpu() as f64 / 1_000.0;
        writeln!(
            out,
            "# {} on {}\n",
            setting.trace.name, setting.cluster.name
        )?;
        writeln!(
            out,
            "{} jobs on {gpus} GPUs of {} nodes, arrivals {} times as fast as recorded; {} seeds per policy.",
            setting.trace.jobs.len(),
            setting.cluster.nodes.len(),
            self.load,
            self.seeds,
        )?;
        writeln!(
            out,
            "Means over seeds with 95 % confidence intervals (Student's t); without ± all seeds agree."
        )?;
        writeln!(out)?;
        for note in &self.workload.notes {
            writeln!(out, "- {note}")?;
        }
        writeln!(out)?;
        let wanted = self.policies.len() as u64 * self.seeds;
        if (self.finished.len() as u64) < wanted {
            let finished = self.finished.len();
            writeln!(out, "**Only {finished} of {wanted} runs are finished.**\n")?;
        }
        self.write_table(out)?;
        self.write_compared(out)?;
        for failure in self.failed {
            writeln!(out, "- broke off: {failure}")?;
        }
        for (title, file) in self.pictures {
            writeln!(out, "\n## {title}\n\n![{title}]({file})")?;
        }
        Ok(())
    }

    fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let names = COLUMNS.iter().map(|(name, _, _)| *name);
        let names: Vec<&str> = ["policy", "runs"].into_iter().chain(names).collect();
        writeln!(out, "| {} |", names.join(" | "))?;
        writeln!(out, "|{}", " --- |".repeat(names.len()))?;
        for policy in self.policies {
            let runs = of_policy(policy, self.finished).count();
            write!(out, "| {policy} | {runs} |")?;
            for (_, decimals, figure) in COLUMNS {
                let cell = mean(policy, self.finished, figure).map(|m| m.text(decimals));
                write!(out, " {} |", cell.unwrap_or_else(|| "-".to_owned()))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    /// Seed by seed, so that what is common to a seed does not blur the difference.
    fn write_compared(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some((first, others)) = self.policies.split_first() else {
            return Ok(());
        };
        writeln!(out, "\nAverage JCT relative to `{first}`, seed by seed:\n")?;
        for policy in others {
            let ratios = self.finished.iter().filter(|run| run.policy == *policy);
            let ratios: Vec<f64> = ratios
                .filter_map(|run| {
                    let mut firsts = self.finished.iter();
                    let base = firsts.find(|r| r.policy == *first && r.seed == run.seed)?;
                    Some(run.report.avg_jct_s / base.report.avg_jct_s)
                })
                .filter(|ratio| ratio.is_finite())
                .collect();
            if let Some(mean) = Mean::of(&ratios) {
                writeln!(out, "- `{policy}`: {} x", mean.text(3))?;
            }
        }
        Ok(())
    }
}
