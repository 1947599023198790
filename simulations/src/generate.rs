//! `berth-sim generate`: a made-up workload, for whoever has no trace.

use std::io::Write;
use std::path::PathBuf;

use anyhow::ensure;
use berth_types::MILLI;
use berth_world::twin::generate::{Published, Recipe, generate};
use clap::{Args, ValueEnum};

use crate::load::berth_csv;
use crate::output;

/// Milliseconds in a day.
const DAY_MS: f64 = 86_400_000.0;

/// What to make.
#[derive(Clone, Debug, Args)]
pub struct GenerateOptions {
    /// How many jobs.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub jobs: u64,
    /// Where all randomness comes from. The same seed gives the same bytes.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Over how many days they arrive, more or less.
    #[arg(long, default_value_t = 7.0)]
    pub days: f64,
    /// Which published trace they are like.
    #[arg(long, value_enum, default_value_t = Like::Helios)]
    pub like: Like,
    /// GPUs of the largest job.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_gpus: u32,
    /// Longest run, in days.
    #[arg(long, default_value_t = 14.0)]
    pub max_run_days: f64,
    /// Where to; `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// A published trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Like {
    /// SenseTime Helios 2020.
    Helios,
    /// Microsoft Philly 2017.
    Philly,
    /// Alibaba PAI 2020: parts of a GPU.
    Pai,
    /// Shanghai AI Lab Seren 2023: language models.
    Seren,
    /// Shanghai AI Lab Kalos 2023: larger language models.
    Kalos,
}

/// Makes it and writes it.
///
/// # Errors
/// If an option is out of its range, or the file cannot be written.
pub fn run(options: &GenerateOptions) -> anyhow::Result<()> {
    let sound = |days: f64| days.is_finite() && days > 0.0 && days <= 36_500.0;
    ensure!(
        sound(options.days) && sound(options.max_run_days),
        "--days and --max-run-days: not a time that jobs could arrive in; hint: days above 0, at most 36500"
    );
    let recipe = Recipe {
        jobs: options.jobs,
        seed: options.seed,
        days: options.days,
        like: options.like.published(),
        max_milligpu: options.max_gpus.saturating_mul(MILLI),
        max_run_ms: (options.max_run_days * DAY_MS) as u64,
    };
    let jobs = generate(&recipe);
    output::write(&options.output, |out| berth_csv::write(&jobs, out))?;
    if options.output.as_os_str() != "-" {
        let name = options.output.display();
        writeln!(
            std::io::stdout(),
            "{} jobs in {name}; see them with: berth-sim describe {name} --format berth-csv",
            jobs.len()
        )?;
    }
    Ok(())
}

impl Like {
    fn published(self) -> Published {
        match self {
            Self::Helios => Published::Helios,
            Self::Philly => Published::Philly,
            Self::Pai => Published::Pai,
            Self::Seren => Published::Seren,
            Self::Kalos => Published::Kalos,
        }
    }
}
