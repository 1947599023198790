//! The main job on real data, while a leader and a node die: `make demo`.
//!
//! [`show`] is the play, [`Training`] the job on stage, [`Timeline`] what the audience reads.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command line tool talks to its user

mod show;
mod timeline;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;

use timeline::Timeline;
use training::Training;

/// Trains on handwritten digits with 4 ranks, kills the leader and a node in the middle, and compares the weights with
/// those of an uninterrupted run, to the bit.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Args {
    /// The job file
    #[arg(long, default_value = "examples/digits/job.toml", value_name = "FILE")]
    job: PathBuf,
    /// Steps to train
    #[arg(long, default_value_t = 600)]
    steps: u64,
    /// `result.json` of an uninterrupted run, to save its half minute
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Where to make the cluster's directory [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep the cluster's directory, also when all is well
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            outcome = show::show(args) => outcome,
            // Leaving the future drops the cluster, which ends its processes.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}
