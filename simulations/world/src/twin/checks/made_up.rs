//! States to find faults in, made by hand because no command leads there.

use std::sync::Arc;

use berth_core::state::Job;
pub(super) use berth_core::state::State;
use berth_types::{
    Attempt, AttemptPhase, Epoch, GpuInfo, GpuShare, GroupSpec, JobId, JobSpec, NodeId, NodeSpec,
    Rank, Resources, TaskPhase, TaskPlacement, TaskRecord,
};

/// Two nodes with two GPUs and four CPUs each.
pub(super) fn state() -> State {
    let mut state = State::new();
    for number in 1..=2 {
        let gpu = |index: usize| GpuInfo {
            uuid: index.to_string(),
            model: "a100".into(),
            mem_bytes: 1,
            nvlink_group: 0,
            numa: 0,
        };
        let spec = NodeSpec {
            name: format!("n{number}"),
            millicpu: 4_000,
            gpus: (0..2).map(gpu).collect(),
            ..NodeSpec::default()
        };
        let id = NodeId(number);
        let node = berth_core::state::Node::new(id, Arc::new(spec), 1, 0);
        state.nodes.insert(id, Arc::new(node));
    }
    state
}

/// A gang of so many workers with one CPU each.
pub(super) fn job(id: u64, workers: u32) -> Job {
    let group = GroupSpec {
        name: "w".into(),
        command: vec!["train".into()],
        min_workers: workers,
        max_workers: workers,
        gang: true,
        resources: Resources {
            millicpu: 1_000,
            ..Resources::default()
        },
        node_labels: Default::default(),
    };
    let spec = JobSpec {
        groups: vec![group],
        ..JobSpec::default()
    };
    Job::new(JobId(id), Arc::new(spec), 0)
}

/// Puts a job there whose workers run on these nodes, with these shares of GPUs.
pub(super) fn placed(state: &mut State, id: u64, tasks: &[(u32, &[(u16, u32)])]) {
    let mut job = job(id, tasks.len() as u32);
    let tasks = tasks
        .iter()
        .zip(0..)
        .map(|((node, gpus), rank)| TaskRecord {
            placement: TaskPlacement {
                rank: Rank(rank),
                group: 0,
                node: NodeId(*node),
                gpus: (gpus.iter())
                    .map(|&(gpu, milligpu)| GpuShare { gpu, milligpu })
                    .collect(),
            },
            phase: TaskPhase::Running { since_ms: 0 },
        });
    job.attempt = Some(Box::new(Attempt {
        epoch: Epoch(1),
        phase: AttemptPhase::Running,
        tasks: tasks.collect(),
        master_port: 0,
        started_ms: 0,
        resumed_step: None,
        placed_because: String::new(),
    }));
    state.active.insert(job.id);
    state.jobs.insert(job.id, Arc::new(job));
}
