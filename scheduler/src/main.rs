//! `berth-scheduler`: one master.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context;
use berth_raft_store::Backend;
use berth_scheduler::restore::{self, Restore, Restored};
use berth_scheduler::{Config, LogFormat, Master};
use berth_types::MasterId;
use berth_types::api::MasterInfo;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// Threads that decode calls and encode answers. The replica, storage, planning and history have their own.
const WORKERS: usize = 2;

/// A Berth master: accepts jobs, agrees with the other masters, and tells agents what to run.
#[derive(Parser)]
#[command(
    name = "berth-scheduler",
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
struct Args {
    /// The configuration file (TOML).
    #[arg(
        long,
        value_name = "FILE",
        env = "BERTH_MASTER_CONFIG",
        required = true
    )]
    config: Option<PathBuf>,
    /// Check the configuration and end.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make the data directory of a master of a new cluster from a backup.
    Restore(RestoreArgs),
}

#[derive(clap::Args)]
struct RestoreArgs {
    /// The backup.
    #[arg(long, value_name = "FILE")]
    backup: PathBuf,
    /// The directory to make; must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The master whose directory it is.
    #[arg(long)]
    id: u64,
    /// Each master of the new cluster; the same list for every one of them.
    #[arg(long = "master", value_name = "ID=HOST:PORT", required = true, value_parser = master)]
    masters: Vec<(MasterId, MasterInfo)>,
    /// Storage backend.
    #[arg(long, default_value = "sled", value_parser = Backend::from_str)]
    storage: Backend,
}

fn master(text: &str) -> Result<(MasterId, MasterInfo), String> {
    let (id, address) = text.split_once('=').ok_or("write ID=HOST:PORT")?;
    let id = id.parse().map_err(|_| format!("`{id}` is no number"))?;
    let address = address.to_owned();
    Ok((MasterId(id), MasterInfo { address }))
}

/// Exit code for a wrong configuration.
const BAD_CONFIG: u8 = 2;

#[allow(clippy::print_stdout, clippy::print_stderr)] // what the user who starts it by hand reads
fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Restore(args)) = args.command {
        return restore(args);
    }
    // clap has seen to it that there is one.
    let path = args.config.unwrap_or_default();
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    if args.check {
        println!("{} is sound", path.display());
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

#[allow(clippy::print_stdout, clippy::print_stderr)] // an operator's command
fn restore(args: RestoreArgs) -> ExitCode {
    let plan = Restore {
        backup: args.backup,
        data_dir: args.data_dir,
        id: MasterId(args.id),
        masters: args.masters,
        backend: args.storage,
    };
    match restore::restore(&plan) {
        Ok(Restored {
            jobs,
            finished,
            index,
        }) => {
            let (dir, id) = (plan.data_dir.display(), plan.id);
            println!(
                "made {dir} for master {id}: {jobs} unfinished and {finished} finished jobs as of log index {index}"
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
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
