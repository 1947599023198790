//! What a GPU says of itself.
//!
//! Every reading is optional: a driver, a model or a mode of operation that does not have it leaves it out. Absent is
//! never zero. Units are those of the field's name; counters are totals of the driver's life unless they say otherwise.
//!
//! Written as JSON, where an absent reading has no key. Formats that need every field (such as the log's) must not
//! carry these types as they are.

use serde::{Deserialize, Serialize};

use crate::TaskKey;

/// What a GPU is: what does not change while the driver is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuIdentity {
    /// The driver's number of it, in order of the PCI bus.
    pub index: u16,
    /// Stable name, such as `GPU-8f6c…`.
    pub uuid: String,
    /// The driver's name of its model, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Where it sits: domain, bus, device and function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_bus_id: Option<String>,
    /// Number of its device file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<u32>,
    /// Device memory, all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bytes: Option<u64>,
    /// The host's NUMA node that is near.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa: Option<u16>,
    /// The best PCIe generation that it and its slot can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie_max_gen: Option<u32>,
    /// The same for lanes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie_max_width: Option<u32>,
    /// Highest clock of its multiprocessors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sm_mhz: Option<u32>,
    /// Clocks go down from this temperature on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowdown_temp_c: Option<u32>,
    /// It switches itself off from this temperature on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_temp_c: Option<u32>,
}

/// How two GPUs of a node reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuPath {
    /// The one's index.
    pub a: u16,
    /// The other's.
    pub b: u16,
    /// Over NVLink, directly or through a switch.
    pub nvlink: bool,
    /// Over PCIe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie: Option<PciePath>,
}

/// What lies between two GPUs on the bus; the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PciePath {
    /// The same board.
    Board,
    /// One PCIe switch.
    Switch,
    /// Several PCIe switches, no host bridge.
    Switches,
    /// A host bridge.
    HostBridge,
    /// Host bridges of one NUMA node.
    Numa,
    /// The link between NUMA nodes.
    System,
}

/// Whether a GPU answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuCondition {
    /// Nothing was heard of it yet.
    #[default]
    Unknown,
    /// It answers.
    Answering,
    /// A call to its driver does not return.
    Unresponsive,
    /// It fell off the bus, or the driver no longer lists it.
    Lost,
    /// The driver wants it reset before it can be used.
    ResetRequired,
}

/// One look at one GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuReading {
    /// The driver's number of the GPU.
    pub index: u16,
    /// When the look began, by the node's clock.
    pub at_ms: u64,
    /// How long it took.
    pub took_us: u64,
    /// Whether it answers.
    pub condition: GpuCondition,
    /// Part of the last sample period with a kernel running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_util_pct: Option<u32>,
    /// Part of it with the memory being read or written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_util_pct: Option<u32>,
    /// Video encoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_util_pct: Option<u32>,
    /// Video decoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder_util_pct: Option<u32>,
    /// Device memory, by what it is used for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<GpuMemory>,
    /// Of the chip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temp_c: Option<u32>,
    /// Of the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_temp_c: Option<u32>,
    /// Power draw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_mw: Option<u32>,
    /// Power limit in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_limit_mw: Option<u32>,
    /// Energy since the driver was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_mj: Option<u64>,
    /// Clock of the multiprocessors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sm_mhz: Option<u32>,
    /// Clock of the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_mhz: Option<u32>,
    /// Why clocks are lower than they could be: NVML's bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<u64>,
    /// Performance state, 0 the fastest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pstate: Option<u32>,
    /// Time with clocks held down by power.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_violation_ns: Option<u64>,
    /// Time with clocks held down by heat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thermal_violation_ns: Option<u64>,
    /// Memory errors.
    pub ecc: GpuEcc,
    /// Rows of memory that were replaced.
    pub rows: GpuRows,
    /// The way to the host.
    pub pcie: GpuPcie,
    /// The way to other GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlink: Option<GpuNvlink>,
    /// Processes with a compute context; absent if the driver does not list them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<Vec<GpuProcess>>,
    /// Partitioning; absent if the model has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig: Option<GpuMig>,
}

/// Device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuMemory {
    /// All.
    pub total_bytes: u64,
    /// Allocated by processes.
    pub used_bytes: u64,
    /// Not allocated.
    pub free_bytes: u64,
    /// Kept by driver and firmware.
    pub reserved_bytes: u64,
}

/// Counts of memory errors: volatile ones since the driver was loaded, aggregate ones of the GPU's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuEcc {
    /// Corrected, since the driver was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected_volatile: Option<u64>,
    /// Not corrected, since the driver was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncorrected_volatile: Option<u64>,
    /// Corrected, ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected_aggregate: Option<u64>,
    /// Not corrected, ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncorrected_aggregate: Option<u64>,
}

/// Row remapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuRows {
    /// Replaced for corrected errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected: Option<u64>,
    /// Replaced for errors that were not corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncorrected: Option<u64>,
    /// A replacement waits for a reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<bool>,
    /// A replacement failed: there were no rows left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<bool>,
}

/// The way to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuPcie {
    /// Generation now; lower while idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Lanes now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Sent to the host in the last 20 ms, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_kb_per_s: Option<u32>,
    /// Received from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_kb_per_s: Option<u32>,
    /// Packets sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replays: Option<u64>,
}

/// All NVLinks of one GPU together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuNvlink {
    /// Links there are.
    pub links: u32,
    /// Of them up.
    pub up: u32,
    /// Checksum errors in flow control.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc_flit: Option<u64>,
    /// Checksum errors in data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc_data: Option<u64>,
    /// Packets sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replays: Option<u64>,
    /// Links trained again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recoveries: Option<u64>,
}

/// A process on a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuProcess {
    /// Its id.
    pub pid: u32,
    /// When it started, in ticks since the machine's boot: with the id, this names it for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ticks: Option<u64>,
    /// Its memory on this GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bytes: Option<u64>,
    /// The task directory that its environment names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_dir: Option<String>,
    /// Its control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Its parents, the nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<u32>,
    /// The task that it belongs to, as the agent found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskKey>,
}

/// Partitioning of one GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuMig {
    /// Partitioned now.
    pub enabled: bool,
    /// Partitioned after the next reset.
    pub pending: bool,
    /// Its parts.
    pub devices: Vec<MigDevice>,
}

/// A part of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigDevice {
    /// Stable name.
    pub uuid: String,
    /// Its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_bytes: Option<u64>,
    /// Slices of the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_slices: Option<u32>,
    /// Slices of compute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_slices: Option<u32>,
}

/// An error that the driver announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuXid {
    /// The driver's number of the GPU.
    pub index: u16,
    /// When it was heard.
    pub at_ms: u64,
    /// NVIDIA's number of the error.
    pub xid: u64,
}
