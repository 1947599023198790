//! Whole rounds of every policy: what it proposes becomes a plan that `apply` accepts, and the order is the one that
//! its documentation tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::apply::{CommandResult, apply};
use berth_core::command::ProposalTag;
use berth_core::goodput::{BatchLimits, GradientNoise, LearnedModel, Observation};
use berth_core::insight::{Configuration, Insight, Insights, Record, Speed};
use berth_core::planner::{Plan, PlanLimits, WaitCode, decide};
use berth_core::policy::Policy;
use berth_core::{Command, LogEntry, State, View};
use berth_policy::{NAMES, by_name};
use berth_types::{
    GpuInfo, GroupSpec, JobId, JobSpec, NodeSpec, Resources, TaskExit, TaskInventory, TaskKey,
};
use proptest::prelude::*;

const START_MS: u64 = 1_000_000;

/// Policies with settings that change what they do. None blocks for ever behind a job that cannot start.
const SETTINGS: [&str; 6] = [
    "fifo:backfill=greedy",
    "sjf:backfill=none",
    "srtf:preempt=yes",
    "las:queues=1/3,starvation=2",
    "qssf:estimate=given",
    "soft:min_run=1+las:queues=1",
];

struct Cluster {
    state: State,
    now_ms: u64,
    submitted: u128,
    insights: Insights,
}

