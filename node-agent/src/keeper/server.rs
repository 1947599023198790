//! The keeper's process: start-up, and the loop that waits, acts, records, then announces.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_types::TaskKey;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use crate::cgroup::Limits;
use crate::keeper::confinement::{Confinement, Groups};
use crate::keeper::connection::Connection;
use crate::keeper::orphans::{self, BootClock};
use crate::keeper::protocol::{ExitRecord, Reply};
use crate::keeper::records::{Records, RecordsError, Remembered};
use crate::layout::Layout;

/// Events taken at once.
const BATCH: usize = 256;
/// Pause before a failed write of the records is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long the start of a task may stay unannounced: tasks that end within it are told, recorded and reported as one,
/// which saves each party a wake-up.
const HOLD: Duration = Duration::from_millis(3);
/// Open files that a keeper wants: one pidfd per task and some.
const MOST_FILES: u64 = 65_536;

/// Why a keeper cannot run.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// Another keeper serves this directory.
    #[error("a keeper already runs for {0}")]
    AlreadyRuns(PathBuf),
    /// The records cannot be used.
    #[error("the keeper's records cannot be used")]
    Records(#[from] RecordsError),
    /// Tasks of an earlier keeper do not end.
    #[error("{0}")]
    Survivors(String),
    /// The system said no.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
}

impl KeeperError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| KeeperError::Io { what, source }
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    Listener,
    Client,
    Task(TaskKey),
}

/// A task as the keeper holds it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) memo: Vec<u8>,
    pub(crate) fence: bool,
    pub(crate) phase: HeldPhase,
}

#[derive(Debug)]
pub(crate) enum HeldPhase {
    Running(RunningTask),
    Ended(ExitRecord),
}

#[derive(Debug)]
pub(crate) struct RunningTask {
    pub(crate) pid: u32,
    pub(crate) since_ms: u64,
    pub(crate) boot_ms: u64,
    /// Removed from the poll set by being closed.
    pub(crate) _pidfd: OwnedFd,
    /// Its token in the poll set.
    pub(crate) token: u64,
    /// The node has stopped it by itself, for its lease.
    pub(crate) by_node: bool,
    /// Its bounds.
    pub(crate) limits: Limits,
}

/// A running keeper.
#[derive(Debug)]
pub struct Keeper {
    pub(crate) layout: Layout,
    pub(crate) epoll: OwnedFd,
    listener: UnixListener,
    pub(crate) null: File,
    pub(crate) sources: BTreeMap<u64, Source>,
    pub(crate) clients: BTreeMap<u64, Connection>,
    next_token: u64,
    pub(crate) tasks: BTreeMap<TaskKey, Held>,
    pub(crate) records: Records,
    pub(crate) incarnation: u64,
    pub(crate) clock: BootClock,
    /// Said to subscribers once the records are written.
    pub(crate) announcements: Vec<Reply>,
    /// The announcements hold an end: the records must be flushed first.
    pub(crate) must_sync: bool,
    /// When they are made at the latest.
    pub(crate) announce_at: Option<Instant>,
    records_failed: bool,
    /// When `fence` tasks are killed.
    pub(crate) lease_over: Option<Instant>,
    /// Set by a shutdown: when the tasks are killed.
    pub(crate) stopping: Option<Instant>,
    pub(crate) confinement: Confinement,
    _lock: File,
}

/// Runs a keeper for this data directory until it is shut down. Leaves the caller's session. Tasks get control groups
/// where `groups` says.
///
/// # Errors
/// If it cannot start.
pub fn run(root: &Path, groups: &Groups) -> Result<(), KeeperError> {
    // Fails only for a group leader, as when started from a shell; then the caller has seen to it.
    let _ = rustix::process::setsid();
    raise_file_limit();
    let mut keeper = Keeper::start(root, groups)?;
    keeper.serve()
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(MOST_FILES).min(MOST_FILES);
    if limit.current.is_some_and(|current| current < most) {
        let raised = Rlimit {
            current: Some(most),
            maximum: limit.maximum,
        };
        // Without it the keeper can only hold fewer tasks.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

/// Takes the lock of a data directory's keeper, or says that one runs.
pub(crate) fn lock(layout: &Layout) -> Result<File, KeeperError> {
    let dir = layout.keeper_dir();
    std::fs::create_dir_all(&dir).map_err(KeeperError::io(format!("make {}", dir.display())))?;
    let path = layout.keeper_lock();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(KeeperError::io(format!("open {}", path.display())))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(KeeperError::AlreadyRuns(layout.root().to_path_buf()))
        }
        Err(e) => Err(KeeperError::io(format!("lock {}", path.display()))(
            e.into(),
        )),
    }
}

