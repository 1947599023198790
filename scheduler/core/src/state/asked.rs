//! Pending jobs by what they ask for, so that a planner can pass over all those that ask for what is not there.

use std::cmp::Ordering;
use std::sync::Arc;

use berth_types::{GroupSpec, JobSpec};
use imbl::{OrdMap, OrdSet};

use super::job::{Job, PendingKey};

/// What a pending job asks for. Equal for jobs that fit the same places.
#[derive(Clone, Debug)]
pub struct Asked {
    spec: Arc<JobSpec>,
    is_plain: bool,
}

/// Pending jobs by what they ask for; each line in the order of their turn.
pub(crate) type Lines = OrdMap<Asked, OrdSet<PendingKey>>;

impl Asked {
    /// By this job.
    pub fn by(job: &Job) -> Self {
        Self {
            spec: Arc::clone(&job.spec),
            is_plain: job.not_before_ms == 0 && !job.spec.start_now,
        }
    }

    /// True for jobs that simply wait if they do not fit: they were never made to back off, and are not for now only.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The spec of one of them.
    pub fn spec(&self) -> &Arc<JobSpec> {
        &self.spec
    }
}

impl Ord for Asked {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_request = || match Arc::ptr_eq(&self.spec, &other.spec) {
            true => Ordering::Equal,
            false => Request(&self.spec.groups).cmp(&Request(&other.spec.groups)),
        };
        self.is_plain.cmp(&other.is_plain).then_with(by_request)
    }
}

impl PartialOrd for Asked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Asked {}

/// Sort key that makes equal requests equal: everything of the groups that bears on placement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a>(pub(crate) &'a [GroupSpec]);

impl Request<'_> {
    fn cmp_group(a: &GroupSpec, b: &GroupSpec) -> Ordering {
        let numbers = |g: &GroupSpec| {
            let r = &g.resources;
            let workers = (g.min_workers, g.max_workers);
            (
                r.milligpu,
                workers,
                r.millicpu,
                r.mem_bytes,
                r.gpu_mem_bytes,
            )
        };
        numbers(a)
            .cmp(&numbers(b))
            .then_with(|| a.resources.gpu_types.cmp(&b.resources.gpu_types))
            .then_with(|| a.node_labels.cmp(&b.node_labels))
    }
}

impl Ord for Request<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| {
            (self.0.iter().zip(other.0))
                .map(|(a, b)| Self::cmp_group(a, b))
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        })
    }
}

impl PartialOrd for Request<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Request<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Request<'_> {}

/// A job joins those that wait.
pub(super) fn join(pending: &mut OrdSet<PendingKey>, lines: &mut Lines, job: &Job) {
    let key = job.pending_key();
    pending.insert(key);
    lines.entry(Asked::by(job)).or_default().insert(key);
}

/// A job waits no more.
pub(super) fn leave(pending: &mut OrdSet<PendingKey>, lines: &mut Lines, job: &Job) {
    let key = job.pending_key();
    if pending.remove(&key).is_none() {
        return;
    }
    let asked = Asked::by(job);
    let is_empty = lines.get_mut(&asked).is_some_and(|line| {
        line.remove(&key);
        line.is_empty()
    });
    if is_empty {
        lines.remove(&asked);
    }
}
