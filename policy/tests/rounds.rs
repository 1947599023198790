//! Whole rounds of every policy: what it proposes becomes a plan that `apply` accepts, and the order is the one that
//! its documentation tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::apply::{CommandResult, apply};
use berth_core::command::ProposalTag;
use berth_core::insight::Insights;
use berth_core::planner::{Plan, PlanLimits, WaitCode, decide};
use berth_core::{Command, LogEntry, State, View};
use berth_policy::{NAMES, by_name};
use berth_types::{
    GpuInfo, GroupSpec, JobId, JobSpec, NodeSpec, Resources, TaskExit, TaskInventory, TaskKey,
};
use proptest::prelude::*;

const START_MS: u64 = 1_000_000;

struct Cluster {
    state: State,
    now_ms: u64,
    submitted: u128,
}

impl Cluster {
    fn new(nodes: &[u16]) -> Self {
        let mut cluster = Self {
            state: State::new(),
            now_ms: START_MS,
            submitted: 0,
        };
        for (index, gpus) in nodes.iter().enumerate() {
            let spec = Arc::new(node(index, *gpus));
            let done = cluster.commit(Command::RegisterNode {
                spec,
                incarnation: 1,
            });
            assert_eq!(done, CommandResult::Done);
        }
        cluster
    }

    fn commit(&mut self, command: Command) -> CommandResult {
        let entry = LogEntry {
            tag: ProposalTag::default(),
            stamp_ms: self.now_ms,
            commands: vec![command],
        };
        let applied = apply(&mut self.state, 1, &entry);
        assert_eq!(self.state.check(), Ok(()));
        applied.results.into_iter().next().expect("one command")
    }

    fn submit(&mut self, spec: JobSpec) -> Option<JobId> {
        self.submitted += 1;
        let key = (u128::from(self.now_ms) << 80) | (7 << 76) | (2 << 62) | self.submitted;
        let hash = berth_core::codec::spec_hash(&spec);
        let spec = Arc::new(spec);
        match self.commit(Command::SubmitJob { key, hash, spec }) {
            CommandResult::Submitted { job, .. } => Some(job),
            _ => None,
        }
    }

    fn decide(&self, policy: &str) -> Plan {
        let view = View {
            round: 1,
            seed: 1,
            now_ms: self.now_ms,
            state: self.state.clone(),
            insights: Insights::new(),
        };
        let mut policy = by_name(policy).expect("it is listed");
        decide(&mut *policy, &view, &PlanLimits::default())
    }

    fn carry_out(&mut self, plan: Plan) {
        let bundles = plan.bundles;
        let result = self.commit(Command::ApplyPlan { plan: 1, bundles });
        let CommandResult::Bundles(results) = result else {
            panic!("no answer to a plan: {result:?}");
        };
        for result in results {
            assert_eq!(result, Ok(()));
        }
    }

    fn end(&mut self, job: JobId) {
        let record = Arc::clone(self.state.job(job).expect("it is there"));
        let attempt = record.attempt.as_ref().expect("it is placed");
        for task in &attempt.tasks {
            let key = TaskKey {
                job,
                epoch: attempt.epoch,
                rank: task.placement.rank,
            };
            let exit = TaskExit {
                code: 0,
                at_ms: self.now_ms,
                reason: String::new(),
                node_fault: false,
            };
            let (node, tasks) = (task.placement.node, vec![(key, TaskInventory::Ended(exit))]);
            self.commit(Command::RecordTasks { node, tasks });
        }
    }
}

fn node(index: usize, gpus: u16) -> NodeSpec {
    let gpu = |gpu: u16| GpuInfo {
        uuid: format!("{index}-{gpu}"),
        model: "a100".to_owned(),
        mem_bytes: 40 << 30,
        nvlink_group: gpu / 4,
        numa: 0,
    };
    NodeSpec {
        name: format!("n{index}"),
        address: "127.0.0.1".to_owned(),
        millicpu: 64_000,
        mem_bytes: 512 << 30,
        gpus: (0..gpus).map(gpu).collect(),
        port_first: 20_000,
        port_count: 100,
        ..NodeSpec::default()
    }
}

