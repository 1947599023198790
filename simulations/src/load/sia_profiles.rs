//! Scaling profiles of the Sia artifact: `APP/placements-TYPE.csv`, `APP/scalability-TYPE.csv`, `APP/validation-BATCH.csv`
//! in a tar, packed or not, and beside it `interp_unmeasured.csv.gz` with what lies between the measurements.
//!
//! Source: Jayaram Subramanya et al., SOSP 2023 (the artifact's `traces/`); times of real GPUs by placement and batch.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_core::goodput::GradientNoise;
use berth_world::twin::adaptive::{Application, Curve, Profile, StepTime, smallest_rotation};

use crate::input::{Dialect, InputError, Place, Source, Table};

/// Name of the file with what was not measured.
const UNMEASURED: &str = "interp_unmeasured.csv.gz";
/// Largest file in the archive that is believed.
const LARGEST_BYTES: u64 = 1 << 26;
/// Most files in the archive.
const MOST_FILES: usize = 10_000;
/// Largest batch, node and GPU counts that are believed.
const LARGEST_BATCH: u32 = 1 << 24;
const MOST_GPUS: u32 = 1 << 16;

/// A GPU type of the artifact.
#[derive(Clone, Copy, Debug)]
pub struct GpuType {
    /// Name in its files.
    pub theirs: &'static str,
    /// GPU model as clusters name it.
    pub model: &'static str,
    /// GPUs of a node.
    pub gpus_per_node: u32,
    /// Most nodes that were measured.
    pub nodes_most: u32,
}

/// GPU types, in the artifact's order.
pub const GPU_TYPES: [GpuType; 4] = [
    GpuType {
        theirs: "aws",
        model: "t4",
        gpus_per_node: 4,
        nodes_most: 16,
    },
    GpuType {
        theirs: "dgx-ext",
        model: "a100",
        gpus_per_node: 8,
        nodes_most: 2,
    },
    GpuType {
        theirs: "rtx",
        model: "rtx",
        gpus_per_node: 8,
        nodes_most: 3,
    },
    GpuType {
        theirs: "quad",
        model: "quad",
        gpus_per_node: 4,
        nodes_most: 1,
    },
];

/// What the artifact's `applications.py` and `simulator_config.py` say of an application.
#[derive(Clone, Copy, Debug)]
struct Constants {
    name: &'static str,
    epochs: usize,
    restart_s: u64,
    /// As its policy assumes it.
    believed_restart_s: u64,
    slowdown: f64,
}

const APPLICATIONS: [Constants; 6] = [
    constants("cifar10", 100, 50, 30, 1.8),
    constants("bert", 2, 120, 120, 1.2),
    constants("deepspeech2", 80, 25, 25, 1.2),
    constants("yolov3", 50, 80, 45, 1.2),
    constants("imagenet", 90, 250, 250, 1.2),
    constants("ncf", 10, 15, 30, 1.5),
];

const fn constants(
    name: &'static str,
    epochs: usize,
    restart_s: u64,
    believed_restart_s: u64,
    slowdown: f64,
) -> Constants {
    Constants {
        name,
        epochs,
        restart_s,
        believed_restart_s,
        slowdown,
    }
}

/// The largest micro-batch that the artifact sets by hand, because a larger one runs out of memory.
const BY_HAND: (&str, &str, u32) = ("deepspeech2", "rtx", 57);

/// Applications by name.
pub type Applications = BTreeMap<String, Arc<Application>>;

