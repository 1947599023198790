//! How fast it is, in seconds of CPU on one core: whole runs of recorded workloads, and one planning round of a full
//! cluster as nodes and jobs grow.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use berth_core::View;
use berth_core::insight::Insights;
use berth_core::planner::{PlanLimits, decide};
use berth_core::state::{Job, Node, State};
use berth_policy::registry;
use berth_types::{
    Attempt, AttemptPhase, Epoch, GpuInfo, GpuShare, GroupSpec, JobId, JobSpec, MILLI, NodeId,
    NodeSpec, Rank, Resources, TaskPhase, TaskPlacement, TaskRecord,
};
use berth_world::twin::{self, Setting};
use rustix::time::{ClockId, clock_gettime};

use super::sia::{self, Case};
use super::table::{Band, Row};
use crate::cluster;
use crate::input::Source;
use crate::load::{self, Extras, Format, Limits};

/// Most CPU seconds for Sia's first workload; the authors' simulator takes 55 s on a quiet machine.
const SIA_S: f64 = 1.1;
/// Most CPU seconds for all Venus jobs under `fifo`.
const VENUS_S: f64 = 5.0;
/// Most CPU seconds for a round at the design point.
const ROUND_S: f64 = 1.0;
/// Nodes of the rounds, each of 8 GPUs, with ten jobs that wait for each node.
const NODES: [u32; 3] = [100, 1_000, 10_000];
/// GPUs of a node.
const GPUS: u16 = 8;
/// Of so many rounds the median counts.
const ROUNDS: usize = 5;
/// GPUs that a waiting job asks for, in turn: mostly few, some whole nodes.
const ASKED: [u32; 16] = [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8];

/// CPU seconds that this process has used.
fn cpu_s() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanos).as_secs_f64()
}

/// philly-1 under `sia`, reading its files included.
///
/// # Errors
/// If a file is not sound.
pub fn sia(traces: &Path) -> anyhow::Result<Vec<Row>> {
    let case = Case {
        setting: "het64".to_owned(),
        workload: "philly/workload-1".to_owned(),
        policy: "sia".to_owned(),
    };
    let begin_s = cpu_s();
    let setting = sia::setting(&case, traces)?;
    let mut policy = registry::by_name("sia")?;
    twin::run(&setting, &mut *policy, &mut twin::unwatched)?;
    let what = "philly-1 under sia, CPU s".to_owned();
    Ok(vec![Row::new(
        "speed",
        what,
        cpu_s() - begin_s,
        Some(SIA_S),
        Band::AtMost,
    )])
}

/// All Venus jobs under `fifo` with backfill, reading the file included.
///
/// # Errors
/// If a file is not sound.
pub fn venus(traces: &Path) -> anyhow::Result<Vec<Row>> {
    let begin_s = cpu_s();
    let cluster = cluster::open("venus")?.cluster;
    let path = traces.join("helios-venus-2020/jobs.csv.gz");
    let extras = Extras::default();
    let loaded = load::load(
        Format::Helios,
        Source::open(&path)?,
        &extras,
        &Limits::of(&cluster),
    )?;
    let jobs = loaded.trace.jobs.len();
    let setting = Setting::new(Arc::new(cluster), Arc::new(loaded.trace));
    let mut policy = registry::by_name("fifo")?;
    twin::run(&setting, &mut *policy, &mut twin::unwatched).context("Venus under fifo")?;
    let what = format!("{jobs} Venus jobs under fifo with backfill, CPU s");
    Ok(vec![Row::new(
        "speed",
        what,
        cpu_s() - begin_s,
        Some(VENUS_S),
        Band::AtMost,
    )])
}

/// One round of a full cluster under `best-fit`, from a view to a plan, as it grows.
///
/// # Errors
/// If the policy does not exist.
pub fn rounds() -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for nodes in NODES {
        let view = full(nodes);
        let mut policy = registry::by_name("best-fit")?;
        let mut taken_s: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let begin_s = cpu_s();
                decide(&mut *policy, &view, &PlanLimits::default());
                cpu_s() - begin_s
            })
            .collect();
        taken_s.sort_by(f64::total_cmp);
        let what = format!(
            "a round of best-fit, {nodes} nodes ({} GPUs), {} jobs wait, CPU s",
            nodes * u32::from(GPUS),
            waiting(nodes)
        );
        let is_last = Some(&nodes) == NODES.last();
        let (bound, band) = match is_last {
            true => (Some(ROUND_S), Band::AtMost),
            false => (None, Band::Told),
        };
        rows.push(Row::new("speed", what, taken_s[ROUNDS / 2], bound, band));
    }
    Ok(rows)
}

fn waiting(nodes: u32) -> u64 {
    u64::from(nodes) * 10
}

/// Nodes whose every GPU is held, and jobs that wait.
fn full(nodes: u32) -> View {
    let mut state = State::new();
    let mut next = 1;
    for id in (1..=nodes).map(NodeId) {
        let node = Node::new(id, Arc::new(node(id)), 1, 0);
        state.nodes.insert(id, Arc::new(node));
        for gpu in 0..GPUS {
            let job = running(JobId(next), id, gpu);
            state.jobs.insert(job.id, Arc::new(job));
            next += 1;
        }
    }
    for (_, gpus) in (0..waiting(nodes)).zip(ASKED.into_iter().cycle()) {
        let job = Job::new(JobId(next), Arc::new(spec(gpus)), 0);
        state.jobs.insert(job.id, Arc::new(job));
        next += 1;
    }
    state.rebuild_derived();
    View {
        round: 1,
        seed: 1,
        now_ms: 3_600_000,
        state,
        insights: Insights::new(),
        pools: Arc::default(),
        telemetry: Default::default(),
    }
}

fn node(id: NodeId) -> NodeSpec {
    let gpu = |index: u16| GpuInfo {
        uuid: format!("{id}-{index}"),
        model: "a100".to_owned(),
        mem_bytes: 80 << 30,
        nvlink_group: 0,
        numa: 0,
    };
    NodeSpec {
        name: format!("n{id}"),
        millicpu: 128_000,
        mem_bytes: 1 << 40,
        gpus: (0..GPUS).map(gpu).collect(),
        port_first: 20_000,
        port_count: 1_000,
        ..NodeSpec::default()
    }
}

fn spec(gpus: u32) -> JobSpec {
    let group = GroupSpec {
        name: "worker".to_owned(),
        command: vec!["train".to_owned()],
        min_workers: 1,
        max_workers: 1,
        gang: true,
        resources: Resources {
            milligpu: gpus * MILLI,
            millicpu: gpus * MILLI,
            ..Resources::default()
        },
        node_labels: Default::default(),
    };
    JobSpec {
        groups: vec![group],
        ..JobSpec::default()
    }
}

fn running(id: JobId, node: NodeId, gpu: u16) -> Job {
    let mut job = Job::new(id, Arc::new(spec(1)), 0);
    let placement = TaskPlacement {
        rank: Rank(0),
        group: 0,
        node,
        gpus: vec![GpuShare {
            gpu,
            milligpu: MILLI,
        }],
    };
    job.epoch = Epoch(1);
    job.attempt = Some(Box::new(Attempt {
        epoch: Epoch(1),
        phase: AttemptPhase::Running,
        tasks: vec![TaskRecord {
            placement,
            phase: TaskPhase::Running { since_ms: 0 },
        }],
        master_port: 20_000 + gpu,
        started_ms: 0,
        resumed_step: None,
        placed_because: String::new(),
    }));
    job
}
