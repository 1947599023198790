//! Checkpoints on disk: verifying what a task reported, the manifest beside the files, verifying again before a
//! resume, and deleting what is too old. Everything here blocks.
//!
//! `berth-manifest.json` lies in the checkpoint's directory:
//! `{"version":1,"job":7,"epoch":3,"step":100,"save_ms":200,"files":[{"path":"weights.npy","bytes":9,"sha256":"…"}]}`

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use berth_agent_core::DamagedCheckpoint;
use berth_types::{CheckpointFile, CheckpointRecord, Epoch, JobId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Name of the manifest.
pub(super) const MANIFEST: &str = "berth-manifest.json";
/// Version of its format.
const MANIFEST_VERSION: u32 = 1;
/// Largest manifest that is read: 100,000 files and some.
const MAX_MANIFEST_BYTES: u64 = 32 << 20;
/// Most files of one checkpoint.
const MAX_FILES: usize = 100_000;
const READ_BYTES: usize = 1 << 20;

/// What is wrong with a checkpoint; told to the task or to the scheduler as it is.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// The directory lies elsewhere.
    #[error("{path} is not inside this attempt's checkpoint directory {base}")]
    Outside {
        /// What was reported.
        path: String,
        /// Where it must be.
        base: String,
    },
    /// A file's path may not be used.
    #[error(
        "file path `{0}` is not relative to the checkpoint's directory, without `..` and links out of it"
    )]
    FilePath(String),
    /// A file is listed twice, or is the manifest.
    #[error("file `{0}` is listed twice or has a name that Berth uses")]
    Name(String),
    /// There are no files or too many.
    #[error("{0} files: a checkpoint has 1 to {MAX_FILES}")]
    Count(usize),
    /// A file has another size.
    #[error("file `{path}` has {found} bytes, not {expected}")]
    Size {
        /// The file.
        path: String,
        /// Reported.
        expected: u64,
        /// On disk.
        found: u64,
    },
    /// A file has another content.
    #[error("file `{path}` has SHA-256 {found}, not {expected}")]
    Content {
        /// The file.
        path: String,
        /// Reported.
        expected: String,
        /// On disk.
        found: String,
    },
    /// The manifest is not the recorded one.
    #[error("the manifest was changed since it was recorded")]
    ManifestChanged,
    /// The manifest cannot be understood.
    #[error("the manifest cannot be read: {0}")]
    Manifest(String),
    /// The system said no.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's words.
        error: std::io::Error,
    },
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Fault {
    let what = what.into();
    move |error| Fault::Io { what, error }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    job: u64,
    epoch: u32,
    step: u64,
    save_ms: u64,
    files: Vec<CheckpointFile>,
}

/// What a task reported, all shards together.
#[derive(Clone, Debug)]
pub(super) struct Reported {
    /// The job.
    pub(super) job: JobId,
    /// The attempt.
    pub(super) epoch: Epoch,
    /// Its step.
    pub(super) step: u64,
    /// The attempt's checkpoint directory.
    pub(super) base: PathBuf,
    /// The checkpoint's directory.
    pub(super) path: PathBuf,
    /// Its files.
    pub(super) files: Vec<CheckpointFile>,
    /// How long saving took.
    pub(super) save_ms: u64,
}

/// Checks a reported checkpoint, flushes its files and writes its manifest.
///
/// # Errors
/// What is wrong with it.
pub(super) fn verify(reported: Reported) -> Result<CheckpointRecord, Fault> {
    let mut files = reported.files;
    if files.is_empty() || files.len() > MAX_FILES {
        return Err(Fault::Count(files.len()));
    }
    let dir = inside(&reported.base, &reported.path)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(Fault::Name(pair[0].path.clone()));
    }
    if let Some(file) = files.iter().find(|f| f.path.starts_with(MANIFEST)) {
        return Err(Fault::Name(file.path.clone()));
    }
    for file in &files {
        check_file(&dir, file, true)?;
    }
    let bytes = files.iter().map(|f| f.bytes).sum();
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        job: reported.job.0,
        epoch: reported.epoch.0,
        step: reported.step,
        save_ms: reported.save_ms,
        files,
    };
    let text = serde_json::to_vec(&manifest).map_err(|e| Fault::Manifest(e.to_string()))?;
    write_manifest(&dir, &text).map_err(io("write the manifest"))?;
    Ok(CheckpointRecord {
        epoch: reported.epoch,
        step: reported.step,
        path: dir.display().to_string(),
        bytes,
        manifest_sha256: hex(&Sha256::digest(&text)),
        save_ms: reported.save_ms,
    })
}

/// The real path of a checkpoint, which must be a directory inside `base`.
fn inside(base: &Path, path: &Path) -> Result<PathBuf, Fault> {
    let outside = || Fault::Outside {
        path: path.display().to_string(),
        base: base.display().to_string(),
    };
    if !path.is_absolute() {
        return Err(outside());
    }
    let real_base = base
        .canonicalize()
        .map_err(io(base.display().to_string()))?;
    let real = path
        .canonicalize()
        .map_err(io(path.display().to_string()))?;
    if real.starts_with(&real_base) && real != real_base {
        Ok(real)
    } else {
        Err(outside())
    }
}

