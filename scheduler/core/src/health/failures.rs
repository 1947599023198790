//! When failing tasks are their node's fault.
//!
//! A node that breaks every task at once is the freest of all, so it would take the whole queue, job by job. Failures of
//! different jobs are therefore counted per node. A job that fails on another node as well is at fault itself and counts
//! nowhere; a job that ends well clears the node that it ran on. Where whole series of jobs are broken, they fail on all
//! nodes alike, and no node stands out.

use berth_types::{JobId, NodeId};
use serde::{Deserialize, Serialize};

use crate::state::State;

/// Different jobs that must have failed.
const ENOUGH: usize = 3;
/// Failures count for this long.
const WINDOW_MS: u64 = 1_800_000;
/// Most failures kept per node.
pub(crate) const MAX_FAILURES: usize = 16;

/// A job whose task failed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The job.
    pub job: JobId,
    /// When, in state time.
    pub at_ms: u64,
    /// True if the node could not even start it.
    pub not_started: bool,
}

/// True if the failures on a node are its own fault.
pub(crate) fn is_to_blame(state: &State, node: NodeId) -> bool {
    let now_ms = state.time_ms;
    let Some(health) = state.health.get(&node) else {
        return false;
    };
    let recent = |failure: &&Failure| failure.at_ms.saturating_add(WINDOW_MS) > now_ms;
    let here = health.failures.iter().filter(recent).count();
    let not_started = health.failures.iter().filter(recent);
    if not_started.filter(|f| f.not_started).count() >= ENOUGH {
        return true;
    }
    if here < ENOUGH {
        return false;
    }
    let others = state.health.iter().filter(|(other, _)| **other != node);
    let elsewhere: usize = others
        .map(|(_, other)| other.failures.iter().filter(recent).count())
        .sum();
    let mut nodes = state.nodes.values();
    let another = nodes.any(|other| other.id != node && other.is_schedulable());
    here > elsewhere && another
}

/// Notes a failure. A job counts once, with its newest.
pub(crate) fn note(failures: &mut Vec<Failure>, failure: Failure) {
    let old = |known: &Failure| {
        known.job == failure.job || known.at_ms.saturating_add(WINDOW_MS) <= failure.at_ms
    };
    failures.retain(|known| !old(known));
    if failures.len() >= MAX_FAILURES {
        failures.remove(0);
    }
    failures.push(failure);
}
