//! What is made ready before a task starts, and why that can fail.

use berth_types::{CheckpointRecord, Epoch};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What preparation found and made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// The epoch's checkpoint directory; becomes `BERTH_CHECKPOINT_DIR`.
    pub checkpoint_dir: String,
    /// The checkpoint to resume from, the newest that verified.
    pub resume: Option<CheckpointRecord>,
    /// Newer ones that did not.
    pub damaged: Vec<DamagedCheckpoint>,
}

/// A registered checkpoint that did not verify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedCheckpoint {
    /// The attempt that wrote it.
    pub epoch: Epoch,
    /// Its step.
    pub step: u64,
    /// What is wrong.
    pub reason: String,
}

/// Why a task could not be made ready.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrepareFault {
    /// The port leased for the gang's rendezvous is taken by something else on the node.
    #[error("port {port} is in use on this node by something that Berth did not start")]
    PortInUse {
        /// The leased port.
        port: u16,
    },
    /// The node could not make one of its own directories.
    #[error("cannot make {path}: {error}")]
    NodeDirectory {
        /// The directory.
        path: String,
        /// The system's words.
        error: String,
    },
    /// The job's working directory is not there.
    #[error("working directory {path}: {error}")]
    WorkDir {
        /// The directory.
        path: String,
        /// The system's words.
        error: String,
    },
    /// The job's checkpoint directory cannot be made.
    #[error("checkpoint directory {path}: {error}")]
    CheckpointDir {
        /// The directory.
        path: String,
        /// The system's words.
        error: String,
    },
}

impl PrepareFault {
    /// True if the node and not the job is to blame, so that the job is not charged for it.
    pub fn node_fault(&self) -> bool {
        match self {
            PrepareFault::PortInUse { .. } | PrepareFault::NodeDirectory { .. } => true,
            PrepareFault::WorkDir { .. } | PrepareFault::CheckpointDir { .. } => false,
        }
    }
}
