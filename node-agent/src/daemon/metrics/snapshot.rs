//! What the metrics are made of: the state of the agent at one moment.

use berth_types::TaskKey;
use tokio::time::Instant;

use crate::daemon::agent::Agent;
use crate::daemon::event_loop::TICK;
use crate::daemon::gpus::Gpu;

/// What is counted as it happens.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    /// Reports sent, heartbeats among them.
    pub(crate) reports: u64,
    /// Rounds of the loop's clock.
    pub(crate) ticks: u64,
    /// The latest of them came so much later than due, in seconds.
    pub(crate) worst_late_s: f64,
    /// All lateness together, in seconds.
    pub(crate) late_s: f64,
    last: Instant,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            reports: 0,
            ticks: 0,
            worst_late_s: 0.0,
            late_s: 0.0,
            last: Instant::now(),
        }
    }
}

impl Counts {
    /// The clock's round: how late it is shows whether anything holds the loop up.
    pub(crate) fn ticked(&mut self) {
        let now = Instant::now();
        let late = now
            .duration_since(self.last)
            .saturating_sub(TICK)
            .as_secs_f64();
        self.last = now;
        self.ticks += 1;
        if self.ticks > 1 {
            self.late_s += late;
            self.worst_late_s = self.worst_late_s.max(late);
        }
    }
}

/// One GPU with what only the agent knows of it.
#[derive(Clone, Debug)]
pub(crate) struct GpuSnapshot {
    /// As the probe told.
    pub(crate) gpu: Gpu,
    /// `gpu UUID device modelName Hostname`, as NVIDIA's exporter names them.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// Live tasks with a share of it, with the first process of each where there is one.
    pub(crate) tasks: Vec<TaskKey>,
}

/// The agent at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) node: String,
    pub(crate) version: String,
    pub(crate) driver_version: Option<String>,
    pub(crate) connected: bool,
    pub(crate) live_tasks: usize,
    pub(crate) held_tasks: usize,
    pub(crate) offered_gpus: usize,
    /// Absent where GPUs are declared.
    pub(crate) probes: Option<u64>,
    pub(crate) probe_up: Option<bool>,
    pub(crate) leftovers: Option<u64>,
    pub(crate) counts: Counts,
    pub(crate) gpus: Vec<GpuSnapshot>,
}

impl Snapshot {
    pub(crate) fn of(agent: &Agent) -> Self {
        let gpus = agent.gpus.as_ref();
        let snapshots = gpus.map_or_else(Vec::new, |known| {
            let each = known.gpus.iter().enumerate();
            each.map(|(at, gpu)| gpu_snapshot(agent, at, gpu)).collect()
        });
        Self {
            node: agent.node.name.clone(),
            version: agent.node.agent_version.clone(),
            driver_version: gpus
                .and_then(|g| g.driver.as_ref())
                .and_then(|driver| driver.version.clone()),
            connected: agent.connected(),
            live_tasks: agent.core.live().count(),
            held_tasks: agent.core.held(),
            offered_gpus: agent.node.gpus.len(),
            probes: gpus.map(|g| g.probes),
            probe_up: gpus.map(|g| g.probe_pid.is_some()),
            leftovers: gpus.map(|g| g.leftovers),
            counts: agent.counts.clone(),
            gpus: snapshots,
        }
    }
}

fn gpu_snapshot(agent: &Agent, at: usize, gpu: &Gpu) -> GpuSnapshot {
    let index = u16::try_from(at).unwrap_or(u16::MAX);
    let info = agent.node.gpus.get(at);
    let identity = gpu.identity.as_ref();
    // NVIDIA's exporter names a device by its file.
    let device = identity
        .and_then(|i| i.minor)
        .map_or(at, |minor| minor as usize);
    let name = identity.map(|i| i.name.clone());
    GpuSnapshot {
        gpu: gpu.clone(),
        labels: vec![
            ("gpu", at.to_string()),
            ("UUID", info.map(|i| i.uuid.clone()).unwrap_or_default()),
            ("device", format!("nvidia{device}")),
            (
                "modelName",
                name.or_else(|| info.map(|i| i.model.clone()))
                    .unwrap_or_default(),
            ),
            ("Hostname", agent.node.name.clone()),
        ],
        tasks: agent.core.gpu_holders(index).collect(),
    }
}
