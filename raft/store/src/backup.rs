//! A whole cluster's state in one file, and a fresh store from it.
//!
//! ```text
//! magic | length, checksum of the header | header | snapshot | history rows ... | checksum of the whole file
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use berth_raft::{HardState, Membership, Persist, Snapshot, SnapshotMeta};
use bytes::{Buf, Bytes};
use prost::Message;

use crate::open::open_store;
use crate::options::{Backend, StoreOptions};
use crate::record::SnapshotRecord;
use crate::{HistoryRecord, HistoryStore, LogStore, StoreError, file};

const MAGIC: &[u8; 8] = b"brthbkp1";

/// A restored cluster starts this many terms later, so that whatever the old one did after the backup counts as older:
/// agents refuse directives of an older term.
const TERM_LEAP: u64 = 1_000;

/// History rows read or written at a time.
const HISTORY_CHUNK: usize = 1_000;

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "1")]
    cluster: String,
    #[prost(uint64, tag = "2")]
    created_unix_ms: u64,
    #[prost(message, optional, tag = "3")]
    snapshot: Option<SnapshotRecord>,
    #[prost(uint64, tag = "4")]
    snapshot_bytes: u64,
    #[prost(uint64, tag = "5")]
    history_count: u64,
}

#[derive(Clone, PartialEq, Message)]
struct HistoryRow {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(uint64, tag = "2")]
    job: u64,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupInfo {
    /// The cluster it was taken of.
    pub cluster: String,
    /// When, in milliseconds since 1970, UTC; given by whoever took it.
    pub created_unix_ms: u64,
    /// Position and membership of the state.
    pub meta: SnapshotMeta,
    /// Records of finished jobs.
    pub history_count: u64,
    /// Size of the file.
    pub bytes: u64,
}

/// Writes a backup of `snapshot` and the history up to now; the file is there whole and durable, or not at all.
///
/// # Errors
/// What the system or the engine says.
pub fn backup(
    path: &Path,
    cluster: &str,
    created_unix_ms: u64,
    snapshot: &Snapshot,
    history: &dyn HistoryStore,
) -> Result<BackupInfo, StoreError> {
    let last_seq = history.last_seq();
    let header = Header {
        cluster: cluster.to_owned(),
        created_unix_ms,
        snapshot: Some(SnapshotRecord::from(&snapshot.meta)),
        snapshot_bytes: snapshot.data.len() as u64,
        history_count: history.count(),
    };
    let unfinished = file::unfinished_name(path);
    let out = File::create(&unfinished).map_err(StoreError::io("create", &unfinished))?;
    let mut out = Summing {
        out: BufWriter::new(out),
        sum: crc32fast::Hasher::new(),
        bytes: 0,
        path: &unfinished,
    };
    let encoded = header.encode_to_vec();
    out.put(MAGIC)?;
    out.put(&(encoded.len() as u32).to_le_bytes())?;
    out.put(&crc32fast::hash(&encoded).to_le_bytes())?;
    out.put(&encoded)?;
    out.put(&snapshot.data)?;
    let written = put_history(&mut out, history, last_seq)?;
    if written != header.history_count {
        return Err(StoreError::Engine {
            what: "read",
            message: "the history is not complete".to_owned(),
        });
    }
    let sum = out.sum.clone().finalize();
    out.put(&sum.to_le_bytes())?;
    let bytes = out.bytes;
    let out = out
        .out
        .into_inner()
        .map_err(|e| StoreError::io("write", &unfinished)(e.into_error()))?;
    file::finish(out, &unfinished, path)?;
    Ok(info(header, bytes))
}

fn info(header: Header, bytes: u64) -> BackupInfo {
    BackupInfo {
        cluster: header.cluster,
        created_unix_ms: header.created_unix_ms,
        meta: header.snapshot.unwrap_or_default().into(),
        history_count: header.history_count,
        bytes,
    }
}

fn put_history(
    out: &mut Summing<'_>,
    history: &dyn HistoryStore,
    last_seq: Option<u64>,
) -> Result<u64, StoreError> {
    let Some(last_seq) = last_seq else {
        return Ok(0);
    };
    let (mut from, mut count) = (0, 0);
    loop {
        let rows = history.scan(from, HISTORY_CHUNK, false)?;
        for (seq, job, data) in rows.iter().filter(|(seq, _, _)| *seq <= last_seq) {
            let row = HistoryRow {
                seq: *seq,
                job: *job,
                data: data.clone(),
            };
            out.put(&row.encode_length_delimited_to_vec())?;
            count += 1;
        }
        match rows.last() {
            Some((seq, _, _)) if *seq < last_seq => from = seq + 1,
            Some(_) | None => return Ok(count),
        }
    }
}

struct Summing<'a> {
    out: BufWriter<File>,
    sum: crc32fast::Hasher,
    bytes: u64,
    path: &'a Path,
}

impl Summing<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out
            .write_all(bytes)
            .map_err(StoreError::io("write", self.path))
    }
}

