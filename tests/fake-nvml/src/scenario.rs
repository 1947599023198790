//! The format of a scenario file.
//!
//! ```toml
//! driver_version = "570.124.06"
//!
//! [[gpu]]
//! count = 8                                # so many alike
//! name = "NVIDIA H100 80GB HBM3"
//! memory = 85899345920                     # bytes
//! numa = 0
//! nvlink = { links = 18, switch = true }   # or peers = [1, 2, 3]
//! lost_from = 60.0                         # falls off the bus after a minute
//!
//! [gpu.values]                             # a number, or steps of [seconds, value]; what is missing is not supported
//! gpu_util = [[0, 0], [5, 97]]
//! power_mw = 400000
//!
//! [[gpu.process]]
//! pid = 4711
//! memory = 1073741824
//! until = 30.0
//!
//! [[event]]                                # XID 79 on GPU 1 after 12 s
//! at = 12.0
//! gpu = 1
//! xid = 79
//!
//! [[hang]]                                 # every call (`*`) on GPU 3 hangs from second 20 to 25
//! call = "*"
//! gpu = 3
//! from = 20.0
//! until = 25.0
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Readings that a scenario may name, with their units as NVML has them.
pub const VALUES: &[&str] = &[
    "gpu_util",
    "mem_util",
    "encoder_util",
    "decoder_util",
    "mem_used",
    "mem_reserved",
    "temp_c",
    "mem_temp_c",
    "slowdown_temp_c",
    "shutdown_temp_c",
    "power_mw",
    "power_limit_mw",
    "energy_mj",
    "graphics_mhz",
    "sm_mhz",
    "mem_mhz",
    "max_sm_mhz",
    "throttle",
    "pstate",
    "ecc_corrected_volatile",
    "ecc_uncorrected_volatile",
    "ecc_corrected_aggregate",
    "ecc_uncorrected_aggregate",
    "rows_corrected",
    "rows_uncorrected",
    "rows_pending",
    "rows_failed",
    "pcie_gen",
    "pcie_width",
    "pcie_max_gen",
    "pcie_max_width",
    "pcie_tx_kbs",
    "pcie_rx_kbs",
    "pcie_replays",
    "power_violation_ns",
    "thermal_violation_ns",
    "nvlink_crc_flit",
    "nvlink_crc_data",
    "nvlink_replay",
    "nvlink_recovery",
    "mig_mode",
];

/// What a GPU at work shows, one value for each of [`VALUES`].
const HEALTHY: &[(&str, f64)] = &[
    ("gpu_util", 97.0),
    ("mem_util", 41.0),
    ("encoder_util", 0.0),
    ("decoder_util", 3.0),
    ("mem_used", 100.0 * MIB),
    ("mem_reserved", 600.0 * MIB),
    ("temp_c", 61.0),
    ("mem_temp_c", 72.0),
    ("slowdown_temp_c", 87.0),
    ("shutdown_temp_c", 92.0),
    ("power_mw", 412_500.0),
    ("power_limit_mw", 700_000.0),
    ("energy_mj", 123_456_789.0),
    ("graphics_mhz", 1_980.0),
    ("sm_mhz", 1_980.0),
    ("mem_mhz", 2_619.0),
    ("max_sm_mhz", 1_980.0),
    ("throttle", 0.0),
    ("pstate", 0.0),
    ("ecc_corrected_volatile", 2.0),
    ("ecc_uncorrected_volatile", 0.0),
    ("ecc_corrected_aggregate", 17.0),
    ("ecc_uncorrected_aggregate", 1.0),
    ("rows_corrected", 1.0),
    ("rows_uncorrected", 0.0),
    ("rows_pending", 0.0),
    ("rows_failed", 0.0),
    ("pcie_gen", 5.0),
    ("pcie_width", 16.0),
    ("pcie_max_gen", 5.0),
    ("pcie_max_width", 16.0),
    ("pcie_tx_kbs", 120_000.0),
    ("pcie_rx_kbs", 80_000.0),
    ("pcie_replays", 4.0),
    ("power_violation_ns", 5_000_000.0),
    ("thermal_violation_ns", 0.0),
    ("nvlink_crc_flit", 7.0),
    ("nvlink_crc_data", 0.0),
    ("nvlink_replay", 3.0),
    ("nvlink_recovery", 1.0),
    ("mig_mode", 0.0),
];

const MIB: f64 = 1_048_576.0;

