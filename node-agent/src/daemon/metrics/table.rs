//! Every metric that an agent serves, declared once.
//!
//! Names that begin with `DCGM_FI_` are those of NVIDIA's exporter, with its units and labels, so that dashboards made
//! for it show the same here. A reading that a GPU does not have has no series. Base units and full words stand in
//! Berth's own.

use berth_types::telemetry::{GpuCondition, GpuMemory, GpuReading};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

use super::snapshot::{GpuSnapshot, Snapshot};

/// A label and its value.
type Label = (&'static str, String);
/// Takes one series.
type Sink<'a> = &'a mut dyn FnMut(Vec<Label>, f64);

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down. NVIDIA's counters are among these, because the encoding would add to their names.
    Gauge,
    /// Only grows; the served name ends in `_total`.
    Counter,
}

/// Where values come from.
#[derive(Clone, Copy)]
enum Source {
    /// One for the node.
    Node(fn(&Snapshot) -> Option<f64>),
    /// One for each GPU.
    Gpu(fn(&GpuSnapshot) -> Option<f64>),
    /// One for each GPU that was read.
    Reading(fn(&GpuReading) -> Option<f64>),
    /// Any number, with labels of their own beside those of the GPU.
    Many(fn(&GpuSnapshot, Sink)),
    /// Any number, with labels of their own.
    NodeMany(fn(&Snapshot, Sink)),
}

/// One metric.
pub struct Metric {
    /// Its name; a counter is served with `_total`.
    pub name: &'static str,
    /// What it is, with its unit.
    pub help: &'static str,
    /// What a value is.
    pub kind: Kind,
    source: Source,
}

impl Metric {
    /// The name that it is served under.
    pub fn served_name(&self) -> String {
        match self.kind {
            Kind::Gauge => self.name.into(),
            Kind::Counter => format!("{}_total", self.name),
        }
    }

