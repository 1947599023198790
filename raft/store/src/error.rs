//! What can go wrong between a master and its disk.

use std::io;
use std::path::{Path, PathBuf};

use berth_raft::PeerId;

/// Why the store could not be opened or written. After a failed write a replica must stop: what it promised may be lost.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was acknowledged is not all there, or not as it was written. This member must not vote again.
    #[error("the store is damaged: {what} ({}); repair it from another master: {repair}", path.display())]
    Corrupt {
        /// What is wrong.
        what: String,
        /// Where.
        path: PathBuf,
        /// The command that replaces this master.
        repair: String,
    },
    /// The directory belongs to another member, cluster, backend or format version.
    #[error("{} belongs to another store: {what}", path.display())]
    Mismatch {
        /// The difference.
        what: String,
        /// The store directory.
        path: PathBuf,
    },
    /// The storage engine failed.
    #[error("storage engine: {what}: {message}")]
    Engine {
        /// What was attempted.
        what: &'static str,
        /// What the engine says.
        message: String,
    },
    /// A file that is no usable backup.
    #[error("{} is no usable backup: {what}", path.display())]
    Backup {
        /// What is wrong with it.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// A store is never restored over something else.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The arguments contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// An earlier failure; nothing was written since.
    #[error("the store has failed before: {0}")]
    Failed(String),
}

impl StoreError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { what, path, source }
    }

    pub(crate) fn corrupt(what: impl Into<String>, path: &Path, member: PeerId) -> StoreError {
        StoreError::Corrupt {
            what: what.into(),
            path: path.to_owned(),
            repair: repair(member),
        }
    }
}

/// The command that puts a fresh member in the place of a damaged one.
pub(crate) fn repair(member: PeerId) -> String {
    format!("berth masters replace {member}")
}
