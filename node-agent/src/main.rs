//! `berth-agent`: the node's daemon, its keeper, and the way to end a keeper.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_agent::config::{Config, Host};
use berth_agent::gpu::probe;
use berth_agent::keeper::confinement::Groups;
use berth_agent::keeper::{server, stop};
use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// The node agent of Berth: runs tasks, and outlives every master.
#[derive(Debug, Parser)]
#[command(name = "berth-agent", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file.
    #[arg(long, default_value = "/etc/berth/agent.toml")]
    config: PathBuf,
    /// Only check the configuration, and print every fault.
    #[arg(long)]
    check: bool,
    /// How to log to stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be the parent of this node's tasks; started by the agent.
    Keeper {
        /// The agent's data directory.
        #[arg(long)]
        dir: PathBuf,
        /// Where tasks' control groups go: `own`, `off`, `not-given`, or a directory.
        #[arg(long, default_value = "off")]
        cgroup: String,
    },
    /// End a node's keeper and all its tasks.
    KeeperStop {
        /// The agent's data directory.
        #[arg(long)]
        dir: PathBuf,
        /// Time between asking the tasks to stop and killing them.
        #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
        grace: Duration,
    },
    /// Read the GPUs through NVIDIA's library and print lines of JSON; started by the agent.
    NvmlProbe {
        /// Time between two readings.
        #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
        interval: Duration,
        /// The library, instead of the driver's own.
        #[arg(long)]
        library: Option<PathBuf>,
        /// Where tasks have their directories: processes of theirs are told with it.
        #[arg(long)]
        tasks_dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    berth_agent::inherited::close_on_exec();
    let arguments = Arguments::parse();
    log_to_stderr(arguments.log_format);
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Some(Command::Keeper { dir, cgroup }) => {
            server::run(&dir, &Groups::from(cgroup.as_str()))?;
        }
        Some(Command::KeeperStop { dir, grace }) => match stop::stop(&dir, grace)? {
            stop::Stopped::Keeper => say("keeper and tasks ended"),
            stop::Stopped::Orphans(0) => say("no keeper runs and no task is left"),
            stop::Stopped::Orphans(n) => {
                say(&format!("no keeper runs; ended {n} processes of its tasks"))
            }
        },
        Some(Command::NvmlProbe {
            interval,
            library,
            tasks_dir,
        }) => probe::run(probe::Options {
            interval,
            library: library.map(PathBuf::into_os_string),
            tasks_dir: tasks_dir.map(PathBuf::into_os_string),
        }),
        None => return serve(&arguments),
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(arguments: &Arguments) -> Result<ExitCode> {
    let config = match Config::load(&arguments.config, &Host::detect()) {
        Ok(config) => config,
        Err(faults) => {
            for fault in faults {
                say(&format!("error: {}: {fault}", arguments.config.display()));
            }
            return Ok(ExitCode::from(2));
        }
    };
    if arguments.check {
        say(&format!(
            "{} is sound: {config:#?}",
            arguments.config.display()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    tracing::info!(?config, "agent starts");
    let program = std::env::current_exe().context("find this program")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(berth_agent::daemon::run(config, program));
    // What still hashes or reads may be left behind.
    runtime.shutdown_background();
    result?;
    Ok(ExitCode::SUCCESS)
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => log.json().init(),
    }
}

/// User-facing words on stderr.
#[allow(clippy::print_stderr)]
fn say(text: &str) {
    eprintln!("{text}");
}
