//! Jobs: a line per job as `squeue` has it, one job in full, and the stable keys of both for scripts.

use std::collections::BTreeSet;

use berth_types::{
    Attempt, AttemptEnd, AttemptPhase, CheckpointRecord, GroupSpec, JobSpec, JobState, JobView,
    LostNodeRule, NodeId, Outcome, PastAttempt, Progress, TaskPhase, TaskRecord,
};
use serde_json::{Value, json};

use super::time::{bytes, milli, rfc3339, seconds, span};
use super::{Screen, View, facts, nodelist};

/// The state in one word; also what `--state` takes.
pub(crate) fn state_word(state: JobState) -> &'static str {
    match state {
        JobState::Pending => "pending",
        JobState::Starting => "starting",
        JobState::Running => "running",
        JobState::Stopping => "stopping",
        JobState::Fencing => "fencing",
        JobState::Completed => "completed",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::TimedOut => "timed_out",
    }
}

/// Slurm's short form of the state; `FN` (fencing) is Berth's own.
pub(crate) fn state_code(state: JobState) -> &'static str {
    match state {
        JobState::Pending => "PD",
        JobState::Starting => "CF",
        JobState::Running => "R",
        JobState::Stopping => "CG",
        JobState::Fencing => "FN",
        JobState::Completed => "CD",
        JobState::Failed => "F",
        JobState::Cancelled => "CA",
        JobState::TimedOut => "TO",
    }
}

/// The state that a word or Slurm's short form names.
pub(crate) fn state_from(text: &str) -> Option<JobState> {
    let all = [
        JobState::Pending,
        JobState::Starting,
        JobState::Running,
        JobState::Stopping,
        JobState::Fencing,
        JobState::Completed,
        JobState::Failed,
        JobState::Cancelled,
        JobState::TimedOut,
    ];
    let text = text.to_lowercase().replace('-', "_");
    all.into_iter()
        .find(|&s| state_word(s) == text || state_code(s).to_lowercase() == text)
}

/// A page of jobs.
pub(crate) fn list(screen: &Screen, jobs: &[JobView], next: Option<u64>, now_ms: u64) -> View {
    let mut headings = vec![
        "JOBID", "NAME", "USER", "QUEUE", "ST", "TIME", "NODES", "GPUS",
    ];
    if screen.wide() {
        headings.extend(["PRIORITY", "WORKERS", "RESTARTS", "STEP", "SUBMITTED"]);
    }
    headings.push("NODELIST(REASON)");
    let rows = jobs.iter().map(|j| row(j, screen.wide(), now_ms));
    let right = [
        "JOBID", "TIME", "NODES", "GPUS", "PRIORITY", "WORKERS", "RESTARTS", "STEP",
    ];
    let items: Vec<Value> = jobs.iter().map(summary).collect();
    View {
        text: screen.table(&headings, rows, &right),
        value: json!({ "jobs": items, "next_page_token": next.map(|t| t.to_string()) }),
        names: jobs.iter().map(|j| j.id.to_string()).collect(),
    }
}

fn row(job: &JobView, wide: bool, now_ms: u64) -> Vec<String> {
    let nodes = current_nodes(job);
    let mut row = vec![
        job.id.to_string(),
        job.spec.name.clone(),
        job.spec.user.clone(),
        job.spec.queue.clone(),
        state_code(job.state).into(),
        span(run_time_ms(job, now_ms)),
        nodes.len().to_string(),
        milli(milligpu(job)),
    ];
    if wide {
        row.extend([
            job.spec.priority.to_string(),
            workers(job).to_string(),
            job.restarts.to_string(),
            job.progress.map_or("-".into(), |p| p.step.to_string()),
            rfc3339(job.submitted_ms),
        ]);
    }
    row.push(where_or_why(job));
    row
}

/// Nodes of the current attempt.
fn current_nodes(job: &JobView) -> BTreeSet<NodeId> {
    let tasks = job.attempt.iter().flat_map(|a| &a.tasks);
    tasks.map(|t| t.placement.node).collect()
}

fn node_name(job: &JobView, node: NodeId) -> String {
    let name = job.node_names.get(&node).cloned();
    name.unwrap_or_else(|| format!("node-{node}"))
}

