//! What an agent needs to know to run a task, put together from the replicated state.

use berth_types::{Attempt, JobId, LaunchTask, TaskKey, TaskPhase, TaskRecord};

use crate::state::{Job, Node, State};

/// The tasks that hold resources on a node, with their jobs and attempts.
pub(super) fn tasks_on<'a>(
    state: &'a State,
    node: &'a Node,
) -> impl Iterator<Item = (&'a Job, &'a Attempt, &'a TaskRecord)> + 'a {
    let attempt_of = |id: &JobId| {
        let job = state.jobs.get(id)?;
        job.attempt
            .as_deref()
            .map(|attempt| (job.as_ref(), attempt))
    };
    node.jobs
        .keys()
        .filter_map(attempt_of)
        .flat_map(|(job, attempt)| {
            let here = |t: &&TaskRecord| {
                t.placement.node == node.id && !matches!(t.phase, TaskPhase::Ended { .. })
            };
            attempt
                .tasks
                .iter()
                .filter(here)
                .map(move |task| (job, attempt, task))
        })
}

/// The order to run one task.
pub(super) fn launch_task(
    state: &State,
    job: &Job,
    attempt: &Attempt,
    task: &TaskRecord,
) -> LaunchTask {
    let spec = &job.spec;
    let group = &spec.groups[task.placement.group as usize];
    let node_of = |t: &TaskRecord| t.placement.node;
    let mut nodes = Vec::new();
    for node in attempt.tasks.iter().map(node_of) {
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    let name_of = |id| {
        state
            .nodes
            .get(id)
            .map(|n| n.spec.name.clone())
            .unwrap_or_default()
    };
    let own = task.placement.node;
    let local = |t: &&TaskRecord| t.placement.node == own;
    let before = |t: &&TaskRecord| t.placement.rank < task.placement.rank;
    let master_addr = attempt
        .tasks
        .first()
        .and_then(|t| state.nodes.get(&node_of(t)));
    let checkpoint_dir = match spec.checkpoint.dir.as_str() {
        "" => String::new(),
        dir => format!(
            "{}/job-{}/epoch-{}",
            dir.trim_end_matches('/'),
            job.id,
            attempt.epoch
        ),
    };
    LaunchTask {
        key: TaskKey {
            job: job.id,
            epoch: attempt.epoch,
            rank: task.placement.rank,
        },
        job_name: spec.name.clone(),
        user: spec.user.clone(),
        command: group.command.clone(),
        env: spec.env.clone(),
        work_dir: spec.work_dir.clone(),
        gpus: task.placement.gpus.clone(),
        millicpu: group.resources.millicpu,
        mem_bytes: group.resources.mem_bytes,
        world_size: attempt.tasks.len() as u32,
        local_rank: attempt.tasks.iter().filter(local).filter(before).count() as u32,
        local_world_size: attempt.tasks.iter().filter(local).count() as u32,
        node_rank: nodes.iter().position(|n| *n == own).unwrap_or(0) as u32,
        node_names: nodes.iter().map(name_of).collect(),
        master_addr: master_addr
            .map(|n| n.spec.address.clone())
            .unwrap_or_default(),
        master_port: attempt.master_port,
        checkpoint_dir,
        checkpoint_keep: spec.checkpoint.keep,
        // A rank that is launched late must not resume from what its own attempt has saved meanwhile.
        resume_from: job
            .checkpoints
            .iter()
            .filter(|checkpoint| checkpoint.epoch < attempt.epoch)
            .cloned()
            .collect(),
        restart_count: attempt.epoch.0.saturating_sub(1),
        lost_node: spec.restart.on_lost_node,
        grace_ms: spec.grace_ms,
    }
}
