//! Planning rounds at the sizes that Berth is designed for: the policy and the planner together, on one core.
//!
//! `cargo bench -p berth-policy` prints the time of one round for each case. The figures that matter are in the names:
//! a full cluster of 1,000 nodes with 10,000 pending jobs is to take less than 200 ms under `best-fit`, one of 10,000
//! nodes with 100,000 less than 1 s.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use berth_core::insight::Insights;
use berth_core::planner::{PlanLimits, decide};
use berth_core::policy::View;
use berth_core::state::{Job, Node, State};
use berth_policy::by_name;
use berth_types::{
    Attempt, AttemptPhase, Epoch, GpuInfo, GpuShare, GroupSpec, JobId, JobSpec, NodeId, NodeSpec,
    Rank, Resources, TaskPhase, TaskPlacement, TaskRecord,
};
use criterion::{Criterion, criterion_group, criterion_main};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const GPUS: u16 = 8;
const NOW_MS: u64 = 10_000_000;

/// What the pending jobs ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    /// A few dozen shapes, as in published traces.
    Mixed,
    /// No two ask for the same.
    Distinct,
    /// One CPU each.
    Trivial,
}

/// A cluster and its queue.
#[derive(Clone, Copy)]
struct Case {
    nodes: u32,
    pending: u64,
    /// True if one-GPU jobs fill every GPU.
    full: bool,
    queue: Queue,
}

fn node_spec(id: u32) -> NodeSpec {
    let model = if id.is_multiple_of(4) { "h100" } else { "a100" };
    let gpu = |gpu: u16| GpuInfo {
        uuid: format!("GPU-{id}-{gpu}"),
        model: model.to_owned(),
        mem_bytes: 80 << 30,
        nvlink_group: gpu / 4,
        numa: gpu / 4,
    };
    NodeSpec {
        name: format!("n{id}"),
        rack: format!("r{}", id / 32),
        millicpu: 128_000,
        mem_bytes: 1 << 40,
        gpus: (0..GPUS).map(gpu).collect(),
        port_first: 20_000,
        port_count: 1_000,
        ..NodeSpec::default()
    }
}

/// Sizes as in published traces: mostly one GPU, a tail of gangs, some elastic, some fractional, half with estimates.
fn job_spec(case: Case, index: u64, rng: &mut ChaCha8Rng) -> JobSpec {
    let dice = rng.next_u32() % 16;
    let (workers, milligpu): (u32, u32) = match dice {
        _ if case.queue == Queue::Trivial => (1, 0),
        0..=6 => (1, 1_000),
        7 => (1, 500),
        8..=9 => (1, 2_000),
        10..=11 => (1, 4_000),
        12..=13 => (1, 8_000),
        14 => (4, 8_000),
        _ => (16, 8_000),
    };
    let mut cpus = 1_000 * milligpu.div_ceil(1_000).max(1);
    if case.queue == Queue::Distinct {
        cpus += u32::try_from(index).unwrap_or(0) % 900;
    }
    let group = GroupSpec {
        name: "worker".to_owned(),
        command: vec!["train".to_owned()],
        min_workers: workers,
        max_workers: workers
            + u32::from(case.queue != Queue::Trivial && rng.next_u32().is_multiple_of(8)),
        gang: true,
        resources: Resources {
            milligpu,
            millicpu: cpus,
            mem_bytes: u64::from(cpus) << 20,
            gpu_types: if milligpu > 0 && index.is_multiple_of(3) {
                vec!["a100".to_owned()]
            } else {
                Vec::new()
            },
            gpu_mem_bytes: 0,
        },
        node_labels: Default::default(),
    };
    JobSpec {
        name: format!("job-{index}"),
        user: "bench".to_owned(),
        groups: vec![group],
        expected_ms: if index.is_multiple_of(2) {
            60_000 + index
        } else {
            0
        },
        ..JobSpec::default()
    }
}

fn running(id: u64, node: u32, gpu: u16) -> Job {
    let spec = JobSpec {
        groups: vec![GroupSpec {
            name: "worker".to_owned(),
            command: vec!["train".to_owned()],
            min_workers: 1,
            max_workers: 1,
            gang: true,
            resources: Resources {
                milligpu: 1_000,
                millicpu: 1_000,
                ..Resources::default()
            },
            node_labels: Default::default(),
        }],
        expected_ms: if id.is_multiple_of(3) {
            3_600_000 + id
        } else {
            0
        },
        ..JobSpec::default()
    };
    let mut job = Job::new(JobId(id), Arc::new(spec), 0);
    let gpus = vec![GpuShare {
        gpu,
        milligpu: 1_000,
    }];
    let placement = TaskPlacement {
        rank: Rank(0),
        group: 0,
        node: NodeId(node),
        gpus,
    };
    job.epoch = Epoch(1);
    job.attempt = Some(Box::new(Attempt {
        epoch: Epoch(1),
        phase: AttemptPhase::Running,
        tasks: vec![TaskRecord {
            placement,
            phase: TaskPhase::Running { since_ms: id },
        }],
        master_port: 20_000 + gpu,
        started_ms: id,
        resumed_step: None,
        placed_because: String::new(),
    }));
    job
}