fn node_list(job: &JobView, nodes: impl IntoIterator<Item = NodeId>) -> String {
    let names: Vec<String> = nodes.into_iter().map(|n| node_name(job, n)).collect();
    nodelist::fold(names.iter().map(String::as_str))
}

/// How long the newest attempt has run, or did.
fn run_time_ms(job: &JobView, now_ms: u64) -> u64 {
    match (&job.attempt, job.past.last()) {
        (Some(attempt), _) => {
            let end = job.ended_ms.unwrap_or(now_ms);
            end.saturating_sub(attempt.started_ms)
        }
        (None, Some(past)) if job.state.is_final() => past.ended_ms.saturating_sub(past.started_ms),
        _ => 0,
    }
}

/// GPUs held by the current attempt, or asked for at least.
fn milligpu(job: &JobView) -> u64 {
    match &job.attempt {
        Some(attempt) => {
            let shares = attempt.tasks.iter().flat_map(|t| &t.placement.gpus);
            shares.map(|s| u64::from(s.milligpu)).sum()
        }
        None => {
            let groups = job.spec.groups.iter();
            groups
                .map(|g| u64::from(g.min_workers) * u64::from(g.resources.milligpu))
                .sum()
        }
    }
}

fn workers(job: &JobView) -> usize {
    match &job.attempt {
        Some(attempt) => attempt.tasks.len(),
        None => job.spec.min_workers() as usize,
    }
}

/// The node list of a job that holds nodes; otherwise the reason why it does not.
fn where_or_why(job: &JobView) -> String {
    let nodes = current_nodes(job);
    if !nodes.is_empty() {
        return node_list(job, nodes);
    }
    match &job.outcome {
        Some(outcome) => format!("({})", outcome_text(outcome)),
        None if job.reason.is_empty() => String::new(),
        None => format!("({})", job.reason),
    }
}

/// How a job ended, in a few words.
pub(crate) fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed => "completed".into(),
        Outcome::Failed { code: -1 } => "could not start".into(),
        Outcome::Failed { code } if *code > 128 => {
            format!("exit code {code}, signal {}", code - 128)
        }
        Outcome::Failed { code } => format!("exit code {code}"),
        Outcome::Cancelled => "cancelled".into(),
        Outcome::TimedOut => "over its time limit".into(),
        Outcome::NodeLost => "node lost".into(),
        Outcome::Rejected => "could not start now".into(),
    }
}

fn end_text(job: &JobView, end: &AttemptEnd) -> String {
    match end {
        AttemptEnd::Completed => "completed".into(),
        AttemptEnd::Failed { rank, code, reason } => {
            let text = format!(
                "rank {rank}: {}",
                outcome_text(&Outcome::Failed { code: *code })
            );
            if reason.is_empty() {
                text
            } else {
                format!("{text} ({reason})")
            }
        }
        AttemptEnd::NodeLost { node } => format!("node {} lost", node_name(job, *node)),
        AttemptEnd::NotStarted { reason } => format!("not started ({reason})"),
        AttemptEnd::GpuFault { gpu, reason, .. } => format!("GPU {gpu} failed ({reason})"),
        AttemptEnd::Evicted { reason } => format!("evicted ({reason})"),
        AttemptEnd::Cancelled => "cancelled".into(),
        AttemptEnd::TimedOut => "over its time limit".into(),
    }
}

fn phase_text(job: &JobView, phase: &AttemptPhase) -> String {
    match phase {
        AttemptPhase::Starting => "starting".into(),
        AttemptPhase::Running => "running".into(),
        AttemptPhase::Stopping(end) => format!("stopping: {}", end_text(job, end)),
    }
}

