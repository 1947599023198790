//! `berth-sim`: see `berth-sim help`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use berth_sim::cli::{Arguments, ChaosOptions, Command, Output};
use berth_sim::{chaos, compare, describe, experiment, generate, report, reproduce, whatif};

fn main() -> ExitCode {
    match command(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // Whoever closed the pipe has seen enough.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Chaos(options) => run_chaos(&options),
        Command::Run(options) => experiment::run::run(&options),
        Command::Replay(options) => experiment::replay::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Reproduce(options) => reproduce::command::run(&options),
        Command::Describe(options) => done(describe::run(&options)),
        Command::Generate(options) => done(generate::run(&options)),
        Command::WhatIf(options) => done(whatif::run(&options)),
    }
}

fn done(result: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}

fn run_chaos(options: &ChaosOptions) -> anyhow::Result<ExitCode> {
    let campaign = chaos::run(options, options.output == Output::Json);
    report::print(&campaign, options)?;
    let kept = campaign.failures().next().is_none();
    Ok(if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
