//! Helios (SenseTime, SC 2021), reduced to `job_id,arrival_s,service_sec,gpu_count`: times in seconds, any order.
//!
//! These lists name neither user nor virtual cluster, and durations are cut at 172,800 s.

use berth_world::twin::{End, Rigid};

use super::{Builder, Limits, Loaded, Origin, Recorded};
use crate::input::{Dialect, InputError, Source, Table};

/// Most GPUs of one job that is believed.
pub(super) const MAX_GPUS: u32 = 1 << 16;

/// Reads the list.
///
/// # Errors
/// With file, line and column, for anything that is not as described above.
pub fn load(source: Source, limits: &Limits) -> Result<Loaded, InputError> {
    flat(source, limits)
}

/// Reads such a list of any origin.
pub(super) fn flat(source: Source, limits: &Limits) -> Result<Loaded, InputError> {
    let name = source.title();
    let mut table = Table::open(source, Dialect::CSV)?;
    let id = table.column("job_id")?;
    let arrival = table.column("arrival_s")?;
    let duration = table.column("service_sec")?;
    let gpus = table.column("gpu_count")?;
    let mut builder = Builder::new(limits);
    while let Some(row) = table.next_row()? {
        let job = Recorded {
            key: row.text(&id)?.to_owned(),
            submit_ms: row.seconds(&arrival)?,
            user: "unknown".into(),
            queue: "default".into(),
            workers: limits.workers(row.count(&gpus, MAX_GPUS)?),
            node_labels: Vec::new(),
            family: String::new(),
            expected_ms: 0,
            truth: Rigid {
                run_ms: row.seconds(&duration)?,
                end: End::Completed,
            },
        };
        builder.push_recorded(row.place(), job)?;
    }
    Ok(builder.finish(&name, Origin::FirstSubmission, None))
}
