//! Slurm's accounting, as `sacct` prints it for programs:
//!
//! ```text
//! sacct -a -P -S 2026-01-01 -o JobIDRaw,User,Account,Partition,Submit,Start,End,State,Timelimit,AllocTRES,ReqTRES
//! ```
//!
//! Columns are found by name, in any order, and more of them do no harm. Lines of steps (`123.batch`) belong to their
//! job; jobs that never started or are not over yet have nothing to replay. GPUs, CPUs, memory and nodes are what was
//! allocated, or asked for where the allocation is not told.

use berth_types::{MILLI, Resources};
use berth_world::twin::{End, Rigid};

use super::date::unix_seconds;
use super::{Builder, Limits, Loaded, Origin, Recorded};
use crate::input::{Column, Dialect, InputError, Row, Source, Table};

/// Most of anything in a job's resources that is believed.
const MOST: u64 = 1 << 40;

struct Columns {
    id: Column,
    user: Option<Column>,
    account: Option<Column>,
    partition: Option<Column>,
    submit: Column,
    start: Column,
    end: Column,
    state: Column,
    limit: Option<Column>,
    allocated: Option<Column>,
    requested: Option<Column>,
}

/// Reads what `sacct` printed.
///
/// # Errors
/// With file, line and column, for anything that is not as described above.
pub fn load(source: Source, limits: &Limits) -> Result<Loaded, InputError> {
    let name = source.title();
    let mut table = Table::open(source, Dialect::BARS)?;
    let columns = Columns::of(&table)?;
    let mut builder = Builder::new(limits);
    while let Some(row) = table.next_row()? {
        match columns.job(&row, limits)? {
            Ok(job) => builder.push_recorded(row.place(), job)?,
            Err(reason) => builder.skip(reason),
        }
    }
    Ok(builder.finish(&name, Origin::FirstSubmission, Some(0)))
}

impl Columns {
    fn of(table: &Table) -> Result<Self, InputError> {
        let id = table
            .optional_column("JobIDRaw")
            .or(table.optional_column("JobID"));
        let allocated = table.optional_column("AllocTRES");
        let requested = table.optional_column("ReqTRES");
        if allocated.is_none() && requested.is_none() {
            table.column("AllocTRES")?;
        }
        Ok(Self {
            id: id.map_or_else(|| table.column("JobIDRaw"), Ok)?,
            user: table.optional_column("User"),
            account: table.optional_column("Account"),
            partition: table.optional_column("Partition"),
            submit: table.column("Submit")?,
            start: table.column("Start")?,
            end: table.column("End")?,
            state: table.column("State")?,
            limit: table.optional_column("Timelimit"),
            allocated,
            requested,
        })
    }

    /// The job of this row, or why it is none.
    fn job(
        &self,
        row: &Row<'_>,
        limits: &Limits,
    ) -> Result<Result<Recorded, &'static str>, InputError> {
        let id = row.text(&self.id)?;
        if id.contains('.') {
            return Ok(Err("a step of a job"));
        }
        if id.is_empty() {
            return Err(row.error(&self.id, "empty".into(), "each job has an id"));
        }
        let Some(submit_s) = self.time(row, &self.submit)? else {
            let what = "no time of submission".to_owned();
            return Err(row.error(&self.submit, what, "correct or drop the row"));
        };
        let (Some(start_s), end_s) = (self.time(row, &self.start)?, self.time(row, &self.end)?)
        else {
            return Ok(Err("it never started"));
        };
        let Some(end_s) = end_s else {
            return Ok(Err("it is not over yet"));
        };
        for (column, before, after) in [
            (&self.start, submit_s, start_s),
            (&self.end, start_s, end_s),
        ] {
            if after < before {
                let what = format!("`{}` is before what came before it", row.text(column)?);
                let hint = "a job is submitted, starts and ends in this order; correct or drop it";
                return Err(row.error(column, what, hint));
            }
        }
        let text = |column: &Option<Column>| match column {
            Some(column) => row.text(column),
            None => Ok(""),
        };
        let or_unknown = |text: &str| match text {
            "" => "unknown".to_owned(),
            text => text.to_owned(),
        };
        let (account, partition) = (text(&self.account)?, text(&self.partition)?);
        let queue = if partition.is_empty() {
            account
        } else {
            partition
        };
        let Some(workers) = self.workers(row, limits)? else {
            return Ok(Err("it held neither GPUs nor CPUs"));
        };
        Ok(Ok(Recorded {
            key: id.to_owned(),
            submit_ms: submit_s * 1000,
            user: or_unknown(text(&self.user)?),
            queue: or_unknown(queue.split(',').next().unwrap_or_default()),
            workers,
            node_labels: Vec::new(),
            family: String::new(),
            expected_ms: self.limit_ms(row)?,
            truth: Rigid {
                run_ms: (end_s - start_s) * 1000,
                end: end_of(row.text(&self.state)?),
            },
        }))
    }

    /// Seconds since 1970; `None` if there is no such time.
    fn time(&self, row: &Row<'_>, column: &Column) -> Result<Option<u64>, InputError> {
        let text = row.text(column)?;
        if matches!(text, "" | "Unknown" | "None" | "N/A") {
            return Ok(None);
        }
        let seconds = match text.parse::<u64>() {
            Ok(seconds) => Some(seconds),
            Err(_) => unix_seconds(text).and_then(|s| u64::try_from(s).ok()),
        };
        match seconds.filter(|s| *s < MOST) {
            Some(seconds) => Ok(Some(seconds)),
            None => {
                let what = format!("`{text}` is no date");
                Err(row.error(column, what, "such as 2026-01-31T23:59:59"))
            }
        }
    }

    fn limit_ms(&self, row: &Row<'_>) -> Result<u64, InputError> {
        let Some(column) = &self.limit else {
            return Ok(0);
        };
        let text = row.text(column)?;
        if matches!(text, "" | "UNLIMITED" | "Partition_Limit" | "INVALID") {
            return Ok(0);
        }
        let seconds = elapsed_s(text).filter(|s| *s < MOST);
        seconds.map(|s| s * 1000).ok_or_else(|| {
            let what = format!("`{text}` is no duration");
            row.error(
                column,
                what,
                "such as 2-12:00:00 (days-hours:minutes:seconds)",
            )
        })
    }

    fn workers(
        &self,
        row: &Row<'_>,
        limits: &Limits,
    ) -> Result<Option<(u32, Resources)>, InputError> {
        for column in [&self.allocated, &self.requested].into_iter().flatten() {
            let text = row.text(column)?;
            let Some(trackable) = Trackable::of(text) else {
                let what = format!("`{text}` is no list of resources");
                return Err(row.error(column, what, "such as cpu=8,mem=64G,node=1,gres/gpu=4"));
            };
            if trackable.gpus > 0 || trackable.cpus > 0 {
                return Ok(Some(trackable.workers(limits)));
            }
        }
        Ok(None)
    }
}