    pub(super) fn encode(
        &self,
        snapshot: &Snapshot,
        encoder: &mut DescriptorEncoder,
    ) -> Result<(), std::fmt::Error> {
        let mut series: Vec<(Vec<Label>, f64)> = Vec::new();
        self.collect(snapshot, &mut |labels, value| series.push((labels, value)));
        if series.is_empty() {
            return Ok(());
        }
        let kind = match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, value) in series {
            Value(self.kind, value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn collect(&self, snapshot: &Snapshot, sink: Sink) {
        for gpu in &snapshot.gpus {
            let value = match self.source {
                Source::Gpu(value) => value(gpu),
                Source::Reading(value) => gpu.gpu.reading.as_ref().and_then(value),
                Source::Many(each) => {
                    each(gpu, &mut |mut labels, value| {
                        labels.splice(0..0, gpu.labels.iter().cloned());
                        sink(labels, value);
                    });
                    None
                }
                Source::Node(_) | Source::NodeMany(_) => break,
            };
            if let Some(value) = value {
                sink(gpu.labels.clone(), value);
            }
        }
        let node = || vec![("Hostname", snapshot.node.clone())];
        match self.source {
            Source::Node(value) => {
                if let Some(value) = value(snapshot) {
                    sink(node(), value);
                }
            }
            Source::NodeMany(each) => each(snapshot, &mut |mut labels, value| {
                labels.splice(0..0, node());
                sink(labels, value);
            }),
            Source::Gpu(_) | Source::Reading(_) | Source::Many(_) => {}
        }
    }
}

struct Value(Kind, f64);

impl EncodeMetric for Value {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        match self.0 {
            Kind::Gauge => encoder.encode_gauge(&self.1),
            Kind::Counter => encoder
                .encode_counter::<prometheus_client::encoding::NoLabelSet, _, u64>(&self.1, None),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self.0 {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        }
    }
}

const fn gauge(name: &'static str, help: &'static str, source: Source) -> Metric {
    Metric {
        name,
        help,
        kind: Kind::Gauge,
        source,
    }
}

const fn counter(name: &'static str, help: &'static str, source: Source) -> Metric {
    Metric {
        name,
        help,
        kind: Kind::Counter,
        source,
    }
}

/// A reading of the GPU.
const fn read(
    name: &'static str,
    help: &'static str,
    value: fn(&GpuReading) -> Option<f64>,
) -> Metric {
    gauge(name, help, Source::Reading(value))
}

/// Exact up to 2^53, which no counter here reaches in a machine's life.
fn f(value: Option<u64>) -> Option<f64> {
    value.map(|n| n as f64)
}

fn g(value: Option<u32>) -> Option<f64> {
    value.map(f64::from)
}

fn b(value: Option<bool>) -> Option<f64> {
    value.map(|yes| f64::from(u8::from(yes)))
}

fn mib(reading: &GpuReading, part: fn(&GpuMemory) -> u64) -> Option<f64> {
    reading
        .memory
        .as_ref()
        .map(|memory| (part(memory) >> 20) as f64)
}

fn bytes(reading: &GpuReading, part: fn(&GpuMemory) -> u64) -> Option<f64> {
    reading.memory.as_ref().map(|memory| part(memory) as f64)
}

/// NVML's bits of reasons for lower clocks, by name.
const THROTTLE: &[(u64, &str)] = &[
    (0x1, "idle"),
    (0x2, "applications_clocks"),
    (0x4, "software_power_cap"),
    (0x8, "hardware_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "software_thermal"),
    (0x40, "hardware_thermal"),
    (0x80, "hardware_power_brake"),
    (0x100, "display_clocks"),
];

const CONDITIONS: &[(GpuCondition, &str)] = &[
    (GpuCondition::Unknown, "unknown"),
    (GpuCondition::Answering, "answering"),
    (GpuCondition::Unresponsive, "unresponsive"),
    (GpuCondition::Lost, "lost"),
    (GpuCondition::ResetRequired, "reset_required"),
];

/// All of them.
pub const METRICS: &[Metric] = &[
    read("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz)", |r| {
        g(r.sm_mhz)
    }),
    read(
        "DCGM_FI_DEV_MEM_CLOCK",
        "Memory clock frequency (in MHz)",
        |r| g(r.mem_mhz),
    ),
    read("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C)", |r| {
        g(r.temp_c)
    }),
    read(
        "DCGM_FI_DEV_MEMORY_TEMP",
        "Memory temperature (in C)",
        |r| g(r.mem_temp_c),
    ),
    read("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W)", |r| {
        g(r.power_mw).map(|mw| mw / 1e3)
    }),
    read(
        "DCGM_FI_DEV_ENFORCED_POWER_LIMIT",
        "Power limit in force (in W)",
        |r| g(r.power_limit_mw).map(|mw| mw / 1e3),
    ),
    read(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "Energy since the driver was loaded (in mJ)",
        |r| f(r.energy_mj),
    ),
    read(
        "DCGM_FI_DEV_PCIE_TX_THROUGHPUT",
        "Sent over PCIe (in KB/s)",
        |r| g(r.pcie.tx_kb_per_s),
    ),
    read(
        "DCGM_FI_DEV_PCIE_RX_THROUGHPUT",
        "Received over PCIe (in KB/s)",
        |r| g(r.pcie.rx_kb_per_s),
    ),
    read(
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        "PCIe packets sent again",
        |r| f(r.pcie.replays),
    ),
    read("DCGM_FI_DEV_PCIE_LINK_GEN", "PCIe generation now", |r| {
        g(r.pcie.generation)
    }),
    read("DCGM_FI_DEV_PCIE_LINK_WIDTH", "PCIe lanes now", |r| {
        g(r.pcie.width)
    }),
    read("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %)", |r| {
        g(r.gpu_util_pct)
    }),
    read(
        "DCGM_FI_DEV_MEM_COPY_UTIL",
        "Memory utilization (in %)",
        |r| g(r.mem_util_pct),
    ),
    read("DCGM_FI_DEV_ENC_UTIL", "Encoder utilization (in %)", |r| {
        g(r.encoder_util_pct)
    }),
    read("DCGM_FI_DEV_DEC_UTIL", "Decoder utilization (in %)", |r| {
        g(r.decoder_util_pct)
    }),
    gauge(
        "DCGM_FI_DEV_XID_ERRORS",
        "Newest XID since the agent started; 0 if there was none",
        Source::Gpu(|gpu| Some(gpu.gpu.last_xid.unwrap_or(0) as f64)),
    ),
    read(
        "DCGM_FI_DEV_POWER_VIOLATION",
        "Time with clocks held down by power (in us)",
        |r| f(r.power_violation_ns.map(|ns| ns / 1_000)),
    ),
    read(
        "DCGM_FI_DEV_THERMAL_VIOLATION",
        "Time with clocks held down by heat (in us)",
        |r| f(r.thermal_violation_ns.map(|ns| ns / 1_000)),
    ),
    read(
        "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS",
        "Why clocks are lower than they could be (NVML's bits)",
        |r| f(r.throttle),
    ),
    read(
        "DCGM_FI_DEV_PSTATE",
        "Performance state (0 is the fastest)",
        |r| g(r.pstate),
    ),
    read("DCGM_FI_DEV_FB_TOTAL", "Framebuffer memory (in MiB)", |r| {
        mib(r, |m| m.total_bytes)
    }),
    read(
        "DCGM_FI_DEV_FB_FREE",
        "Framebuffer memory free (in MiB)",
        |r| mib(r, |m| m.free_bytes),
    ),
    read(
        "DCGM_FI_DEV_FB_USED",
        "Framebuffer memory used (in MiB)",
        |r| mib(r, |m| m.used_bytes),
    ),
    read(
        "DCGM_FI_DEV_FB_RESERVED",
        "Framebuffer memory reserved (in MiB)",
        |r| mib(r, |m| m.reserved_bytes),
    ),
    read(
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
        "Corrected memory errors since the driver was loaded",
        |r| f(r.ecc.corrected_volatile),
    ),
    read(
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        "Memory errors not corrected since the driver was loaded",
        |r| f(r.ecc.uncorrected_volatile),
    ),
    read(
        "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL",
        "Corrected memory errors ever",
        |r| f(r.ecc.corrected_aggregate),
    ),
    read(
        "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL",
        "Memory errors not corrected ever",
        |r| f(r.ecc.uncorrected_aggregate),
    ),
    read(
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        "Rows replaced for corrected errors",
        |r| f(r.rows.corrected),
    ),
    read(
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "Rows replaced for errors that were not corrected",
        |r| f(r.rows.uncorrected),
    ),
    read(
        "DCGM_FI_DEV_ROW_REMAP_PENDING",
        "Whether a replacement waits for a reset",
        |r| b(r.rows.pending),
    ),
    read(
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        "Whether a replacement has failed",
        |r| b(r.rows.failed),
    ),
    read(
        "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
        "NVLink checksum errors in flow control",
        |r| f(r.nvlink.and_then(|n| n.crc_flit)),
    ),
    read(
        "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL",
        "NVLink checksum errors in data",
        |r| f(r.nvlink.and_then(|n| n.crc_data)),
    ),
    read(
        "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
        "NVLink packets sent again",
        |r| f(r.nvlink.and_then(|n| n.replays)),
    ),
    read(
        "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
        "NVLinks trained again",
        |r| f(r.nvlink.and_then(|n| n.recoveries)),
    ),
    gauge(
        "berth_gpu_condition",
        "1 for the condition that the GPU is in",
        Source::Many(|gpu, sink| {
            for (condition, name) in CONDITIONS {
                let is = *condition == gpu.gpu.condition;
                sink(vec![("condition", (*name).into())], f64::from(u8::from(is)));
            }
        }),
    ),
    gauge(
        "berth_gpu_task_info",
        "1 for each live task that holds a share of the GPU",
        Source::Many(|gpu, sink| {
            for key in &gpu.tasks {
                let labels = vec![
                    ("job", key.job.to_string()),
                    ("attempt", key.epoch.to_string()),
                    ("rank", key.rank.to_string()),
                ];
                sink(labels, 1.0);
            }
        }),
    ),
    gauge(
        "berth_gpu_reading_age_seconds",
        "Time since the GPU was last read",
        Source::Gpu(|gpu| gpu.gpu.read_at.map(|at| at.elapsed().as_secs_f64())),
    ),
    read(
        "berth_gpu_reading_seconds",
        "Time that the last reading took",
        |r| Some(r.took_us as f64 / 1e6),
    ),
    counter(
        "berth_gpu_hangs",
        "Times that calls to the GPU's driver were found hanging",
        Source::Gpu(|gpu| Some(gpu.gpu.hangs as f64)),
    ),
    counter(
        "berth_gpu_xid",
        "XIDs since the agent started",
        Source::Many(|gpu, sink| {
            for (xid, count) in &gpu.gpu.xids {
                sink(vec![("xid", xid.to_string())], *count as f64);
            }
        }),
    ),
    gauge(
        "berth_gpu_throttled",
        "1 for each reason why clocks are lower than they could be",
        Source::Many(|gpu, sink| {
            let Some(bits) = gpu.gpu.reading.as_ref().and_then(|r| r.throttle) else {
                return;
            };
            for (bit, name) in THROTTLE {
                sink(
                    vec![("reason", (*name).into())],
                    f64::from(u8::from(bits & bit != 0)),
                );
            }
        }),
    ),
    gauge(
        "berth_gpu_processes",
        "Processes with a context on the GPU",
        Source::Many(|gpu, sink| {
            let Some(processes) = gpu.gpu.reading.as_ref().and_then(|r| r.processes.as_ref())
            else {
                return;
            };
            let ours = processes.iter().filter(|p| p.task.is_some()).count();
            sink(vec![("of", "tasks".into())], ours as f64);
            sink(
                vec![("of", "others".into())],
                (processes.len() - ours) as f64,
            );
        }),
    ),
    gauge(
        "berth_gpu_process_memory_bytes",
        "Memory of the GPU that a task's processes hold",
        Source::Many(process_memory),
    ),
    read("berth_gpu_memory_used_bytes", "Memory in use", |r| {
        bytes(r, |m| m.used_bytes)
    }),
    read("berth_gpu_nvlinks", "NVLinks there are", |r| {
        r.nvlink.map(|n| f64::from(n.links))
    }),
    read("berth_gpu_nvlinks_up", "NVLinks that are up", |r| {
        r.nvlink.map(|n| f64::from(n.up))
    }),
    read(
        "berth_gpu_mig_enabled",
        "Whether the GPU is partitioned",
        |r| b(r.mig.as_ref().map(|m| m.enabled)),
    ),
    read("berth_gpu_mig_devices", "Parts of the GPU", |r| {
        r.mig.as_ref().map(|m| m.devices.len() as f64)
    }),
    counter(
        "berth_gpu_leftovers_ended",
        "Processes killed because they held a GPU after their task was over",
        Source::Node(|s| f(s.leftovers)),
    ),
    counter(
        "berth_gpu_probes_started",
        "Probes started; more than one says that some were given up",
        Source::Node(|s| f(s.probes)),
    ),
    gauge(
        "berth_gpu_probe_up",
        "Whether a probe is heard",
        Source::Node(|s| b(s.probe_up)),
    ),
    gauge(
        "berth_agent_info",
        "The agent, and the driver that it reads GPUs from",
        Source::NodeMany(|s, sink| {
            let labels = vec![
                ("version", s.version.clone()),
                (
                    "driver_version",
                    s.driver_version.clone().unwrap_or_default(),
                ),
            ];
            sink(labels, 1.0);
        }),
    ),
    gauge(
        "berth_agent_connected",
        "Whether a stream to a master stands",
        Source::Node(|s| b(Some(s.connected))),
    ),
    gauge(
        "berth_agent_tasks",
        "Tasks that may have a process",
        Source::Node(|s| Some(s.live_tasks as f64)),
    ),
    gauge(
        "berth_agent_tasks_held",
        "Tasks and records of ended ones",
        Source::Node(|s| Some(s.held_tasks as f64)),
    ),
    gauge(
        "berth_agent_gpus",
        "GPUs that the node offers",
        Source::Node(|s| Some(s.offered_gpus as f64)),
    ),
    counter(
        "berth_agent_reports",
        "Reports and heartbeats sent",
        Source::Node(|s| Some(s.counts.reports as f64)),
    ),
    counter(
        "berth_agent_loop_ticks",
        "Rounds of the event loop's clock",
        Source::Node(|s| Some(s.counts.ticks as f64)),
    ),
    counter(
        "berth_agent_loop_late_seconds",
        "Time by which they came later than due, together",
        Source::Node(|s| Some(s.counts.late_s)),
    ),
    gauge(
        "berth_agent_loop_worst_late_seconds",
        "The latest of them",
        Source::Node(|s| Some(s.counts.worst_late_s)),
    ),
];

fn process_memory(gpu: &GpuSnapshot, sink: Sink) {
    let processes = gpu
        .gpu
        .reading
        .iter()
        .flat_map(|r| r.processes.iter().flatten());
    let mut by_task = std::collections::BTreeMap::new();
    for process in processes {
        if let (Some(key), Some(bytes)) = (process.task, process.mem_bytes) {
            *by_task.entry(key).or_insert(0u64) += bytes;
        }
    }
    for (key, bytes) in by_task {
        let labels = vec![
            ("job", key.job.to_string()),
            ("attempt", key.epoch.to_string()),
            ("rank", key.rank.to_string()),
        ];
        sink(labels, bytes as f64);
    }
}
