//! Log files on their way to a reader: chunks of at most 64 KiB, never more than the reader has given credit for,
//! and, if asked, until the task has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_proto::v1::{self, LogStream};
use berth_types::TaskKey;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::layout::Layout;

/// Largest chunk.
const CHUNK_BYTES: u64 = 64 << 10;
/// Readers served at once.
const MOST_READERS: usize = 256;
/// How often a followed file is looked at: often while something comes, then ever more seldom.
const POLL_MS: (u64, u64) = (5, 100);

/// The tasks that may still write, shared with the readers.
#[derive(Clone, Debug, Default)]
pub(super) struct Writers(Arc<Mutex<BTreeSet<TaskKey>>>);

impl Writers {
    /// This task may write now, or will not any more.
    pub(super) fn set(&self, key: TaskKey, writes: bool) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if writes {
            tasks.insert(key);
        } else {
            tasks.remove(&key);
        }
    }

    fn contains(&self, key: TaskKey) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&key)
    }
}

/// Readers of the current stream to a master.
#[derive(Debug)]
pub(super) struct Logs {
    layout: Layout,
    writers: Writers,
    readers: BTreeMap<u64, (mpsc::UnboundedSender<u64>, AbortHandle)>,
}

impl Logs {
    /// Serves files below this directory.
    pub(super) fn new(layout: Layout, writers: Writers) -> Self {
        Self {
            layout,
            writers,
            readers: BTreeMap::new(),
        }
    }

    /// Begins to serve a reader.
    pub(super) fn read(&mut self, request: v1::ReadLog, outbox: mpsc::Sender<v1::AgentMessage>) {
        let id = request.request_id;
        self.readers.retain(|_, (_, task)| !task.is_finished());
        let refused = match request.key.map(TaskKey::try_from) {
            _ if self.readers.len() >= MOST_READERS => "too many readers on this node".to_owned(),
            Some(Ok(key)) => {
                let (credits, credit) = mpsc::unbounded_channel();
                let reader =
                    Reader::new(&self.layout, &self.writers, key, &request, outbox, credit);
                let task = tokio::spawn(reader.run());
                self.readers.insert(id, (credits, task.abort_handle()));
                return;
            }
            Some(Err(error)) => error.to_string(),
            None => "no task is named".to_owned(),
        };
        let _ = outbox.try_send(data(id, 0, 0, Bytes::new(), Some(refused)));
    }

    /// The reader took so many bytes.
    pub(super) fn credit(&mut self, id: u64, bytes: u64) {
        if let Some((credits, _)) = self.readers.get(&id) {
            let _ = credits.send(bytes);
        }
    }

    /// The reader is gone.
    pub(super) fn close(&mut self, id: u64) {
        if let Some((_, task)) = self.readers.remove(&id) {
            task.abort();
        }
    }

    /// The stream is gone, and its readers with it.
    pub(super) fn close_all(&mut self) {
        for (_, (_, task)) in std::mem::take(&mut self.readers) {
            task.abort();
        }
    }
}

struct Output {
    stream: LogStream,
    path: PathBuf,
    file: Option<Arc<File>>,
    offset: u64,
    tail: Option<u64>,
}

struct Reader {
    id: u64,
    key: TaskKey,
    task_dir: PathBuf,
    writers: Writers,
    outputs: Vec<Output>,
    follow: bool,
    left: u64,
    credit: mpsc::UnboundedReceiver<u64>,
    outbox: mpsc::Sender<v1::AgentMessage>,
}

/// The reader is gone.
struct Gone;

impl Reader {
    fn new(
        layout: &Layout,
        writers: &Writers,
        key: TaskKey,
        request: &v1::ReadLog,
        outbox: mpsc::Sender<v1::AgentMessage>,
        credit: mpsc::UnboundedReceiver<u64>,
    ) -> Self {
        let task_dir = layout.task_dir(key);
        let wanted = LogStream::try_from(request.stream).unwrap_or(LogStream::Unspecified);
        let outputs = [
            (LogStream::Stdout, "stdout.log"),
            (LogStream::Stderr, "stderr.log"),
        ]
        .into_iter()
        .filter(|(stream, _)| wanted == LogStream::Unspecified || wanted == *stream)
        .map(|(stream, name)| Output {
            stream,
            path: task_dir.join(name),
            file: None,
            offset: request.offset,
            tail: request.tail_bytes,
        })
        .collect();
        Self {
            id: request.request_id,
            key,
            task_dir,
            writers: writers.clone(),
            outputs,
            follow: request.follow,
            left: request.credit_bytes,
            credit,
            outbox,
        }
    }

