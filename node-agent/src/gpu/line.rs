//! What the probe says: one line of JSON each, in no particular order but for [`Line::Driver`], which is the first.

use berth_types::telemetry::{GpuIdentity, GpuPath, GpuReading, GpuXid};
use serde::{Deserialize, Serialize};

/// The word on the probe's standard input that asks for readings now; a number follows, which only grows.
pub const LOOK_NOW: &str = "look";
/// Longest line that is read; a machine's worth of processes on one GPU fits.
pub const MAX_LINE_BYTES: usize = 4 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// The library is there and the driver answers.
    Driver(Driver),
    /// A GPU was found.
    Gpu(GpuIdentity),
    /// How the GPUs that were found reach each other.
    Paths {
        /// Each pair once.
        paths: Vec<GpuPath>,
    },
    /// A look at one GPU.
    Reading {
        /// It began after this request was read.
        look: u64,
        /// What was seen.
        reading: Box<GpuReading>,
    },
    /// The driver announced an error.
    Xid(GpuXid),
    /// The probe itself is alive. It makes no calls on the thread that says so.
    Beat(Beat),
    /// The library or the driver cannot be used; the probe ends.
    Failed {
        /// Why.
        why: String,
    },
}

/// The driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Driver {
    /// Its version.
    pub version: Option<String>,
    /// The library's version.
    pub nvml_version: Option<String>,
    /// The CUDA version that it can do, as 1000 times the major one and 10 times the minor one.
    pub cuda_version: Option<i32>,
    /// How many GPUs it lists.
    pub gpus: u16,
}

/// A sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// When, by the node's clock.
    pub at_ms: u64,
    /// Calls that have not returned yet.
    pub waiting: Vec<Waiting>,
}

/// A call that has not returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// On which GPU; absent for calls that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u16>,
    /// What for.
    pub call: String,
    /// For how long.
    pub for_ms: u64,
}

impl Line {
    /// As the probe writes it, with its end.
    pub fn encode(&self) -> String {
        let mut text = serde_json::to_string(self).expect("plain data with text keys is JSON");
        text.push('\n');
        text
    }

    /// As the agent reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}