fn check_file(dir: &Path, file: &CheckpointFile, flush: bool) -> Result<(), Fault> {
    let relative = Path::new(&file.path);
    let plain = relative
        .components()
        .all(|c| matches!(c, Component::Normal(_)));
    if !plain || file.path.is_empty() {
        return Err(Fault::FilePath(file.path.clone()));
    }
    let real = dir
        .join(relative)
        .canonicalize()
        .map_err(io(format!("file `{}`", file.path)))?;
    if !real.starts_with(dir) {
        return Err(Fault::FilePath(file.path.clone()));
    }
    let handle = File::open(&real).map_err(io(format!("file `{}`", file.path)))?;
    let metadata = handle
        .metadata()
        .map_err(io(format!("file `{}`", file.path)))?;
    if !metadata.is_file() {
        return Err(Fault::FilePath(file.path.clone()));
    }
    if metadata.len() != file.bytes {
        return Err(Fault::Size {
            path: file.path.clone(),
            expected: file.bytes,
            found: metadata.len(),
        });
    }
    let found = digest(&handle).map_err(io(format!("read `{}`", file.path)))?;
    if found != file.sha256 {
        return Err(Fault::Content {
            path: file.path.clone(),
            expected: file.sha256.clone(),
            found,
        });
    }
    if flush {
        handle
            .sync_all()
            .map_err(io(format!("flush `{}`", file.path)))?;
    }
    Ok(())
}

fn digest(mut file: &File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes beside, flushes, renames, flushes the directories: the manifest is whole or not there.
fn write_manifest(dir: &Path, text: &[u8]) -> std::io::Result<()> {
    let beside = dir.join(format!("{MANIFEST}.new"));
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&beside, dir.join(MANIFEST))?;
    File::open(dir)?.sync_all()?;
    match dir.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn read_manifest(dir: &Path) -> Result<(Vec<u8>, Manifest), Fault> {
    let path = dir.join(MANIFEST);
    let file = File::open(&path).map_err(io(path.display().to_string()))?;
    let mut text = Vec::new();
    file.take(MAX_MANIFEST_BYTES)
        .read_to_end(&mut text)
        .map_err(io(path.display().to_string()))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| Fault::Manifest(e.to_string()))?;
    if manifest.version != MANIFEST_VERSION {
        return Err(Fault::Manifest(format!(
            "version {} is not known",
            manifest.version
        )));
    }
    Ok((text, manifest))
}

/// Checks a recorded checkpoint: the manifest is the recorded one, and every file is as it says.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(record: &CheckpointRecord) -> Result<(), Fault> {
    let path = Path::new(&record.path);
    let dir = path.canonicalize().map_err(io(record.path.clone()))?;
    let (text, manifest) = read_manifest(&dir)?;
    if hex(&Sha256::digest(&text)) != record.manifest_sha256 {
        return Err(Fault::ManifestChanged);
    }
    manifest
        .files
        .iter()
        .try_for_each(|file| check_file(&dir, file, false))
}

/// The first of these (newest first) that verifies, and those before it that do not.
pub(super) fn choose(
    candidates: &[CheckpointRecord],
) -> (Option<CheckpointRecord>, Vec<DamagedCheckpoint>) {
    let mut damaged = Vec::new();
    for record in candidates {
        match check(record) {
            Ok(()) => return (Some(record.clone()), damaged),
            Err(fault) => damaged.push(DamagedCheckpoint {
                epoch: record.epoch,
                step: record.step,
                reason: fault.to_string(),
            }),
        }
    }
    (None, damaged)
}

/// Deletes the checkpoints of a job at or before (`epoch`, `step`) but the newest `keep`. `base` is the epoch's
/// directory; those of older epochs lie beside it. What has no manifest was never verified and is left alone.
pub(super) fn prune(base: &Path, job: JobId, epoch: Epoch, step: u64, keep: usize) -> usize {
    let Some(all_epochs) = base.parent() else {
        return 0;
    };
    let mut found: Vec<((u32, u64), PathBuf)> = entries(all_epochs)
        .filter(|dir| {
            dir.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("epoch-"))
        })
        .flat_map(|dir| entries(&dir).collect::<Vec<_>>())
        .filter_map(|dir| {
            let (_, manifest) = read_manifest(&dir).ok()?;
            let at = (manifest.epoch, manifest.step);
            (manifest.job == job.0 && at <= (epoch.0, step)).then_some((at, dir))
        })
        .collect();
    found.sort();
    let excess = found.len().saturating_sub(keep);
    let mut deleted = 0;
    for (_, dir) in found.into_iter().take(excess) {
        match std::fs::remove_dir_all(&dir) {
            Ok(()) => deleted += 1,
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "an old checkpoint cannot be deleted")
            }
        }
    }
    deleted
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            // Links are not followed: what they point to is not ours.
            entry.file_type().ok()?.is_dir().then(|| entry.path())
        })
}

#[cfg(test)]
#[path = "checkpoints_tests.rs"]
mod tests;
