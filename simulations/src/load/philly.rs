//! Philly (Microsoft, ATC 2019), in two shapes that are told apart by their columns:
//! `timestamp,duration,num_gpus,gpu_time,cluster` (the subset that came with Pollux) and
//! `vc,submitted_time,num_gpus,duration_s` (jobs of 20 minutes or more, recovered from Gavel's traces).
//!
//! Each virtual cluster is a queue. Where the cluster's nodes carry the label `vc`, jobs stay on their own.

use berth_world::twin::{End, Rigid};

use super::date::unix_seconds;
use super::helios::MAX_GPUS;
use super::{Builder, Limits, Loaded, Origin, Recorded};
use crate::input::{Column, Dialect, InputError, Row, Source, Table};

/// Reads either list.
///
/// # Errors
/// With file, line and column, for anything that is not as described above.
pub fn load(source: Source, limits: &Limits) -> Result<Loaded, InputError> {
    let name = source.title();
    let mut table = Table::open(source, Dialect::CSV)?;
    let recovered = table.optional_column("duration_s").is_some();
    let names = if recovered {
        ["submitted_time", "duration_s", "vc"]
    } else {
        ["timestamp", "duration", "cluster"]
    };
    let [submitted, duration, vc] = names.map(|name| table.column(name));
    let (submitted, duration, vc) = (submitted?, duration?, vc?);
    let gpus = table.column("num_gpus")?;
    let confined = limits.has_label("vc");
    let mut builder = Builder::new(limits);
    while let Some(row) = table.next_row()? {
        let place = row.place();
        let queue = row.text(&vc)?.to_owned();
        let job = Recorded {
            key: format!("{queue}-{}", place.line - 1),
            submit_ms: date_ms(&row, &submitted)?,
            user: "unknown".into(),
            node_labels: confined
                .then(|| ("vc", queue.clone()))
                .into_iter()
                .collect(),
            queue,
            workers: limits.workers(row.count(&gpus, MAX_GPUS)?),
            family: String::new(),
            expected_ms: 0,
            truth: Rigid {
                run_ms: row.seconds(&duration)?,
                end: End::Completed,
            },
        };
        builder.push_recorded(place, job)?;
    }
    Ok(builder.finish(&name, Origin::FirstSubmission, Some(0)))
}

/// A date after 1970, as milliseconds since then.
pub(super) fn date_ms(row: &Row<'_>, column: &Column) -> Result<u64, InputError> {
    let text = row.text(column)?;
    let seconds = unix_seconds(text).and_then(|s| u64::try_from(s).ok());
    seconds.map(|s| s * 1000).ok_or_else(|| {
        let what = format!("`{text}` is no date");
        row.error(column, what, "such as 2017-10-09 07:01:55, after 1970")
    })
}
