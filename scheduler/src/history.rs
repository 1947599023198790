//! Finished jobs on disk: appended in order on a thread of their own, which also reads them for the replica.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use berth_core::replica::HistoryLookup;
use berth_core::state::FinishedJob;
use berth_core::{Input, codec, query};
use berth_raft_store::{HistoryRecord, HistoryStore};
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::inbox::{Inbox, Message};
use crate::storage::chain;

/// Records read from the store at once while looking for matches.
const SCAN_PAGE: usize = 512;

/// What the thread is asked for, in order.
#[derive(Debug)]
pub(crate) enum Task {
    /// Keep these.
    Append(Vec<FinishedJob>),
    /// Keep these, as another master has them.
    Import(Vec<HistoryRecord>, oneshot::Sender<()>),
    /// Read on behalf of the replica.
    LookUp { token: u64, lookup: HistoryLookup },
    /// Answer once everything before this is kept.
    Barrier(std::sync::mpsc::Sender<()>),
    /// The first gap up to this sequence number, if there is one.
    FindGap {
        through: u64,
        found: oneshot::Sender<Option<(u64, u64)>>,
    },
}

/// The way to the thread.
pub(crate) type Tasks = Sender<Task>;

/// Starts the thread. It ends when the last sender is dropped, after all that was sent is kept.
pub(crate) fn start(
    store: Arc<dyn HistoryStore>,
    inbox: Inbox,
) -> std::io::Result<(Tasks, JoinHandle<()>)> {
    // Unbounded, because the event loop must never block on what blocks on it; fed by committed entries only.
    let (sender, tasks) = channel();
    let worker = Worker { store, inbox };
    let thread = std::thread::Builder::new()
        .name("berth-history".into())
        .spawn(move || worker.run(&tasks))?;
    Ok((sender, thread))
}

struct Worker {
    store: Arc<dyn HistoryStore>,
    inbox: Inbox,
}

impl Worker {
    fn run(&self, tasks: &Receiver<Task>) {
        while let Ok(first) = tasks.recv() {
            // Everything that waits is appended with one write.
            let mut records = Vec::new();
            for task in std::iter::once(first).chain(tasks.try_iter()) {
                match task {
                    Task::Append(jobs) => records.extend(jobs.iter().map(record)),
                    other => {
                        self.append(&mut records);
                        self.answer(other);
                    }
                }
            }
            self.append(&mut records);
        }
    }

    fn append(&self, records: &mut Vec<HistoryRecord>) {
        if records.is_empty() {
            return;
        }
        if let Err(failure) = self.store.append(records) {
            // The log has them until the next snapshot, and other masters keep theirs: a gap that is filled later.
            error!(error = %chain(&failure), records = records.len(), "cannot keep finished jobs");
        }
        records.clear();
    }

    fn answer(&self, task: Task) {
        match task {
            Task::Append(_) => {}
            Task::Import(mut records, done) => {
                self.append(&mut records);
                let _ = done.send(());
            }
            Task::Barrier(done) => {
                let _ = done.send(());
            }
            Task::LookUp { token, lookup } => {
                let jobs = match lookup {
                    HistoryLookup::Job(job) => self.job(job.0).into_iter().collect(),
                    HistoryLookup::List {
                        filter,
                        before,
                        limit,
                    } => self.list(&filter, before, limit),
                };
                self.inbox
                    .send_blocking(Message::Input(Input::HistoryFound { token, jobs }));
            }
            Task::FindGap { through, found } => {
                let _ = found.send(self.gap(through));
            }
        }
    }

    fn job(&self, job: u64) -> Option<FinishedJob> {
        match self.store.get(job) {
            Ok(data) => data.and_then(|data| decode(&data)),
            Err(failure) => {
                error!(error = %chain(&failure), job, "cannot read the history");
                None
            }
        }
    }

    fn scan(&self, from_seq: u64, newest_first: bool) -> Vec<HistoryRecord> {
        self.store
            .scan(from_seq, SCAN_PAGE, newest_first)
            .unwrap_or_else(|failure| {
                error!(error = %chain(&failure), "cannot read the history");
                Vec::new()
            })
    }

    fn list(&self, filter: &berth_types::JobFilter, before: u64, limit: u32) -> Vec<FinishedJob> {
        let (mut jobs, mut next) = (Vec::new(), before.saturating_sub(1));
        while next > 0 {
            let page = self.scan(next, true);
            let Some((oldest, _, _)) = page.last() else {
                break;
            };
            next = oldest.saturating_sub(1);
            for (_, _, data) in page {
                if jobs.len() >= limit as usize {
                    return jobs;
                }
                jobs.extend(decode(&data).filter(|job| query::matches_finished(filter, job)));
            }
        }
        jobs
    }

    /// The first run of missing sequence numbers up to `through`.
    fn gap(&self, through: u64) -> Option<(u64, u64)> {
        let last = self.store.last_seq().unwrap_or(0);
        if self.store.count() == last {
            return (last < through).then_some((last + 1, through));
        }
        let mut next = 1;
        while next <= through {
            let page = self.scan(next, false);
            if page.is_empty() {
                return Some((next, through));
            }
            for (seq, _, _) in page {
                if seq > next {
                    return (next <= through).then_some((next, through.min(seq - 1)));
                }
                next = seq + 1;
            }
        }
        None
    }
}

fn record(job: &FinishedJob) -> HistoryRecord {
    (job.seq, job.job.id.0, codec::encode_finished(job))
}

fn decode(data: &[u8]) -> Option<FinishedJob> {
    codec::decode_finished(data)
        .inspect_err(|error| warn!(%error, "a finished job cannot be read"))
        .ok()
}
