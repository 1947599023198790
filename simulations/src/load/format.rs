//! Which formats there are, and the one door to all of them.

use std::path::PathBuf;

use clap::ValueEnum;

use super::{
    Limits, Loaded, berth, berth_csv, dlrm, genai, helios, openb, pai, philly, philly_gavel, sacct,
    sia, swf,
};
use crate::input::{InputError, Source};

/// How a workload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Sia and Pollux workloads with measured scaling profiles.
    Sia,
    /// Philly (Microsoft 2017): jobs.csv, or the list recovered from Gavel's traces.
    Philly,
    /// Philly as Gavel wrote it: one virtual cluster per file.
    PhillyGavel,
    /// Helios (SenseTime 2020).
    Helios,
    /// Alibaba openb (gpu-v2023).
    Openb,
    /// Alibaba PAI (gpu-v2020).
    Pai,
    /// Alibaba DLRM (gpu-v2025): instances of inference services.
    Dlrm,
    /// Alibaba GenAI (v2026): requests to image-generation services.
    Genai,
    /// The Standard Workload Format of the Parallel Workloads Archive.
    Swf,
    /// What `sacct -P` prints: see docs/workloads.md for the columns.
    Sacct,
    /// The finished jobs in a file that `berth backup` made.
    Berth,
    /// Berth's own table of jobs, which `generate` writes.
    BerthCsv,
}

/// What some formats need beside their file.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Profiles or rates that belong to the workload; looked for in the usual places if not named.
    pub profiles: Option<PathBuf>,
    /// A recorded order of arrivals, and which of its seeds.
    pub arrivals: Option<(PathBuf, u64)>,
    /// How jobs of Sia's workloads are read.
    pub reading: sia::Reading,
}

/// Reads a workload.
///
/// # Errors
/// With file, line and column, for anything that the format does not allow.
pub fn load(
    format: Format,
    source: Source,
    extras: &Extras,
    limits: &Limits,
) -> Result<Loaded, InputError> {
    match format {
        Format::Sia => sia::load(source, extras.profiles.as_deref(), limits, &extras.reading),
        Format::Philly => philly::load(source, limits),
        Format::PhillyGavel => philly_gavel::load(source, extras.profiles.as_deref(), limits),
        Format::Helios => helios::load(source, limits),
        Format::Openb => match &extras.arrivals {
            None => openb::load(source, limits),
            Some((path, seed)) => {
                let arrivals = openb::Arrivals::read(Source::open(path)?, *seed)?;
                openb::load_packing(source, &arrivals)
            }
        },
        Format::Pai => pai::load(source, limits),
        Format::Dlrm => dlrm::load(source, limits),
        Format::Genai => genai::load(source, limits),
        Format::Swf => swf::load(source, limits),
        Format::Sacct => sacct::load(source, limits),
        Format::Berth => berth::load(source.path(), limits),
        Format::BerthCsv => berth_csv::load(source, limits),
    }
}