/// Reads the profiles of all applications on these GPU types.
///
/// # Errors
/// With file, line and column, if the archive is damaged or one of its tables is not as described.
pub fn read(path: &Path, types: &[GpuType]) -> Result<Applications, InputError> {
    let files = unpack(path)?;
    let unmeasured = path.with_file_name(UNMEASURED);
    let unmeasured = match unmeasured.is_file() {
        true => read_unmeasured(Source::open(&unmeasured)?)?,
        false => Unmeasured::new(),
    };
    let mut applications = Applications::new();
    for constants in &APPLICATIONS {
        if files.keys().any(|(app, _)| app == constants.name) {
            let application = application(path, &files, &unmeasured, constants, types)?;
            applications.insert(constants.name.to_owned(), Arc::new(application));
        }
    }
    if applications.is_empty() {
        let place = Place::file(&path.display().to_string().into());
        let hint = "a tar with APP/placements-TYPE.csv and so on, as the Sia artifact has them";
        return Err(place.error("no application that is known is in it", hint));
    }
    Ok(applications)
}

/// Contents by application and file name.
type Files = BTreeMap<(String, String), Vec<u8>>;
/// Curves by GPU type, application, nodes and GPUs.
type Unmeasured = BTreeMap<(String, String), BTreeMap<(u32, u32), Vec<(u32, StepTime)>>>;

fn unpack(path: &Path) -> Result<Files, InputError> {
    let (name, bytes) = Source::open(path)?.into_reader();
    let broken = |source| crate::input::read_error(Place::file(&name), source);
    let mut archive = tar::Archive::new(bytes);
    let mut files = Files::new();
    for entry in archive.entries().map_err(broken)?.take(MOST_FILES) {
        let mut entry = entry.map_err(broken)?;
        let path: PathBuf = entry.path().map_err(broken)?.into_owned();
        let file = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let folder = path.parent().and_then(Path::file_name);
        let folder = folder.map(|name| name.to_string_lossy().into_owned());
        let (Some(folder), Some(file)) = (folder, file) else {
            continue;
        };
        if !entry.header().entry_type().is_file() || !file.ends_with(".csv") {
            continue;
        }
        let mut contents = Vec::new();
        entry
            .by_ref()
            .take(LARGEST_BYTES)
            .read_to_end(&mut contents)
            .map_err(broken)?;
        files.insert((folder, file), contents);
    }
    Ok(files)
}

fn table(
    archive: &Path,
    files: &Files,
    app: &str,
    file: &str,
) -> Result<Option<Table>, InputError> {
    let Some(contents) = files.get(&(app.to_owned(), file.to_owned())) else {
        return Ok(None);
    };
    let name = format!("{}:{app}/{file}", archive.display());
    Table::open(Source::memory(&name, contents.clone())?, Dialect::CSV).map(Some)
}

fn application(
    archive: &Path,
    files: &Files,
    unmeasured: &Unmeasured,
    constants: &Constants,
    types: &[GpuType],
) -> Result<Application, InputError> {
    let app = constants.name;
    let (noise, epochs) = validation(archive, files, constants)?;
    let mut profiles = Vec::new();
    for gpu_type in types {
        let placements = format!("placements-{}.csv", gpu_type.theirs);
        let Some(placements) = table(archive, files, app, &placements)? else {
            continue;
        };
        let scalability = format!("scalability-{}.csv", gpu_type.theirs);
        let scalability = table(archive, files, app, &scalability)?;
        let key = (gpu_type.theirs.to_owned(), app.to_owned());
        let between = unmeasured.get(&key).cloned().unwrap_or_default();
        let mut profile = profile(gpu_type, placements, scalability, between)?;
        if (app, gpu_type.theirs) == (BY_HAND.0, BY_HAND.1) {
            profile.local_most = BY_HAND.2;
        }
        profiles.push(Arc::new(profile));
    }
    Ok(Application {
        name: app.to_owned(),
        epochs,
        noise,
        restart_ms: constants.restart_s * 1000,
        believed_restart_ms: constants.believed_restart_s * 1000,
        slowdown: constants.slowdown,
        profiles,
    })
}

type Noise = Vec<(u32, Vec<GradientNoise>)>;

