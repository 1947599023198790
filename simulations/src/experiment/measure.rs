//! Runs the twin and looks at the clock.

use std::ops::ControlFlow;
use std::time::Instant;

use berth_core::policy::Policy;
use berth_world::twin::{self, Outcome, Progress, TwinError};

use super::bounds::Bound;
use super::timed::Timed;
use super::workload::Workload;

/// A run with the real time that it took.
#[derive(Debug)]
pub struct Measured {
    /// The policy's name.
    pub policy: String,
    /// What came out.
    pub outcome: Outcome,
    /// Median of what one decision took, in milliseconds.
    pub decision_ms_p50: f64,
    /// 99th percentile.
    pub decision_ms_p99: f64,
    /// What the run took, reading files left out.
    pub wall_s: f64,
}

/// Runs a workload under a policy and measures both. If the workload is there for a bound, it goes by the bound's name;
/// each job alone is no run, and asks no policy.
///
/// # Errors
/// As [`twin::run`].
pub fn measure(
    workload: &Workload,
    policy: &mut dyn Policy,
    seed: u64,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Measured, TwinError> {
    let mut setting = workload.setting.clone();
    setting.seed = seed;
    let mut timed = Timed::new(policy);
    let begin = Instant::now();
    let outcome = match &workload.bound {
        Some((_, Bound::Alone)) => twin::alone(&setting),
        _ => twin::run(&setting, &mut timed, watch)?,
    };
    let wall_s = begin.elapsed().as_secs_f64();
    let bound = workload.bound.as_ref();
    Ok(Measured {
        policy: bound.map_or_else(|| timed_name(&timed), |(name, _)| name.clone()),
        outcome,
        decision_ms_p50: timed.percentile_ms(50),
        decision_ms_p99: timed.percentile_ms(99),
        wall_s,
    })
}

fn timed_name(policy: &dyn Policy) -> String {
    policy.name().to_owned()
}
