//! What a change would do to a cluster that runs: a snapshot of its state is simulated to its end twice, with and without
//! the change, and waiting and completion times are compared.
//!
//! [`snapshot`] reads what the masters saved, [`change`] is what is asked about, [`situation`] makes a run of both, and
//! [`answer`] compares. Nothing of the cluster is touched.
//!
//! What is not in a snapshot is assumed, and said with the answer: nobody submits anything else, nothing fails, and jobs
//! run as long as those like them did ([`situation::Basis`]).

pub mod answer;
pub mod change;
pub mod situation;
pub mod snapshot;

use std::path::PathBuf;

use anyhow::Context;
use berth_policy::registry;
use berth_world::twin;
use clap::Args;

use crate::cli::Output;
use answer::Answer;
use change::{AddNodes, Change};
use situation::Situation;
use snapshot::Snapshot;

/// What is asked.
#[derive(Clone, Debug, Args)]
pub struct WhatIfOptions {
    /// A backup of the cluster's state, as `berth backup` writes it.
    #[arg(long, value_name = "FILE")]
    pub snapshot: PathBuf,
    /// The policy that plans now.
    #[arg(long, value_name = "NAME", default_value = "fifo")]
    pub current_policy: String,
    /// Add nodes like those of a pool: the value of their label `pool`, a class such as `a100x8`, or a node's name.
    #[arg(long, value_name = "POOL=COUNT")]
    pub add_nodes: Vec<AddNodes>,
    /// Take nodes out of service: a node's name, a rack, or a pool. What runs there finishes.
    #[arg(long, value_name = "NODES")]
    pub drain: Vec<String>,
    /// Plan with another policy.
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    /// Submit a job: a specification as JSON, as `berth submit --dry-run -o json` prints it.
    #[arg(long, value_name = "FILE")]
    pub submit_spec: Vec<PathBuf>,
    /// Most jobs to list, those that change most first.
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// Print for people or for scripts.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Asks, and prints the answer.
///
/// # Errors
/// If the snapshot, a job or a name is not sound.
pub fn run(options: &WhatIfOptions) -> anyhow::Result<()> {
    let snapshot = Snapshot::read(&options.snapshot)?;
    let change = Change::of(options, &snapshot.state)?;
    let policy = options.policy.as_ref().unwrap_or(&options.current_policy);
    let simulate = |situation: &Situation, policy: &str| {
        let mut policy = registry::by_name(policy)?;
        twin::run(&situation.setting, &mut *policy, &mut twin::unwatched)
            .with_context(|| format!("{}: it cannot be simulated", options.snapshot.display()))
    };
    let now = Situation::of(&snapshot, &Change::default());
    let then = Situation::of(&snapshot, &change);
    let answer = Answer::new(
        (&now, &simulate(&now, &options.current_policy)?),
        (&then, &simulate(&then, policy)?),
        (&options.current_policy, policy),
    );
    answer.print(options)
}