/// Noise by batch and epoch, and the progress at the end of each epoch: the least of all batches.
fn validation(
    archive: &Path,
    files: &Files,
    constants: &Constants,
) -> Result<(Noise, Vec<f64>), InputError> {
    let mut noise = Noise::new();
    let mut epochs = vec![f64::INFINITY; constants.epochs];
    for (app, file) in files.keys().filter(|(app, _)| app == constants.name) {
        let batch = file
            .strip_prefix("validation-")
            .and_then(|rest| rest.strip_suffix(".csv"));
        let Some(batch) = batch.and_then(|batch| batch.parse::<u32>().ok()) else {
            continue;
        };
        let Some(mut table) = table(archive, files, app, file)? else {
            continue;
        };
        let columns = ["progress", "grad_sqr", "grad_var"].map(|name| table.column(name));
        let [progress, squared_norm, variance] = columns;
        let (progress, squared_norm, variance) = (progress?, squared_norm?, variance?);
        let mut rows = Vec::new();
        while let Some(row) = table.next_row()? {
            if let Some(least) = epochs.get_mut(rows.len()) {
                *least = least.min(row.number(&progress)?);
            }
            rows.push(GradientNoise {
                squared_norm: row.number(&squared_norm)?,
                variance: row.number(&variance)?,
            });
        }
        if rows.len() < constants.epochs || batch == 0 {
            let (found, wanted) = (rows.len(), constants.epochs);
            let what = format!("{found} epochs where {wanted} are expected");
            let hint = "one row for each epoch; fetch the profiles again";
            return Err(Place::file(table.file()).error(what, hint));
        }
        noise.push((batch, rows));
    }
    noise.sort_by_key(|(batch, _)| *batch);
    if noise.is_empty() {
        let place = Place::file(&archive.display().to_string().into());
        let what = format!("{}/validation-BATCH.csv is missing", constants.name);
        return Err(place.error(what, "fetch the profiles again"));
    }
    Ok((noise, epochs))
}

fn profile(
    gpu_type: &GpuType,
    placements: Table,
    scalability: Option<Table>,
    between: BTreeMap<(u32, u32), Vec<(u32, StepTime)>>,
) -> Result<Profile, InputError> {
    let mut profile = Profile {
        gpu_model: gpu_type.model.into(),
        gpus_per_node: gpu_type.gpus_per_node,
        nodes_most: gpu_type.nodes_most,
        local_least: u32::MAX,
        ..Profile::default()
    };
    let mut spans: BTreeMap<(u32, u32), BTreeMap<u32, Vec<StepTime>>> = BTreeMap::new();
    read_placements(placements, &mut profile, &mut spans)?;
    if let Some(scalability) = scalability {
        read_scalability(scalability, &mut profile, &mut spans)?;
    }
    for (span, batches) in spans {
        let points = batches
            .iter()
            .map(|(samples, times)| (*samples, mean(times)));
        profile
            .spans
            .insert(span, Arc::new(Curve::new(points.collect())));
    }
    for (span, points) in between {
        profile.spans.insert(span, Arc::new(Curve::new(points)));
    }
    Ok(profile)
}

type Spans = BTreeMap<(u32, u32), BTreeMap<u32, Vec<StepTime>>>;

fn read_placements(
    mut table: Table,
    profile: &mut Profile,
    spans: &mut Spans,
) -> Result<(), InputError> {
    let placement_column = table.column("placement")?;
    let times = Times::of(&table)?;
    let mut curves: BTreeMap<Vec<u8>, Vec<(u32, StepTime)>> = BTreeMap::new();
    while let Some(row) = table.next_row()? {
        let (samples, time) = times.read(&row)?;
        let text = row.text(&placement_column)?;
        let digits: Vec<u8> = text
            .bytes()
            .filter(u8::is_ascii_digit)
            .map(|b| b - b'0')
            .collect();
        if digits.len() != text.len() || digits.is_empty() || digits.contains(&0) {
            let what = format!("`{text}` is no placement");
            return Err(row.error(
                &placement_column,
                what,
                "GPUs per node, a digit from 1 each",
            ));
        }
        let gpus: u32 = digits.iter().map(|&digit| u32::from(digit)).sum();
        let nodes = digits.len() as u32;
        profile.local_least = profile.local_least.min(samples);
        profile.local_most = profile.local_most.max(samples);
        profile.measured.push((nodes, gpus, samples, time));
        spans
            .entry((nodes, gpus))
            .or_default()
            .entry(samples)
            .or_default()
            .push(time);
        curves
            .entry(smallest_rotation(&digits))
            .or_default()
            .push((samples, time));
    }
    if curves.is_empty() {
        return Err(Place::file(table.file()).error("no placement", "fetch the profiles again"));
    }
    let curves = curves.into_iter();
    profile.placements = curves
        .map(|(key, points)| (key, Arc::new(Curve::new(points))))
        .collect();
    Ok(())
}