impl Cluster {
    fn new(nodes: &[u16]) -> Self {
        let mut cluster = Self {
            state: State::new(),
            now_ms: START_MS,
            submitted: 0,
            insights: Insights::new(),
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
        self.ask(&mut *by_name(policy).expect("it is listed"))
    }

    fn ask(&self, policy: &mut dyn Policy) -> Plan {
        let view = View {
            round: 1,
            seed: 1,
            now_ms: self.now_ms,
            state: self.state.clone(),
            insights: self.insights.clone(),
            pools: Arc::default(),
            telemetry: Default::default(),
        };
        decide(policy, &view, &PlanLimits::default())
    }

    /// A round, with the tasks that it stops gone at once; then another one if it stopped some.
    fn round(&mut self, policy: &mut dyn Policy) {
        for _ in 0..8 {
            let plan = self.ask(policy);
            let evicted = plan.bundles.iter().flat_map(|bundle| &bundle.evictions);
            let evicted: Vec<JobId> = evicted.map(|eviction| eviction.job).collect();
            self.carry_out(plan);
            if evicted.is_empty() {
                return;
            }
            evicted.into_iter().for_each(|job| self.end(job));
        }
        panic!("evicts without end");
    }

    fn running(&self) -> Vec<u64> {
        self.state.active.iter().map(|job| job.0).collect()
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

    /// Its tasks run.
    fn begin(&mut self, job: JobId) {
        let record = Arc::clone(self.state.job(job).expect("it is there"));
        let attempt = record.attempt.as_ref().expect("it is placed");
        for task in &attempt.tasks {
            let key = TaskKey {
                job,
                epoch: attempt.epoch,
                rank: task.placement.rank,
            };
            let running = TaskInventory::Running {
                since_ms: self.now_ms,
            };
            let (node, tasks) = (task.placement.node, vec![(key, running)]);
            self.commit(Command::RecordTasks { node, tasks });
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

#[test]
fn sjf_and_qssf_differ_in_what_they_call_short() {
    let mut cluster = Cluster::new(&[4]);
    for (gpus, expected_ms) in [(4, 2_000), (1, 3_000)] {
        let spec = JobSpec {
            expected_ms,
            ..job(gpus, 1_000)
        };
        cluster.submit(spec).expect("it fits");
    }
    assert_eq!(started(&cluster.decide("sjf")), [1]);
    assert_eq!(started(&cluster.decide("qssf:estimate=given")), [2]);
}

#[test]
fn without_backfill_nothing_passes_a_job_that_does_not_fit() {
    let mut cluster = Cluster::new(&[4]);
    for gpus in [2, 4, 1] {
        cluster.submit(job(1, 1_000 * gpus)).expect("it fits");
    }
    assert_eq!(started(&cluster.decide("fifo:backfill=none")), [1]);
    assert_eq!(started(&cluster.decide("fifo:backfill=greedy")), [1, 3]);
}

fn short(gpus: u32, seconds: u64) -> JobSpec {
    JobSpec {
        expected_ms: 1_000 * seconds,
        ..job(1, 1_000 * gpus)
    }
}

#[test]
fn a_shorter_job_takes_the_place_of_a_longer_one_and_of_no_more_than_it_needs() {
    let mut cluster = Cluster::new(&[2, 2]);
    let mut srtf = by_name("srtf:preempt=yes").expect("it is there");
    for seconds in [100, 200, 300, 400] {
        cluster.submit(short(1, seconds)).expect("it fits");
    }
    cluster.round(&mut *srtf);
    assert_eq!(cluster.running(), [1, 2, 3, 4]);
    cluster.now_ms += 1_000;
    cluster.submit(short(2, 10)).expect("it fits");
    cluster.round(&mut *srtf);
    assert_eq!(
        cluster.running(),
        [1, 2, 5],
        "the two longest sat on one node"
    );
    cluster.now_ms += 1_000;
    cluster.submit(short(1, 250)).expect("it fits");
    cluster.round(&mut *srtf);
    assert_eq!(cluster.running(), [1, 2, 5], "who runs has less before it");
    assert_eq!(cluster.state.reservations.len(), 0);
}

#[test]
fn nobody_is_evicted_for_a_start_that_would_not_fit() {
    let mut cluster = Cluster::new(&[2, 1, 1]);
    let mut srtf = by_name("srtf:preempt=yes").expect("it is there");
    for seconds in [900, 900, 5, 5] {
        cluster.submit(short(1, seconds)).expect("it fits");
        cluster.round(&mut *srtf);
    }
    // Two GPUs would be vacated, but on two nodes.
    cluster.submit(short(2, 50)).expect("it fits");
    let plan = cluster.ask(&mut *srtf);
    assert_eq!((plan.stats.evictions, plan.stats.refused), (0, 0));
    cluster.end(JobId(3));
    cluster.end(JobId(4));
    cluster.round(&mut *srtf);
    assert_eq!(cluster.running(), [1, 2, 5]);
}

#[test]
fn who_has_had_much_service_makes_room_and_comes_back_once_it_starved() {
    let mut cluster = Cluster::new(&[1]);
    let mut las = by_name("las:queues=10,starvation=2").expect("it is there");
    cluster.submit(job(1, 1_000)).expect("it fits");
    cluster.round(&mut *las);
    cluster.now_ms += 9_000;
    cluster.submit(job(1, 1_000)).expect("it fits");
    cluster.round(&mut *las);
    assert_eq!(cluster.running(), [1], "both are in the first queue");
    cluster.now_ms += 1_000;
    cluster.round(&mut *las);
    assert_eq!(cluster.running(), [2], "ten GPU-seconds are over");
    cluster.now_ms += 9_000;
    cluster.round(&mut *las);
    assert_eq!(cluster.running(), [2]);
    cluster.now_ms += 11_000;
    cluster.round(&mut *las);
    assert_eq!(
        cluster.running(),
        [1],
        "it has waited for twice its ten seconds"
    );
}

#[test]
fn qssf_learns_from_the_jobs_of_a_user_that_ended() {
    let mut cluster = Cluster::new(&[1]);
    let mut qssf = by_name("qssf").expect("it is there");
    let named = |name: &str| JobSpec {
        name: name.to_owned(),
        ..job(1, 1_000)
    };
    for (name, seconds) in [
        ("long-1", 500),
        ("short-1", 5),
        ("long-2", 600),
        ("short-2", 7),
    ] {
        let id = cluster.submit(named(name)).expect("it fits");
        cluster.round(&mut *qssf);
        cluster.now_ms += 1_000 * seconds;
        cluster.end(id);
    }
    for name in ["long-3", "other", "short-3"] {
        cluster.submit(named(name)).expect("it fits");
    }
    let id = |name: &str| {
        let mut jobs = cluster.state.jobs.values();
        jobs.find(|job| job.spec.name == name).expect("it waits").id
    };
    let order = [id("short-3"), id("other"), id("long-3")];
    for expected in order {
        let plan = cluster.ask(&mut *qssf);
        assert_eq!(started(&plan), [expected.0]);
        cluster.carry_out(plan);
        cluster.now_ms += 1;
        cluster.end(expected);
    }
}

#[test]
fn soft_rules_let_a_job_rest_and_weigh_what_an_eviction_throws_away() {
    let mut cluster = Cluster::new(&[1]);
    let mut hard = by_name("srtf:preempt=yes").expect("it is there");
    let mut soft = by_name("soft:price=0.5,min_run=60+srtf:preempt=yes").expect("it is there");
    cluster.submit(short(1, 10_000)).expect("it fits");
    cluster.round(&mut *soft);
    cluster.submit(short(1, 200)).expect("it fits");
    let evictions = |plan: Plan| plan.stats.evictions;
    cluster.now_ms += 59_000;
    assert_eq!(evictions(cluster.ask(&mut *hard)), 1);
    assert_eq!(evictions(cluster.ask(&mut *soft)), 0, "it has not rested");
    cluster.now_ms += 1_000;
    assert_eq!(
        evictions(cluster.ask(&mut *soft)),
        1,
        "60 s are less than half of 200 s"
    );
    cluster.now_ms += 41_000;
    assert_eq!(
        evictions(cluster.ask(&mut *soft)),
        0,
        "101 s are lost for 200 s"
    );
    assert_eq!(evictions(cluster.ask(&mut *hard)), 1);
}

/// Twice the workers, 1.7 times the speed; per worker and second one sample counts.
#[derive(Debug)]
struct Concave;

impl Speed for Concave {
    fn goodput(&self, configuration: &Configuration<'_>) -> Option<f64> {
        Some(f64::from(configuration.workers).powf(0.77))
    }

    fn steps_per_s(&self, configuration: &Configuration<'_>) -> Option<f64> {
        self.goodput(configuration)
    }
}

/// What is known of a job whose speed and work are known, with a restart that takes a minute.
fn known(total: f64, done: f64) -> Arc<Insight> {
    let record = Record {
        done,
        total: Some(total),
        ..Record::default()
    };
    Arc::new(Insight {
        speed: Some(Arc::new(Concave)),
        restart_ms: 60_000,
        record: Some(Arc::new(record)),
        ..Insight::default()
    })
}

fn elastic() -> JobSpec {
    let mut spec = job(1, 1_000);
    spec.groups[0].max_workers = 8;
    spec
}

/// GPUs by job that runs.
fn held(cluster: &Cluster) -> BTreeMap<u64, usize> {
    let active = cluster.state.active.iter().filter_map(|id| {
        let attempt = cluster.state.job(*id)?.attempt.as_ref()?;
        Some((id.0, attempt.tasks.len()))
    });
    active.collect()
}

#[test]
fn flow_gives_more_to_who_has_less_left() {
    let mut cluster = Cluster::new(&[8]);
    let (short, long) = (cluster.submit(elastic()), cluster.submit(elastic()));
    let (short, long) = (short.expect("it fits"), long.expect("it fits"));
    cluster.insights.insert(short, known(1_000.0, 0.0));
    cluster.insights.insert(long, known(100_000.0, 0.0));
    cluster.round(&mut *by_name("flow").expect("it is listed"));
    let held = held(&cluster);
    let of = |id: JobId| held.get(&id.0).copied().unwrap_or(0);
    assert!(of(short) > of(long), "{held:?}");
    assert_eq!(of(short) + of(long), 8, "nothing is left over");
}

#[test]
fn flow_moves_a_job_only_if_the_gain_outweighs_the_restart() {
    for (left, grows) in [(100_000.0, true), (100.0, false)] {
        let mut cluster = Cluster::new(&[8]);
        let first = cluster.submit(elastic()).expect("it fits");
        let other = cluster.submit(elastic()).expect("it fits");
        cluster
            .insights
            .insert(first, known(100_000.0, 100_000.0 - left));
        cluster
            .insights
            .insert(other, known(100_000.0, 100_000.0 - left));
        let mut flow = by_name("flow:interval=0").expect("it is listed");
        cluster.round(&mut *flow);
        let before = held(&cluster);
        assert_eq!(before.values().sum::<usize>(), 8, "{before:?}");
        assert_eq!(
            before.len(),
            2,
            "equal jobs with concave speeds share: {before:?}"
        );
        cluster.end(other);
        cluster.now_ms += 1_000;
        cluster.begin(first);
        cluster.round(&mut *flow);
        let after = held(&cluster);
        assert_eq!(
            after[&first.0] > before[&first.0],
            grows,
            "{before:?} {after:?}"
        );
    }
}

#[test]
fn flow_knows_a_job_by_its_family() {
    let mut cluster = Cluster::new(&[8]);
    let mut flow = by_name("flow:interval=0").expect("it is listed");
    let named = |name: &str| JobSpec {
        name: name.to_owned(),
        ..elastic()
    };
    let limits = BatchLimits {
        first: 64,
        most: 4_096,
        local_least: 8,
        local_most: 512,
        fixed: false,
    };
    let model = LearnedModel {
        gpu_model: "a100".into(),
        gpus_per_node: 8,
        limits,
        single_gpu: 100.0,
        fitted: None,
    };
    let seen = [(1, 64), (2, 64), (4, 128)].map(|(workers, samples)| Observation {
        nodes: 1,
        workers,
        samples,
        step_s: 0.01 * f64::from(samples) + if workers > 1 { 0.02 } else { 0.0 },
        synchronise_s: if workers > 1 { 0.02 } else { 0.0 },
    });
    let noise = GradientNoise {
        squared_norm: 1.0,
        variance: 10_000.0,
    };
    let record = |done: f64, at_ms: u64| {
        let record = Record {
            done,
            at_ms,
            noise: Some(noise),
            models: vec![(model.clone(), Arc::new(seen.to_vec()))],
            most_batch: 4_096,
            ..Record::default()
        };
        Arc::new(Insight {
            record: Some(Arc::new(record)),
            ..Insight::default()
        })
    };
    let first = cluster.submit(named("resnet-1")).expect("it fits");
    cluster.round(&mut *flow);
    assert_eq!(held(&cluster)[&first.0], 1, "nothing is known of it");
    cluster.now_ms += 60_000;
    cluster.begin(first);
    cluster
        .insights
        .insert(first, record(6_000.0, cluster.now_ms));
    cluster.ask(&mut *flow);
    cluster.end(first);
    cluster.insights.remove(&first);
    let like = cluster.submit(named("resnet-2")).expect("it fits");
    cluster.round(&mut *flow);
    assert_eq!(held(&cluster)[&like.0], 8, "its family makes use of all");
    cluster.end(like);
    let unlike = cluster.submit(named("bert-1")).expect("it fits");
    cluster.round(&mut *flow);
    assert_eq!(
        held(&cluster)[&unlike.0],
        1,
        "this one is of another family"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_policy_finishes_every_job_that_fits(
        nodes in prop::collection::vec(1u16..9, 1..5),
        jobs in prop::collection::vec((1u32..5, 0usize..6, 0u64..4, 0i32..3, 0u32..3), 1..25),
        policy in 0usize..NAMES.len() + SETTINGS.len(),
    ) {
        let name = NAMES.iter().chain(&SETTINGS).nth(policy).expect("it is listed");
        let mut cluster = Cluster::new(&nodes);
        for (workers, size, seconds, priority, more) in jobs {
            let mut spec = job(workers, [0, 300, 500, 1_000, 1_000, 2_000][size]);
            spec.groups[0].max_workers += more;
            spec.expected_ms = 1_000 * seconds;
            spec.priority = priority;
            cluster.submit(spec);
        }
        for round in 0.. {
            prop_assert!(round < 2_000, "{} gets nowhere", name);
            let plan = cluster.decide(name);
            prop_assert_eq!(&plan, &cluster.decide(name), "equal views give equal plans");
            if plan.bundles.is_empty() && cluster.state.active.is_empty() {
                // What is left does not fit the empty cluster.
                prop_assert_eq!(plan.waiting.len(), cluster.state.pending.len());
                for reason in plan.waiting.values() {
                    prop_assert_eq!(reason.code, WaitCode::ReqNodeNotAvail);
                }
                break;
            }
            let evicted = plan.bundles.iter().flat_map(|bundle| bundle.evictions.clone());
            let evicted: Vec<JobId> = evicted.map(|eviction| eviction.job).collect();
            cluster.carry_out(plan);
            cluster.now_ms += 1_000;
            if !evicted.is_empty() {
                evicted.into_iter().for_each(|job| cluster.end(job));
                continue;
            }
            let oldest = cluster.state.active.iter().next().copied();
            if let Some(job) = oldest {
                cluster.end(job);
            }
        }
    }
}
