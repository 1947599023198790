//! Berth's own history: the finished jobs in a file that `berth backup` made, which any operator has or can make.
//!
//! A job is replayed as it was submitted, at the size that it last ran at, and runs for as long as the work that counted
//! took: its last attempt, and before it those whose checkpoints it went on from. Its end is final. Jobs that never ran
//! have nothing to replay. The nodes of that cluster are in the file too ([`cluster`]).

use std::path::Path;
use std::sync::Arc;

use berth_core::codec;
use berth_core::state::FinishedJob;
use berth_raft_store::read_backup;
use berth_types::{JobSpec, Outcome, RestartSpec};
use berth_world::twin::{Cluster, End, Rigid, TraceJob, Truth};

use super::{Builder, Limits, Loaded, Origin};
use crate::input::{InputError, Place};

/// Reads the finished jobs of a backup.
///
/// # Errors
/// If the file is damaged or no backup; as any loader otherwise. Lines are rows of the history, from 1.
pub fn load(path: &Path, limits: &Limits) -> Result<Loaded, InputError> {
    let file: Arc<str> = path.display().to_string().into();
    let (_, _, history) = read_backup(path).map_err(|error| no_backup(&file, &error))?;
    let mut builder = Builder::new(limits);
    for (number, (_, _, bytes)) in (1u64..).zip(&history) {
        let place = Place::line(&file, number);
        let finished = codec::decode_finished(bytes).map_err(|error| {
            let hint = "read it with the version of berth-sim that belongs to those masters";
            place.clone().error(error.to_string(), hint)
        })?;
        match job(&finished) {
            Ok(job) => builder.push(place, job)?,
            Err(reason) => builder.skip(reason),
        }
    }
    Ok(builder.finish(&file, Origin::FirstSubmission, Some(0)))
}

/// The nodes of a backup that were in service, as a cluster.
///
/// # Errors
/// If the file is damaged or no backup, or no node was in service.
pub fn cluster(path: &Path) -> Result<Cluster, InputError> {
    let file: Arc<str> = path.display().to_string().into();
    let (info, state, _) = read_backup(path).map_err(|error| no_backup(&file, &error))?;
    let state = codec::decode_state(&state).map_err(|error| no_backup(&file, &error))?;
    let nodes = state.nodes.values().filter(|node| !node.lost);
    let nodes: Vec<_> = nodes.map(|node| node.spec.as_ref().clone()).collect();
    if nodes.is_empty() {
        let hint = "name a cluster with --cluster";
        return Err(Place::file(&file).error("no node was in service", hint));
    }
    Ok(Cluster {
        name: info.cluster,
        nodes,
        ..Cluster::default()
    })
}

fn no_backup(file: &Arc<str>, error: &dyn std::error::Error) -> InputError {
    let hint = "a file that `berth backup` made";
    Place::file(file).error(error.to_string(), hint)
}

/// The job of a record, or why there is nothing to replay.
fn job(finished: &FinishedJob) -> Result<TraceJob, &'static str> {
    let record = &finished.job;
    let Some(last) = record.past.last() else {
        return Err("it never ran");
    };
    let mut run_ms = 0u64;
    for attempt in record.past.iter().rev() {
        run_ms = run_ms.saturating_add(attempt.ended_ms.saturating_sub(attempt.started_ms));
        if attempt.resumed_step.is_none() {
            break;
        }
    }
    let end = match finished.outcome {
        Outcome::Completed => End::Completed,
        Outcome::Cancelled => End::Cancelled,
        Outcome::Rejected => return Err("it was rejected"),
        Outcome::Failed { .. } | Outcome::TimedOut | Outcome::NodeLost => End::Failed,
    };
    Ok(TraceJob {
        key: record.id.0.to_string(),
        submit_ms: record.submitted_ms,
        spec: Arc::new(as_it_ran(&record.spec, last.nodes.len())),
        truth: Truth::Rigid(Rigid { run_ms, end }),
    })
}

/// The spec with the workers that it ran with, and without what matters to real processes only.
fn as_it_ran(spec: &JobSpec, workers: usize) -> JobSpec {
    let mut spec = spec.clone();
    if let ([group], Ok(workers @ 1..)) = (spec.groups.as_mut_slice(), u32::try_from(workers)) {
        group.min_workers = workers;
        group.max_workers = workers;
    }
    spec.env.clear();
    spec.time_limit_ms = 0;
    spec.restart = RestartSpec {
        max_restarts: 0,
        ..RestartSpec::default()
    };
    spec
}