impl Keeper {
    fn start(root: &Path, groups: &Groups) -> Result<Self, KeeperError> {
        let root = root
            .canonicalize()
            .map_err(KeeperError::io(format!("find {}", root.display())))?;
        let layout = Layout::new(root);
        let lock = lock(&layout)?;
        let clock = BootClock::start();
        let (mut records, remembered) = Records::open(&layout.keeper_records())?;
        let killed =
            orphans::end_survivors(&layout.tasks(), &remembered).map_err(KeeperError::Survivors)?;
        let confinement = Confinement::begin(&layout, groups).map_err(KeeperError::Survivors)?;
        let isolation = confinement.isolation();
        tracing::info!(records = remembered.len(), killed, %isolation, "keeper starts");
        let tasks = settle(remembered);
        records.rewrite(&snapshot(&tasks))?;
        let listener = listen(&layout)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| KeeperError::io("create epoll")(e.into()))?;
        let null = File::open("/dev/null").map_err(KeeperError::io("open /dev/null"))?;
        let mut keeper = Self {
            layout,
            epoll,
            listener,
            null,
            sources: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_token: 1,
            tasks,
            records,
            incarnation: draw_incarnation()?,
            clock,
            announcements: Vec::new(),
            must_sync: false,
            announce_at: None,
            records_failed: false,
            lease_over: None,
            stopping: None,
            confinement,
            _lock: lock,
        };
        keeper.sources.insert(0, Source::Listener);
        epoll::add(
            &keeper.epoll,
            &keeper.listener,
            EventData::new_u64(0),
            EventFlags::IN,
        )
        .map_err(|e| KeeperError::io("poll the socket")(e.into()))?;
        let pid = std::process::id().to_string();
        std::fs::write(keeper.layout.keeper_pid(), pid).map_err(KeeperError::io("write pid"))?;
        Ok(keeper)
    }

    fn serve(&mut self) -> Result<(), KeeperError> {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            events.clear();
            let timeout = self.timeout();
            let space = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, space, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(KeeperError::io("wait for events")(e.into())),
            }
            for event in &events {
                self.on_event(event.data.u64(), event.flags);
            }
            self.enforce_lease();
            self.enforce_stop();
            self.confinement.clear();
            self.record_and_announce();
            if self.stopping.is_some() && !self.any_running() && !self.records_failed {
                self.tell(&Reply::Stopped);
                self.flush_clients();
                tracing::info!("keeper ends");
                return Ok(());
            }
        }
    }

    fn on_event(&mut self, token: u64, flags: EventFlags) {
        // An event of something that an earlier event of this batch has closed.
        let Some(source) = self.sources.get(&token).copied() else {
            return;
        };
        match source {
            Source::Listener => self.accept(),
            Source::Client => self.on_client(token, flags),
            Source::Task(key) => self.on_ended(key),
        }
    }

    pub(crate) fn watch(&mut self, fd: impl AsFd, source: Source) -> rustix::io::Result<u64> {
        let token = self.next_token;
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?;
        self.next_token += 1;
        self.sources.insert(token, source);
        Ok(token)
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if stream.set_nonblocking(true).is_err() {
                        continue;
                    }
                    match self.watch(&stream, Source::Client) {
                        Ok(token) => {
                            self.clients.insert(token, Connection::new(stream));
                        }
                        Err(error) => tracing::warn!(%error, "a client cannot be polled"),
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "a client cannot be accepted");
                    return;
                }
            }
        }
    }

    fn on_client(&mut self, token: u64, flags: EventFlags) {
        let Some(mut client) = self.clients.remove(&token) else {
            return;
        };
        let mut result = Ok(());
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            result = client.receive().and_then(|requests| {
                requests
                    .into_iter()
                    .try_for_each(|r| self.on_request(&mut client, r))
            });
        }
        match result {
            Ok(()) => {
                self.clients.insert(token, client);
                self.flush_client(token);
            }
            Err(reason) => {
                tracing::debug!(%reason, "a client is gone");
                self.sources.remove(&token);
            }
        }
    }

    /// A start is to be announced, soon.
    pub(crate) fn announce_soon(&mut self, reply: Reply) {
        self.announcements.push(reply);
        self.announce_at
            .get_or_insert_with(|| Instant::now() + HOLD);
    }

    /// Writes the records, then tells. A failure is retried; until then nothing is announced.
    fn record_and_announce(&mut self) {
        let due = self.announce_at.is_some_and(|at| Instant::now() >= at);
        if !due && !self.must_sync && !self.records_failed {
            self.flush_clients();
            return;
        }
        let written = if self.records_failed || self.records.wants_rewrite() {
            // After a failed flush the system may have dropped what was written: only a fresh file is sure.
            self.records.rewrite(&snapshot(&self.tasks))
        } else if self.must_sync {
            self.records.sync()
        } else {
            self.records.write()
        };
        self.records_failed = written.is_err();
        if let Err(error) = written {
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                error,
                "the records cannot be written; no end is announced until they can"
            );
            return;
        }
        self.must_sync = false;
        self.announce_at = None;
        for reply in std::mem::take(&mut self.announcements) {
            self.tell(&reply);
        }
        self.flush_clients();
    }

    fn flush_clients(&mut self) {
        let tokens: Vec<u64> = self.clients.keys().copied().collect();
        for token in tokens {
            self.flush_client(token);
        }
    }

    fn tell(&mut self, reply: &Reply) {
        for client in self.clients.values_mut().filter(|c| c.subscribed) {
            if let Err(reason) = client.send(reply) {
                tracing::warn!(%reason, "a client does not keep up");
                client.subscribed = false;
            }
        }
    }

    fn flush_client(&mut self, token: u64) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        match client.flush() {
            Ok(done) => {
                let flags = if done {
                    EventFlags::IN
                } else {
                    EventFlags::IN | EventFlags::OUT
                };
                if client.wants_out == done {
                    client.wants_out = !done;
                    let data = EventData::new_u64(token);
                    // A client that cannot be polled is found broken at its next write.
                    let _ = epoll::modify(&self.epoll, client.stream(), data, flags);
                }
            }
            Err(reason) => {
                tracing::debug!(%reason, "a client is gone");
                self.clients.remove(&token);
                self.sources.remove(&token);
            }
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        let retry = self.records_failed.then(|| Instant::now() + RETRY);
        let lease = self
            .lease_over
            .filter(|_| self.running_fenced().next().is_some());
        let clearing = self.confinement.clear_at();
        let next = [lease, self.stopping, retry, self.announce_at, clearing]
            .into_iter()
            .flatten()
            .min()?;
        // Just past the moment, lest the loop spins in front of it.
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_micros(50);
        Some(Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }

    pub(crate) fn any_running(&self) -> bool {
        self.tasks
            .values()
            .any(|t| matches!(t.phase, HeldPhase::Running(_)))
    }
}

