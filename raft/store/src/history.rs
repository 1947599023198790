//! Records of finished jobs, by their number in the replicated history and by job.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message;

use crate::StoreError;
use crate::engine::{Change, Engine, Range, Space};
use crate::record::{seal, unseal};

/// Number, job and bytes of a record.
pub type HistoryRecord = (u64, u64, Bytes);

/// Records of finished jobs. Appending the same number again changes nothing, so applying the log once more is harmless.
///
/// A record is durable when a later snapshot is, and until then comes back with the log; so records of entries that a
/// snapshot covers must be appended before the snapshot is handed to `LogStore::persist`.
pub trait HistoryStore: Send + Sync {
    /// Adds records. Those whose number is there already are skipped.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the engine refuses.
    fn append(&self, records: &[HistoryRecord]) -> Result<(), StoreError>;
    /// The newest record of a job.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the engine refuses or the record is unreadable.
    fn get(&self, job: u64) -> Result<Option<Bytes>, StoreError>;
    /// Up to `limit` records from number `from_seq` on: upwards, or downwards if `newest_first`.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the engine refuses or a record is unreadable.
    fn scan(
        &self,
        from_seq: u64,
        limit: usize,
        newest_first: bool,
    ) -> Result<Vec<HistoryRecord>, StoreError>;
    /// How many records there are.
    fn count(&self) -> u64;
    /// The highest number.
    fn last_seq(&self) -> Option<u64>;
    /// Removes everything, before the history of a backup is taken over.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the engine refuses.
    fn clear(&self) -> Result<(), StoreError>;
}

const HEAD_KEY: &[u8] = &[0x00];
const SEQ_TAG: u8 = 0x01;
const JOB_TAG: u8 = 0x02;

/// Keys removed at a time by `clear`.
const CLEAR_KEYS: usize = 2_000;

#[derive(Clone, Copy, PartialEq, Message)]
struct Head {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(uint64, optional, tag = "2")]
    last_seq: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(uint64, tag = "1")]
    job: u64,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct JobRow {
    #[prost(uint64, tag = "1")]
    seq: u64,
}

fn key(tag: u8, number: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    key.push(tag);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The first key after all of this tag and number.
fn key_after(tag: u8, number: u64) -> Vec<u8> {
    let mut key = key(tag, number);
    key.push(0);
    key
}

/// History in the engine's second space.
pub(crate) struct EngineHistory {
    engine: Arc<dyn Engine>,
    head: Mutex<Head>,
}

impl EngineHistory {
    /// Reads the head and checks that the newest record is there.
    pub(crate) fn load(engine: Arc<dyn Engine>) -> Result<EngineHistory, StoreError> {
        let head = match engine.get(Space::History, HEAD_KEY)? {
            Some(sealed) => unseal::<Head>(HEAD_KEY, Bytes::from(sealed)).ok_or_else(unreadable)?,
            None => Head::default(),
        };
        let history = EngineHistory {
            engine,
            head: Mutex::new(head),
        };
        let newest = history
            .scan(u64::MAX, 1, true)?
            .first()
            .map(|(seq, _, _)| *seq);
        if newest == head.last_seq {
            Ok(history)
        } else {
            Err(unreadable())
        }
    }
}

impl EngineHistory {
    /// Number of the newest record of a job.
    fn seq_of(&self, job: u64) -> Result<Option<u64>, StoreError> {
        let job_key = key(JOB_TAG, job);
        let Some(sealed) = self.engine.get(Space::History, &job_key)? else {
            return Ok(None);
        };
        let row: JobRow = unseal(&job_key, Bytes::from(sealed)).ok_or_else(unreadable)?;
        Ok(Some(row.seq))
    }
}

fn unreadable() -> StoreError {
    StoreError::Engine {
        what: "read",
        message: "a history record is missing or unreadable".to_owned(),
    }
}

fn decode(seq_key: &[u8], sealed: Vec<u8>) -> Result<HistoryRecord, StoreError> {
    let row: Row = unseal(seq_key, Bytes::from(sealed)).ok_or_else(unreadable)?;
    let seq = seq_key
        .get(1..9)
        .and_then(|b| b.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(unreadable)?;
    Ok((seq, row.job, row.data))
}

impl HistoryStore for EngineHistory {
    fn append(&self, records: &[HistoryRecord]) -> Result<(), StoreError> {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = *head;
        let mut changes: Vec<Change> = Vec::with_capacity(2 * records.len() + 1);
        let mut records: Vec<&HistoryRecord> = records.iter().collect();
        records.sort_by_key(|(seq, _, _)| *seq);
        records.dedup_by_key(|(seq, _, _)| *seq);
        for (seq, job, data) in records {
            let seq_key = key(SEQ_TAG, *seq);
            let is_new = next.last_seq.is_none_or(|last| *seq > last);
            if !is_new && self.engine.get(Space::History, &seq_key)?.is_some() {
                continue;
            }
            let sealed = seal(
                &seq_key,
                &Row {
                    job: *job,
                    data: data.clone(),
                },
            );
            changes.push((seq_key, Some(sealed)));
            // A gap that is filled later holds older records than the one that the job points to.
            if is_new || self.seq_of(*job)?.is_none_or(|newest| newest < *seq) {
                let job_key = key(JOB_TAG, *job);
                let job_row = seal(&job_key, &JobRow { seq: *seq });
                changes.push((job_key, Some(job_row)));
            }
            next.count += 1;
            next.last_seq = next.last_seq.max(Some(*seq));
        }
        if changes.is_empty() {
            return Ok(());
        }
        changes.push((HEAD_KEY.to_vec(), Some(seal(HEAD_KEY, &next))));
        self.engine.apply(Space::History, changes)?;
        *head = next;
        Ok(())
    }

    fn get(&self, job: u64) -> Result<Option<Bytes>, StoreError> {
        let Some(seq) = self.seq_of(job)? else {
            return Ok(None);
        };
        let seq_key = key(SEQ_TAG, seq);
        let sealed = self
            .engine
            .get(Space::History, &seq_key)?
            .ok_or_else(unreadable)?;
        decode(&seq_key, sealed).map(|(_, _, data)| Some(data))
    }

    fn scan(
        &self,
        from_seq: u64,
        limit: usize,
        newest_first: bool,
    ) -> Result<Vec<HistoryRecord>, StoreError> {
        let (from, to) = if newest_first {
            (key(SEQ_TAG, 0), key_after(SEQ_TAG, from_seq))
        } else {
            (key(SEQ_TAG, from_seq), key_after(SEQ_TAG, u64::MAX))
        };
        let range = Range {
            from: &from,
            to: &to,
            limit,
            backwards: newest_first,
        };
        let pairs = self.engine.range(Space::History, range)?;
        pairs
            .into_iter()
            .map(|(key, sealed)| decode(&key, sealed))
            .collect()
    }

    fn count(&self) -> u64 {
        self.head
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .count
    }

    fn last_seq(&self) -> Option<u64> {
        self.head
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last_seq
    }

    fn clear(&self) -> Result<(), StoreError> {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let range = Range {
                from: &[0],
                to: &[0xff],
                limit: CLEAR_KEYS,
                backwards: false,
            };
            let pairs = self.engine.range(Space::History, range)?;
            if pairs.is_empty() {
                break;
            }
            let changes = pairs.into_iter().map(|(key, _)| (key, None)).collect();
            self.engine.apply(Space::History, changes)?;
        }
        *head = Head::default();
        Ok(())
    }
}
