//! Writing batches: journal first, engine later.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::JoinHandle;

use berth_raft::{Persist, Snapshot};

use crate::acked::{Acked, AckedFile};
use crate::applier::{Applier, Group};
use crate::engine::Engine;
use crate::journal::Journal;
use crate::record::{BatchRecord, JournalRecord, MembershipRecord, SnapshotRecord};
use crate::{StoreError, snapshot_file};

/// Batches are carried into the engine in groups of at least this many records ...
const GROUP_RECORDS: usize = 128;

/// ... or this many bytes: the more, the less the engine writes that is replaced soon after.
const GROUP_BYTES: usize = 256 << 10;

/// The durable log of a member.
pub trait LogStore: Send {
    /// Makes all batches durable with one flush; they are durable on return. A batch whose `must_sync` is false may
    /// become durable later. A snapshot that does not replace the log is written in the background; history of the
    /// entries that it covers must have been appended before.
    ///
    /// # Errors
    /// Any error is final: the member must stop, because it no longer knows what the disk holds.
    fn persist(&mut self, batches: &[Persist]) -> Result<(), StoreError>;
}

/// A compaction whose snapshot is being written.
struct Compaction {
    batch: BatchRecord,
    done: Receiver<Result<(), StoreError>>,
    thread: JoinHandle<()>,
}

/// The store on journal and engine.
pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) journal: Journal,
    pub(crate) acked_file: AckedFile,
    pub(crate) acked: Acked,
    /// Index of the newest snapshot that the log refers to.
    pub(crate) snapshot_index: u64,
    /// `None` only while the store is being dropped.
    applier: Option<Applier>,
    pending: Vec<BatchRecord>,
    pending_records: usize,
    pending_bytes: usize,
    compaction: Option<Compaction>,
    /// The newest compaction that came while another was under way.
    queued: Option<(Snapshot, BatchRecord)>,
    failure: Option<String>,
}

impl Store {
    pub(crate) fn new(
        dir: PathBuf,
        engine: Arc<dyn Engine>,
        journal: Journal,
        acked: (AckedFile, Acked),
        snapshot_index: u64,
        applier: Applier,
    ) -> Store {
        Store {
            dir,
            engine,
            journal,
            acked_file: acked.0,
            acked: acked.1,
            snapshot_index,
            applier: Some(applier),
            pending: Vec::new(),
            pending_records: 0,
            pending_bytes: 0,
            compaction: None,
            queued: None,
            failure: None,
        }
    }

    fn applier(&self) -> Result<&Applier, StoreError> {
        self.applier
            .as_ref()
            .ok_or_else(|| StoreError::Failed("the store is closed".to_owned()))
    }

    fn write(&mut self, batches: &[Persist]) -> Result<(), StoreError> {
        self.applier()?.check()?;
        let mut record = JournalRecord::default();
        let mut installed = None;
        for persist in batches {
            let mut batch = BatchRecord::from(persist);
            match &persist.snapshot {
                Some(snapshot) if persist.reset_log => {
                    self.abandon_compaction();
                    snapshot_file::write(&self.dir, snapshot)?;
                    installed = Some(snapshot.meta.clone());
                }
                Some(snapshot) => {
                    let later = take_compaction(&mut batch);
                    self.queued = Some((snapshot.clone(), later));
                }
                None => {}
            }
            if batch != BatchRecord::default() {
                record.batches.push(batch);
            }
        }
        let compacted = self.finished_compaction()?;
        let finished = compacted
            .as_ref()
            .and_then(|c| c.snapshot.clone())
            .map(Into::into);
        record.batches.extend(compacted);
        self.start_queued_compaction()?;
        self.append(record)?;
        if let Some(meta) = installed.or(finished) {
            self.snapshot_index = meta.index;
            snapshot_file::remove_older(&self.dir, &meta)?;
        }
        Ok(())
    }

    /// One record, one flush.
    fn append(&mut self, record: JournalRecord) -> Result<(), StoreError> {
        if record.batches.is_empty() {
            return Ok(());
        }
        if self
            .journal
            .is_full_for(prost::Message::encoded_len(&record))
        {
            self.switch_journal()?;
        }
        let flushed = self.applier()?.flushed();
        let seq = self.journal.append(&record, flushed)?;
        self.acked.seq = seq;
        for batch in &record.batches {
            note_acked(&mut self.acked, batch);
        }
        self.acked_file.write(&self.acked)?;
        self.pending_records += 1;
        self.pending_bytes += record
            .batches
            .iter()
            .map(BatchRecord::payload_bytes)
            .sum::<usize>();
        self.pending.extend(record.batches);
        if self.pending_records >= GROUP_RECORDS || self.pending_bytes >= GROUP_BYTES {
            self.push_pending(false)?;
        }
        Ok(())
    }

    /// Goes on in the other file, once the engine has flushed what that one holds, and has this one flushed meanwhile.
    fn switch_journal(&mut self) -> Result<(), StoreError> {
        self.push_pending(true)?;
        self.applier()?
            .wait_flushed(self.journal.last_seq_of_other())?;
        self.acked_file.sync()?;
        self.journal.switch();
        Ok(())
    }

