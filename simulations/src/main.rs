//! `berth-sim`: see `berth-sim help`.

use std::process::ExitCode;

use clap::Parser;

use berth_sim::cli::{Arguments, Command};
use berth_sim::{chaos, report};

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Chaos(options) => {
            let quiet = options.output == berth_sim::cli::Output::Json;
            let campaign = chaos::run(&options, quiet);
            report::print(&campaign, &options)?;
            Ok(if campaign.failures().next().is_none() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}
