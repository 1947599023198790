//! Start-up and the loop: whatever happened becomes facts for the core, and its effects are carried out.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_agent_core::{Input, KeptPhase, KeptTask};
use berth_proto::v1;
use berth_proto::v1::master_message::Kind;
use berth_tls::TlsError;
use berth_types::{Directive, Identity, Role};
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::config::Config;
use crate::daemon::agent::Agent;
use crate::daemon::happening::{Happening, Happenings};
use crate::daemon::master::Dialler;
use crate::daemon::metrics::{self, Snapshot};
use crate::daemon::task_socket;
use crate::daemon::watchdog::{self, Watchdog};
use crate::keeper::client::{ClientError, KeeperClient};
use crate::keeper::confinement::Groups;
use crate::keeper::protocol::{Kept, Reply};
use crate::layout::Layout;

/// How often the core hears that time has passed.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Happenings taken before their effects are sent off together.
const BATCH: usize = 512;
/// Pause before a keeper that could not be had is tried again.
const KEEPER_AGAIN: Duration = Duration::from_secs(1);
/// How long a node that never saw its GPUs waits for their driver before it registers without them.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// Told to systemd even if no master is reachable: tasks that are adopted need this agent.
const READY_AFTER: Duration = Duration::from_secs(5);

/// Why the agent cannot run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Another agent serves this directory.
    #[error("another agent already runs for {0}")]
    AlreadyRuns(PathBuf),
    /// No keeper.
    #[error("no keeper")]
    Keeper(#[from] ClientError),
    /// The certificate is missing or makes no sense.
    #[error("this node has no certificate that can be used")]
    Tls(#[from] TlsError),
    /// The certificate is somebody else's.
    #[error(
        "the certificate in tls_dir is {found}'s, and this is node {node}: join as it with `berth join`, or set `name`"
    )]
    OtherIdentity {
        /// Whose it is.
        found: Identity,
        /// This node's name.
        node: String,
    },
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

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> DaemonError {
    let what = what.into();
    move |source| DaemonError::Io { what, source }
}

/// The node's clock for the core: the wall clock at start, then counted on steadily.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    wall_ms: u64,
    start: Instant,
}

impl Clock {
    fn start() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            wall_ms: u64::try_from(since.as_millis()).unwrap_or(0),
            start: Instant::now(),
        }
    }

    /// Milliseconds since the Unix epoch; never goes back.
    pub(super) fn now_ms(&self) -> u64 {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.wall_ms.saturating_add(passed)
    }
}

/// Runs the agent until it is told to end. Tasks and keeper stay. `program` is this binary, to start a keeper with.
///
/// # Errors
/// If it cannot start.
pub async fn run(config: Config, program: PathBuf) -> Result<(), DaemonError> {
    let tls = certificate(&config)?;
    let (layout, _lock) = take_directory(&config.data_dir)?;
    let groups = config.isolation.cgroup.groups();
    let keeper = KeeperClient::connect_or_start(&layout, &program, &groups).await?;
    tracing::info!(pid = keeper.pid, tasks = keeper.tasks.len(), "keeper found");
    let (out, happenings) = Happenings::new();
    let listener = listen(&layout)?;
    tokio::spawn(task_socket::serve(listener, layout.tasks(), out.clone()));
    let (configured, silence) = (config.masters.clone(), config.silence);
    let (telemetry, metrics) = (config.telemetry.clone(), config.metrics);
    let mut agent = Agent::new(config, layout, Clock::start(), out.clone())
        .map_err(io("open the agent's files"))?;
    let (learned, first) = (agent.masters(), configured.clone());
    tokio::spawn(berth_tls::keep_fresh(tls.clone(), move || {
        let learned = learned.borrow();
        [learned.addresses.as_slice(), first.as_slice()].concat()
    }));
    let learned = agent.masters();
    let dialler = Dialler::new(configured, learned, tls, silence, keeper.incarnation);
    if let Some(telemetry) = telemetry {
        agent.watch_gpus(telemetry, program.clone());
    }
    let mut event_loop = EventLoop {
        agent,
        keeper: None,
        dialler: None,
        program,
        groups,
        watchdog: Watchdog::of_service_manager(),
        out: out.clone(),
    };
    event_loop.on_keeper(Ok(keeper));
    event_loop.agent.check_health();
    event_loop.agent.settle();
    if let Some(address) = metrics {
        tokio::spawn(metrics::serve(address, out.clone()));
    }
    event_loop.dialler = Some(dialler);
    event_loop.run(happenings).await
}

