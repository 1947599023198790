//! Small clusters, small traces, and policies with one idea each.

use std::sync::Arc;

use berth_core::policy::{Action, Backfill, Policy, Proposal, ProposedBundle, View};
use berth_types::{GpuInfo, GroupSpec, JobId, JobSpec, NodeSpec, Resources};
use berth_world::twin::{
    Cluster, End, Outcome, Rigid, Setting, Trace, TraceJob, Truth, TwinError, run, unwatched,
};
use rand_chacha::ChaCha8Rng;

/// Nodes with so many GPUs each.
pub(crate) fn cluster(gpus: &[usize]) -> Cluster {
    let gpu = |index: usize| GpuInfo {
        uuid: format!("GPU-{index}"),
        model: "a100".into(),
        mem_bytes: 40 << 30,
        nvlink_group: 0,
        numa: 0,
    };
    let node = |(number, &gpus): (usize, &usize)| NodeSpec {
        name: format!("n{number}"),
        millicpu: 64_000,
        mem_bytes: 256 << 30,
        gpus: (0..gpus).map(gpu).collect(),
        ..NodeSpec::default()
    };
    Cluster {
        name: "tiny".into(),
        nodes: gpus.iter().enumerate().map(node).collect(),
        ..Cluster::default()
    }
}

/// A job of one worker with so many thousandths of GPUs, submitted and running for so many milliseconds.
pub(crate) fn job(key: &str, submit_ms: u64, milligpu: u32, run_ms: u64) -> TraceJob {
    let group = GroupSpec {
        name: "w".into(),
        command: vec!["train".into()],
        min_workers: 1,
        max_workers: 1,
        gang: true,
        resources: Resources {
            milligpu,
            ..Resources::default()
        },
        node_labels: Default::default(),
    };
    TraceJob {
        key: key.into(),
        submit_ms,
        spec: Arc::new(JobSpec {
            name: key.into(),
            user: "u".into(),
            groups: vec![group],
            ..JobSpec::default()
        }),
        truth: Truth::Rigid(Rigid {
            run_ms,
            end: End::Completed,
        }),
    }
}

/// The same with a change to what is submitted.
pub(crate) fn with(mut job: TraceJob, change: impl FnOnce(&mut JobSpec)) -> TraceJob {
    change(Arc::make_mut(&mut job.spec));
    job
}

/// The same with another end.
pub(crate) fn ending(mut job: TraceJob, end: End) -> TraceJob {
    if let Truth::Rigid(rigid) = &mut job.truth {
        rigid.end = end;
    }
    job
}

/// A setting with every check on.
pub(crate) fn setting(cluster: Cluster, jobs: Vec<TraceJob>) -> Setting {
    let trace = Trace {
        name: "small".into(),
        jobs,
    };
    let mut setting = Setting::new(Arc::new(cluster), Arc::new(trace));
    setting.checks = true;
    setting
}

/// Runs it.
pub(crate) fn outcome(setting: &Setting, policy: &mut dyn Policy) -> Result<Outcome, TwinError> {
    run(setting, policy, &mut unwatched)
}

/// First start and end of each job.
pub(crate) fn times(outcome: &Outcome) -> Vec<(Option<u64>, Option<u64>)> {
    (outcome.jobs.iter())
        .map(|job| (job.first_start_ms, job.end_ms))
        .collect()
}

/// First come, first served; nothing overtakes.
pub(crate) struct Queue;

impl Policy for Queue {
    fn name(&self) -> &str {
        "queue"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let pending = view.state.pending.iter();
        Proposal {
            bundles: pending.map(|key| ProposedBundle::start(key.job)).collect(),
            backfill: Backfill::Strict,
            ..Proposal::default()
        }
    }
}

/// The newest job evicts the running one if they do not fit together.
pub(crate) struct NewestFirst;

impl Policy for NewestFirst {
    fn name(&self) -> &str {
        "newest-first"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let mut proposal = Proposal {
            backfill: Backfill::Greedy,
            ..Proposal::default()
        };
        let waiting = |job: &JobId| !view.state.reservations.contains_key(job);
        let newest = view
            .state
            .pending
            .iter()
            .map(|key| key.job)
            .filter(waiting)
            .max();
        let Some(newest) = newest else {
            return proposal;
        };
        let oldest = view.state.active.iter().copied().next();
        match oldest.filter(|oldest| *oldest < newest) {
            Some(oldest) => proposal.bundles.push(ProposedBundle {
                actions: vec![
                    Action::Stop(oldest),
                    ProposedBundle::start(newest).actions.remove(0),
                ],
                score: 0.0,
                reason: "newest first".into(),
            }),
            None => proposal.bundles.push(ProposedBundle::start(newest)),
        }
        proposal
    }
}

/// In order of priority; who does not fit takes the place of a less urgent job of the same size.
pub(crate) struct Urgent;

impl Policy for Urgent {
    fn name(&self) -> &str {
        "urgent"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let state = &view.state;
        let size = |job: &JobId| state.jobs[job].spec.groups[0].resources.milligpu;
        let mut victims: Vec<JobId> = state.active.iter().copied().collect();
        let mut bundles = Vec::new();
        for job in state.pending.iter().map(|key| key.job) {
            if state.reservations.contains_key(&job) {
                continue;
            }
            bundles.push(ProposedBundle::start(job));
            let less = |victim: &JobId| {
                state.jobs[victim].spec.priority < state.jobs[&job].spec.priority
                    && size(victim) == size(&job)
            };
            if let Some(index) = victims.iter().position(less) {
                let mut actions = vec![Action::Stop(victims.remove(index))];
                actions.extend(ProposedBundle::start(job).actions);
                bundles.push(ProposedBundle {
                    actions,
                    score: 0.0,
                    reason: "more urgent".into(),
                });
            }
        }
        Proposal {
            bundles,
            backfill: Backfill::Greedy,
            ..Proposal::default()
        }
    }
}
