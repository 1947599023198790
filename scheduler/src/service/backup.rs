//! A backup: the state at one log index and the jobs that had finished by then, as one file.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use berth_core::codec;
use berth_proto::{CHUNK_BYTES, to_status, v1};
use berth_raft::{Membership, Snapshot, SnapshotMeta};
use berth_raft_store::{HistoryRecord, HistoryStore, StoreError};
use berth_types::api::{ApiError, ErrorKind, Request, Response, StatusView};
use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Status;

use crate::shared::Shared;
use crate::storage::chain;

/// Chunks read ahead of a slow reader.
const READ_AHEAD: usize = 2;
/// History records looked at together.
const SCAN_PAGE: usize = 1_000;

type Chunks = mpsc::Receiver<Result<v1::SnapshotChunk, Status>>;

/// Makes a backup and returns its chunks. Only the leader can.
pub(super) async fn backup(shared: &Shared) -> Result<Chunks, ApiError> {
    let (index, data) = match shared.call(Request::Snapshot).await? {
        Response::Snapshot { index, data } => (index, data),
        Response::Error(error) => return Err(error),
        _ => return Err(internal("the answer does not belong to the call")),
    };
    let status = match shared.call(Request::Status).await? {
        Response::Status(status) => status,
        Response::Error(error) => return Err(error),
        _ => return Err(internal("the answer does not belong to the call")),
    };
    let history = shared
        .history
        .upgrade()
        .ok_or_else(|| internal("this master is stopping"))?;
    let writer = Writer {
        // A name that the store cleans up at the next start, should this process end in between.
        path: shared
            .data_dir
            .join(format!("outgoing-{}.unfinished", shared.sessions.next_id())),
        history,
        meta: meta(index, &status),
    };
    let (sender, chunks) = mpsc::channel(READ_AHEAD);
    let written = tokio::task::spawn_blocking(move || writer.write(data.into())).await;
    let file = written.map_err(|e| internal(&e.to_string()))??;
    tokio::task::spawn_blocking(move || send(file, index, &sender));
    Ok(chunks)
}

fn internal(message: &str) -> ApiError {
    ApiError::new(
        ErrorKind::Internal,
        "BACKUP_FAILED",
        message,
        "look into the master's log",
    )
}

fn meta(index: u64, status: &StatusView) -> SnapshotMeta {
    let voters = status.masters.iter().filter(|m| m.voter).map(|m| m.id.0);
    SnapshotMeta {
        index,
        term: status.term,
        membership: Membership::of_voters(voters),
    }
}

struct Writer {
    path: PathBuf,
    history: Arc<dyn HistoryStore>,
    meta: SnapshotMeta,
}

impl Writer {
    /// Writes the file and returns it open and already without a name.
    fn write(self, data: Bytes) -> Result<File, ApiError> {
        let state = codec::decode_state(&data).map_err(|e| internal(&e.to_string()))?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let created_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let history = UpTo::new(self.history, state.finished).map_err(|e| internal(&chain(&e)))?;
        let cluster = format!("{:016x}", state.cluster_id);
        let snapshot = Snapshot {
            meta: self.meta,
            data,
        };
        let made = berth_raft_store::backup(&self.path, &cluster, created_ms, &snapshot, &history);
        let opened = made
            .map_err(|e| internal(&chain(&e)))
            .and_then(|_| File::open(&self.path).map_err(|e| internal(&e.to_string())));
        let _ = std::fs::remove_file(&self.path);
        opened
    }
}

/// Sends the file, until it ends or nobody listens.
fn send(mut file: File, index: u64, sender: &mpsc::Sender<Result<v1::SnapshotChunk, Status>>) {
    let mut next = || -> std::io::Result<Option<v1::SnapshotChunk>> {
        let total_bytes = file.metadata()?.len();
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        (&mut file)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut data)?;
        let chunk = v1::SnapshotChunk {
            index,
            total_bytes,
            data: data.into(),
        };
        Ok((!chunk.data.is_empty()).then_some(chunk))
    };
    loop {
        let chunk = match next() {
            Ok(Some(chunk)) => Ok(chunk),
            Ok(None) => return,
            Err(error) => Err(to_status(&internal(&error.to_string()))),
        };
        let failed = chunk.is_err();
        if sender.blocking_send(chunk).is_err() || failed {
            return;
        }
    }
}

/// The history as it was when the state was copied: a restored cluster gives the following numbers anew.
struct UpTo {
    inner: Arc<dyn HistoryStore>,
    last: u64,
    count: u64,
}

impl UpTo {
    fn new(inner: Arc<dyn HistoryStore>, last: u64) -> Result<Self, StoreError> {
        let (mut later, mut from) = (0, last + 1);
        loop {
            let page = inner.scan(from, SCAN_PAGE, false)?;
            let Some((newest, _, _)) = page.last() else {
                break;
            };
            later += page.len() as u64;
            from = newest + 1;
        }
        let count = inner.count().saturating_sub(later);
        Ok(Self { inner, last, count })
    }

    fn read_only() -> StoreError {
        StoreError::Invalid("a backup's view of the history is read only".to_owned())
    }
}

impl HistoryStore for UpTo {
    fn append(&self, _: &[HistoryRecord]) -> Result<(), StoreError> {
        Err(Self::read_only())
    }

    fn get(&self, job: u64) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(job)
    }

    fn scan(
        &self,
        from_seq: u64,
        limit: usize,
        newest_first: bool,
    ) -> Result<Vec<HistoryRecord>, StoreError> {
        let from = if newest_first {
            from_seq.min(self.last)
        } else {
            from_seq
        };
        let mut records = self.inner.scan(from, limit, newest_first)?;
        records.retain(|(seq, _, _)| *seq <= self.last);
        Ok(records)
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn last_seq(&self) -> Option<u64> {
        self.inner
            .last_seq()
            .map(|seq| seq.min(self.last))
            .filter(|seq| *seq > 0)
    }

    fn clear(&self) -> Result<(), StoreError> {
        Err(Self::read_only())
    }
}