/// What Slurm calls trackable resources.
#[derive(Debug, Default, PartialEq)]
struct Trackable {
    gpus: u64,
    gpu_type: String,
    cpus: u64,
    mem_bytes: u64,
    nodes: u64,
}

impl Trackable {
    fn of(text: &str) -> Option<Self> {
        let mut found = Self::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.trim().split_once('=')?;
            let amount = amount(value)?;
            match name {
                "cpu" => found.cpus = amount,
                "mem" => found.mem_bytes = amount,
                "node" => found.nodes = amount,
                "gres/gpu" => found.gpus = found.gpus.max(amount),
                _ => {
                    if let Some(kind) = name.strip_prefix("gres/gpu:") {
                        kind.clone_into(&mut found.gpu_type);
                        found.gpus = found.gpus.max(amount);
                    }
                }
            }
        }
        Some(found)
    }

    /// One worker to a node where that comes out even.
    fn workers(&self, limits: &Limits) -> (u32, Resources) {
        let per_node = |amount: u64, nodes: u32| amount.div_ceil(u64::from(nodes));
        let narrow = |amount: u64| u32::try_from(amount).unwrap_or(u32::MAX);
        let (count, mut resources) = match (self.nodes, self.gpus) {
            (nodes @ 1.., gpus @ 1..) if gpus.is_multiple_of(nodes) => {
                let milligpu = narrow((gpus / nodes).saturating_mul(MILLI.into()));
                let resources = Resources {
                    milligpu,
                    ..Resources::default()
                };
                (narrow(nodes), resources)
            }
            (_, gpus @ 1..) => limits.workers(narrow(gpus)),
            (nodes, _) => (narrow(nodes.max(1)), Resources::default()),
        };
        if limits.has_cpus() {
            let cpus = per_node(self.cpus, count.max(1));
            resources.millicpu = narrow(cpus.saturating_mul(MILLI.into()));
        }
        if limits.has_memory() {
            resources.mem_bytes = per_node(self.mem_bytes, count.max(1));
        }
        if limits.has_model(&self.gpu_type) && resources.milligpu > 0 {
            resources.gpu_types = vec![self.gpu_type.clone()];
        }
        (count, resources)
    }
}

/// A number, perhaps with a unit of memory, which is bytes then; mebibytes are the unit where none is written.
fn amount(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1_u64 << 40,
        _ => return None,
    };
    let amount = digits.parse::<f64>().ok()? * factor as f64;
    let sound = amount >= 0.0 && amount <= (1u64 << 60) as f64;
    sound.then(|| amount.round() as u64)
}

/// Seconds of `[days-]hours:minutes:seconds`.
fn elapsed_s(text: &str) -> Option<u64> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let mut seconds: u64 = days.parse().ok()?;
    let parts: Vec<&str> = clock.split(':').collect();
    if parts.len() > 3 {
        return None;
    }
    let missing = 3 - parts.len();
    for unit in 0..3 {
        let part = match unit {
            unit if unit < missing => 0,
            unit => {
                let part = parts.get(unit - missing)?;
                part.split('.').next()?.parse().ok()?
            }
        };
        let base = if unit == 0 { 24 } else { 60 };
        seconds = seconds.checked_mul(base)?.checked_add(part)?;
    }
    Some(seconds)
}

fn end_of(state: &str) -> End {
    match state.split(' ').next().unwrap_or_default() {
        "COMPLETED" => End::Completed,
        state if state.starts_with("CANCELLED") => End::Cancelled,
        _ => End::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_durations_and_states_as_slurm_writes_them() {
        let found = Trackable::of("billing=64,cpu=64,gres/gpu:a100=8,gres/gpu=8,mem=1.5T,node=2");
        let wanted = Trackable {
            gpus: 8,
            gpu_type: "a100".into(),
            cpus: 64,
            mem_bytes: 3 << 39,
            nodes: 2,
        };
        assert_eq!(found, Some(wanted));
        assert_eq!(Trackable::of("cpu"), None);
        assert_eq!(Trackable::of("cpu=many"), None);
        let cases = [
            ("00:00:10", Some(10)),
            ("1-02:03:04", Some(93_784)),
            ("05:00", Some(300)),
            ("12:00:00.123", Some(43_200)),
            ("1:2:3:4", None),
            ("soon", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(elapsed_s(text), wanted, "{text}");
        }
        assert_eq!(end_of("CANCELLED by 1000"), End::Cancelled);
        assert_eq!(end_of("TIMEOUT"), End::Failed);
    }
}
