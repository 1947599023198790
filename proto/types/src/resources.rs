//! Amounts as integers, so that fractions are exact: GPUs in thousandths, CPUs in thousandths, memory in bytes.

use serde::{Deserialize, Serialize};

/// Thousandths in one whole GPU or CPU.
pub const MILLI: u32 = 1000;

/// What one worker needs, and what a node offers apart from its GPU list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// GPUs per worker in thousandths: any multiple of 1000, or a fraction of one GPU below 1000.
    pub milligpu: u32,
    /// CPUs per worker in thousandths.
    pub millicpu: u32,
    /// Host memory per worker.
    pub mem_bytes: u64,
    /// Acceptable GPU models (any if empty), compared without case.
    pub gpu_types: Vec<String>,
    /// Least memory of each GPU; 0 is any.
    pub gpu_mem_bytes: u64,
}

impl Resources {
    /// Number of distinct GPU devices that one worker touches.
    pub fn devices(&self) -> u32 {
        self.milligpu.div_ceil(MILLI)
    }
}

/// A share of one GPU of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GpuShare {
    /// Index in [`NodeSpec::gpus`](crate::NodeSpec::gpus).
    pub gpu: u16,
    /// Share in thousandths, 1 to 1000.
    pub milligpu: u32,
}