/// One job in full.
pub(crate) fn detail(screen: &Screen, job: &JobView, now_ms: u64) -> View {
    let spec = &job.spec;
    let mut text = facts(&[
        ("job", job.id.to_string()),
        ("name", spec.name.clone()),
        ("user", spec.user.clone()),
        (
            "queue",
            format!("{} (priority {})", spec.queue, spec.priority),
        ),
        ("state", state_word(job.state).into()),
        ("reason", reason_text(job)),
        (
            "outcome",
            job.outcome.as_ref().map(outcome_text).unwrap_or_default(),
        ),
        ("submitted", rfc3339(job.submitted_ms)),
        ("started", job.started_ms.map(rfc3339).unwrap_or_default()),
        ("ended", job.ended_ms.map(rfc3339).unwrap_or_default()),
        ("time", span(run_time_ms(job, now_ms))),
        (
            "restarts",
            format!("{} of {}", job.restarts, spec.restart.max_restarts),
        ),
        (
            "progress",
            job.progress.as_ref().map(progress_text).unwrap_or_default(),
        ),
    ]);
    for group in &spec.groups {
        text.push_str(&facts(&[("group", group_text(group))]));
    }
    if let Some(attempt) = &job.attempt {
        text.push_str(&attempt_text(screen, job, attempt));
    }
    if !job.past.is_empty() {
        text.push_str("\nattempts before\n");
        let rows = job.past.iter().map(|p| past_row(job, p));
        text.push_str(&screen.table(
            &["ATTEMPT", "STARTED", "TIME", "FROM STEP", "NODES", "END"],
            rows,
            &["ATTEMPT", "TIME", "FROM STEP"],
        ));
    }
    if !job.checkpoints.is_empty() {
        text.push_str("\ncheckpoints\n");
        let rows = job.checkpoints.iter().map(checkpoint_row);
        text.push_str(&screen.table(
            &["ATTEMPT", "STEP", "SIZE", "SAVED IN", "PATH"],
            rows,
            &["ATTEMPT", "STEP", "SIZE", "SAVED IN"],
        ));
    }
    View {
        text,
        value: full(job),
        names: vec![job.id.to_string()],
    }
}

fn reason_text(job: &JobView) -> String {
    match (job.reason.is_empty(), job.reason_text.is_empty()) {
        (_, true) => job.reason.clone(),
        (true, false) => job.reason_text.clone(),
        (false, false) => format!("{}: {}", job.reason, job.reason_text),
    }
}

fn progress_text(p: &Progress) -> String {
    let mut text = format!("step {}, {} samples", p.step, p.samples);
    if let Some(loss) = p.loss_micros {
        text.push_str(&format!(", loss {:.6}", loss as f64 / 1e6));
    }
    if let Some(us) = p.step_us {
        text.push_str(&format!(", {:.3} s a step", us as f64 / 1e6));
    }
    text
}

fn group_text(group: &GroupSpec) -> String {
    let r = &group.resources;
    let size = if group.min_workers == group.max_workers {
        format!("{}", group.min_workers)
    } else {
        format!("{}..{}", group.min_workers, group.max_workers)
    };
    let mut needs = vec![
        format!("{} GPUs", milli(r.milligpu.into())),
        format!("{} CPUs", milli(r.millicpu.into())),
    ];
    if r.mem_bytes > 0 {
        needs.push(bytes(r.mem_bytes));
    }
    if !r.gpu_types.is_empty() {
        needs.push(r.gpu_types.join("|"));
    }
    let gang = if group.gang { ", all or none" } else { "" };
    let command = group.command.join(" ");
    format!(
        "{}: {size} x ({}){gang}: {command}",
        group.name,
        needs.join(", ")
    )
}

fn attempt_text(screen: &Screen, job: &JobView, attempt: &Attempt) -> String {
    let mut text = format!("\nattempt {}\n", attempt.epoch);
    text.push_str(&facts(&[
        ("phase", phase_text(job, &attempt.phase)),
        ("started", rfc3339(attempt.started_ms)),
        ("nodes", node_list(job, current_nodes(job))),
        (
            "from step",
            attempt
                .resumed_step
                .map(|s| s.to_string())
                .unwrap_or_default(),
        ),
        ("placed", attempt.placed_because.clone()),
    ]));
    let rows = attempt.tasks.iter().map(|t| {
        let p = &t.placement;
        let gpus: Vec<String> = p
            .gpus
            .iter()
            .map(|g| match g.milligpu {
                1000 => g.gpu.to_string(),
                part => format!("{}*{}", milli(part.into()), g.gpu),
            })
            .collect();
        let state = match t.phase {
            TaskPhase::Assigned => "assigned".into(),
            TaskPhase::Running { since_ms } => format!("running since {}", rfc3339(since_ms)),
            TaskPhase::Ended { code, .. } => format!("ended with {code}"),
        };
        vec![
            p.rank.to_string(),
            node_name(job, p.node),
            gpus.join(","),
            state,
        ]
    });
    text.push_str(&screen.table(&["RANK", "NODE", "GPUS", "STATE"], rows, &["RANK"]));
    text
}

