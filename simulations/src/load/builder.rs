//! Collects jobs into a trace and checks what holds for a job of any format.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use berth_types::{GroupSpec, JobSpec, Resources, RestartSpec};
use berth_world::twin::{Rigid, Trace, TraceJob, Truth};

use super::Limits;
use crate::input::{InputError, Place};

/// A workload with what was noticed on the way.
#[derive(Debug)]
pub struct Loaded {
    /// The jobs.
    pub trace: Trace,
    /// The trace's time 0 in seconds since 1970, if the source has a calendar.
    pub began_s: Option<i64>,
    /// Jobs left out because they are larger than the cluster.
    pub oversized: u64,
    /// Rows left out because they are no job that could be replayed, by reason.
    pub skipped: Vec<(&'static str, u64)>,
    /// What is known beforehand of what jobs ask for, one entry per job of the distribution; empty if nothing is.
    pub typical: Vec<Arc<JobSpec>>,
}

/// What a recorded job of a fixed size asks for and does.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its name in the source.
    pub key: String,
    /// When it was submitted, in milliseconds from wherever the source counts.
    pub submit_ms: u64,
    /// What it is called again and again, if the source tells; its key otherwise.
    pub family: String,
    /// Who submitted.
    pub user: String,
    /// Queue, partition or virtual cluster.
    pub queue: String,
    /// Its workers: how many, and what each needs.
    pub workers: (u32, Resources),
    /// Labels that its nodes must have.
    pub node_labels: Vec<(&'static str, String)>,
    /// How long its user said it would run; 0 if unknown.
    pub expected_ms: u64,
    /// What it does.
    pub truth: Rigid,
}

/// Where the source's clock is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its 0 is the trace's.
    Kept,
    /// Its first submission is the trace's 0.
    FirstSubmission,
}

/// Collects jobs.
#[derive(Debug)]
pub struct Builder<'l> {
    limits: &'l Limits,
    lines: HashMap<String, u64>,
    jobs: Vec<TraceJob>,
    oversized: u64,
    skipped: Vec<(&'static str, u64)>,
}

impl<'l> Builder<'l> {
    /// Nothing yet.
    pub fn new(limits: &'l Limits) -> Self {
        Self {
            limits,
            lines: HashMap::new(),
            jobs: Vec::new(),
            oversized: 0,
            skipped: Vec::new(),
        }
    }

    /// Adds a recorded job of a fixed size.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_recorded(&mut self, place: Place, job: Recorded) -> Result<(), InputError> {
        let (count, resources) = job.workers;
        let labels = job.node_labels.into_iter();
        let group = GroupSpec {
            name: "worker".into(),
            command: vec!["replayed".into()],
            min_workers: count,
            max_workers: count,
            gang: true,
            resources,
            node_labels: labels.map(|(k, v)| (k.to_owned(), v)).collect(),
        };
        let name = match job.family.as_str() {
            "" => job.key.replace('/', "_"),
            family => family.to_owned(),
        };
        let spec = JobSpec {
            name,
            user: job.user,
            queue: job.queue,
            groups: vec![group],
            expected_ms: job.expected_ms,
            // What was recorded is one run with its end, so a failure is final.
            restart: RestartSpec {
                max_restarts: 0,
                ..RestartSpec::default()
            },
            ..JobSpec::default()
        };
        self.push(
            place,
            TraceJob {
                key: job.key,
                submit_ms: job.submit_ms,
                spec: Arc::new(spec),
                truth: Truth::Rigid(job.truth),
            },
        )
    }

    /// Adds a job.
    ///
    /// # Errors
    /// If its key is there already, Berth would refuse its spec, or it can never run on the cluster and such jobs are
    /// not to be left out.
    pub fn push(&mut self, place: Place, job: TraceJob) -> Result<(), InputError> {
        if let Some(fault) = job.spec.faults().first() {
            let what = format!("job `{}`: {}: {}", job.key, fault.field, fault.what);
            return Err(place.error(what, fault.hint.clone()));
        }
        match self.lines.entry(job.key.clone()) {
            Entry::Occupied(first) => {
                let what = format!("job `{}` was on line {} already", job.key, first.get());
                return Err(place.error(what, "each job has its own id; drop or rename one"));
            }
            Entry::Vacant(free) => free.insert(place.line),
        };
        if let Some(why) = self.limits.never_fits(&job.spec) {
            if !self.limits.skip_oversized {
                let what = format!("job `{}` is larger than the cluster: {why}", job.key);
                let hint = "choose a larger cluster, or leave such jobs out with --skip-oversized";
                return Err(place.error(what, hint));
            }
            self.oversized += 1;
            return Ok(());
        }
        self.jobs.push(job);
        Ok(())
    }

    /// Notes that a row is no job that could be replayed.
    pub fn skip(&mut self, reason: &'static str) {
        match self.skipped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.skipped.push((reason, 1)),
        }
    }

    /// The trace, by time of submission. `clock_s` is the source's time 0 in seconds since 1970, if it is known.
    pub fn finish(mut self, name: &str, origin: Origin, clock_s: Option<i64>) -> Loaded {
        self.jobs.sort_by_key(|job| job.submit_ms);
        let first_ms = match origin {
            Origin::Kept => 0,
            Origin::FirstSubmission => self.jobs.first().map_or(0, |job| job.submit_ms),
        };
        for job in &mut self.jobs {
            job.submit_ms -= first_ms;
        }
        Loaded {
            trace: Trace {
                name: name.to_owned(),
                jobs: self.jobs,
            },
            began_s: clock_s.map(|s| s.saturating_add_unsigned(first_ms / 1000)),
            oversized: self.oversized,
            skipped: self.skipped,
            typical: Vec::new(),
        }
    }
}
