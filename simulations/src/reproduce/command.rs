//! `berth-sim reproduce`: the table of published results, measured again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::table::{self, Band, Row, Verdict};
use super::{openb, queues, sia, speed};
use crate::input::traces_dir;
use crate::output::{self, Bar, INTERRUPTED, Interrupt};

/// Workloads of Sia's setting that are held against the reference.
const SIA_WORKLOADS: [&str; 6] = [
    "philly/workload-1",
    "philly/workload-2",
    "philly/workload-3",
    "saturn/workload-1",
    "saturn/workload-2",
    "saturn/workload-3",
];
/// Those of them for `--short`.
const SIA_SHORT: usize = 1;
/// Lists of openb for `--short`.
const OPENB_SHORT: usize = 1;

/// Draws the errors of QSSF's estimates.
const QUEUES_SEED: u64 = 1;
/// Arrivals on Venus come this many times as fast: at the recorded rate nobody waits.
const VENUS_LOAD: f64 = 1.6;

/// What to measure again.
#[derive(Clone, Debug, Args)]
pub struct ReproduceOptions {
    /// Which results; all of them if none is named.
    #[arg(value_enum)]
    pub what: Vec<What>,
    /// Few workloads and seeds.
    #[arg(long)]
    pub short: bool,
    /// Write the table to this file, too; JSON if its name ends so, Markdown otherwise.
    #[arg(long, value_name = "OUT")]
    pub report: Option<PathBuf>,
}

/// Published results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// FGD's packing experiments: openb's pod lists under six policies.
    Openb,
    /// Sia's setting: 64 GPUs of three kinds, jobs that adapt their batch.
    Sia,
    /// Helios' comparison of FIFO, SJF, SRTF and QSSF, on Philly and Venus.
    Queues,
    /// What runs and planning rounds take, in seconds of CPU.
    Speed,
}

/// Something to measure: its rows, once it is.
type Task<'t> = (String, Box<dyn FnOnce() -> anyhow::Result<Vec<Row>> + 't>);

/// Measures and prints. 1 if a band does not hold, 130 after Ctrl-C.
///
/// # Errors
/// If there are no traces, or an output cannot be written. A result that cannot be measured is a row that fails.
pub fn run(options: &ReproduceOptions) -> anyhow::Result<ExitCode> {
    let Some(traces) = traces_dir() else {
        bail!(
            "BERTH_TRACES is not set; hint: it names the folder of recorded traces (docs/workloads.md)"
        );
    };
    if let Some(path) = &options.report {
        output::check_writable(path)?;
    }
    let tasks = tasks(options, &traces)?;
    let interrupt = Interrupt::listen();
    let mut bar = Bar::new(tasks.len() as u64, "results");
    let mut rows = Vec::new();
    for (done, (name, task)) in (0..).zip(tasks) {
        if interrupt.pressed() {
            break;
        }
        bar.at(done);
        bar.tell(name.clone());
        match task() {
            Ok(measured) => rows.extend(measured),
            Err(error) => rows.push(Row::failed("-", name, format!("{error:#}"))),
        }
    }
    drop(bar);
    table::write(&rows, &mut std::io::stdout().lock())?;
    if let Some(path) = &options.report {
        output::write(path, |out| match path.extension() {
            Some(json) if json == "json" => {
                serde_json::to_writer_pretty(&mut *out, &rows)?;
                writeln!(out)
            }
            _ => table::write(&rows, out),
        })?;
    }
    let failed = rows
        .iter()
        .filter(|row| row.verdict == Verdict::Fail)
        .count();
    let passed = rows
        .iter()
        .filter(|row| row.verdict == Verdict::Pass)
        .count();
    writeln!(
        std::io::stdout(),
        "\n{passed} within their band, {failed} not"
    )?;
    Ok(match (interrupt.pressed(), failed) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::FAILURE,
    })
}