fn past_row(job: &JobView, p: &PastAttempt) -> Vec<String> {
    let nodes: BTreeSet<NodeId> = p.nodes.iter().copied().collect();
    vec![
        p.epoch.to_string(),
        rfc3339(p.started_ms),
        span(p.ended_ms.saturating_sub(p.started_ms)),
        p.resumed_step.map_or("-".into(), |s| s.to_string()),
        node_list(job, nodes),
        end_text(job, &p.end),
    ]
}

fn checkpoint_row(c: &CheckpointRecord) -> Vec<String> {
    vec![
        c.epoch.to_string(),
        c.step.to_string(),
        bytes(c.bytes),
        format!("{:.3} s", seconds(c.save_ms)),
        c.path.clone(),
    ]
}

fn gpus(milligpu: u64) -> f64 {
    milligpu as f64 / 1000.0
}

fn outcome_value(outcome: &Outcome) -> Value {
    let (kind, code) = match outcome {
        Outcome::Completed => ("completed", Some(0)),
        Outcome::Failed { code } => ("failed", Some(*code)),
        Outcome::Cancelled => ("cancelled", None),
        Outcome::TimedOut => ("timed_out", None),
        Outcome::NodeLost => ("node_lost", None),
        Outcome::Rejected => ("rejected", None),
    };
    json!({ "kind": kind, "exit_code": code })
}

/// What a list has of each job.
fn summary(job: &JobView) -> Value {
    json!({
        "id": job.id.to_string(),
        "name": job.spec.name,
        "user": job.spec.user,
        "queue": job.spec.queue,
        "priority": job.spec.priority,
        "state": state_word(job.state),
        "reason": job.reason,
        "reason_text": job.reason_text,
        "submitted_at": rfc3339(job.submitted_ms),
        "started_at": job.started_ms.map(rfc3339),
        "ended_at": job.ended_ms.map(rfc3339),
        "outcome": job.outcome.as_ref().map(outcome_value),
        "attempt": job.attempt.as_ref().map(|a| a.epoch.0),
        "restarts": job.restarts,
        "workers": workers(job),
        "gpus": gpus(milligpu(job)),
        "nodes": current_nodes(job).into_iter().map(|n| node_name(job, n)).collect::<Vec<_>>(),
        "step": job.progress.map(|p| p.step),
    })
}

/// One job with everything.
pub(crate) fn full(job: &JobView) -> Value {
    let mut value = summary(job);
    value["labels"] = json!(job.spec.labels);
    value["spec"] = spec_value(&job.spec);
    value["current_attempt"] = job
        .attempt
        .as_ref()
        .map_or(Value::Null, |a| attempt_value(job, a));
    value["past_attempts"] = job.past.iter().map(|p| past_value(job, p)).collect();
    value["checkpoints"] = job.checkpoints.iter().map(checkpoint_value).collect();
    value["progress"] = job.progress.as_ref().map_or(Value::Null, progress_value);
    value
}

fn attempt_value(job: &JobView, a: &Attempt) -> Value {
    let (phase, ending) = match &a.phase {
        AttemptPhase::Starting => ("starting", None),
        AttemptPhase::Running => ("running", None),
        AttemptPhase::Stopping(end) => ("stopping", Some(end_text(job, end))),
    };
    json!({
        "attempt": a.epoch.0,
        "phase": phase,
        "ending": ending,
        "started_at": rfc3339(a.started_ms),
        "resumed_step": a.resumed_step,
        "placed_because": a.placed_because,
        "master_port": a.master_port,
        "tasks": a.tasks.iter().map(|t| task_value(job, t)).collect::<Vec<_>>(),
    })
}