/// A whole scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What the driver calls itself.
    #[serde(default = "driver_version")]
    pub driver_version: String,
    /// False if the kernel's part of the driver is not loaded.
    #[serde(default = "yes")]
    pub driver_loaded: bool,
    /// GPUs in the driver's order.
    #[serde(default)]
    pub gpu: Vec<Gpu>,
    /// XIDs that come through event sets.
    #[serde(default)]
    pub event: Vec<Event>,
    /// Calls that do not return.
    #[serde(default)]
    pub hang: Vec<Hang>,
}

/// One GPU, or several alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// How many.
    #[serde(default = "one")]
    pub count: u32,
    /// The driver's name of the model.
    #[serde(default = "name")]
    pub name: String,
    /// Stable name; made from the index if absent.
    #[serde(default)]
    pub uuid: Option<String>,
    /// Bytes of device memory.
    #[serde(default = "memory")]
    pub memory: u64,
    /// NUMA node; not supported if absent.
    #[serde(default)]
    pub numa: Option<u32>,
    /// Readings by name, of [`VALUES`].
    #[serde(default)]
    pub values: BTreeMap<String, Curve>,
    /// NVLink, if there is any.
    #[serde(default)]
    pub nvlink: Option<Nvlink>,
    /// Exported functions that this GPU does not support.
    #[serde(default)]
    pub unsupported: Vec<String>,
    /// Every call answers that the GPU is lost, from this second on.
    #[serde(default)]
    pub lost_from: Option<f64>,
    /// Every call answers that the GPU needs a reset, from this second on.
    #[serde(default)]
    pub reset_from: Option<f64>,
    /// Compute processes.
    #[serde(default)]
    pub process: Vec<Process>,
    /// MIG devices.
    #[serde(default)]
    pub mig: Vec<Mig>,
}

/// A value over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Curve {
    /// Always the same.
    Constant(f64),
    /// Seconds and the value from then on, in order of time; before the first it is the first.
    Steps(Vec<(f64, f64)>),
    /// Rises by so much a second from a start.
    Ramp {
        /// Value at second 0.
        start: f64,
        /// Rise per second.
        per_second: f64,
    },
}

/// NVLink of one GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nvlink {
    /// Number of links.
    pub links: u32,
    /// How many of them are down.
    #[serde(default)]
    pub down: u32,
    /// They lead to a switch.
    #[serde(default)]
    pub switch: bool,
    /// Or in turn to these GPUs.
    #[serde(default)]
    pub peers: Vec<u32>,
}

/// A compute process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its id. Listed only while a process of this number exists.
    pub pid: u32,
    /// Bytes; not available if absent.
    #[serde(default)]
    pub memory: Option<u64>,
    /// First second.
    #[serde(default)]
    pub from: f64,
    /// Last second.
    #[serde(default)]
    pub until: Option<f64>,
}

/// A MIG device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mig {
    /// GPU instance.
    pub gpu_instance: u32,
    /// Compute instance.
    pub compute_instance: u32,
    /// MiB of memory.
    pub memory_mib: u64,
}

/// An XID.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When, in seconds.
    pub at: f64,
    /// On which GPU.
    pub gpu: u32,
    /// Which.
    pub xid: u64,
}

/// A call that does not return.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hang {
    /// The exported function; `*` for all that name a GPU.
    pub call: String,
    /// Only on this GPU.
    #[serde(default)]
    pub gpu: Option<u32>,
    /// First second.
    #[serde(default)]
    pub from: f64,
    /// Last second; for ever if absent.
    #[serde(default)]
    pub until: Option<f64>,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn driver_version() -> String {
    "570.124.06".into()
}

fn name() -> String {
    "NVIDIA H100 80GB HBM3".into()
}

fn memory() -> u64 {
    80 << 30
}

impl Scenario {
    /// GPUs that are well and support everything of [`VALUES`], joined by a switch.
    pub fn healthy(gpus: u32) -> Self {
        let gpu = Gpu {
            count: gpus,
            name: name(),
            uuid: None,
            memory: memory(),
            numa: Some(0),
            values: HEALTHY
                .iter()
                .map(|(name, value)| ((*name).into(), Curve::Constant(*value)))
                .collect(),
            nvlink: Some(Nvlink {
                links: 18,
                switch: true,
                ..Nvlink::default()
            }),
            unsupported: Vec::new(),
            lost_from: None,
            reset_from: None,
            process: Vec::new(),
            mig: Vec::new(),
        };
        let scenario = Self {
            driver_version: driver_version(),
            driver_loaded: true,
            gpu: vec![gpu],
            event: Vec::new(),
            hang: Vec::new(),
        };
        scenario.each()
    }