    fn push_pending(&mut self, flush: bool) -> Result<(), StoreError> {
        let batches = std::mem::take(&mut self.pending);
        (self.pending_records, self.pending_bytes) = (0, 0);
        let seq = self.journal.last_seq();
        self.applier()?.push(Group {
            seq,
            batches,
            flush,
        })
    }

    /// The batch of a compaction whose snapshot is durable now.
    fn finished_compaction(&mut self) -> Result<Option<BatchRecord>, StoreError> {
        let Some(compaction) = &self.compaction else {
            return Ok(None);
        };
        match compaction.done.try_recv() {
            Err(TryRecvError::Empty) => return Ok(None),
            Err(TryRecvError::Disconnected) => {
                return Err(StoreError::Failed("the snapshot thread is gone".to_owned()));
            }
            Ok(outcome) => outcome?,
        }
        let done = self.compaction.take().map(|c| c.batch);
        Ok(done.filter(|b| {
            b.snapshot
                .as_ref()
                .is_some_and(|s| s.index > self.snapshot_index)
        }))
    }

    /// Writes the queued snapshot in the background, and flushes the engine so that no history of what the snapshot covers
    /// can be lost with the log.
    fn start_queued_compaction(&mut self) -> Result<(), StoreError> {
        if self.compaction.is_some() {
            return Ok(());
        }
        let Some((snapshot, batch)) = self.queued.take() else {
            return Ok(());
        };
        let (dir, engine) = (self.dir.clone(), Arc::clone(&self.engine));
        let (send, done) = channel();
        let thread = std::thread::Builder::new()
            .name("berth-store-snapshot".to_owned())
            .spawn(move || {
                let outcome = snapshot_file::write(&dir, &snapshot).and_then(|()| engine.flush());
                let _ = send.send(outcome);
            })
            .map_err(|e| StoreError::Engine {
                what: "start a thread",
                message: e.to_string(),
            })?;
        self.compaction = Some(Compaction {
            batch,
            done,
            thread,
        });
        Ok(())
    }

    /// A snapshot from the leader replaces whatever was being compacted.
    fn abandon_compaction(&mut self) {
        self.queued = None;
        if let Some(compaction) = self.compaction.take() {
            let _ = compaction.thread.join();
        }
    }

    /// Closes the store and says whether that worked.
    pub(crate) fn finish(mut self) -> Result<(), StoreError> {
        self.close()
            .inspect_err(|e| self.failure = Some(e.to_string()))
    }

    /// Finishes what is under way and flushes the engine.
    fn close(&mut self) -> Result<(), StoreError> {
        loop {
            self.start_queued_compaction()?;
            let Some(compaction) = self.compaction.take() else {
                break;
            };
            let outcome = compaction.done.recv();
            let _ = compaction.thread.join();
            outcome.map_err(|_| StoreError::Failed("the snapshot thread is gone".to_owned()))??;
            let meta = compaction
                .batch
                .snapshot
                .clone()
                .map(berth_raft::SnapshotMeta::from);
            if let Some(meta) = meta.filter(|m| m.index > self.snapshot_index) {
                self.append(JournalRecord {
                    batches: vec![compaction.batch],
                })?;
                self.snapshot_index = meta.index;
                snapshot_file::remove_older(&self.dir, &meta)?;
            }
        }
        self.push_pending(true)?;
        self.applier()?.wait_flushed(self.journal.last_seq())?;
        self.acked_file.sync()
    }
}

impl LogStore for Store {
    fn persist(&mut self, batches: &[Persist]) -> Result<(), StoreError> {
        if let Some(failure) = &self.failure {
            return Err(StoreError::Failed(failure.clone()));
        }
        self.write(batches)
            .inspect_err(|e| self.failure = Some(e.to_string()))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.failure.is_none()
            && let Err(e) = self.close()
        {
            // The journal has everything; the next start carries it over.
            tracing::warn!(error = %e, "closing the store");
        }
        drop(self.applier.take());
    }
}

/// Takes out of a batch what has to wait for its snapshot.
fn take_compaction(batch: &mut BatchRecord) -> BatchRecord {
    let (snapshot, membership): (Option<SnapshotRecord>, Option<MembershipRecord>) =
        (batch.snapshot.take(), batch.membership.take());
    BatchRecord {
        snapshot,
        membership,
        compact_to: batch.compact_to.take(),
        ..BatchRecord::default()
    }
}

/// What a batch adds to what is acknowledged.
pub(crate) fn note_acked(acked: &mut Acked, batch: &BatchRecord) {
    if let (true, Some(snapshot)) = (batch.reset_log, &batch.snapshot) {
        acked.last_index = snapshot.index;
    }
    if let Some(last) = batch.entries.last() {
        acked.last_index = last.index;
    }
    if let Some(hard_state) = batch.hard_state {
        (acked.term, acked.vote) = (hard_state.term, hard_state.vote);
    }
}
