//! Workloads of Sia and Pollux: `name,time,application,num_replicas,batch_size[,category]`, with the profiles of their
//! applications in an archive of its own.
//!
//! Source: Jayaram Subramanya et al., SOSP 2023, section 4.1, and the artifact's `workloads/`. `num_replicas` and
//! `batch_size` are what a user who tunes a job by hand would ask for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_types::{GroupSpec, JobSpec, MILLI, Resources};
use berth_world::twin::adaptive::{Adaptive, Knowledge, Tuning};
use berth_world::twin::{TraceJob, Truth};

use super::sia_profiles::{self, Applications, GPU_TYPES, GpuType};
use super::{Builder, Limits, Loaded, Origin};
use crate::input::{Dialect, InputError, Place, Row, Source, Table, nearest, traces_dir};

/// Name of the archive with the profiles.
const PROFILES: &str = "scaling_profiles.tar.gz";
/// Most GPUs that a job may have, as in the artifact.
const MOST_GPUS: u32 = 64;
/// Largest batch that is believed.
const LARGEST_BATCH: u32 = 1 << 24;

/// How the jobs of such a workload are to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// True if jobs run at the size that their users asked for and no other, as schedulers need it that do not resize.
    pub as_asked: bool,
    /// How jobs tune their batch; jobs that run as asked do not.
    pub tuning: Tuning,
    /// What the scheduler knows of their speed.
    pub knowledge: Knowledge,
    /// Most GPUs of a job.
    pub most_gpus: u32,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            as_asked: false,
            tuning: Tuning::PerModel,
            knowledge: Knowledge::Learned,
            most_gpus: MOST_GPUS,
        }
    }
}

impl Reading {
    /// Fixed sizes and batches.
    pub fn as_asked() -> Self {
        Self {
            as_asked: true,
            tuning: Tuning::Fixed,
            ..Self::default()
        }
    }
}

/// Reads a workload. `profiles` names the archive; without it, it is looked for beside the workload, in the folders above,
/// and in `sia-2023` of `BERTH_TRACES`.
///
/// # Errors
/// With file, line and column, for anything that is not as described above.
pub fn load(
    source: Source,
    profiles: Option<&Path>,
    limits: &Limits,
    reading: &Reading,
) -> Result<Loaded, InputError> {
    let path = find_profiles(&source, profiles)?;
    let types: Vec<GpuType> = GPU_TYPES
        .into_iter()
        .filter(|kind| limits.has_model(kind.model))
        .collect();
    // Without a cluster, or on one with other GPUs, all types are of interest.
    let types = if types.is_empty() {
        GPU_TYPES.to_vec()
    } else {
        types
    };
    let applications = sia_profiles::read(&path, &types)?;
    read(source, &applications, limits, reading)
}

/// Reads a workload of these applications.
///
/// # Errors
/// As [`load`].
pub fn read(
    source: Source,
    applications: &Applications,
    limits: &Limits,
    reading: &Reading,
) -> Result<Loaded, InputError> {
    let name = source.stem();
    let mut table = Table::open(source, Dialect::CSV)?;
    let columns = Columns::of(&table)?;
    let mut builder = Builder::new(limits);
    while let Some(row) = table.next_row()? {
        let job = columns.job(&row, applications, reading)?;
        builder.push(row.place(), job)?;
    }
    Ok(builder.finish(&name, Origin::Kept, None))
}

struct Columns {
    name: crate::input::Column,
    time: crate::input::Column,
    application: crate::input::Column,
    gpus: crate::input::Column,
    batch: crate::input::Column,
    category: Option<crate::input::Column>,
}

impl Columns {
    fn of(table: &Table) -> Result<Self, InputError> {
        Ok(Self {
            name: table.column("name")?,
            time: table.column("time")?,
            application: table.column("application")?,
            gpus: table.column("num_replicas")?,
            batch: table.column("batch_size")?,
            category: table.optional_column("category"),
        })
    }

    fn job(
        &self,
        row: &Row<'_>,
        applications: &Applications,
        reading: &Reading,
    ) -> Result<TraceJob, InputError> {
        let key = row.text(&self.name)?.to_owned();
        let family = row.text(&self.application)?;
        let Some(application) = applications.get(family) else {
            let near = nearest(family, applications.keys().map(String::as_str));
            let hint = match near {
                Some(near) => format!("the nearest is `{near}`"),
                None => "is this the archive that belongs to the workload?".to_owned(),
            };
            let what = format!("no profiles are known for `{family}`");
            return Err(row.error(&self.application, what, &hint));
        };
        let gpus = row.count(&self.gpus, MOST_GPUS)?.max(1);
        let asked_batch = row.count(&self.batch, LARGEST_BATCH)?;
        let (first, most) = (application.first_batch(), application.most_batch());
        if !(first..=most).contains(&asked_batch) {
            let what = format!("`{asked_batch}` is no batch of `{family}`");
            return Err(row.error(&self.batch, what, &format!("from {first} to {most}")));
        }
        let (as_asked, tuning) = self.kind(row, reading)?;
        let (least, most) = match (as_asked, tuning) {
            (true, _) => (gpus, gpus),
            (false, Tuning::Fixed) => (1, gpus),
            (false, _) => (1, reading.most_gpus),
        };
        let truth = Adaptive {
            application: Arc::clone(application),
            tuning,
            knowledge: reading.knowledge,
            asked_batch,
            most_workers: most,
            free_moves: true,
        };
        Ok(TraceJob {
            submit_ms: row.seconds(&self.time)?,
            spec: Arc::new(spec(&key, family, least, most)),
            key,
            truth: Truth::Model(Arc::new(truth)),
        })
    }

    /// Whether a job keeps its size, and how it tunes its batch.
    fn kind(&self, row: &Row<'_>, reading: &Reading) -> Result<(bool, Tuning), InputError> {
        let Some(category) = &self.category else {
            return Ok((reading.as_asked, reading.tuning));
        };
        match row.text(category)? {
            "adaptive" | "" => Ok((reading.as_asked, reading.tuning)),
            "scale-gpus" => Ok((reading.as_asked, Tuning::Fixed)),
            "rigid" => Ok((true, Tuning::Fixed)),
            other => {
                let what = format!("`{other}` is no category");
                Err(row.error(category, what, "adaptive, scale-gpus or rigid"))
            }
        }
    }
}

fn spec(key: &str, family: &str, least: u32, most: u32) -> JobSpec {
    let worker = GroupSpec {
        name: "worker".into(),
        command: vec!["replayed".into()],
        min_workers: least,
        max_workers: most,
        gang: true,
        resources: Resources {
            milligpu: MILLI,
            ..Resources::default()
        },
        node_labels: std::collections::BTreeMap::new(),
    };
    JobSpec {
        name: key.to_owned(),
        user: "unknown".into(),
        groups: vec![worker],
        labels: [("family".to_owned(), family.to_owned())].into(),
        ..JobSpec::default()
    }
}

fn find_profiles(source: &Source, named: Option<&Path>) -> Result<PathBuf, InputError> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let above = source.path().ancestors().skip(1).map(Path::to_owned);
    let traces = traces_dir().map(|traces| traces.join("sia-2023"));
    let mut paths = above.chain(traces).map(|folder| folder.join(PROFILES));
    paths.find(|path| path.is_file()).ok_or_else(|| {
        let what = format!("{PROFILES}, which has the speed of each application, is not found");
        let hint = "name it with --profiles, or set BERTH_TRACES to the folder of traces";
        Place::file(source.name()).error(what, hint)
    })
}
