//! Alibaba PAI (cluster-trace-gpu-v2020, NSDI 2022), sampled to `job_id,arrival_s,service_sec,gpu_count`.
//!
//! The sample rounds fractions of a GPU up to one. `arrival_s` is the time at which a task started: the task table
//! has no time of submission.

use super::{Limits, Loaded, helios};
use crate::input::{InputError, Source};

/// Reads the list.
///
/// # Errors
/// With file, line and column, for anything that is not as described above.
pub fn load(source: Source, limits: &Limits) -> Result<Loaded, InputError> {
    helios::flat(source, limits)
}