/// After a start no task is alive: those that were are lost.
fn settle(remembered: BTreeMap<TaskKey, Remembered>) -> BTreeMap<TaskKey, Held> {
    let at_ms = now_ms();
    let lost = || ExitRecord {
        code: -1,
        at_ms,
        reason: "lost with the keeper".into(),
        node_fault: true,
    };
    remembered
        .into_iter()
        .map(|(key, task)| {
            let exit = match task {
                Remembered::Alive(_) => lost(),
                Remembered::Ended(exit) => exit,
            };
            let held = Held {
                memo: Vec::new(),
                fence: false,
                phase: HeldPhase::Ended(exit),
            };
            (key, held)
        })
        .collect()
}

fn snapshot(tasks: &BTreeMap<TaskKey, Held>) -> BTreeMap<TaskKey, Remembered> {
    let remember = |held: &Held| match &held.phase {
        HeldPhase::Running(running) => Remembered::Alive(Some((running.pid, running.boot_ms))),
        HeldPhase::Ended(exit) => Remembered::Ended(exit.clone()),
    };
    tasks
        .iter()
        .map(|(key, held)| (*key, remember(held)))
        .collect()
}

fn listen(layout: &Layout) -> Result<UnixListener, KeeperError> {
    let path = layout.keeper_socket();
    // The lock is held, so a socket that lies there is a dead keeper's.
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(KeeperError::io(format!("remove {}", path.display()))(e));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path)
        .map_err(KeeperError::io(format!("listen on {}", path.display())))?;
    listener
        .set_nonblocking(true)
        .map_err(KeeperError::io("set non-blocking"))?;
    Ok(listener)
}

fn draw_incarnation() -> Result<u64, KeeperError> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .map_err(KeeperError::io("read /dev/urandom"))?;
    Ok(u64::from_le_bytes(bytes).max(1))
}

/// The node's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
