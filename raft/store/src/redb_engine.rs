//! redb 4: the second engine, for comparing against sled, and the way out.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use berth_raft::PeerId;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use crate::StoreError;
use crate::engine::{Change, Engine, Pair, Range, Space};

/// File of the engine inside the store.
pub(crate) const FILE: &str = "redb";

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const LOG: Table = TableDefinition::new("raft");
const HISTORY: Table = TableDefinition::new("history");

/// An open redb database.
pub(crate) struct RedbEngine {
    db: Database,
}

impl RedbEngine {
    /// Opens the database at `path`, making it if `create`. Anything but a database that can be read is damage.
    pub(crate) fn open(
        path: &Path,
        create: bool,
        cache_bytes: u64,
        member: PeerId,
    ) -> Result<RedbEngine, StoreError> {
        if !create && !fs::metadata(path).is_ok_and(|m| m.len() > 0) {
            return Err(StoreError::corrupt(
                "redb's file is missing or empty",
                path,
                member,
            ));
        }
        let mut builder = Database::builder();
        builder.set_cache_size(usize::try_from(cache_bytes).unwrap_or(usize::MAX));
        let opened = catch_unwind(AssertUnwindSafe(|| {
            if create {
                builder.create(path)
            } else {
                builder.open(path)
            }
        }));
        let db = match opened {
            Ok(Ok(db)) => db,
            Ok(Err(e @ redb::DatabaseError::DatabaseAlreadyOpen)) => {
                return Err(engine_error("open", e));
            }
            Ok(Err(e)) => {
                return Err(StoreError::corrupt(
                    format!("redb cannot read its file: {e}"),
                    path,
                    member,
                ));
            }
            Err(_) => {
                return Err(StoreError::corrupt(
                    "redb gave up on its file",
                    path,
                    member,
                ));
            }
        };
        let engine = RedbEngine { db };
        if create {
            engine.apply(Space::Log, Vec::new())?;
            engine.apply(Space::History, Vec::new())?;
            engine.flush()?;
        }
        Ok(engine)
    }
}

fn table(space: Space) -> Table {
    match space {
        Space::Log => LOG,
        Space::History => HISTORY,
    }
}

fn engine_error(what: &'static str, e: impl std::fmt::Display) -> StoreError {
    StoreError::Engine {
        what,
        message: e.to_string(),
    }
}

type Guard<'a> = redb::AccessGuard<'a, &'static [u8]>;

fn pair_of(found: Result<(Guard<'_>, Guard<'_>), redb::StorageError>) -> Result<Pair, StoreError> {
    let (key, value) = found.map_err(|e| engine_error("read", e))?;
    Ok((key.value().to_vec(), value.value().to_vec()))
}

impl Engine for RedbEngine {
    fn apply(&self, space: Space, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut tx = self
            .db
            .begin_write()
            .map_err(|e| engine_error("begin", e))?;
        tx.set_durability(Durability::None)
            .map_err(|e| engine_error("begin", e))?;
        {
            let mut table = tx
                .open_table(table(space))
                .map_err(|e| engine_error("open a table", e))?;
            for (key, value) in changes {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice()).map(drop),
                    None => table.remove(key.as_slice()).map(drop),
                }
                .map_err(|e| engine_error("write", e))?;
            }
        }
        tx.commit().map_err(|e| engine_error("commit", e))
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut tx = self
            .db
            .begin_write()
            .map_err(|e| engine_error("begin", e))?;
        tx.set_durability(Durability::Immediate)
            .map_err(|e| engine_error("begin", e))?;
        tx.commit().map_err(|e| engine_error("flush", e))
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let tx = self.db.begin_read().map_err(|e| engine_error("begin", e))?;
        let table = tx
            .open_table(table(space))
            .map_err(|e| engine_error("open a table", e))?;
        let value = table.get(key).map_err(|e| engine_error("read", e))?;
        Ok(value.map(|v| v.value().to_vec()))
    }

    fn range(&self, space: Space, range: Range<'_>) -> Result<Vec<Pair>, StoreError> {
        let tx = self.db.begin_read().map_err(|e| engine_error("begin", e))?;
        let table = tx
            .open_table(table(space))
            .map_err(|e| engine_error("open a table", e))?;
        let found = table
            .range(range.from..range.to)
            .map_err(|e| engine_error("read", e))?;
        if range.backwards {
            found.rev().take(range.limit).map(pair_of).collect()
        } else {
            found.take(range.limit).map(pair_of).collect()
        }
    }
}
