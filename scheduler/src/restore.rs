//! Makes the files of a master of a new cluster from a backup.
//!
//! Every master of the new cluster is made from the same backup with the same list of masters, so they agree from the
//! first moment. The new cluster speaks in a term far ahead of the old one's, so agents take its word.

use std::fs;
use std::path::{Path, PathBuf};

use berth_core::codec::{self, CodecError};
use berth_raft::{Membership, Persist, Snapshot, SnapshotMeta};
use berth_raft_store::{Backend, StoreError, StoreOptions};
use berth_types::MasterId;
use berth_types::api::MasterInfo;
use thiserror::Error;

/// Attempts of a restored cluster count from so much further on. No job restarts so often between backup and disaster.
const EPOCH_LEAP: u32 = 1_000;

/// What to make.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The backup.
    pub backup: PathBuf,
    /// The directory to make; must not exist or be empty.
    pub data_dir: PathBuf,
    /// The master whose directory it is.
    pub id: MasterId,
    /// All masters of the new cluster.
    pub masters: Vec<(MasterId, MasterInfo)>,
    /// Which storage backend.
    pub backend: Backend,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Unfinished jobs.
    pub jobs: usize,
    /// Finished jobs.
    pub finished: u64,
    /// Log index that the backup stood at.
    pub index: u64,
}

/// Why nothing was made.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The list of masters makes no cluster.
    #[error("{0}")]
    Masters(String),
    /// There is something where the directory should be.
    #[error("{path} is not empty; name a new directory")]
    NotEmpty {
        /// Where.
        path: PathBuf,
    },
    /// The backup or the new store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state in the backup.
    #[error("the state in the backup cannot be read")]
    State(#[from] CodecError),
    /// The operating system refused.
    #[error("cannot make {path}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Makes the directory. It is there whole, or not at all.
///
/// # Errors
/// [`RestoreError`]; the directory is untouched then.
pub fn restore(plan: &Restore) -> Result<Restored, RestoreError> {
    check_masters(plan)?;
    let io = |path: &Path, source| RestoreError::Io {
        path: path.to_owned(),
        source,
    };
    if plan.data_dir.exists() {
        // Succeeds on an empty directory only.
        fs::remove_dir(&plan.data_dir).map_err(|_| RestoreError::NotEmpty {
            path: plan.data_dir.clone(),
        })?;
    }
    let mut half = plan.data_dir.clone().into_os_string();
    half.push(".restoring");
    let half = PathBuf::from(half);
    if half.exists() {
        fs::remove_dir_all(&half).map_err(|e| io(&half, e))?;
    }
    if let Some(parent) = plan.data_dir.parent() {
        fs::create_dir_all(parent).map_err(|e| io(parent, e))?;
    }
    let restored = make(plan, &half);
    if restored.is_err() {
        let _ = fs::remove_dir_all(&half);
    }
    let restored = restored?;
    fs::rename(&half, &plan.data_dir).map_err(|e| io(&plan.data_dir, e))?;
    Ok(restored)
}

fn check_masters(plan: &Restore) -> Result<(), RestoreError> {
    let masters = &plan.masters;
    if !masters.iter().any(|(id, _)| *id == plan.id) {
        let text = format!(
            "master {} is not among the masters of the new cluster",
            plan.id
        );
        return Err(RestoreError::Masters(text));
    }
    for (at, (id, info)) in masters.iter().enumerate() {
        if id.0 == 0 || masters[..at].iter().any(|(other, _)| other == id) {
            return Err(RestoreError::Masters(format!(
                "master {id} is listed twice, or is 0"
            )));
        }
        // Whether it may be on another host is for the daemon to say, which knows of certificates.
        if let Err((what, hint)) = crate::config::master_address(&info.address, true) {
            return Err(RestoreError::Masters(format!("{what}; {hint}")));
        }
    }
    Ok(())
}

fn make(plan: &Restore, dir: &Path) -> Result<Restored, RestoreError> {
    let options = StoreOptions::new(plan.id.0);
    let voters = Membership::of_voters(plan.masters.iter().map(|(id, _)| id.0));
    berth_raft_store::restore(&plan.backup, dir, plan.backend, options.clone(), voters)?;
    let (recovered, mut store, _history) = berth_raft_store::open(dir, plan.backend, options)?;
    let unusable = || StoreError::Invalid("the backup holds no state".to_owned());
    let Snapshot { meta, data } = recovered.snapshot.ok_or_else(unusable)?;
    let mut state = codec::decode_state(&data)?;
    // The old masters are gone; the new ones listen where they were told to.
    state.masters = plan.masters.iter().cloned().collect();
    // Tasks that the old cluster started after the backup may still run, of jobs and attempts that get these numbers again.
    state.epoch_floor = state.epoch_floor.saturating_add(EPOCH_LEAP);
    let (jobs, finished, index) = (state.jobs.len(), state.finished, meta.index - 1);
    let mut hard_state = recovered.hard_state;
    hard_state.commit = meta.index + 1;
    let meta = SnapshotMeta {
        index: meta.index + 1,
        ..meta
    };
    store.persist(&[Persist {
        number: 1,
        reset_log: true,
        hard_state: Some(hard_state),
        membership: Some(meta.membership.clone()),
        snapshot: Some(Snapshot {
            meta,
            data: codec::encode_state(&state),
        }),
        must_sync: true,
        ..Persist::default()
    }])?;
    Ok(Restored {
        jobs,
        finished,
        index,
    })
}
