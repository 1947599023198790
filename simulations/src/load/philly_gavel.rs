//! Philly as Gavel (OSDI 2020) wrote it, one virtual cluster per file: tab-separated, without a line of names:
//! `job_type, command, num_steps_arg, needs_data_dir, total_steps, arrival_time, scale_factor`.
//!
//! A job's duration is its steps over the V100 rate of its type, which a second file has
//! (`gavel_v100_steps_per_s.csv`: `job_type,v100_steps_per_s`). Types are synthetic; arrivals and sizes are real.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use berth_world::twin::{End, Rigid};

use super::helios::MAX_GPUS;
use super::{Builder, Limits, Loaded, Origin, Recorded};
use crate::input::{Dialect, InputError, Place, Source, Table, nearest, traces_dir};

/// Columns, in order.
const COLUMNS: [&str; 7] = [
    "job_type",
    "command",
    "num_steps_arg",
    "needs_data_dir",
    "total_steps",
    "arrival_time",
    "scale_factor",
];
/// Name of the file with the rates.
const RATES: &str = "gavel_v100_steps_per_s.csv";
/// Longest run that is believed, in seconds.
const LONGEST_S: f64 = 1e10;

/// Reads one virtual cluster. `rates` names the file with the rates; without it, it is looked for beside the trace, one
/// folder above, and in `philly-2017` of `BERTH_TRACES`.
///
/// # Errors
/// With file, line and column, for anything that is not as described above.
pub fn load(source: Source, rates: Option<&Path>, limits: &Limits) -> Result<Loaded, InputError> {
    let path = find_rates(&source, rates)?;
    let rates = read_rates(Source::open(&path)?)?;
    read(source, &rates, limits)
}

/// Reads one virtual cluster with these rates, in steps per second by type of job.
///
/// # Errors
/// As [`load`].
pub fn read(
    source: Source,
    rates: &HashMap<String, f64>,
    limits: &Limits,
) -> Result<Loaded, InputError> {
    let name = source.stem();
    let mut table = Table::without_header(source, Dialect::TSV, &COLUMNS);
    let kind = table.column("job_type")?;
    let steps = table.column("total_steps")?;
    let arrival = table.column("arrival_time")?;
    let gpus = table.column("scale_factor")?;
    let confined = limits.has_label("vc");
    let mut builder = Builder::new(limits);
    while let Some(row) = table.next_row()? {
        let place = row.place();
        let family = row.text(&kind)?;
        let Some(rate) = rates.get(family) else {
            let known = nearest(family, rates.keys().map(String::as_str));
            let hint = known.map(|near| format!("; the nearest is `{near}`"));
            let hint = format!("add it to {RATES}{}", hint.unwrap_or_default());
            return Err(row.error(&kind, format!("no rate is known for `{family}`"), &hint));
        };
        let seconds = row.number(&steps)? / rate;
        if !(0.0..=LONGEST_S).contains(&seconds) {
            let what = format!("`{}` steps take {seconds:.0} s", row.text(&steps)?);
            return Err(row.error(&steps, what, "a number of steps, 0 or more"));
        }
        let job = Recorded {
            key: format!("{name}-{}", place.line),
            submit_ms: row.seconds(&arrival)?,
            user: "unknown".into(),
            queue: name.clone(),
            workers: limits.workers(row.count(&gpus, MAX_GPUS)?),
            node_labels: confined.then(|| ("vc", name.clone())).into_iter().collect(),
            family: family.to_owned(),
            expected_ms: 0,
            truth: Rigid {
                run_ms: (seconds * 1000.0).round() as u64,
                end: End::Completed,
            },
        };
        builder.push_recorded(place, job)?;
    }
    Ok(builder.finish(&name, Origin::FirstSubmission, None))
}

fn find_rates(source: &Source, named: Option<&Path>) -> Result<PathBuf, InputError> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let folder = source.path().parent();
    let above = folder.and_then(Path::parent);
    let traces = traces_dir().map(|traces| traces.join("philly-2017"));
    let places = [
        folder.map(Path::to_owned),
        above.map(Path::to_owned),
        traces,
    ];
    let paths = places.into_iter().flatten().map(|place| place.join(RATES));
    paths
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            let what = format!("{RATES}, which has the speed of each type of job, is not found");
            let hint = "name it with --profiles, or set BERTH_TRACES to the folder of traces";
            Place::file(source.name()).error(what, hint)
        })
}

fn read_rates(source: Source) -> Result<HashMap<String, f64>, InputError> {
    let mut table = Table::open(source, Dialect::CSV)?;
    let kind = table.column("job_type")?;
    let rate = table.column("v100_steps_per_s")?;
    let mut rates = HashMap::new();
    while let Some(row) = table.next_row()? {
        let per_s = row.number(&rate)?;
        if per_s <= 0.0 {
            let what = format!("`{per_s}` steps per second");
            return Err(row.error(&rate, what, "a number above 0"));
        }
        rates.insert(row.text(&kind)?.to_owned(), per_s);
    }
    Ok(rates)
}