/// A backup that has been read and checked.
struct Backup {
    header: Header,
    data: Bytes,
    history: Vec<HistoryRecord>,
    bytes: u64,
}

/// Reads a backup, checks all of it, and says what it holds.
///
/// # Errors
/// [`StoreError::Backup`] when the file is damaged, cut short or no backup.
pub fn read_backup_info(path: &Path) -> Result<BackupInfo, StoreError> {
    let backup = read(path)?;
    Ok(info(backup.header, backup.bytes))
}

/// Reads a backup, checks all of it, and gives the encoded state and the history, oldest first, to whoever understands
/// them.
///
/// # Errors
/// [`StoreError::Backup`] when the file is damaged, cut short or no backup.
pub fn read_backup(path: &Path) -> Result<(BackupInfo, Bytes, Vec<HistoryRecord>), StoreError> {
    let backup = read(path)?;
    Ok((
        info(backup.header, backup.bytes),
        backup.data,
        backup.history,
    ))
}

fn read(path: &Path) -> Result<Backup, StoreError> {
    let unusable = |what: &str| StoreError::Backup {
        what: what.to_owned(),
        path: path.to_owned(),
    };
    let bytes = file::read_if_exists(path)?.ok_or_else(|| unusable("there is no such file"))?;
    let bytes = Bytes::from(bytes);
    if bytes.len() < MAGIC.len() + 12 || !bytes.starts_with(&MAGIC[..7]) {
        return Err(unusable("it is not a backup of berth"));
    }
    if !bytes.starts_with(MAGIC) {
        return Err(unusable(
            "it was written by a version of berth that this one does not know",
        ));
    }
    let (body, sum) = bytes.split_at(bytes.len() - 4);
    if crc32fast::hash(body).to_le_bytes() != sum {
        return Err(unusable("it is damaged or cut short"));
    }
    let total = bytes.len() as u64;
    let mut body = bytes.slice(MAGIC.len()..bytes.len() - 4);
    decode(&mut body)
        .map(|(header, data, history)| Backup {
            header,
            data,
            history,
            bytes: total,
        })
        .ok_or_else(|| unusable("its parts do not fit"))
}

fn decode(body: &mut Bytes) -> Option<(Header, Bytes, Vec<HistoryRecord>)> {
    let header_bytes = body.get_u32_le() as usize;
    let header_sum = body.get_u32_le();
    if body.len() < header_bytes {
        return None;
    }
    let encoded = body.split_to(header_bytes);
    if crc32fast::hash(&encoded) != header_sum {
        return None;
    }
    let header = Header::decode(encoded).ok()?;
    let data_bytes = usize::try_from(header.snapshot_bytes)
        .ok()
        .filter(|n| *n <= body.len())?;
    let data = body.split_to(data_bytes);
    let mut history = Vec::new();
    while body.has_remaining() {
        let row = HistoryRow::decode_length_delimited(&mut *body).ok()?;
        history.push((row.seq, row.job, row.data));
    }
    (history.len() as u64 == header.history_count && header.snapshot.is_some())
        .then_some((header, data, history))
}

/// Makes a fresh store in `dir` from a backup, for a cluster of `voters`. Every voter restores the same file with the same
/// voters, and they agree from the first moment. The state's term is far ahead of the backup's, so nothing that the old
/// cluster did later counts as newer.
///
/// # Errors
/// [`StoreError::NotEmpty`] when there is anything in `dir`; [`StoreError::Backup`] for a file that cannot be used.
pub fn restore(
    path: &Path,
    dir: &Path,
    backend: Backend,
    options: StoreOptions,
    voters: Membership,
) -> Result<BackupInfo, StoreError> {
    let backup = read(path)?;
    if voters.voters.is_empty()
        || !voters.learners.is_empty()
        || !voters.voters.contains(&options.member)
    {
        return Err(StoreError::Invalid(
            "a restored cluster starts with voters only, this member among them".into(),
        ));
    }
    if dir.exists() && !file::names_in(dir)?.is_empty() {
        return Err(StoreError::NotEmpty {
            path: dir.to_owned(),
        });
    }
    let old: SnapshotMeta = backup.header.snapshot.clone().unwrap_or_default().into();
    let term = old.term + TERM_LEAP;
    let meta = SnapshotMeta {
        index: old.index + 1,
        term,
        membership: voters.clone(),
    };
    let batch = Persist {
        number: 1,
        reset_log: true,
        hard_state: Some(HardState {
            term,
            vote: 0,
            commit: meta.index,
        }),
        membership: Some(voters),
        snapshot: Some(Snapshot {
            meta,
            data: backup.data.clone(),
        }),
        must_sync: true,
        ..Persist::default()
    };
    let (_, mut store, history) = open_store(dir, backend, &options)?;
    for chunk in backup.history.chunks(HISTORY_CHUNK) {
        history.append(chunk)?;
    }
    store.persist(&[batch])?;
    store.finish()?;
    Ok(info(backup.header, backup.bytes))
}
