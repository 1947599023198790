//! Reads: jobs, nodes and counts as callers see them. Pure functions of the state; who may read when is the replica's.

mod fit;
mod reason;

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_types::api::{JobFilter, JobView, NodeView};
use berth_types::{Isolation, JobId, JobState, NodeState, Outcome};

use crate::health::{self, Telemetry};
use crate::state::{FinishedJob, Job, Node, State};

pub use fit::can_ever_fit;

/// An unfinished job. `reason` is what the planner says of one that waits: its code and its text.
pub fn job_view(state: &State, job: &Job, reason: Option<(&str, &str)>) -> JobView {
    let (reason, reason_text) = reason::of(state, job, reason);
    let current = job.attempt.iter().flat_map(|a| a.tasks.iter());
    let past = job.past.iter().flat_map(|p| p.nodes.iter().copied());
    let nodes = current.map(|t| t.placement.node).chain(past);
    let named = nodes.filter_map(|id| Some((id, state.nodes.get(&id)?.spec.name.clone())));
    JobView {
        id: job.id,
        spec: Arc::clone(&job.spec),
        state: job.state(),
        reason,
        reason_text,
        submitted_ms: job.submitted_ms,
        started_ms: job.first_started_ms,
        ended_ms: None,
        outcome: None,
        attempt: job.attempt.as_deref().cloned(),
        past: job.past.clone(),
        restarts: job.restarts,
        checkpoints: job.checkpoints.clone(),
        progress: job.progress,
        node_names: named.collect(),
    }
}

/// A job of the history.
pub fn finished_view(finished: &FinishedJob) -> JobView {
    let job = &finished.job;
    JobView {
        id: job.id,
        spec: Arc::clone(&job.spec),
        state: final_state(finished.outcome),
        reason: reason::of_end(finished).to_owned(),
        reason_text: finished.reason.clone(),
        submitted_ms: job.submitted_ms,
        started_ms: job.first_started_ms,
        ended_ms: Some(finished.ended_ms),
        outcome: Some(finished.outcome),
        attempt: None,
        past: job.past.clone(),
        restarts: job.restarts,
        checkpoints: job.checkpoints.clone(),
        progress: job.progress,
        node_names: finished.node_names.iter().cloned().collect(),
    }
}

/// The state in which a finished job is shown.
pub fn final_state(outcome: Outcome) -> JobState {
    match outcome {
        Outcome::Completed => JobState::Completed,
        Outcome::Failed { .. } | Outcome::NodeLost | Outcome::Rejected => JobState::Failed,
        Outcome::Cancelled => JobState::Cancelled,
        Outcome::TimedOut => JobState::TimedOut,
    }
}

/// Unfinished jobs that match, newest first, with ids below `before`: at most `limit`, and whether there may be more.
pub fn list_jobs(
    state: &State,
    filter: &JobFilter,
    before: Option<JobId>,
    limit: usize,
) -> (Vec<Arc<Job>>, bool) {
    let before = before.unwrap_or(JobId(u64::MAX));
    let mut found: Vec<Arc<Job>> = Vec::new();
    // Jobs that run are few among many that wait, so a list of those does not look at the queue.
    let only_active = !filter.states.is_empty()
        && filter.states.iter().all(|s| {
            matches!(
                s,
                JobState::Starting | JobState::Running | JobState::Stopping | JobState::Fencing
            ) || s.is_final()
        });
    let mut jobs: Box<dyn Iterator<Item = &Arc<Job>>> = if only_active {
        let active = state.active.range(..before).rev();
        Box::new(active.filter_map(|id| state.jobs.get(id)))
    } else {
        Box::new(state.jobs.range(..before).rev().map(|(_, job)| job))
    };
    let mut matching = jobs.by_ref().filter(|job| matches(filter, job));
    while found.len() < limit {
        match matching.next() {
            Some(job) => found.push(Arc::clone(job)),
            None => return (found, false),
        }
    }
    let more = matching.next().is_some();
    (found, more)
}

/// True if an unfinished job passes the filter.
pub fn matches(filter: &JobFilter, job: &Job) -> bool {
    matches_state(filter, job.state()) && matches_job(filter, job)
}

/// True if a finished job passes the filter, which must ask for finished ones.
pub fn matches_finished(filter: &JobFilter, finished: &FinishedJob) -> bool {
    let state = final_state(finished.outcome);
    let wanted = filter.finished || filter.states.contains(&state);
    wanted && matches_state(filter, state) && matches_job(filter, &finished.job)
}

fn matches_state(filter: &JobFilter, state: JobState) -> bool {
    filter.states.is_empty() || filter.states.contains(&state)
}

fn matches_job(filter: &JobFilter, job: &Job) -> bool {
    let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w == is);
    let name = filter.name_prefix.as_ref();
    let id = filter.id_prefix.as_ref();
    same(&filter.user, &job.spec.user)
        && same(&filter.queue, &job.spec.queue)
        && name.is_none_or(|prefix| job.spec.name.starts_with(prefix))
        && id.is_none_or(|prefix| job.id.to_string().starts_with(prefix))
}

/// A node; `connected` is what the leader knows, and how it isolates tasks is for the leader to add.
pub fn node_view(state: &State, node: &Node, connected: bool, telemetry: &Telemetry) -> NodeView {
    let machine = || {
        state
            .health
            .get(&node.id)
            .map(|h| h.machine.why().to_owned())
    };
    let reason = match (node.lost, &node.drain) {
        (true, _) => node.reason.clone(),
        (false, Some(drain)) => drain.reason.clone(),
        (false, None) if node.resting => machine().unwrap_or_default(),
        (false, None) => String::new(),
    };
    NodeView {
        id: node.id,
        spec: Arc::clone(&node.spec),
        state: node.state(),
        reason,
        since_ms: node.since_ms,
        used_milligpu: node.gpus.iter().map(|gpu| gpu.milligpu).collect(),
        used_millicpu: node.used_millicpu,
        used_mem_bytes: node.used_mem_bytes,
        tasks: node.jobs.values().fold(0, |n, t| n.saturating_add(*t)),
        jobs: node.jobs.keys().copied().collect(),
        connected,
        isolation: Isolation::default(),
        health: health::views(state, node.id, state.time_ms),
        telemetry: telemetry.get(&node.id).map_or(Vec::new(), |t| t.to_vec()),
    }
}

/// Number of jobs in each state; finished ones since the cluster's start.
pub fn jobs_by_state(state: &State) -> BTreeMap<JobState, u64> {
    let mut counts = BTreeMap::new();
    let mut add = |state: JobState, count: u64| {
        if count > 0 {
            *counts.entry(state).or_insert(0) += count;
        }
    };
    add(JobState::Pending, state.pending.len() as u64);
    for job in state.active.iter().filter_map(|id| state.jobs.get(id)) {
        add(job.state(), 1);
    }
    let [completed, failed, cancelled, timed_out] = state.finished_by_class;
    add(JobState::Completed, completed);
    add(JobState::Failed, failed);
    add(JobState::Cancelled, cancelled);
    add(JobState::TimedOut, timed_out);
    counts
}

/// Number of nodes that are ready, draining and lost.
pub fn nodes_by_state(state: &State) -> (u32, u32, u32) {
    let count = |wanted| {
        let nodes = state.nodes.values().filter(|n| n.state() == wanted);
        u32::try_from(nodes.count()).unwrap_or(u32::MAX)
    };
    (
        count(NodeState::Ready),
        count(NodeState::Draining),
        count(NodeState::Lost),
    )
}