/// With `tls_dir`: this node's certificate, which masters check against its name as well.
fn certificate(config: &Config) -> Result<berth_tls::Dialler, DaemonError> {
    let Some(dir) = &config.tls_dir else {
        return Ok(berth_tls::Dialler::plain());
    };
    let dialler = berth_tls::Dialler::from_dir(dir)?;
    match dialler.leaf() {
        Some(leaf)
            if leaf.identity.role != Role::Node || leaf.identity.name != config.node.name =>
        {
            let node = config.node.name.clone();
            let found = leaf.identity;
            Err(DaemonError::OtherIdentity { found, node })
        }
        _ => Ok(dialler),
    }
}

/// Makes the data directory, and makes sure that no other agent uses it.
fn take_directory(dir: &Path) -> Result<(Layout, File), DaemonError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io(format!("make {}", dir.display())))?;
    let root = dir
        .canonicalize()
        .map_err(io(format!("find {}", dir.display())))?;
    let layout = Layout::new(root);
    let path = layout.agent_lock();
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io(format!("open {}", path.display())))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((layout, lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DaemonError::AlreadyRuns(dir.to_path_buf())),
        Err(e) => Err(io(format!("lock {}", path.display()))(e.into())),
    }
}

fn listen(layout: &Layout) -> Result<UnixListener, DaemonError> {
    let path = layout.task_socket();
    // The lock is held: what lies there is a dead agent's.
    let _ = std::fs::remove_file(&path);
    let what = || io(format!("listen on {}", path.display()));
    let listener = UnixListener::bind(&path).map_err(what())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(what())?;
    Ok(listener)
}

struct EventLoop {
    agent: Agent,
    keeper: Option<KeeperClient>,
    /// Not running yet.
    dialler: Option<Dialler>,
    program: PathBuf,
    groups: Groups,
    watchdog: Watchdog,
    out: Happenings,
}

enum Wake {
    Happened(Happening),
    Replies(Option<Vec<Reply>>),
    Tick,
    ReportDue,
    End,
}

