//! The one reason that a job list shows, with Slurm's names where the meaning is the same.

use berth_types::{AttemptEnd, AttemptPhase, Outcome};

use crate::state::{FinishedJob, Job, State};

/// Code and text for an unfinished job. What the state knows for certain goes before what the planner says.
pub(super) fn of(state: &State, job: &Job, planner: Option<(&str, &str)>) -> (String, String) {
    let both = |code: &str, text: String| (code.to_owned(), text);
    if let Some(fencing) = &job.fencing {
        let names: Vec<&str> = fencing
            .nodes
            .iter()
            .filter_map(|id| state.nodes.get(id))
            .map(|node| node.name())
            .collect();
        let until = match fencing.operator_only {
            true => "is back, or an operator says `berth node fence`",
            false => "is back or fenced",
        };
        let text = format!(
            "part of it may still run on lost node {}: waits until it {until}",
            names.join(", ")
        );
        return both("NodeDown", text);
    }
    if let Some(attempt) = &job.attempt {
        return match &attempt.phase {
            AttemptPhase::Starting | AttemptPhase::Running => (String::new(), String::new()),
            AttemptPhase::Stopping(end) => {
                let (code, text) = of_stop(state, end);
                both(code, text)
            }
        };
    }
    if job.not_before_ms > state.time_ms {
        let left_ms = job.not_before_ms - state.time_ms;
        let text = format!("pauses for {left_ms} ms more before its next attempt");
        return both("BeginTime", text);
    }
    if let Some(reservation) = state.reservations.get(&job.id) {
        let left = reservation.waits_for.len();
        let text = format!("its place is kept; {left} evicted attempts have yet to leave it");
        return both("Resources", text);
    }
    match planner {
        Some((code, text)) => both(code, text.to_owned()),
        None => both("None", "the next planning round looks at it".to_owned()),
    }
}

fn of_stop(state: &State, end: &AttemptEnd) -> (&'static str, String) {
    match end {
        AttemptEnd::Completed => ("Completed", "every task exited 0".to_owned()),
        AttemptEnd::Failed { rank, code, reason } => {
            let said = if reason.is_empty() { "" } else { ": " };
            (
                "NonZeroExitCode",
                format!("task {rank} exited {code}{said}{reason}"),
            )
        }
        AttemptEnd::NodeLost { node } => {
            let name = state.nodes.get(node).map_or("?", |n| n.name());
            ("NodeFail", format!("node {name} was lost"))
        }
        AttemptEnd::GpuFault { gpu, reason, .. } => {
            ("NodeFail", format!("GPU {gpu} failed: {reason}"))
        }
        AttemptEnd::NotStarted { reason } => ("JobLaunchFailure", reason.clone()),
        AttemptEnd::Evicted { reason } => ("Preempted", reason.clone()),
        AttemptEnd::Cancelled => ("Cancelled", "cancelled by a user".to_owned()),
        AttemptEnd::TimedOut => ("TimeLimit", "its time limit was reached".to_owned()),
    }
}

/// Code for a finished job.
pub(super) fn of_end(finished: &FinishedJob) -> &'static str {
    match finished.outcome {
        Outcome::Completed => "",
        Outcome::Failed { code: -1 } => "JobLaunchFailure",
        Outcome::Failed { .. } => "NonZeroExitCode",
        Outcome::Cancelled => "Cancelled",
        Outcome::TimedOut => "TimeLimit",
        Outcome::NodeLost => "NodeFail",
        Outcome::Rejected => "Rejected",
    }
}