/// What is to be measured, in order.
fn tasks<'t>(options: &ReproduceOptions, traces: &'t Path) -> anyhow::Result<Vec<Task<'t>>> {
    let wanted = |what| options.what.is_empty() || options.what.contains(&what);
    let mut tasks: Vec<Task<'_>> = Vec::new();
    if wanted(What::Openb) {
        tasks.extend(openb_tasks(traces, options.short)?);
    }
    if wanted(What::Sia) {
        tasks.extend(sia_tasks(traces, options.short)?);
    }
    if wanted(What::Queues) {
        tasks.extend(queue_tasks(traces, options.short));
    }
    if wanted(What::Speed) {
        tasks.push((
            "philly-1 under sia".to_owned(),
            Box::new(|| speed::sia(traces)),
        ));
        tasks.push((
            "Venus under fifo".to_owned(),
            Box::new(|| speed::venus(traces)),
        ));
        tasks.push(("planning rounds".to_owned(), Box::new(speed::rounds)));
    }
    Ok(tasks)
}

fn queue_tasks(traces: &Path, short: bool) -> Vec<Task<'_>> {
    let philly = || Ok(queues::told(&queues::philly(traces, QUEUES_SEED)?));
    let venus = || {
        Ok(queues::told(&queues::venus(
            traces,
            VENUS_LOAD,
            QUEUES_SEED,
        )?))
    };
    let mut tasks: Vec<Task<'_>> = vec![("Philly's queues".to_owned(), Box::new(philly))];
    if !short {
        tasks.push(("Venus' queue".to_owned(), Box::new(venus)));
    }
    tasks
}

fn openb_tasks(traces: &Path, short: bool) -> anyhow::Result<Vec<Task<'_>>> {
    let published = Arc::new(openb::Published::read(traces)?);
    let lists = if short {
        &openb::LISTS[..OPENB_SHORT]
    } else {
        &openb::LISTS[..]
    };
    let mut tasks: Vec<Task<'_>> = Vec::new();
    for &list in lists {
        let (name, published) = (format!("openb {list}"), Arc::clone(&published));
        let rows = move || Ok(openb::list_cells(traces, &published, list, &openb::SEEDS)?);
        let rows = move || rows().map(|cells: Vec<_>| cells.iter().map(openb_row).collect());
        tasks.push((name, Box::new(rows)));
    }
    Ok(tasks)
}

fn openb_row(cell: &openb::Cell) -> Row {
    let (list, policy, load) = (&cell.list, cell.policy, cell.load);
    let what = format!("{list} under {policy}, allocated % at arrived {load} %");
    let band = Band::Points(cell.band);
    Row::new("openb", what, cell.measured, Some(cell.published), band)
}

fn sia_tasks(traces: &Path, short: bool) -> anyhow::Result<Vec<Task<'_>>> {
    let workloads = if short {
        &SIA_WORKLOADS[..SIA_SHORT]
    } else {
        &SIA_WORKLOADS[..]
    };
    let mut tasks: Vec<Task<'_>> = Vec::new();
    for (case, reference) in sia::cases(traces)? {
        let published = ["sia", "sia-oracle", "gavel", "pollux"].contains(&case.policy.as_str());
        let counts = case.setting == "het64" && workloads.contains(&case.workload.as_str());
        if !published || !counts || (short && case.policy == "pollux") {
            continue;
        }
        let name = format!("{} under {}", case.workload, case.policy);
        tasks.push((
            name,
            Box::new(move || {
                let compared = sia::measure(&case, reference, traces)?;
                Ok(sia_rows(&compared))
            }),
        ));
    }
    Ok(tasks)
}

fn sia_rows(compared: &sia::Compared) -> Vec<Row> {
    let case = &compared.case;
    let random = case.policy == "pollux";
    let what = |figure: &str| format!("{} under {}, {figure}", case.workload, case.policy);
    let figures = compared
        .measured
        .named()
        .into_iter()
        .zip(compared.reference.named());
    let mut rows: Vec<Row> = figures
        .map(|((name, ours, band), (_, theirs, _))| {
            let band = match (random, name) {
                (false, _) => Band::Share(band),
                (true, "avg JCT h") => Band::Share(0.10),
                (true, _) => Band::Told,
            };
            Row::new("sia", what(name), ours, Some(theirs), band)
        })
        .collect();
    if let Some(error) = compared.job_error {
        let band = if random { Band::Told } else { Band::AtMost };
        rows.push(Row::new(
            "sia",
            what("median error of a job's JCT"),
            error,
            Some(0.10),
            band,
        ));
    }
    rows
}