fn view(case: Case) -> View {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut state = State::new();
    for id in 1..=case.nodes {
        let node = Node::new(NodeId(id), Arc::new(node_spec(id)), 1, 0);
        state.nodes.insert(NodeId(id), Arc::new(node));
    }
    let mut next = 1;
    if case.full {
        for node in 1..=case.nodes {
            for gpu in 0..GPUS {
                state
                    .jobs
                    .insert(JobId(next), Arc::new(running(next, node, gpu)));
                next += 1;
            }
        }
    }
    for index in 0..case.pending {
        let spec = job_spec(case, index, &mut rng);
        let job = Job::new(JobId(next), Arc::new(spec), 0);
        state.jobs.insert(JobId(next), Arc::new(job));
        next += 1;
    }
    state.rebuild_derived();
    View {
        round: 1,
        seed: 1,
        now_ms: NOW_MS,
        state,
        insights: Insights::new(),
        pools: Arc::default(),
        telemetry: Default::default(),
    }
}

fn measure(bench: &mut Criterion, name: &str, policy: &str, case: Case, limits: &PlanLimits) {
    let view = view(case);
    let mut policy = by_name(policy).expect("it is listed");
    let plan = decide(&mut *policy, &view, limits);
    let name = format!(
        "{name} ({} start, {} shapes)",
        plan.stats.starts, plan.stats.shapes
    );
    bench.bench_function(&name, |b| {
        b.iter(|| decide(&mut *policy, black_box(&view), limits))
    });
}

fn mixed(nodes: u32, pending: u64, full: bool) -> Case {
    let queue = Queue::Mixed;
    Case {
        nodes,
        pending,
        full,
        queue,
    }
}

/// Every policy at the sizes that count.
fn rounds(bench: &mut Criterion) {
    let limits = PlanLimits::default();
    let cases = [
        (
            "full, 1,000 nodes, 10,000 pending",
            mixed(1_000, 10_000, true),
        ),
        (
            "empty, 1,000 nodes, 10,000 pending",
            mixed(1_000, 10_000, false),
        ),
        (
            "full, 10,000 nodes, 100,000 pending",
            mixed(10_000, 100_000, true),
        ),
        ("1 node, 50 pending", mixed(1, 50, false)),
    ];
    let preempting = ["srtf:preempt=yes", "las"];
    for policy in ["fifo", "srtf", "best-fit", "sjf", "qssf"]
        .iter()
        .chain(&preempting)
    {
        for (name, case) in cases {
            measure(bench, &format!("{policy}: {name}"), policy, case, &limits);
        }
    }
}

/// How the time of a round grows: nodes and jobs together, then each alone.
fn scaling(bench: &mut Criterion) {
    let limits = PlanLimits::default();
    let sizes = [
        (100, 1_000),
        (1_000, 10_000),
        (10_000, 100_000),
        (100, 10_000),
        (10_000, 10_000),
        (1_000, 1_000),
        (1_000, 100_000),
    ];
    for policy in ["fifo", "best-fit"] {
        for (nodes, pending) in sizes {
            let name = format!("{policy}: scaling, full, {nodes} nodes, {pending} pending");
            measure(bench, &name, policy, mixed(nodes, pending, true), &limits);
        }
    }
}

/// Queues at the ends of what can come.
fn extremes(bench: &mut Criterion) {
    let limits = PlanLimits::default();
    let trivial = Case {
        queue: Queue::Trivial,
        ..mixed(1, 50, false)
    };
    measure(
        bench,
        "fifo: 1 node, 50 pending, all trivial",
        "fifo",
        trivial,
        &limits,
    );
    for (name, nodes, pending) in [
        ("1,000 nodes, 10,000", 1_000, 10_000),
        ("10,000 nodes, 100,000", 10_000, 100_000),
    ] {
        let distinct = Case {
            queue: Queue::Distinct,
            ..mixed(nodes, pending, true)
        };
        let name = format!("best-fit: full, all shapes distinct, {name} pending");
        measure(bench, &name, "best-fit", distinct, &limits);
    }
    let all = PlanLimits {
        max_starts: usize::MAX,
        ..limits
    };
    let name = "best-fit: empty, no limit of starts, 1,000 nodes, 10,000 pending";
    measure(bench, name, "best-fit", mixed(1_000, 10_000, false), &all);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = rounds, scaling, extremes
}
criterion_main!(benches);