impl EventLoop {
    async fn run(
        mut self,
        mut happenings: mpsc::UnboundedReceiver<Happening>,
    ) -> Result<(), DaemonError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(io("listen for SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(io("listen for SIGINT"))?;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let started = Instant::now();
        loop {
            let report_at = self.agent.report_at();
            let wake = tokio::select! {
                biased;
                _ = terminate.recv() => Wake::End,
                _ = interrupt.recv() => Wake::End,
                Some(happening) = happenings.recv() => Wake::Happened(happening),
                replies = next_replies(&mut self.keeper) => Wake::Replies(replies),
                _ = ticks.tick() => Wake::Tick,
                () = sleep_until(report_at.unwrap_or(started)), if report_at.is_some() => Wake::ReportDue,
            };
            match wake {
                Wake::Happened(happening) => self.on_happening(happening),
                Wake::Replies(replies) => self.on_replies(replies),
                Wake::Tick => self.on_tick(started),
                Wake::ReportDue => self.agent.send_report(),
                Wake::End => {
                    watchdog::stopping();
                    tracing::info!("agent ends; tasks and keeper stay");
                    return Ok(());
                }
            }
            for _ in 0..BATCH {
                let Ok(happening) = happenings.try_recv() else {
                    break;
                };
                self.on_happening(happening);
            }
            self.dial(started);
            self.agent.settle();
            self.send_to_keeper();
        }
    }

    /// Looks for a master, once it is known what the node offers: at once where GPUs are declared or known from before.
    fn dial(&mut self, started: Instant) {
        let known = match &self.agent.gpus {
            Some(gpus) => gpus.complete() || !gpus.offer.is_empty(),
            None => true,
        };
        if (known || started.elapsed() >= FIRST_LOOK)
            && let Some(dialler) = self.dialler.take()
        {
            tokio::spawn(dialler.run(self.out.clone()));
        }
    }

    fn on_tick(&mut self, started: Instant) {
        self.agent.counts.ticked();
        self.watchdog.turned();
        self.agent.feed(Input::Tick);
        self.agent.retire_directories();
        if started.elapsed() >= READY_AFTER {
            self.agent.tell_ready("looking for a master");
        }
        // Collects a keeper that has ended, if it was started here.
        if let Some(KeeperClient { child, .. }) = &mut self.keeper
            && child
                .as_mut()
                .is_some_and(|c| !matches!(c.try_wait(), Ok(None)))
        {
            *child = None;
        }
    }

    fn on_happening(&mut self, happening: Happening) {
        match happening {
            Happening::Fact(input) => self.agent.feed(input),
            Happening::Keeper(keeper) => self.on_keeper(*keeper),
            Happening::Connected {
                session,
                address,
                outbox,
                close,
            } => self.agent.on_connected(session, address, outbox, close),
            Happening::Said { session, message } => self.on_said(session, message),
            Happening::Gone { session } => self.agent.on_gone(session),
            Happening::Gpus(news) => self.agent.on_gpu_news(news),
            Happening::LeftoverEnded { pid, start_ticks } => {
                if let Some(gpus) = &mut self.agent.gpus {
                    gpus.on_leftover_ended(pid, start_ticks);
                }
            }
            Happening::Scrape(answer) => {
                // Who asked may have given up.
                let _ = answer.send(Snapshot::of(&self.agent));
            }
            Happening::Hello {
                claim,
                outbox,
                answer,
            } => {
                let found = self.agent.on_hello(&claim, outbox);
                // The task may have hung up already.
                let _ = answer.send(found);
            }
        }
    }

    fn on_said(&mut self, session: u64, message: v1::MasterMessage) {
        match message.kind {
            Some(Kind::Directive(directive)) => match Directive::try_from(directive) {
                Ok(directive) => self.agent.feed(Input::Directive { session, directive }),
                Err(error) => tracing::warn!(%error, "a directive cannot be understood"),
            },
            Some(Kind::ReadLog(request)) => self.agent.on_read_log(request),
            Some(Kind::LogCredit(credit)) => self.agent.on_log_credit(credit),
            Some(Kind::CloseLog(close)) => self.agent.on_close_log(close),
            // A redirect ends the stream before it comes here; anything else is of a newer master.
            Some(Kind::Redirect(_)) | None => {}
        }
    }

    fn on_replies(&mut self, replies: Option<Vec<Reply>>) {
        let Some(replies) = replies else {
            tracing::warn!("the keeper is gone");
            self.look_for_keeper(Duration::ZERO);
            return;
        };
        for reply in replies {
            match reply {
                Reply::Spawned { key, pid, at_ms } => {
                    self.agent.feed(Input::Spawned { key, pid, at_ms });
                }
                Reply::Exited { key, exit } => self.agent.on_exited(key, exit.into()),
                Reply::Hello { .. }
                | Reply::State { .. }
                | Reply::Isolation { .. }
                | Reply::Stopped => {}
            }
        }
    }

    fn look_for_keeper(&mut self, after: Duration) {
        let child = self.keeper.take().and_then(|keeper| keeper.child);
        let (layout, program) = (self.agent.layout().clone(), self.program.clone());
        let groups = self.groups.clone();
        let out = self.out.clone();
        tokio::spawn(async move {
            sleep(after).await;
            if let Some(mut child) = child {
                // It has closed its connection, so it is ending.
                let _ = tokio::task::spawn_blocking(move || child.wait()).await;
            }
            let keeper = KeeperClient::connect_or_start(&layout, &program, &groups).await;
            out.send(Happening::Keeper(Box::new(keeper)));
        });
    }

    fn on_keeper(&mut self, keeper: Result<KeeperClient, ClientError>) {
        match keeper {
            Ok(mut keeper) => {
                let tasks = std::mem::take(&mut keeper.tasks)
                    .into_iter()
                    .map(kept_task)
                    .collect();
                let incarnation = keeper.incarnation;
                let (isolation, group) = keeper.isolation.clone();
                self.agent.on_isolation(isolation, group);
                self.keeper = Some(keeper);
                self.agent.on_keeper_state(incarnation, tasks);
            }
            Err(error) => {
                tracing::error!(error = %full(&error), "no keeper: no task can start or be reported");
                self.look_for_keeper(KEEPER_AGAIN);
            }
        }
    }

    fn send_to_keeper(&mut self) {
        let requests = self.agent.take_keeper_requests();
        if requests.is_empty() {
            return;
        }
        // Without a keeper they are lost; the core compares anew when there is one.
        if let Some(keeper) = &self.keeper
            && let Err(error) = keeper.send(&requests)
        {
            tracing::error!(%error, "a request is too large for the keeper");
        }
    }
}

async fn next_replies(keeper: &mut Option<KeeperClient>) -> Option<Vec<Reply>> {
    match keeper {
        Some(keeper) => keeper.replies.recv().await,
        None => std::future::pending().await,
    }
}

fn kept_task(kept: Kept) -> KeptTask {
    let phase = match (kept.exit, kept.running) {
        (Some(exit), _) => KeptPhase::Ended(exit.into()),
        (None, running) => {
            let (pid, since_ms) = running.unwrap_or_default();
            KeptPhase::Running { pid, since_ms }
        }
    };
    KeptTask {
        key: kept.key,
        // Records of tasks that never had a process carry none.
        memo: serde_json::from_slice(&kept.memo).unwrap_or_default(),
        phase,
    }
}

/// An error with its sources.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