    /// GPUs that have a name and support nothing else.
    pub fn bare(gpus: u32) -> Self {
        let mut scenario = Self::healthy(gpus);
        for gpu in &mut scenario.gpu {
            gpu.values.clear();
            gpu.nvlink = None;
            gpu.numa = None;
            gpu.unsupported = [
                "nvmlDeviceGetComputeRunningProcesses_v3",
                "nvmlDeviceGetSupportedEventTypes",
                "nvmlDeviceGetMinorNumber",
            ]
            .map(String::from)
            .to_vec();
        }
        scenario
    }

    /// Another value of a reading.
    pub fn set(&mut self, gpu: usize, name: &str, value: f64) {
        if let Some(gpu) = self.gpu.get_mut(gpu) {
            gpu.values.insert(name.into(), Curve::Constant(value));
        }
    }

    /// As a file.
    ///
    /// # Errors
    /// If a number has no place in TOML.
    pub fn to_toml(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|e| e.to_string())
    }

    /// Writes out each [`Gpu::count`].
    fn each(mut self) -> Self {
        let each = std::mem::take(&mut self.gpu).into_iter().flat_map(|gpu| {
            (0..gpu.count).map(move |_| Gpu {
                count: 1,
                ..gpu.clone()
            })
        });
        self.gpu = each.collect();
        for (index, gpu) in self.gpu.iter_mut().enumerate() {
            gpu.uuid
                .get_or_insert_with(|| format!("GPU-fa4e0000-0000-4000-8000-{index:012x}"));
        }
        self
    }

    /// Reads a text and writes out each [`Gpu::count`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        let mut names = scenario.gpu.iter().flat_map(|gpu| gpu.values.keys());
        if let Some(unknown) = names.find(|name| !VALUES.contains(&name.as_str())) {
            return Err(format!("no reading is called `{unknown}`"));
        }
        Ok(scenario.each())
    }
}

impl Curve {
    /// The value at a second.
    pub fn at(&self, seconds: f64) -> f64 {
        match self {
            Curve::Constant(value) => *value,
            Curve::Ramp { start, per_second } => start + per_second * seconds,
            Curve::Steps(steps) => steps
                .iter()
                .take_while(|(from, _)| *from <= seconds)
                .last()
                .or(steps.first())
                .map_or(0.0, |(_, value)| *value),
        }
    }
}

/// True from `from` until before `until`.
pub fn within(seconds: f64, from: f64, until: Option<f64>) -> bool {
    seconds >= from && until.is_none_or(|until| seconds < until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_in_steps() {
        let steps = Curve::Steps(vec![(2.0, 10.0), (4.0, 20.0)]);
        for (t, value) in [
            (0.0, 10.0),
            (2.0, 10.0),
            (3.9, 10.0),
            (4.0, 20.0),
            (99.0, 20.0),
        ] {
            assert_eq!(steps.at(t), value, "{t}");
        }
        let ramp = Curve::Ramp {
            start: 1.0,
            per_second: 2.0,
        };
        assert_eq!(ramp.at(3.0), 7.0);
    }

    #[test]
    fn the_example_in_the_documentation_is_sound() {
        let source = include_str!("scenario.rs");
        let example: String = source
            .lines()
            .skip_while(|l| !l.contains("```toml"))
            .skip(1)
            .take_while(|l| !l.contains("```"))
            .map(|l| l.trim_start_matches("//!").to_owned() + "\n")
            .collect();
        let scenario = Scenario::parse(&example).unwrap();
        assert_eq!(scenario.gpu.len(), 8);
        assert_eq!(
            scenario.gpu[7].uuid.as_deref(),
            Some("GPU-fa4e0000-0000-4000-8000-000000000007")
        );
        assert_eq!(scenario.event[0].xid, 79);
    }

    #[test]
    fn a_scenario_survives_its_file() {
        for scenario in [Scenario::healthy(3), Scenario::bare(2)] {
            let text = scenario.to_toml().unwrap();
            assert_eq!(Scenario::parse(&text).unwrap(), scenario);
        }
        let all: Vec<&str> = HEALTHY.iter().map(|(name, _)| *name).collect();
        assert_eq!(all, VALUES);
    }

    #[test]
    fn what_is_misspelt_is_told() {
        for (text, part) in [
            ("[[gpu]]\nmemroy = 1", "memroy"),
            ("[[gpu]]\nvalues = { power = 1 }", "`power`"),
            ("[[hang]]\nfrom = 1.0", "call"),
        ] {
            let error = Scenario::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
