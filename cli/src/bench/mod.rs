//! `berth bench`: what a cluster does in a second, and what it costs.
//!
//! [`load`] is the closed-loop load, [`submit`], [`memory`] and [`mod@run`] are the measurements. A cluster that nobody
//! named is brought up for the measurement, in a temporary directory, and taken down after it.

mod load;
mod memory;
mod run;
mod submit;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::Address;
use crate::args::{Bench, BenchWhat};
use crate::commands::{Context, Outcome};
use crate::failure::Failure;
use crate::local::cluster::{self, Plan};
use crate::local::layout::Cluster;
use crate::local::process::asked_to_end;

/// How long a cluster brought up for a measurement may take.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// In which unit `/proc/PID/stat` counts CPU time; the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Runs a measurement; Ctrl-C and the like end it, and the cluster that it brought up.
pub(crate) async fn run(context: &Context, args: Bench) -> Outcome {
    let asked = asked_to_end()?;
    let measure = async {
        match args.what {
            BenchWhat::Submit(args) if args.report_memory => memory::report(context, &args).await,
            BenchWhat::Submit(args) => submit::measure(context, &args).await,
            BenchWhat::Run(args) => run::measure(context, &args).await,
        }
    };
    tokio::select! {
        outcome = measure => outcome,
        code = asked => Ok(code),
    }
}

/// The cluster that is measured.
struct Target {
    /// Its masters.
    masters: Vec<String>,
    /// Its directory, if its processes are on this machine.
    dir: Option<PathBuf>,
    /// True if it was brought up for this.
    own: bool,
    /// Ends it when the measurement is over, however that happens.
    _guard: Option<Guard>,
}

impl Target {
    /// The cluster that the user names, or one of its own.
    async fn new(context: &Context, plan: &Plan) -> Result<Self, Failure> {
        let address: Address = context.address()?;
        if !address.default {
            return Ok(Self {
                masters: address.masters,
                dir: address.dir,
                own: false,
                _guard: None,
            });
        }
        let scratch = tempfile::Builder::new().prefix("berth-bench-").tempdir()?;
        let dir = scratch.path().to_path_buf();
        let guard = Guard {
            dir: dir.clone(),
            _scratch: scratch,
        };
        let mut started = cluster::start(&dir, plan)?;
        started.ready(READY_WITHIN).await?;
        let masters = started.cluster.masters.iter();
        Ok(Self {
            masters: masters.map(|m| m.address.clone()).collect(),
            dir: Some(started.dir.clone()),
            own: true,
            _guard: Some(guard),
        })
    }
}

struct Guard {
    dir: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        end_quietly(&self.dir);
    }
}

/// Ends what runs; a failure could not be told to anybody any more.
fn end_quietly(dir: &Path) {
    if Cluster::exists(dir) {
        let _ = cluster::end(dir, false);
    }
}

/// Milliseconds, with as many digits as are worth reading.
fn millis(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1000.0)
}

/// Milliseconds of CPU for each of `n` operations; `None` if the CPU is not known.
fn cpu_ms_each(ticks: Option<u64>, n: u64) -> Option<f64> {
    let ms = ticks? as f64 * 1000.0 / TICKS_PER_SECOND;
    (n > 0).then(|| ms / n as f64)
}

/// The same for people.
fn cpu_text(each: Option<f64>) -> String {
    each.map_or("n/a".into(), |ms| format!("{ms:.3} ms"))
}
