//! Checkpoints.

use berth_types::{CheckpointRecord, Epoch};

use super::DecodeError;
use crate::v1;

impl From<&CheckpointRecord> for v1::CheckpointRecord {
    fn from(c: &CheckpointRecord) -> Self {
        Self {
            epoch: c.epoch.0,
            step: c.step,
            path: c.path.clone(),
            bytes: c.bytes,
            manifest_sha256: c.manifest_sha256.clone(),
            save_ms: c.save_ms,
        }
    }
}

impl TryFrom<v1::CheckpointRecord> for CheckpointRecord {
    type Error = DecodeError;

    fn try_from(c: v1::CheckpointRecord) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch(c.epoch),
            step: c.step,
            path: c.path,
            bytes: c.bytes,
            manifest_sha256: c.manifest_sha256,
            save_ms: c.save_ms,
        })
    }
}
