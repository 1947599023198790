//! What an agent needs to know to run a task, put together from the replicated state.

use berth_types::{Attempt, JobId, LaunchTask, NodeId, TaskKey, TaskPhase, TaskRecord};

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

/// Where a task sits among the others of its attempt.
struct Seat {
    local_rank: u32,
    local_world_size: u32,
    node_rank: u32,
    node_names: Vec<String>,
}

fn seat(state: &State, attempt: &Attempt, task: &TaskRecord) -> Seat {
    let mut nodes: Vec<NodeId> = Vec::new();
    let (mut local_rank, mut local_world_size) = (0, 0);
    for other in attempt.tasks.iter().map(|t| &t.placement) {
        if !nodes.contains(&other.node) {
            nodes.push(other.node);
        }
        if other.node == task.placement.node {
            local_world_size += 1;
            local_rank += u32::from(other.rank < task.placement.rank);
        }
    }
    let own = nodes.iter().position(|n| *n == task.placement.node);
    let name_of = |id: &NodeId| state.nodes.get(id).map(|n| n.spec.name.clone());
    Seat {
        local_rank,
        local_world_size,
        node_rank: own.and_then(|at| u32::try_from(at).ok()).unwrap_or(0),
        node_names: nodes
            .iter()
            .map(|id| name_of(id).unwrap_or_default())
            .collect(),
    }
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
    let seat = seat(state, attempt, task);
    let first = attempt.tasks.first().map(|t| t.placement.node);
    let master = first.and_then(|node| state.nodes.get(&node));
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
        world_size: u32::try_from(attempt.tasks.len()).unwrap_or(u32::MAX),
        local_rank: seat.local_rank,
        local_world_size: seat.local_world_size,
        node_rank: seat.node_rank,
        node_names: seat.node_names,
        master_addr: master.map(|n| n.spec.address.clone()).unwrap_or_default(),
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
