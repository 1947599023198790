//! `berth-sim replay`: what another policy or another cluster would have made of a cluster's own history.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::run::{self, RunOptions};
use super::workload::{Known, WorkloadOptions};
use crate::load::Format;

/// Which history, and how.
#[derive(Clone, Debug, Args)]
pub struct ReplayOptions {
    /// A file that `berth backup` made.
    #[arg(value_name = "BACKUP")]
    pub backup: PathBuf,
    /// The policy, by the name that masters are configured with.
    #[arg(long, value_name = "NAME")]
    pub policy: String,
    /// Another cluster than the nodes in the backup: a file or a published name.
    #[arg(long, value_name = "FILE-OR-NAME")]
    pub cluster: Option<String>,
    /// Arrivals come this many times as fast.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub load: f64,
    /// Leave jobs out that are larger than the cluster.
    #[arg(long)]
    pub skip_oversized: bool,
    /// Measured interference of jobs on the same GPU, as for `run`.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub interference: Option<Option<PathBuf>>,
    /// What policies are told of how long recorded jobs run.
    #[arg(long, value_enum, default_value_t = Known::Asked)]
    pub durations: Known,
    /// Where all randomness comes from.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write the figures as JSON to this file (`-`: standard output).
    #[arg(long, value_name = "OUT")]
    pub json: Option<PathBuf>,
    /// Write one row per job to this CSV file, and the same rows into the JSON.
    #[arg(long, value_name = "OUT")]
    pub per_job: Option<PathBuf>,
}

/// Replays it.
///
/// # Errors
/// As [`run::run`].
pub fn run(options: &ReplayOptions) -> anyhow::Result<ExitCode> {
    run::run(&RunOptions {
        workload: WorkloadOptions {
            trace: options.backup.clone(),
            format: Format::Berth,
            cluster: options.cluster.clone(),
            load: options.load,
            profiles: None,
            interference: options.interference.clone(),
            arrivals: None,
            arrival_seed: None,
            skip_oversized: options.skip_oversized,
            first: None,
            round: None,
            durations: options.durations,
        },
        policy: options.policy.clone(),
        seed: options.seed,
        json: options.json.clone(),
        per_job: options.per_job.clone(),
        check: false,
    })
}
