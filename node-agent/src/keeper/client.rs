//! The agent's side of the keeper: find it or start it, then requests out and replies in.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use berth_types::Isolation;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::keeper::confinement::{self, Groups};
use crate::keeper::protocol::{
    self, FrameError, Kept, OLDEST_VERSION, PROTOCOL_VERSION, Reply, Request,
};
use crate::layout::Layout;

/// How long a started keeper may take until it answers; it may first have to end tasks of a killed one.
const START_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);
const READ_BYTES: usize = 64 << 10;
/// Batches of replies that may wait for the agent's loop.
const QUEUE: usize = 64;

/// Why there is no keeper to talk to.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The program could not be started.
    #[error("the keeper cannot be started from {program}")]
    Start {
        /// The program.
        program: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// It started and ended.
    #[error("the keeper ended at once ({status}); see {log}")]
    Ended {
        /// How.
        status: String,
        /// What it printed.
        log: String,
    },
    /// It does not answer.
    #[error("the keeper does not answer; see {log}")]
    Silent {
        /// What it printed.
        log: String,
    },
    /// The connection broke.
    #[error("the connection to the keeper broke")]
    Io(#[from] std::io::Error),
    /// It speaks otherwise.
    #[error(
        "the keeper speaks protocol {theirs}, this agent {PROTOCOL_VERSION}: finish its tasks with the old version first"
    )]
    Version {
        /// Its version.
        theirs: u32,
    },
    /// It sent nonsense.
    #[error("the keeper's answer cannot be read")]
    Frame(#[from] FrameError),
}

/// A connection to a keeper.
#[derive(Debug)]
pub struct KeeperClient {
    /// Drawn at the keeper's start.
    pub incarnation: u64,
    /// Its process id.
    pub pid: u32,
    /// What it had when the connection was made.
    pub tasks: Vec<Kept>,
    /// How it isolates tasks, and the name of the control group that has theirs, if there is one.
    pub isolation: (Isolation, String),
    version: u32,
    requests: mpsc::UnboundedSender<Vec<u8>>,
    /// Replies in order, in batches; closed when the connection is gone.
    pub replies: mpsc::Receiver<Vec<Reply>>,
    /// The process, if this agent started it; reaped when it ends.
    pub child: Option<Child>,
}

