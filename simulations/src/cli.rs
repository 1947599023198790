//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare::CompareOptions;
use crate::describe::DescribeOptions;
use crate::experiment::replay::ReplayOptions;
use crate::experiment::run::RunOptions;
use crate::generate::GenerateOptions;
use crate::reproduce::command::ReproduceOptions;
use crate::whatif::WhatIfOptions;

/// Berth in virtual time: recorded or generated workloads under any policy, and faults of every kind.
#[derive(Debug, Parser)]
#[command(name = "berth-sim", version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Inject faults into a simulated cluster and check every promise, seed by seed.
    ///
    /// Exit codes: 0 if every seed kept every promise, 1 if one did not.
    Chaos(ChaosOptions),
    /// Run one workload on one cluster under one policy.
    Run(RunOptions),
    /// Run several policies on one workload, with several seeds each, and write a report with plots.
    ///
    /// Exit codes: 0 if every run came to its end, 1 if one did not, 130 after Ctrl-C (the report has what is finished).
    Compare(CompareOptions),
    /// Replay a cluster's own history under another policy or on another cluster.
    Replay(ReplayOptions),
    /// Measure published results again and tell which of them hold.
    ///
    /// Exit codes: 0 if every band holds, 1 if one does not.
    Reproduce(ReproduceOptions),
    /// Tell what a workload is like.
    Describe(DescribeOptions),
    /// Make up a workload that is like a published one.
    Generate(GenerateOptions),
    /// Ask what a change would do to a running cluster, from a backup of its state.
    #[command(name = "what-if")]
    WhatIf(WhatIfOptions),
}

/// Which seeds, and how to tell of them.
#[derive(Clone, Debug, Args)]
pub struct ChaosOptions {
    /// How many seeds to run.
    #[arg(long, default_value_t = 300, conflicts_with = "seed")]
    pub seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    pub start: u64,
    /// Run this seed only.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Threads; one per core if 0.
    #[arg(long, short = 'j', default_value_t = 0)]
    pub jobs: usize,
    /// Go on after a failure instead of stopping.
    #[arg(long)]
    pub keep_going: bool,
    /// Print the whole event log (with --seed), and what each seed draws.
    #[arg(long, short)]
    pub verbose: bool,
    /// Print for people or for scripts.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people.
    Table,
    /// JSON with stable keys.
    Json,
}

impl ChaosOptions {
    /// The seeds to run, those that once found something first.
    pub fn seeds(&self) -> Vec<u64> {
        if let Some(seed) = self.seed {
            return vec![seed];
        }
        let asked = self.start..self.start.saturating_add(self.seeds);
        let known: Vec<u64> = berth_world::regressions::SEEDS
            .iter()
            .map(|(seed, _)| *seed)
            .collect();
        let fresh = asked.filter(|seed| !known.contains(seed));
        known.iter().copied().chain(fresh).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        let parsed = Arguments::try_parse_from(["berth-sim", "chaos", "--seed", "7"]);
        let Ok(Arguments {
            command: Command::Chaos(options),
        }) = parsed
        else {
            panic!("a seed is a valid request")
        };
        assert_eq!(options.seeds(), [7]);
        let run = [
            "berth-sim run --trace t --format swf --cluster c --policy fifo --interference",
            "berth-sim replay b --policy fifo --interference rates.json",
        ];
        for line in run {
            let parsed = Arguments::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
        let both = ["berth-sim", "chaos", "--seed", "7", "--seeds", "3"];
        assert!(Arguments::try_parse_from(both).is_err());
    }
}
