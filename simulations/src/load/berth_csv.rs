//! Berth's own table of recorded jobs, which `berth-sim generate` writes:
//!
//! ```text
//! job_id,submit_s,user,family,gpus,run_s,end,expected_s
//! 1,0.250,user3,family12,4,903.118,completed,3600
//! ```
//!
//! `gpus` is a whole number or a fraction below 1; `end` is `completed`, `failed` or `cancelled`; `expected_s` is what the
//! user said, 0 for nothing. Times are in seconds, submissions from any origin and in any order.

use std::io::{self, Write};

use berth_types::{MILLI, Resources};
use berth_world::twin::generate::GeneratedJob;
use berth_world::twin::{End, Rigid};

use super::helios::MAX_GPUS;
use super::{Builder, Limits, Loaded, Origin, Recorded};
use crate::input::{Column, Dialect, InputError, Row, Source, Table};

/// Columns, in order.
const COLUMNS: [&str; 8] = [
    "job_id",
    "submit_s",
    "user",
    "family",
    "gpus",
    "run_s",
    "end",
    "expected_s",
];

/// Reads the table.
///
/// # Errors
/// With file, line and column, for anything that is not as described above.
pub fn load(source: Source, limits: &Limits) -> Result<Loaded, InputError> {
    let name = source.title();
    let mut table = Table::open(source, Dialect::CSV)?;
    let mut columns = Vec::new();
    for name in COLUMNS {
        columns.push(table.column(name)?);
    }
    let [id, submit, user, family, gpus, run, end, expected] = columns.as_slice() else {
        unreachable!("one for each name")
    };
    let mut builder = Builder::new(limits);
    while let Some(row) = table.next_row()? {
        let end = match row.text(end)? {
            "completed" => End::Completed,
            "failed" => End::Failed,
            "cancelled" => End::Cancelled,
            other => {
                let what = format!("`{other}` is no end of a job");
                return Err(row.error(end, what, "completed, failed or cancelled"));
            }
        };
        let job = Recorded {
            key: row.text(id)?.to_owned(),
            submit_ms: row.seconds(submit)?,
            family: row.text(family)?.to_owned(),
            user: row.text(user)?.to_owned(),
            queue: "default".into(),
            workers: workers(&row, gpus, limits)?,
            node_labels: Vec::new(),
            expected_ms: row.seconds(expected)?,
            truth: Rigid {
                run_ms: row.seconds(run)?,
                end,
            },
        };
        builder.push_recorded(row.place(), job)?;
    }
    Ok(builder.finish(&name, Origin::Kept, None))
}

fn workers(
    row: &Row<'_>,
    column: &Column,
    limits: &Limits,
) -> Result<(u32, Resources), InputError> {
    let gpus = row.number(column)?;
    let milligpu = (gpus * f64::from(MILLI)).round();
    if gpus > 0.0 && gpus < 1.0 && milligpu >= 1.0 {
        let resources = Resources {
            milligpu: milligpu as u32,
            ..Resources::default()
        };
        return Ok((1, resources));
    }
    Ok(limits.workers(row.count(column, MAX_GPUS)?))
}

/// Writes made-up jobs as such a table.
///
/// # Errors
/// If it cannot be written.
pub fn write(jobs: &[GeneratedJob], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", COLUMNS.join(","))?;
    for (number, job) in (1u64..).zip(jobs) {
        let end = match job.end {
            End::Completed => "completed",
            End::Failed => "failed",
            End::Cancelled => "cancelled",
        };
        writeln!(
            out,
            "{number},{},user{},family{},{},{},{end},{}",
            Thousandths(job.submit_ms),
            job.user,
            job.family,
            Thousandths(job.milligpu.into()),
            Thousandths(job.run_ms),
            job.expected_ms / 1_000,
        )?;
    }
    Ok(())
}

/// A number of thousandths, without trailing zeros.
struct Thousandths(u64);

impl std::fmt::Display for Thousandths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, part) = (self.0 / 1_000, self.0 % 1_000);
        if part == 0 {
            return write!(f, "{whole}");
        }
        let part = format!("{part:03}");
        write!(f, "{whole}.{}", part.trim_end_matches('0'))
    }
}