impl KeeperClient {
    /// Connects to the keeper of this data directory, starting one from `program` if there is none; a new one puts tasks into
    /// control groups where `groups` says.
    ///
    /// # Errors
    /// If it cannot be started, does not answer, or speaks another version.
    pub async fn connect_or_start(
        layout: &Layout,
        program: &Path,
        groups: &Groups,
    ) -> Result<Self, ClientError> {
        // A scope of its own, if there is a service manager that makes one; if that fails, without.
        let mut scope = *groups == Groups::Own && confinement::can_have_scope();
        let deadline = Instant::now() + START_PATIENCE;
        let log = layout.keeper_log().display().to_string();
        let mut child = None;
        loop {
            match UnixStream::connect(layout.keeper_socket()).await {
                Ok(stream) => {
                    let greeted = timeout_at(deadline, greet(stream)).await;
                    let mut client = greeted.map_err(|_| ClientError::Silent { log })??;
                    client.child = child;
                    return Ok(client);
                }
                Err(e)
                    if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
                Err(e) => return Err(e.into()),
            }
            match &mut child {
                None => {
                    child = Some(start(layout, program, groups, scope)?);
                    scope = false;
                }
                Some(running) => {
                    if let Some(status) = running.try_wait()? {
                        // Another keeper may just be coming up or going down: its lock decides.
                        sleep(POLL * 10).await;
                        child = None;
                        if Instant::now() + START_PATIENCE / 2 >= deadline {
                            let status = status.to_string();
                            return Err(ClientError::Ended { status, log });
                        }
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(ClientError::Silent { log });
            }
            sleep(POLL).await;
        }
    }

    /// Sends requests, in order. They are lost if the connection is gone, which [`Self::replies`] tells.
    ///
    /// # Errors
    /// If a request is too large for a frame.
    pub fn send(&self, requests: &[Request]) -> Result<(), FrameError> {
        let mut bytes = Vec::new();
        for request in requests {
            match request {
                Request::SpawnWithin { spawn, .. } if self.version == OLDEST_VERSION => {
                    protocol::encode(&Request::Spawn(spawn.clone()), &mut bytes)?;
                }
                request => protocol::encode(request, &mut bytes)?,
            }
        }
        let _ = self.requests.send(bytes);
        Ok(())
    }
}

/// Starts a keeper that does not end with this process: no shared session, nothing inherited but its log.
fn start(
    layout: &Layout,
    program: &Path,
    groups: &Groups,
    scope: bool,
) -> Result<Child, ClientError> {
    let failed = |source| ClientError::Start {
        program: program.display().to_string(),
        source,
    };
    std::fs::create_dir_all(layout.keeper_dir()).map_err(failed)?;
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(layout.keeper_log())
        .map_err(failed)?;
    let stdout = log.try_clone().map_err(failed)?;
    let mut command = if scope {
        confinement::in_scope(program)
    } else {
        let mut command = Command::new(program);
        command.arg0("berth-keeper");
        command
    };
    // The service manager's words are for the agent alone.
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    command
        .arg("keeper")
        .arg("--dir")
        .arg(layout.root())
        .arg("--cgroup")
        .arg(groups.to_string())
        .current_dir(layout.root())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log)
        .spawn()
        .map_err(failed)
}

async fn greet(stream: UnixStream) -> Result<KeeperClient, ClientError> {
    let (mut reader, mut writer) = stream.into_split();
    let mut bytes = Vec::new();
    protocol::encode(
        &Request::Hello {
            version: PROTOCOL_VERSION,
        },
        &mut bytes,
    )?;
    protocol::encode(&Request::List, &mut bytes)?;
    writer.write_all(&bytes).await?;
    let mut input = Vec::new();
    let (mut hello, mut isolation) = (None, (confinement::without("an old keeper"), String::new()));
    let closed = || ClientError::Io(ErrorKind::UnexpectedEof.into());
    let tasks = loop {
        let replies = read_batch(&mut reader, &mut input)
            .await?
            .ok_or_else(closed)?;
        let mut replies = replies.into_iter();
        let state = replies.find_map(|reply| match reply {
            Reply::Hello {
                version,
                incarnation,
                pid,
            } => {
                hello = Some((version, incarnation, pid));
                None
            }
            Reply::State { tasks } => Some(tasks),
            Reply::Isolation {
                isolation: is,
                group,
            } => {
                isolation = (is, group);
                None
            }
            Reply::Spawned { .. } | Reply::Exited { .. } | Reply::Stopped => None,
        });
        if let Some(tasks) = state {
            break (tasks, replies.collect::<Vec<_>>());
        }
    };
    let (tasks, more) = tasks;
    let (version, incarnation, pid) = hello.ok_or_else(closed)?;
    if !(OLDEST_VERSION..=PROTOCOL_VERSION).contains(&version) {
        return Err(ClientError::Version { theirs: version });
    }
    let (requests, outbox) = mpsc::unbounded_channel();
    let (inbox, replies) = mpsc::channel(QUEUE);
    tokio::spawn(write_all(writer, outbox));
    tokio::spawn(read_all(reader, input, more, inbox));
    Ok(KeeperClient {
        incarnation,
        pid,
        tasks,
        isolation,
        version,
        requests,
        replies,
        child: None,
    })
}

/// Waits for bytes and takes the whole messages among them. `None` at the end.
async fn read_batch(
    reader: &mut OwnedReadHalf,
    input: &mut Vec<u8>,
) -> Result<Option<Vec<Reply>>, ClientError> {
    loop {
        input.reserve(READ_BYTES);
        if reader.read_buf(input).await? == 0 {
            return Ok(None);
        }
        let (mut at, mut replies) = (0, Vec::new());
        while let Some(reply) = protocol::decode(input, &mut at)? {
            replies.push(reply);
        }
        input.drain(..at);
        if !replies.is_empty() {
            return Ok(Some(replies));
        }
    }
}

async fn read_all(
    mut reader: OwnedReadHalf,
    mut input: Vec<u8>,
    first: Vec<Reply>,
    inbox: mpsc::Sender<Vec<Reply>>,
) {
    let mut batch = first;
    loop {
        if !batch.is_empty() && inbox.send(std::mem::take(&mut batch)).await.is_err() {
            return;
        }
        match read_batch(&mut reader, &mut input).await {
            Ok(Some(replies)) => batch = replies,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "keeper");
                return;
            }
        }
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut outbox: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(mut bytes) = outbox.recv().await {
        while let Ok(more) = outbox.try_recv() {
            bytes.extend(more);
        }
        if writer.write_all(&bytes).await.is_err() {
            // The reader sees the end of the connection.
            return;
        }
    }
}
