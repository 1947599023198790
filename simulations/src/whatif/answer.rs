//! The comparison, for people and scripts.

use std::io::Write;
use std::time::Duration;

use berth_world::twin::Outcome;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use serde::Serialize;

use super::WhatIfOptions;
use super::situation::{Basis, Situation};
use crate::cli::Output;

/// Milliseconds in a second.
const SECOND: f64 = 1_000.0;

/// What a change would do. Times are in seconds from now.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The cluster as it is.
    pub now: Side,
    /// The cluster with the change.
    pub changed: Side,
    /// Every unfinished job, those that change most first.
    pub jobs: Vec<JobAnswer>,
    /// What the figures rest on.
    pub assumptions: Vec<String>,
}

/// One of both.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// The policy.
    pub policy: String,
    /// GPUs in service.
    pub gpus: f64,
    /// Jobs that would still wait a second from now.
    pub waiting: usize,
    /// Jobs that would never start.
    pub never: usize,
    /// Mean time until those that wait now start; those that never do left out.
    pub mean_wait_s: Option<f64>,
    /// Mean time until a job ends; those that never do left out.
    pub mean_end_s: Option<f64>,
    /// Until the last one ends.
    pub all_done_s: Option<f64>,
}

/// One job.
#[derive(Clone, Debug, Serialize)]
pub struct JobAnswer {
    /// Its id; absent for one that is only asked about.
    pub job: Option<u64>,
    /// Its name.
    pub name: String,
    /// Its user.
    pub user: String,
    /// True if it runs now.
    pub running: bool,
    /// Where its duration comes from: `history`, `submitter`, `others` or `nothing`.
    pub duration_from: &'static str,
    /// Until it starts, as things are: 0 if it runs; `None` if it never does, or is not there.
    pub wait_s: Option<f64>,
    /// The same with the change.
    pub wait_changed_s: Option<f64>,
    /// Until it ends, as things are.
    pub end_s: Option<f64>,
    /// The same with the change.
    pub end_changed_s: Option<f64>,
}

/// When the jobs of a situation start and end.
struct Times {
    wait_s: Vec<Option<f64>>,
    end_s: Vec<Option<f64>>,
}

impl Times {
    fn of(situation: &Situation, outcome: &Outcome) -> Self {
        let from_now = |at_ms: u64| at_ms.saturating_sub(situation.now_ms) as f64 / SECOND;
        let jobs = || outcome.jobs.iter();
        Self {
            wait_s: jobs().map(|job| job.first_start_ms.map(from_now)).collect(),
            end_s: jobs().map(|job| job.end_ms.map(from_now)).collect(),
        }
    }

