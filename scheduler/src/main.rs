//! `berth-scheduler`: one master.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use berth_scheduler::{Config, LogFormat, Master};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// Threads that decode calls and encode answers. The replica, storage, planning and history have their own.
const WORKERS: usize = 2;

/// A Berth master: accepts jobs, agrees with the other masters, and tells agents what to run.
#[derive(Parser)]
#[command(name = "berth-scheduler", version)]
struct Args {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "BERTH_MASTER_CONFIG")]
    config: PathBuf,
    /// Check the configuration and end.
    #[arg(long)]
    check: bool,
}

/// Exit code for a wrong configuration.
const BAD_CONFIG: u8 = 2;

#[allow(clippy::print_stdout, clippy::print_stderr)] // what the user who starts it by hand reads
fn main() -> ExitCode {
    let args = Args::parse();
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    if args.check {
        println!("{} is sound", args.config.display());
        return ExitCode::SUCCESS;
    }
    log_to_stderr(config.log_format);
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure:#}");
            // Also plainly: under `berth up` the log goes to a file, and this is what an operator needs first.
            eprintln!("error: {failure:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn run(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("berth-rpc")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(config));
    runtime.shutdown_background();
    result
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    info!(version, ?config, "starting");
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let master = Master::start(config).await?;
    info!(address = %master.address(), "serving");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        info!(%error, "the service manager was not told");
    }
    master
        .run_until(async {
            tokio::select! {
                _ = terminate.recv() => info!("asked to stop"),
                _ = interrupt.recv() => info!("interrupted"),
            }
        })
        .await?;
    info!("stopped");
    Ok(())
}
