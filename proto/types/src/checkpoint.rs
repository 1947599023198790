//! Checkpoints: what a job saved and an agent verified.

use serde::{Deserialize, Serialize};

use crate::Epoch;

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointFile {
    /// Path relative to the checkpoint's directory.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// Lower-case hexadecimal SHA-256 of the content.
    pub sha256: String,
}

/// A checkpoint whose manifest an agent verified. The files' manifest stays beside the files; the log keeps this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// The attempt that wrote it.
    pub epoch: Epoch,
    /// Training step that it restores.
    pub step: u64,
    /// Absolute directory that holds it.
    pub path: String,
    /// Sum of its files' sizes.
    pub bytes: u64,
    /// SHA-256 over its manifest, so that a changed manifest is noticed.
    pub manifest_sha256: String,
    /// How long saving took.
    pub save_ms: u64,
}