fn read_scalability(
    mut table: Table,
    profile: &mut Profile,
    spans: &mut Spans,
) -> Result<(), InputError> {
    let (nodes_column, gpus_column) = (table.column("num_nodes")?, table.column("num_replicas")?);
    let times = Times::of(&table)?;
    while let Some(row) = table.next_row()? {
        let (samples, time) = times.read(&row)?;
        let nodes = row.count(&nodes_column, MOST_GPUS)?;
        let gpus = row.count(&gpus_column, MOST_GPUS)?;
        profile.most_by_span.push((nodes, gpus, samples));
        let known = profile
            .measured
            .iter()
            .any(|m| (m.0, m.1, m.2) == (nodes, gpus, samples));
        if !known {
            profile.measured.push((nodes, gpus, samples, time));
        }
        spans
            .entry((nodes, gpus))
            .or_default()
            .entry(samples)
            .or_default()
            .push(time);
    }
    Ok(())
}

/// The columns that all tables of times have.
struct Times {
    samples: crate::input::Column,
    step: crate::input::Column,
    synchronise: crate::input::Column,
}

impl Times {
    fn of(table: &Table) -> Result<Self, InputError> {
        Ok(Self {
            samples: table.column("local_bsz")?,
            step: table.column("step_time")?,
            synchronise: table.column("sync_time")?,
        })
    }

    fn read(&self, row: &crate::input::Row<'_>) -> Result<(u32, StepTime), InputError> {
        let samples = row.count(&self.samples, LARGEST_BATCH)?;
        let time = StepTime {
            step_s: row.number(&self.step)?,
            synchronise_s: row.number(&self.synchronise)?,
        };
        if time.synchronise_s < 0.0 || time.step_s <= time.synchronise_s {
            let what = format!("a step of {} s", time.step_s);
            let hint = "a step takes longer than its synchronisation, and that at least 0 s";
            return Err(row.error(&self.step, what, hint));
        }
        Ok((samples, time))
    }
}

fn read_unmeasured(source: Source) -> Result<Unmeasured, InputError> {
    let mut table = Table::open(source, Dialect::CSV)?;
    let (kind, app) = (table.column("gpu_type")?, table.column("app")?);
    let (nodes, gpus) = (table.column("num_nodes")?, table.column("num_gpus")?);
    let times = Times::of(&table)?;
    let mut found = Unmeasured::new();
    while let Some(row) = table.next_row()? {
        let key = (row.text(&kind)?.to_owned(), row.text(&app)?.to_owned());
        let span = (row.count(&nodes, MOST_GPUS)?, row.count(&gpus, MOST_GPUS)?);
        let point = times.read(&row)?;
        found
            .entry(key)
            .or_default()
            .entry(span)
            .or_default()
            .push(point);
    }
    Ok(found)
}

fn mean(times: &[StepTime]) -> StepTime {
    let count = times.len().max(1) as f64;
    StepTime {
        step_s: times.iter().map(|time| time.step_s).sum::<f64>() / count,
        synchronise_s: times.iter().map(|time| time.synchronise_s).sum::<f64>() / count,
    }
}