fn job(workers: u32, milligpu: u32) -> JobSpec {
    let group = GroupSpec {
        name: "worker".to_owned(),
        command: vec!["train".to_owned()],
        min_workers: workers,
        max_workers: workers,
        gang: true,
        resources: Resources {
            milligpu,
            ..Resources::default()
        },
        node_labels: BTreeMap::new(),
    };
    JobSpec {
        name: "job".to_owned(),
        user: "ann".to_owned(),
        groups: vec![group],
        ..JobSpec::default()
    }
}

fn started(plan: &Plan) -> Vec<u64> {
    let starts = plan.bundles.iter().flat_map(|bundle| &bundle.starts);
    starts.map(|start| start.job.0).collect()
}

#[test]
fn fifo_goes_by_priority_then_arrival() {
    let mut cluster = Cluster::new(&[2]);
    for priority in [0, 0, 5] {
        let spec = JobSpec {
            priority,
            ..job(1, 1_000)
        };
        cluster.submit(spec).expect("it fits");
    }
    assert_eq!(started(&cluster.decide("fifo")), [3, 1]);
}

#[test]
fn srtf_takes_the_shortest_first() {
    let mut cluster = Cluster::new(&[1]);
    for expected_ms in [0, 9_000, 3_000] {
        let spec = JobSpec {
            expected_ms,
            ..job(1, 1_000)
        };
        cluster.submit(spec).expect("it fits");
    }
    assert_eq!(started(&cluster.decide("srtf")), [3]);
    assert_eq!(started(&cluster.decide("fifo")), [1]);
}

#[test]
fn best_fit_keeps_room_that_fifo_breaks_up() {
    // In order, the first job takes part of the small node, and the third no longer fits anywhere.
    let mut cluster = Cluster::new(&[4, 6]);
    for milligpu in [2_000, 4_000, 4_000] {
        cluster.submit(job(1, milligpu)).expect("it fits");
    }
    assert_eq!(started(&cluster.decide("fifo")), [1, 2]);
    assert_eq!(started(&cluster.decide("best-fit")), [1, 2, 3]);
}

#[test]
fn best_fit_decides_who_starts_in_the_order_of_fifo() {
    let mut cluster = Cluster::new(&[4]);
    for milligpu in [1_000, 4_000] {
        cluster.submit(job(1, milligpu)).expect("it fits");
    }
    assert_eq!(started(&cluster.decide("best-fit")), [1]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_policy_finishes_every_job_that_fits(
        nodes in prop::collection::vec(1u16..9, 1..5),
        jobs in prop::collection::vec((1u32..5, 0usize..6, 0u64..4, 0i32..3, 0u32..3), 1..25),
        policy in 0usize..NAMES.len(),
    ) {
        let mut cluster = Cluster::new(&nodes);
        for (workers, size, seconds, priority, more) in jobs {
            let mut spec = job(workers, [0, 300, 500, 1_000, 1_000, 2_000][size]);
            spec.groups[0].max_workers += more;
            spec.expected_ms = 1_000 * seconds;
            spec.priority = priority;
            cluster.submit(spec);
        }
        loop {
            let plan = cluster.decide(NAMES[policy]);
            prop_assert_eq!(&plan, &cluster.decide(NAMES[policy]), "equal views give equal plans");
            if plan.bundles.is_empty() && cluster.state.active.is_empty() {
                // What is left does not fit the empty cluster.
                prop_assert_eq!(plan.waiting.len(), cluster.state.pending.len());
                for reason in plan.waiting.values() {
                    prop_assert_eq!(reason.code, WaitCode::ReqNodeNotAvail);
                }
                break;
            }
            cluster.carry_out(plan);
            cluster.now_ms += 1_000;
            let oldest = cluster.state.active.iter().next().copied();
            if let Some(job) = oldest {
                cluster.end(job);
            }
        }
    }
}
