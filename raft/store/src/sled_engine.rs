//! sled 0.34.7, with what it lacks: an `fdatasync` after its flush (sled waits for `sync_file_range`, which neither
//! flushes the disk's cache nor commits the file's size), and repairs of what a crash during its start can leave behind.

use std::fs::{self, File, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_raft::PeerId;

use crate::engine::{Change, Engine, Pair, Range, Space};
use crate::{StoreError, file};

/// Directory of the engine inside the store.
pub(crate) const DIR: &str = "sled";

/// sled's own file of pages.
const DB_FILE: &str = "db";

/// An open sled database.
pub(crate) struct SledEngine {
    db: sled::Db,
    log: sled::Tree,
    history: sled::Tree,
    /// Our own handle of sled's file, for `fdatasync`.
    pages: File,
    pages_path: PathBuf,
}

impl SledEngine {
    /// Opens the database in `dir`, making it if `create`. Anything but a database that can be read is damage.
    pub(crate) fn open(
        dir: &Path,
        create: bool,
        cache_bytes: u64,
        member: PeerId,
    ) -> Result<SledEngine, StoreError> {
        let pages_path = dir.join(DB_FILE);
        if create {
            fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        } else {
            check_pages(&pages_path, member)?;
        }
        remove_half_written_snapshots(dir)?;
        let db = open_or_repair(dir, cache_bytes, &pages_path, member)?;
        let pages = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&pages_path)
            .map_err(StoreError::io("open", &pages_path))?;
        let tree = |name: &str| {
            db.open_tree(name)
                .map_err(|e| engine_error("open a tree", e))
        };
        let engine = SledEngine {
            log: tree("raft")?,
            history: tree("history")?,
            db,
            pages,
            pages_path,
        };
        if create {
            engine.flush()?;
            file::sync_dir(dir)?;
        }
        Ok(engine)
    }

    fn tree(&self, space: Space) -> &sled::Tree {
        match space {
            Space::Log => &self.log,
            Space::History => &self.history,
        }
    }
}

impl Engine for SledEngine {
    fn apply(&self, space: Space, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.tree(space)
            .apply_batch(batch)
            .map_err(|e| engine_error("write", e))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|e| engine_error("flush", e))?;
        self.pages
            .sync_data()
            .map_err(StoreError::io("sync", &self.pages_path))
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self
            .tree(space)
            .get(key)
            .map_err(|e| engine_error("read", e))?;
        Ok(value.map(|v| v.to_vec()))
    }

    fn range(&self, space: Space, range: Range<'_>) -> Result<Vec<Pair>, StoreError> {
        let pair = |r: sled::Result<(sled::IVec, sled::IVec)>| {
            r.map(|(k, v)| (k.to_vec(), v.to_vec()))
                .map_err(|e| engine_error("read", e))
        };
        let found = self
            .tree(space)
            .range(range.from.to_vec()..range.to.to_vec());
        if range.backwards {
            found.rev().take(range.limit).map(pair).collect()
        } else {
            found.take(range.limit).map(pair).collect()
        }
    }
}

fn engine_error(what: &'static str, e: sled::Error) -> StoreError {
    StoreError::Engine {
        what,
        message: e.to_string(),
    }
}

/// sled takes a missing or empty file for a new database.
fn check_pages(path: &Path, member: PeerId) -> Result<(), StoreError> {
    match fs::metadata(path).map(|m| m.len()) {
        Ok(0) => Err(StoreError::corrupt("sled's file is empty", path, member)),
        Err(_) => Err(StoreError::corrupt("sled's file is missing", path, member)),
        Ok(_) => Ok(()),
    }
}

/// sled's snapshots only shorten its recovery; if it cannot read them it can replay its log without them.
fn open_or_repair(
    dir: &Path,
    cache_bytes: u64,
    pages_path: &Path,
    member: PeerId,
) -> Result<sled::Db, StoreError> {
    let first = match open_database(dir, cache_bytes) {
        Ok(db) => return Ok(db),
        Err(OpenError::Busy(message)) => {
            return Err(StoreError::Engine {
                what: "open",
                message,
            });
        }
        Err(OpenError::Damaged(first)) => first,
    };
    set_snapshots_aside(dir)?;
    open_database(dir, cache_bytes).map_err(|second| {
        let what = format!("sled cannot read its file: {first}; without its snapshots: {second}");
        StoreError::corrupt(what, pages_path, member)
    })
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Damaged(String),
}

/// How long an open waits for the lock: sled's own threads, or a process that was just killed, let go of it a moment
/// after the database is closed.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

fn open_database(dir: &Path, cache_bytes: u64) -> Result<sled::Db, OpenError> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match try_open(dir, cache_bytes) {
            Err(OpenError::Busy(_)) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}

fn try_open(dir: &Path, cache_bytes: u64) -> Result<sled::Db, OpenError> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(cache_bytes)
        // Errors of a background flusher are easily missed; we flush ourselves.
        .flush_every_ms(None)
        .mode(sled::Mode::LowSpace);
    // sled asserts where it could return an error.
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(e))) if e.to_string().contains("lock") => Err(OpenError::Busy(
            format!("another process uses {}: {e}", dir.display()),
        )),
        Ok(Err(e)) => Err(OpenError::Damaged(e.to_string())),
        Err(panic) => Err(OpenError::Damaged(
            panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "sled gave up".to_owned()),
        )),
    }
}

/// sled writes `snap.<lsn>.generating` but skips only `*.in___motion` when it looks for snapshots, so one that was cut
/// short makes it refuse to open.
fn remove_half_written_snapshots(dir: &Path) -> Result<(), StoreError> {
    for name in sled_snapshots(dir)?.filter(|n| n.ends_with(".generating")) {
        let path = dir.join(name);
        tracing::warn!(path = %path.display(), "removing a half-written sled snapshot");
        file::remove_if_exists(&path)?;
    }
    Ok(())
}

fn set_snapshots_aside(dir: &Path) -> Result<(), StoreError> {
    for name in sled_snapshots(dir)? {
        let path = dir.join(&name);
        let aside = dir.join(format!("aside-{name}"));
        tracing::warn!(path = %path.display(), "setting a damaged sled snapshot aside");
        fs::rename(&path, &aside).map_err(StoreError::io("rename", &path))?;
    }
    Ok(())
}

fn sled_snapshots(dir: &Path) -> Result<impl Iterator<Item = String>, StoreError> {
    Ok(file::names_in(dir)?
        .into_iter()
        .filter(|n| n.starts_with("snap.")))
}