fn task_value(job: &JobView, t: &TaskRecord) -> Value {
    let p = &t.placement;
    let (state, since, code) = match t.phase {
        TaskPhase::Assigned => ("assigned", None, None),
        TaskPhase::Running { since_ms } => ("running", Some(rfc3339(since_ms)), None),
        TaskPhase::Ended { code, at_ms } => ("ended", Some(rfc3339(at_ms)), Some(code)),
    };
    let shares: Vec<Value> = p
        .gpus
        .iter()
        .map(|g| json!({ "index": g.gpu, "share": gpus(g.milligpu.into()) }))
        .collect();
    json!({
        "rank": p.rank.0,
        "group": job.spec.groups.get(usize::from(p.group)).map(|g| &g.name),
        "node": node_name(job, p.node),
        "gpus": shares,
        "state": state,
        "since": since,
        "exit_code": code,
    })
}

fn past_value(job: &JobView, p: &PastAttempt) -> Value {
    let nodes: Vec<String> = p.nodes.iter().map(|&n| node_name(job, n)).collect();
    let outcome = match &p.end {
        AttemptEnd::NotStarted { .. } => json!({ "kind": "not_started", "exit_code": null }),
        AttemptEnd::GpuFault { node, gpu, .. } => {
            json!({ "kind": "gpu_fault", "exit_code": null, "node": node.to_string(), "gpu": gpu })
        }
        AttemptEnd::Evicted { .. } => json!({ "kind": "evicted", "exit_code": null }),
        end => outcome_value(&end.outcome()),
    };
    json!({
        "attempt": p.epoch.0,
        "started_at": rfc3339(p.started_ms),
        "ended_at": rfc3339(p.ended_ms),
        "seconds": seconds(p.ended_ms.saturating_sub(p.started_ms)),
        "end": outcome,
        "end_text": end_text(job, &p.end),
        "nodes": nodes,
        "resumed_step": p.resumed_step,
    })
}

fn checkpoint_value(c: &CheckpointRecord) -> Value {
    json!({
        "attempt": c.epoch.0,
        "step": c.step,
        "path": c.path,
        "bytes": c.bytes,
        "manifest_sha256": c.manifest_sha256,
        "save_seconds": seconds(c.save_ms),
    })
}

fn progress_value(p: &Progress) -> Value {
    json!({
        "step": p.step,
        "samples": p.samples,
        "loss": p.loss_micros.map(|l| l as f64 / 1e6),
        "step_seconds": p.step_us.map(|us| us as f64 / 1e6),
        "reported_at": rfc3339(p.at_ms),
    })
}

/// What was submitted.
pub(crate) fn spec_value(spec: &JobSpec) -> Value {
    let groups: Vec<Value> = spec.groups.iter().map(group_value).collect();
    let limit = (spec.time_limit_ms > 0).then(|| seconds(spec.time_limit_ms));
    json!({
        "name": spec.name,
        "user": spec.user,
        "queue": spec.queue,
        "priority": spec.priority,
        "groups": groups,
        "env": spec.env,
        "work_dir": spec.work_dir,
        "checkpoint": { "dir": spec.checkpoint.dir, "keep": spec.checkpoint.keep },
        "restart": {
            "max_restarts": spec.restart.max_restarts,
            "backoff_seconds": seconds(spec.restart.backoff_ms),
            "on_lost_node": match spec.restart.on_lost_node {
                LostNodeRule::Restart => "restart",
                LostNodeRule::Fence => "fence",
                LostNodeRule::Wait => "wait",
            },
        },
        "time_limit_seconds": limit,
        "expected_seconds": (spec.expected_ms > 0).then(|| seconds(spec.expected_ms)),
        "grace_seconds": seconds(spec.grace_ms),
        "start_now": spec.start_now,
        "labels": spec.labels,
    })
}

fn group_value(g: &GroupSpec) -> Value {
    let r = &g.resources;
    json!({
        "name": g.name,
        "command": g.command,
        "min_workers": g.min_workers,
        "max_workers": g.max_workers,
        "gang": g.gang,
        "resources": {
            "gpus": gpus(r.milligpu.into()),
            "cpus": gpus(r.millicpu.into()),
            "memory_bytes": r.mem_bytes,
            "gpu_types": r.gpu_types,
            "gpu_memory_bytes": r.gpu_mem_bytes,
        },
        "node_labels": g.node_labels,
    })
}
