//! Durations predicted from jobs that ended: of the same user, under like names, of the same size.
//!
//! Source: the rolling estimate of QSSF (Hu et al., "Characterization and prediction of deep learning workloads in
//! large-scale GPU datacenters", SC 2021, section 4.2.2): the durations of a user's earlier jobs of like names, with
//! weights that decay. Its second part, gradient-boosted trees over job attributes, is left out.
//!
//! A policy that owns a [`History`] shows it every [`View`]. What is gone from one view to the next has ended in between,
//! and the state's events say when it began and ended, so this learns in a master exactly as in a simulation. It is kept
//! by the leader only: after a change of leader it learns anew.
//!
//! Deviations: names are alike if they are equal once digits and what separates them are dropped; the paper clusters
//! them by edit distance. Failed and cancelled jobs count, as in the paper's own code.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::policy::View;
use berth_core::state::Job;
use berth_types::JobId;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::duration;

/// Weight of a new duration against all before it, once there are some.
const NEWEST: f64 = 0.1;

/// Most kinds of jobs remembered; the half that was not met for longest is forgotten then.
const MAX_KINDS: usize = 65_536;

/// What jobs can have in common, the most telling first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    UserNameSize(String, String, u64),
    UserName(String, String),
    Name(String),
    UserSize(String, u64),
    User(String),
    QueueSize(String, u64),
    Any,
}

/// A mean with decaying weights.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    ms: f64,
    count: u32,
    /// When it was met last, in ended jobs.
    met: u64,
}

/// Durations of jobs that ended, by what jobs have in common.
#[derive(Clone, Debug, Default)]
pub struct History {
    means: BTreeMap<Kind, Mean>,
    ended: u64,
    /// Jobs of the view before; shared with it.
    jobs: OrdMap<JobId, Arc<Job>>,
    /// The first event that was not seen yet.
    next_event: u64,
}

/// What the events between two views say of a job.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    started_ms: Option<u64>,
    ended_ms: Option<u64>,
}

impl History {
    /// Learns from what ended since the last view. Returns the jobs that are gone.
    pub fn observe(&mut self, view: &View) -> Vec<JobId> {
        let jobs = std::mem::replace(&mut self.jobs, view.state.jobs.clone());
        let seen = self.read_events(view);
        let mut gone = Vec::new();
        for item in jobs.diff(&view.state.jobs) {
            if let DiffItem::Remove(id, job) = item {
                gone.push(*id);
                let ran_ms = ran_ms(job, seen.get(id), view.now_ms);
                if ran_ms > 0 {
                    self.learn(job, ran_ms);
                }
            }
        }
        gone
    }

    fn read_events(&mut self, view: &View) -> BTreeMap<JobId, Seen> {
        let mut seen: BTreeMap<JobId, Seen> = BTreeMap::new();
        let new = view.state.events.iter().rev();
        for event in new.take_while(|event| event.seq >= self.next_event) {
            let Some(job) = event.job else { continue };
            match event.kind.as_str() {
                // From the newest to the oldest: the last start is the one that counts.
                "job.started" => {
                    let started_ms = &mut seen.entry(job).or_default().started_ms;
                    started_ms.get_or_insert(event.at_ms);
                }
                "job.finished" | "job.failed" | "job.cancelled" | "job.timed_out" => {
                    seen.entry(job).or_default().ended_ms = Some(event.at_ms);
                }
                _ => {}
            }
        }
        self.next_event = view.state.next_event;
        seen
    }

    /// Learns from a job that ended after it had run for so long.
    pub fn learn(&mut self, job: &Job, ran_ms: u64) {
        self.ended += 1;
        for kind in kinds(job) {
            let mean = self.means.entry(kind).or_default();
            mean.count = mean.count.saturating_add(1);
            let weight = NEWEST.max(1.0 / f64::from(mean.count));
            mean.ms += weight * (ran_ms as f64 - mean.ms);
            mean.met = self.ended;
        }
        if self.means.len() > MAX_KINDS {
            let mut met: Vec<u64> = self.means.values().map(|mean| mean.met).collect();
            met.sort_unstable();
            let oldest = met[met.len() / 2];
            self.means.retain(|_, mean| mean.met > oldest);
        }
    }

    /// How long a job will run, by the most telling thing that it has in common with jobs that ended; `None` before
    /// the first one.
    pub fn predict_ms(&self, job: &Job) -> Option<u64> {
        let mean = kinds(job)
            .into_iter()
            .find_map(|kind| self.means.get(&kind))?;
        Some(mean.ms.max(1.0) as u64)
    }

    /// The same, by jobs of the same user and like names alone.
    pub fn predict_alike_ms(&self, job: &Job) -> Option<u64> {
        let alike = kinds(job).into_iter().take(2);
        let mean = alike.filter_map(|kind| self.means.get(&kind)).next()?;
        Some(mean.ms.max(1.0) as u64)
    }
}

/// How long a job ran that is gone now, over all its attempts; 0 if it never started.
fn ran_ms(job: &Job, seen: Option<&Seen>, now_ms: u64) -> u64 {
    let seen = seen.copied().unwrap_or_default();
    let ended_ms = seen.ended_ms.unwrap_or(now_ms);
    let last_ms = match (&job.attempt, seen.started_ms) {
        (None, Some(started_ms)) => ended_ms.saturating_sub(started_ms),
        _ => 0,
    };
    last_ms.saturating_add(duration::worked_ms(job, ended_ms))
}

fn kinds(job: &Job) -> [Kind; 7] {
    let spec = &job.spec;
    let (user, queue) = (spec.user.clone(), spec.queue.clone());
    let name = family(&spec.name);
    let size = duration::asked_milligpu(job);
    [
        Kind::UserNameSize(user.clone(), name.clone(), size),
        Kind::UserName(user.clone(), name.clone()),
        Kind::Name(name),
        Kind::UserSize(user.clone(), size),
        Kind::User(user),
        Kind::QueueSize(queue, size),
        Kind::Any,
    ]
}

/// A name without what counts up: `bert-large_017` and `bert-large_18` are one family.
pub fn family(name: &str) -> String {
    let letters = name.chars().filter(|c| !c.is_ascii_digit());
    let text: String = letters.flat_map(char::to_lowercase).collect();
    text.trim_matches(|c: char| !c.is_alphanumeric()).to_owned()
}
