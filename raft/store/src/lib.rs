//! Berth's durable memory of a master: log, hard state, membership, snapshots and history.
//!
//! **Owns** every file in a master's store directory, what "durable" means, and the judgement whether what is found there
//! after a crash is all that was ever acknowledged.
//!
//! **Must not know** what an entry, a snapshot or a history record means.
//!
//! ```text
//! persist(batches) --> journal-a / journal-b   preallocated; one write and one fdatasync for all batches
//!                        |                     then the batches are durable
//!                        +--> applier thread --> engine (sled, or redb): log, hard state, history
//!                                                flushed before a journal is written over again
//! snapshot-INDEX-TERM     one checksummed file; the engine keeps its position only
//! berth.format            who this store belongs to and in which format; written last when a store is made
//! berth.acked             how far this member has acknowledged; a log that ends before it has lost something
//! ```
//!
//! Why a journal in front of sled: sled's own `flush` waits for the page cache, not for the disk, and with the `fdatasync`
//! that makes it durable a flush of one small entry takes twice as long and four times the CPU of a raw append (the
//! example `flush_latency` prints both). The journal is also what detects that sled dropped a torn tail, which sled itself
//! does silently.
//!
//! Start reading at [`open`], then [`LogStore`] and `store.rs`.

mod acked;
mod applier;
mod backup;
mod engine;
mod error;
mod file;
mod history;
mod identity;
mod image;
mod journal;
mod open;
mod options;
mod record;
mod redb_engine;
mod sled_engine;
mod snapshot_file;
mod store;

pub use backup::{BackupInfo, backup, read_backup, read_backup_info, restore};
pub use error::StoreError;
pub use history::{HistoryRecord, HistoryStore};
pub use open::open;
pub use options::{Backend, StoreOptions};
pub use store::LogStore;