    async fn run(mut self) {
        let error = match self.copy().await {
            Ok(()) => String::new(),
            Err(Some(error)) => error,
            Err(None) => return,
        };
        let end = data(self.id, 0, 0, Bytes::new(), Some(error));
        let _ = self.outbox.send(end).await;
    }

    /// Sends everything there is. `Err(None)` if the reader is gone.
    async fn copy(&mut self) -> Result<(), Option<String>> {
        let mut pause_ms = POLL_MS.0;
        let mut found = false;
        loop {
            // Asked before reading, so that what was written before the end is read.
            let live = self.writers.contains(self.key);
            let mut sent = false;
            for at in 0..self.outputs.len() {
                sent |= self.copy_output(at).await?;
                found |= self.outputs[at].file.is_some();
            }
            if !live && !found {
                let dir = self.task_dir.display();
                return Err(Some(format!(
                    "no output of this task is left on its node ({dir})"
                )));
            }
            if !live || !self.follow {
                return Ok(());
            }
            pause_ms = if sent {
                POLL_MS.0
            } else {
                (pause_ms * 5 / 4 + 1).min(POLL_MS.1)
            };
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    /// Sends one file up to its present end. True if anything was sent.
    async fn copy_output(&mut self, at: usize) -> Result<bool, Option<String>> {
        let output = &mut self.outputs[at];
        let file = match &output.file {
            Some(file) => Arc::clone(file),
            None => match File::open(&output.path) {
                Ok(file) => Arc::clone(output.file.insert(Arc::new(file))),
                Err(_) => return Ok(false),
            },
        };
        let length = || {
            file.metadata()
                .map(|m| m.len())
                .map_err(|e| Some(e.to_string()))
        };
        let end = length()?;
        if let Some(tail) = output.tail.take() {
            output.offset = output.offset.max(end.saturating_sub(tail));
        }
        let mut sent = false;
        while self.outputs[at].offset < end {
            let (offset, stream) = (self.outputs[at].offset, self.outputs[at].stream);
            self.wait_for_credit().await.map_err(|Gone| None)?;
            let want = (end - offset).min(CHUNK_BYTES).min(self.left);
            let chunk = read_chunk(Arc::clone(&file), offset, want)
                .await
                .map_err(Some)?;
            let read = chunk.len() as u64;
            if read == 0 {
                break;
            }
            self.left -= read;
            self.outputs[at].offset += read;
            let message = data(self.id, stream as i32, offset, chunk, None);
            self.outbox.send(message).await.map_err(|_| None)?;
            sent = true;
        }
        Ok(sent)
    }

    async fn wait_for_credit(&mut self) -> Result<(), Gone> {
        while let Ok(more) = self.credit.try_recv() {
            self.left = self.left.saturating_add(more);
        }
        while self.left == 0 {
            let more = self.credit.recv().await.ok_or(Gone)?;
            self.left = self.left.saturating_add(more);
        }
        Ok(())
    }
}

/// Reads beside the event loop, because a disk may be slow.
async fn read_chunk(file: Arc<File>, offset: u64, want: u64) -> Result<Bytes, String> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut chunk = vec![0; usize::try_from(want).unwrap_or(0)];
        let read = file.read_at(&mut chunk, offset)?;
        chunk.truncate(read);
        Ok(Bytes::from(chunk))
    });
    match reading.await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(error)) => Err(std::io::Error::to_string(&error)),
        Err(error) => Err(error.to_string()),
    }
}

/// A message to the reader; `end` is its last, with what went wrong or an empty text.
fn data(id: u64, stream: i32, offset: u64, data: Bytes, end: Option<String>) -> v1::AgentMessage {
    v1::AgentMessage {
        kind: Some(v1::agent_message::Kind::Log(v1::LogData {
            request_id: id,
            stream,
            offset,
            data,
            eof: end.is_some(),
            error: end.unwrap_or_default(),
        })),
    }
}
