//! Packing policies on small clusters: where a worker goes, what gangs get, and that what is remembered from round to
//! round changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::apply::{CommandResult, apply};
use berth_core::command::ProposalTag;
use berth_core::insight::Insights;
use berth_core::planner::{Plan, PlanLimits, plan};
use berth_core::policy::{Action, Policy, Proposal};
use berth_core::{Command, LogEntry, State, View};
use berth_policy::packing::{
    BestFit, DotProduct, Fgd, FragmentMeter, GpuClustering, GpuPacking, Packer, Random, Rule,
    Workload,
};
use berth_types::{
    GpuInfo, GroupSpec, JobId, JobSpec, MILLI, NodeSpec, Resources, TaskExit, TaskInventory,
    TaskKey,
};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

struct Cluster {
    state: State,
    now_ms: u64,
    round: u64,
}

impl Cluster {
    /// Nodes by GPUs and CPUs.
    fn new(nodes: &[(u16, u32)]) -> Self {
        let mut cluster = Self {
            state: State::new(),
            now_ms: 1_000_000,
            round: 0,
        };
        for (index, &(gpus, cpus)) in nodes.iter().enumerate() {
            let spec = Arc::new(node(index, gpus, cpus));
            cluster.commit(Command::RegisterNode {
                spec,
                incarnation: 1,
            });
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
        self.now_ms += 1;
        let key = (u128::from(self.now_ms) << 80) | (7 << 76) | (2 << 62);
        let hash = berth_core::codec::spec_hash(&spec);
        let spec = Arc::new(spec);
        match self.commit(Command::SubmitJob { key, hash, spec }) {
            CommandResult::Submitted { job, .. } => Some(job),
            _ => None,
        }
    }

    fn view(&self) -> View {
        View {
            round: self.round,
            seed: self.round,
            now_ms: self.now_ms,
            state: self.state.clone(),
            insights: Insights::new(),
            pools: Arc::default(),
            telemetry: Default::default(),
        }
    }

    fn propose(&self, policy: &mut dyn Policy) -> Proposal {
        let view = self.view();
        policy.propose(&view, &mut ChaCha8Rng::seed_from_u64(view.seed))
    }

    fn carry_out(&mut self, proposal: &Proposal) -> Plan {
        let plan = plan(&self.view(), proposal, &PlanLimits::default());
        for (job, reason) in plan.rejects.clone() {
            self.commit(Command::RejectJob { job, reason });
        }
        let bundles = plan.bundles.clone();
        self.commit(Command::ApplyPlan { plan: 1, bundles });
        self.round += 1;
        plan
    }

    /// Submits a job and lets a policy place it: the nodes by worker, counted from 0.
    fn place(&mut self, policy: &mut dyn Policy, spec: JobSpec) -> Vec<u32> {
        let job = self.submit(spec).expect("it fits");
        let proposal = self.propose(policy);
        let plan = self.carry_out(&proposal);
        assert_eq!(plan.stats.replaced, 0, "the slots hold");
        let starts = plan.bundles.iter().flat_map(|bundle| &bundle.starts);
        let tasks = starts
            .filter(|start| start.job == job)
            .flat_map(|start| &start.placements);
        tasks.map(|task| task.node.0 - 1).collect()
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

fn node(index: usize, gpus: u16, cpus: u32) -> NodeSpec {
    let gpu = |gpu: u16| GpuInfo {
        uuid: format!("{index}-{gpu}"),
        model: ["a100", "t4"][index % 2].to_owned(),
        mem_bytes: 40 << 30,
        nvlink_group: gpu / 4,
        numa: 0,
    };
    NodeSpec {
        name: format!("n{index}"),
        address: "127.0.0.1".to_owned(),
        millicpu: 1_000 * cpus,
        mem_bytes: 512 << 30,
        gpus: (0..gpus).map(gpu).collect(),
        port_first: 20_000,
        port_count: 100,
        ..NodeSpec::default()
    }
}

fn gang(workers: u32, milligpu: u32, cpus: u32) -> JobSpec {
    let group = GroupSpec {
        name: "worker".to_owned(),
        command: vec!["train".to_owned()],
        min_workers: workers,
        max_workers: workers,
        gang: true,
        resources: Resources {
            milligpu,
            millicpu: 1_000 * cpus,
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

fn job(milligpu: u32, cpus: u32) -> JobSpec {
    gang(1, milligpu, cpus)
}

fn packer(rule: impl Rule + 'static) -> Box<dyn Policy> {
    Box::new(Packer::new(rule))
}

fn workload(jobs: &[(usize, u32, u32)]) -> Workload {
    let specs: Vec<JobSpec> = (jobs.iter())
        .flat_map(|&(count, milligpu, cpus)| vec![job(milligpu, cpus); count])
        .collect();
    Workload::of(specs.iter())
}

#[test]
fn best_fit_takes_the_node_that_is_left_fullest() {
    let mut cluster = Cluster::new(&[(8, 64), (4, 64), (4, 32)]);
    let mut policy = packer(BestFit);
    assert_eq!(cluster.place(&mut *policy, job(1_000, 8)), [2]);
    assert_eq!(cluster.place(&mut *policy, job(4_000, 8)), [1]);
    assert_eq!(cluster.place(&mut *policy, job(4_000, 8)), [0]);
}

#[test]
fn dot_product_takes_the_node_with_least_of_what_is_asked() {
    // Asked is GPU; the second node has less of that, though more CPUs.
    let mut cluster = Cluster::new(&[(8, 16), (4, 64)]);
    let mut policy = packer(DotProduct);
    assert_eq!(cluster.place(&mut *policy, job(1_000, 0)), [1]);
    assert_eq!(cluster.place(&mut *policy, job(0, 8)), [0]);
}

#[test]
fn gpu_packing_takes_gpus_in_use_then_nodes_in_use_then_small_nodes() {
    let mut cluster = Cluster::new(&[(8, 64), (2, 64)]);
    let mut policy = packer(GpuPacking);
    let mut place = |spec| cluster.place(&mut *policy, spec);
    assert_eq!(place(job(400, 1)), [1], "the smaller free node");
    assert_eq!(place(job(1_000, 1)), [1], "the node in use");
    assert_eq!(place(job(600, 1)), [1], "the GPU in use");
    assert_eq!(place(job(500, 1)), [0], "what is left");
}

#[test]
fn gpu_clustering_keeps_sizes_apart() {
    let mut cluster = Cluster::new(&[(4, 64), (4, 64), (4, 64)]);
    let mut policy = packer(GpuClustering);
    let mut place = |spec| cluster.place(&mut *policy, spec);
    assert_eq!(place(job(500, 1)), [0]);
    assert_eq!(place(job(2_000, 1)), [1]);
    assert_eq!(place(job(500, 1)), [0]);
    assert_eq!(place(job(1_000, 1)), [2]);
    assert_eq!(place(job(2_000, 1)), [1]);
    assert_eq!(
        place(job(2_000, 1)),
        [0],
        "its own is full: the fullest other"
    );
}

#[test]
fn fgd_spares_what_the_workload_could_still_use() {
    // Half of the workers want a whole GPU with four CPUs, half a part of one.
    let wanted = workload(&[(50, 1_000, 4), (50, 500, 1)]);
    let mut cluster = Cluster::new(&[(2, 64), (1, 64), (1, 4)]);
    let mut policy = packer(Fgd::with_workload(wanted));
    let mut place = |spec| cluster.place(&mut *policy, spec);
    // Half a GPU left on the first node is no use to whole workers there as well; on the others nothing else is left.
    let first = place(job(500, 1));
    assert_eq!(place(job(500, 1)), first, "the half that is left over");
    // One CPU from the third node would leave its GPU to nobody who wants a whole one.
    assert_ne!(place(job(0, 1)), [2]);
}

#[test]
fn random_is_anywhere_with_room_and_the_same_for_the_same_seed() {
    let mut seen = [0; 4];
    for round in 0..400 {
        let mut cluster = Cluster::new(&[(2, 64), (2, 64), (2, 64), (1, 64)]);
        cluster.round = round;
        cluster.submit(job(2_000, 1)).expect("it fits");
        let proposal = cluster.propose(&mut *packer(Random));
        assert_eq!(proposal, cluster.propose(&mut *packer(Random)));
        let plan = cluster.carry_out(&proposal);
        let start = &plan.bundles[0].starts[0];
        seen[start.placements[0].node.0 as usize - 1] += 1;
    }
    assert_eq!(seen[3], 0, "too small");
    // Three equal shares of 400 draws; 9 standard deviations of 9.4.
    assert!(
        seen[..3].iter().all(|&n| (50..220).contains(&n)),
        "{seen:?}"
    );
}

#[test]
fn a_gang_stays_together_where_it_can_and_is_whole_or_not_there() {
    let mut cluster = Cluster::new(&[(2, 64), (4, 64), (4, 64)]);
    let mut policy = packer(BestFit);
    assert_eq!(
        cluster.place(&mut *policy, gang(6, 1_000, 1)),
        [1, 1, 1, 1, 0, 0]
    );
    let job = cluster
        .submit(gang(5, 1_000, 1))
        .expect("it fits when idle");
    let proposal = cluster.propose(&mut *policy);
    let plan = cluster.carry_out(&proposal);
    assert!(plan.bundles.is_empty(), "four of five are not enough");
    assert!(plan.waiting.contains_key(&job));
    // Nothing is left of the attempt: four still fit.
    let next = cluster.submit(gang(4, 1_000, 1)).expect("it fits");
    let proposal = cluster.propose(&mut *policy);
    let named = proposal
        .bundles
        .iter()
        .find_map(|bundle| match &bundle.actions[..] {
            [
                Action::Start {
                    job,
                    slots: Some(slots),
                    ..
                },
            ] if *job == next => Some(slots.len()),
            _ => None,
        });
    assert_eq!(named, Some(4));
}

#[test]
fn an_elastic_job_gets_as_much_as_there_is() {
    let mut cluster = Cluster::new(&[(2, 64), (3, 64)]);
    let mut spec = gang(2, 1_000, 1);
    spec.groups[0].max_workers = 8;
    let nodes = cluster.place(&mut *packer(BestFit), spec);
    assert_eq!(nodes.len(), 5);
}

#[test]
fn now_or_never_is_turned_away_without_room() {
    let mut cluster = Cluster::new(&[(1, 64)]);
    let mut policy = packer(BestFit);
    cluster.place(&mut *policy, job(600, 1));
    let late = cluster.submit(JobSpec {
        start_now: true,
        ..job(500, 1)
    });
    let proposal = cluster.propose(&mut *policy);
    let plan = cluster.carry_out(&proposal);
    assert_eq!(
        plan.rejects,
        [(
            late.expect("it is accepted"),
            "no node has room for it now".to_owned()
        )]
    );
}

#[test]
fn whole_gpus_come_from_one_nvlink_group_if_that_holds_them() {
    let mut cluster = Cluster::new(&[(8, 64)]);
    let mut policy = packer(BestFit);
    cluster.place(&mut *policy, job(1_000, 1));
    let id = cluster.submit(job(4_000, 1)).expect("it fits");
    let proposal = cluster.propose(&mut *policy);
    cluster.carry_out(&proposal);
    let record = cluster.state.job(id).expect("it runs");
    let task = &record.attempt.as_ref().expect("it is placed").tasks[0];
    let gpus: Vec<u16> = task.placement.gpus.iter().map(|share| share.gpu).collect();
    assert_eq!(gpus, [4, 5, 6, 7]);
}

/// What happens to a cluster.
#[derive(Clone, Debug)]
enum Happening {
    Submit(u32, usize, u32, bool),
    End(u8),
    Round,
    Drain(u8, bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (1u32..4, 0usize..7, 0u32..9, any::<bool>())
            .prop_map(|(workers, size, cpus, now)| Happening::Submit(workers, size, cpus, now)),
        2 => any::<u8>().prop_map(Happening::End),
        4 => Just(Happening::Round),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(node, drain)| Happening::Drain(node, drain)),
    ]
}

fn rules(wanted: &Workload) -> Vec<Box<dyn Policy>> {
    vec![
        packer(BestFit),
        packer(DotProduct),
        packer(GpuPacking),
        packer(GpuClustering),
        packer(Random),
        packer(Fgd::with_workload(wanted.clone())),
    ]
}

/// `F` straight from its definition.
fn fragments(state: &State, wanted: &Workload) -> f64 {
    let mut sum = 0.0;
    for node in state.nodes.values().filter(|node| node.is_schedulable()) {
        let free: Vec<u32> = (node.gpus.iter())
            .map(|gpu| MILLI - gpu.milligpu - gpu.reserved)
            .collect();
        let all: u32 = free.iter().sum();
        let cpus = node.spec.millicpu - node.used_millicpu;
        for (task, count) in wanted.tasks() {
            let holding = free.iter().filter(|&&free| free >= task.share).count();
            let runs = task.gpus > 0
                && holding >= task.gpus as usize
                && cpus >= task.millicpu
                && task.accepts_model(&node.spec.gpus[0].model);
            let lost: u32 = if runs {
                free.iter().filter(|&&free| free < task.share).sum()
            } else {
                all
            };
            sum += f64::from(lost) * *count as f64 / wanted.weight() as f64;
        }
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_policy_that_remembers_proposes_what_a_new_one_does(
        nodes in prop::collection::vec((1u16..9, 4u32..64), 1..6),
        happenings in prop::collection::vec(happening(), 1..40),
        which in 0usize..6,
    ) {
        let wanted = workload(&[(5, 500, 2), (3, 1_000, 4), (2, 2_000, 8), (2, 0, 4)]);
        let mut cluster = Cluster::new(&nodes);
        let mut policy = rules(&wanted).swap_remove(which);
        let mut meter = FragmentMeter::new(wanted.clone());
        for what in happenings {
            match what {
                Happening::Submit(workers, size, cpus, start_now) => {
                    let milligpu = [0, 300, 500, 1_000, 1_000, 2_000, 4_000][size];
                    let mut spec = gang(workers, milligpu, cpus);
                    spec.start_now = start_now;
                    if milligpu > 0 && cpus == 0 {
                        spec.groups[0].resources.gpu_types = vec!["T4".to_owned()];
                    }
                    cluster.submit(spec);
                }
                Happening::End(nth) => {
                    let active: Vec<JobId> = cluster.state.active.iter().copied().collect();
                    if let Some(job) = active.get(usize::from(nth) % active.len().max(1)) {
                        cluster.end(*job);
                    }
                }
                Happening::Drain(nth, drain) => {
                    let nodes: Vec<_> = cluster.state.nodes.keys().copied().collect();
                    let drain = drain.then(|| berth_types::api::Drain {
                        reason: String::new(),
                        evict: false,
                    });
                    let node = nodes[usize::from(nth) % nodes.len()];
                    cluster.commit(Command::SetDrain { node, drain });
                }
                Happening::Round => {
                    let proposal = cluster.propose(&mut *policy);
                    let fresh = cluster.propose(&mut *rules(&wanted).swap_remove(which));
                    prop_assert_eq!(&proposal, &fresh);
                    let plan = cluster.carry_out(&proposal);
                    let seated = proposal.bundles.iter().filter(|bundle| {
                        matches!(&bundle.actions[..], [Action::Start { slots: Some(_), .. }])
                    });
                    if plan.reservation.is_none() {
                        prop_assert!(plan.stats.starts >= seated.count(), "its slots hold");
                    }
                }
            }
            let measured = meter.measure(&cluster.state).fragmented_milligpu;
            let defined = fragments(&cluster.state, &wanted);
            prop_assert!((measured - defined).abs() < 1e-6 * (1.0 + defined), "{} {}", measured, defined);
        }
    }
}
