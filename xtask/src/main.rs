//! Checks and chores of this repository: `cargo xtask ci` is what every change must pass.
//!
//! Start at [`Task`]. Each check is one file with one entry point that returns the faults it found; [`steps`] runs
//! them and prints. The table of crates that must stay PURE is [`house::PURE`].
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command line tool talks to its user

mod arrows;
mod house;
mod steps;
mod tidy;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks and chores of this repository")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Every check below, in the order of their price
    Ci,
    /// Formatting, without changing anything
    Fmt,
    /// Sizes, crate docs, leftovers, PURE bans, file names and links
    Tidy,
    /// Which crate may know which, against `cargo metadata`
    Arrows,
    /// Bans, licences and sources of third-party crates
    Deny,
    /// Lints over all targets, warnings denied
    Clippy,
    /// Documentation, warnings denied
    Docs,
    /// Installs the pinned tools that are missing into .deps/tools
    Tools,
    /// Debian packages of the daemons and the command line, into target/debian
    Packages,
    /// Failures with real processes: builds the daemons, then runs berth-tests' `nemesis` with the arguments that follow
    #[command(disable_help_flag = true)]
    Nemesis {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// The main job on real data: builds the daemons, then runs berth-tests' `demo`
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Ci => steps::run(&steps::ALL),
        Task::Fmt => steps::run(&[steps::FMT]),
        Task::Tidy => steps::run(&[steps::TIDY]),
        Task::Arrows => steps::run(&[steps::ARROWS]),
        Task::Deny => steps::run(&[steps::DENY]),
        Task::Clippy => steps::run(&[steps::CLIPPY]),
        Task::Docs => steps::run(&[steps::DOCS]),
        Task::Tools => tools::install_all(),
        Task::Packages => steps::packages(),
        Task::Nemesis { args } => steps::with_daemons("nemesis", &args),
        Task::Demo { args } => steps::with_daemons("demo", &args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