    fn side(&self, situation: &Situation, policy: &str) -> Side {
        let pending = || {
            let jobs = situation.jobs.iter().zip(&self.wait_s);
            jobs.filter(|(job, _)| !job.running).map(|(_, wait)| *wait)
        };
        let ends: Vec<f64> = self.end_s.iter().copied().flatten().collect();
        let waits: Vec<f64> = pending().flatten().collect();
        Side {
            policy: policy.to_owned(),
            gpus: situation.milligpu as f64 / f64::from(berth_types::MILLI),
            waiting: pending()
                .filter(|wait| wait.is_none_or(|s| s >= 1.0))
                .count(),
            never: pending().filter(Option::is_none).count(),
            mean_wait_s: mean(&waits),
            mean_end_s: mean(&ends),
            all_done_s: ends.into_iter().reduce(f64::max),
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

impl Answer {
    /// Compares a situation with the same one changed, under these policies. The changed one has the same jobs in front.
    pub fn new(
        now: (&Situation, &Outcome),
        changed: (&Situation, &Outcome),
        policies: (&str, &str),
    ) -> Self {
        let before = Times::of(now.0, now.1);
        let after = Times::of(changed.0, changed.1);
        let jobs = changed.0.jobs.iter().enumerate();
        let mut jobs: Vec<JobAnswer> = jobs
            .map(|(index, job)| JobAnswer {
                job: job.id.map(|id| id.0),
                name: job.spec.name.clone(),
                user: job.spec.user.clone(),
                running: job.running,
                duration_from: job.basis.as_str(),
                wait_s: before.wait_s.get(index).copied().flatten(),
                wait_changed_s: after.wait_s[index],
                end_s: before.end_s.get(index).copied().flatten(),
                end_changed_s: after.end_s[index],
            })
            .collect();
        jobs.sort_by(|a, b| b.moved_s().total_cmp(&a.moved_s()).then(a.job.cmp(&b.job)));
        Self {
            now: before.side(now.0, policies.0),
            changed: after.side(changed.0, policies.1),
            jobs,
            assumptions: assumptions(changed.0),
        }
    }

    pub(super) fn print(&self, options: &WhatIfOptions) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match options.output {
            Output::Json => {
                serde_json::to_writer_pretty(&mut out, self)?;
                writeln!(out)?;
            }
            Output::Table => writeln!(out, "{}", self.table(options.limit))?,
        }
        Ok(())
    }

    fn table(&self, limit: usize) -> String {
        let mut sides = Table::new();
        sides.load_style(UTF8_BORDERS_ONLY);
        sides.set_header(["", "NOW", "WITH THE CHANGE"]);
        let (now, changed) = (&self.now, &self.changed);
        let mut row = |what: &str, value: &dyn Fn(&Side) -> String| {
            sides.add_row([what.to_owned(), value(now), value(changed)]);
        };
        row("policy", &|side| side.policy.clone());
        row("GPUs in service", &|side| side.gpus.to_string());
        row("jobs that wait", &|side| side.waiting.to_string());
        row("jobs that never start", &|side| side.never.to_string());
        row("mean time to start", &|side| shown(side.mean_wait_s));
        row("mean time to end", &|side| shown(side.mean_end_s));
        row("all done in", &|side| shown(side.all_done_s));
        let mut jobs = Table::new();
        jobs.load_style(UTF8_BORDERS_ONLY);
        jobs.set_header([
            "JOB",
            "NAME",
            "USER",
            "STARTS IN",
            "WITH",
            "ENDS IN",
            "WITH",
        ]);
        for job in self.jobs.iter().take(limit) {
            let wait = |s: Option<f64>| match job.running {
                true => "runs".to_owned(),
                false => shown(s),
            };
            jobs.add_row([
                job.job.map_or("(new)".to_owned(), |id| id.to_string()),
                job.name.clone(),
                job.user.clone(),
                wait(job.wait_s),
                wait(job.wait_changed_s),
                shown(job.end_s),
                shown(job.end_changed_s),
            ]);
        }
        let hidden = self.jobs.len().saturating_sub(limit);
        let mut text = sides.to_string();
        if !self.jobs.is_empty() && limit > 0 {
            text += &format!("\n{jobs}");
        }
        if hidden > 0 {
            text += &format!("\n{hidden} more jobs, which change less: --limit shows them");
        }
        for assumption in &self.assumptions {
            text += &format!("\nassumed: {assumption}");
        }
        text
    }
}

impl JobAnswer {
    /// By how much its end or its start moves; what appears or vanishes moves most.
    fn moved_s(&self) -> f64 {
        let moved = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs(),
            (None, None) => 0.0,
            _ => f64::MAX,
        };
        moved(self.wait_s, self.wait_changed_s).max(moved(self.end_s, self.end_changed_s))
    }
}

fn assumptions(situation: &Situation) -> Vec<String> {
    let count = |basis: Basis| {
        let jobs = situation.jobs.iter();
        jobs.filter(|job| job.basis == basis).count()
    };
    let sources = [
        (Basis::History, "like jobs of theirs that completed"),
        (Basis::Said, "as their submitters said"),
        (Basis::Others, "like other jobs that completed"),
        (Basis::Nothing, "an hour, since nothing is known of them"),
    ];
    let parts: Vec<String> = (sources.into_iter())
        .map(|(basis, text)| (count(basis), text))
        .filter(|(count, _)| *count > 0)
        .map(|(count, text)| format!("{count} {text}"))
        .collect();
    let mut all = vec!["nothing else is submitted, and nothing fails".to_owned()];
    if !parts.is_empty() {
        all.push(format!("jobs run: {}", parts.join(", ")));
    }
    all
}

/// Seconds for people; `never` if there are none.
fn shown(seconds: Option<f64>) -> String {
    match seconds {
        Some(seconds) => {
            let whole = Duration::from_secs(seconds.round() as u64);
            humantime::format_duration(whole).to_string()
        }
        None => "never".to_owned(),
    }
}
