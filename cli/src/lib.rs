//! `berth`, the command line: a thin client of `berth.v1` that runs jobs, shows the cluster and brings up a local one.
//!
//! Owns: job files ([`jobfile`]), addresses of masters, what people and scripts see (tables, JSON, exit codes), the
//! processes of a local cluster (`berth up`), and the load generator (`berth bench`).
//! Must not know: how masters decide, store or replicate anything; it links neither the scheduler nor the store.
//!
//! Start reading at `args` (every command), then `commands`.

mod address;
mod args;
mod bench;
mod client;
mod commands;
mod failure;
pub mod jobfile;
mod local;
mod show;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

/// Runs the command that the process was started with, and returns its exit code.
pub fn run() -> ExitCode {
    let cli = args::Cli::parse();
    // One thread: a command waits for one thing at a time, and threads would only make it start later.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(commands::run(cli));
            // Whatever still runs has no business left.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !matches!(failure, failure::Failure::OutputClosed) {
                let stderr = std::io::stderr();
                let colour = show::may_colour(stderr.is_terminal());
                failure.print(&mut stderr.lock(), colour);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}
