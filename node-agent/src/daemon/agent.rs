//! The core with its hands: feeds it facts and carries out its effects.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_agent_core::env::{LocalEnv, hook_env, task_env};
use berth_agent_core::{
    AgentConfig, AgentCore, Effect, HookRun, Hooks, Input, KeptPhase, KeptTask, Learned, StopSignal,
};
use berth_proto::v1;
use berth_proto::v1::agent_message::Kind;
use berth_types::{AgentReport, Isolation, NodeSpec, TaskExit, TaskKey};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::config::{Config, Health, Telemetry};
use crate::daemon::event_loop::Clock;
use crate::daemon::fence_file::FenceFile;
use crate::daemon::gpus::Gpus;
use crate::daemon::happening::{Happening, Happenings};
use crate::daemon::hooks;
use crate::daemon::logs::{Logs, Writers};
use crate::daemon::masters_file::MastersFile;
use crate::daemon::metrics::Counts;
use crate::daemon::retention::{self, Retention};
use crate::daemon::task_socket::{self, Claim, Outbox};
use crate::gpu::watch::{self as probes, News};
use crate::keeper::protocol::Request;
use crate::layout::Layout;

/// How long events wait for others before they are reported together.
const COALESCE: Duration = Duration::from_millis(1);
/// Checkpoints verified at once: hashing takes a core each.
const VERIFIERS: usize = 2;
/// What tasks inherit of the agent's own environment.
const INHERITED: [&str; 10] = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
];
/// Without a `PATH` of its own.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stream to a master.
#[derive(Debug)]
struct Session {
    id: u64,
    address: String,
    outbox: mpsc::Sender<v1::AgentMessage>,
    /// Dropped with the session, which ends the stream.
    _close: oneshot::Sender<()>,
}

/// The agent without its event sources.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) core: AgentCore,
    pub(super) layout: Layout,
    pub(super) clock: Clock,
    pub(super) out: Happenings,
    pub(super) keeper_requests: Vec<Request>,
    pub(super) inputs: VecDeque<Input>,
    pub(super) fence_file: FenceFile,
    masters_file: MastersFile,
    /// To whoever looks for a leader.
    masters: watch::Sender<Learned>,
    pub(super) verifiers: Arc<Semaphore>,
    pub(super) tasks: BTreeMap<TaskKey, Vec<Outbox>>,
    pub(super) writers: Writers,
    /// Read from a driver; none if they are declared.
    pub(super) gpus: Option<Gpus>,
    pub(super) counts: Counts,
    /// Most processes of one task.
    pub(super) task_pids: u64,
    hooks: crate::config::Hooks,
    base_env: BTreeMap<String, String>,
    pub(super) node: NodeSpec,
    pub(super) health: Health,
    session: Option<Session>,
    report: AgentReport,
    report_at: Option<Instant>,
    logs: Logs,
    retention: Option<Retention>,
    keep: (usize, Duration),
    ready: bool,
}

impl Agent {
    pub(super) fn new(
        config: Config,
        layout: Layout,
        clock: Clock,
        out: Happenings,
    ) -> std::io::Result<Self> {
        let fence_file = FenceFile::open(&layout.fence())?;
        let times = AgentConfig {
            heartbeat_ms: millis(config.heartbeat),
            lease_ms: millis(config.lease),
            hooks: Hooks {
                prolog: config.hooks.prolog.is_some(),
                epilog: config.hooks.epilog.is_some(),
            },
            ..AgentConfig::default()
        };
        let writers = Writers::default();
        let masters_file = MastersFile::new(layout.masters());
        let core =
            AgentCore::new(times, fence_file.saved(), clock.now_ms()).knowing(masters_file.read());
        let gpus = config.telemetry.is_some().then(|| Gpus::open(&layout));
        let mut node = config.node;
        if let Some(gpus) = &gpus {
            node.gpus.clone_from(&gpus.offer);
        }
        Ok(Self {
            masters: watch::Sender::new(core.masters().clone()),
            core,
            logs: Logs::new(layout.clone(), writers.clone()),
            layout,
            clock,
            out,
            keeper_requests: Vec::new(),
            inputs: VecDeque::new(),
            fence_file,
            masters_file,
            verifiers: Arc::new(Semaphore::new(VERIFIERS)),
            tasks: BTreeMap::new(),
            writers,
            gpus,
            counts: Counts::default(),
            task_pids: config.isolation.pids,
            hooks: config.hooks,
            base_env: base_env(),
            health: config.health,
            node,
            session: None,
            report: AgentReport::default(),
            report_at: None,
            retention: None,
            keep: (config.keep_tasks, config.keep_for),
            ready: false,
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where leaders said that masters listen, now and whenever they say so.
    pub(super) fn masters(&self) -> watch::Receiver<Learned> {
        self.masters.subscribe()
    }

    pub(super) fn save_masters(&mut self, learned: Learned) {
        tracing::info!(masters = ?learned.addresses, "a leader said where the masters are");
        if let Err(error) = self.masters_file.save(&learned) {
            tracing::error!(%error, "where the masters are cannot be saved");
        }
        self.masters.send_replace(learned);
    }

    /// Queues a fact; [`Agent::settle`] takes it.
    pub(super) fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
    }

    /// Gives the core every queued fact and carries out what follows from it.
    pub(super) fn settle(&mut self) {
        let mut effects = Vec::new();
        while let Some(input) = self.inputs.pop_front() {
            self.core.step(self.clock.now_ms(), input, &mut effects);
            for effect in effects.drain(..) {
                self.carry_out(effect);
            }
        }
    }

    pub(super) fn take_keeper_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.keeper_requests)
    }

    pub(super) fn on_keeper_state(&mut self, incarnation: u64, tasks: Vec<KeptTask>) {
        for task in &tasks {
            self.writers
                .set(task.key, matches!(task.phase, KeptPhase::Running { .. }));
        }
        if self.retention.is_none() {
            let held = |key| tasks.iter().any(|task| task.key == key);
            self.retention = Some(Retention::open(
                &self.layout,
                self.keep.0,
                self.keep.1,
                held,
            ));
        }
        self.feed(Input::KeeperState { incarnation, tasks });
    }

    /// How the keeper isolates tasks, and the group that has the tasks' groups.
    pub(super) fn on_isolation(&mut self, isolation: Isolation, group: String) {
        tracing::info!(%isolation, "tasks are held together by");
        if let Some(gpus) = &mut self.gpus {
            gpus.set_group(group);
        }
        self.feed(Input::Isolation(isolation));
    }

    pub(super) fn run_hook(&self, run: HookRun) {
        let mut env = self.base_env.clone();
        env.extend(hook_env(&run, &self.node.name, &self.gpu_uuids()));
        hooks::start(&self.hooks, run, env, self.out.clone());
    }

    /// Has the node checked from now on, if there is a check.
    pub(super) fn check_health(&self) {
        let mut env = self.base_env.clone();
        env.insert("BERTH_HOOK".into(), "health_check".into());
        env.insert("BERTH_NODE_NAME".into(), self.node.name.clone());
        hooks::check_health(&self.hooks, env, self.out.clone());
    }

    fn gpu_uuids(&self) -> Vec<String> {
        match &self.gpus {
            Some(gpus) => gpus.offer.iter().map(|gpu| gpu.uuid.clone()).collect(),
            None => Vec::new(),
        }
    }

    pub(super) fn on_exited(&mut self, key: TaskKey, exit: TaskExit) {
        tracing::debug!(job = %key.job, attempt = %key.epoch, rank = %key.rank, code = exit.code, reason = exit.reason, "task ended");
        self.writers.set(key, false);
        self.tasks.remove(&key);
        self.feed(Input::TaskExited { key, exit });
    }

    pub(super) fn on_hello(&mut self, claim: &Claim, outbox: Outbox) -> Result<TaskKey, String> {
        let key = claim.resolve(self.core.live())?;
        let outboxes = self.tasks.entry(key).or_default();
        outboxes.retain(|outbox| !outbox.is_closed());
        outboxes.push(outbox);
        Ok(key)
    }

    pub(super) fn tell_task(&mut self, key: TaskKey, message: &berth_agent_core::TaskMessage) {
        let line = task_socket::message_line(message, self.clock.now_ms());
        if let Some(outboxes) = self.tasks.get_mut(&key) {
            // A task that does not read misses it; the signal reaches it anyhow.
            outboxes.retain(|outbox| outbox.try_send(line.clone()).is_ok());
        }
    }

    pub(super) fn on_connected(
        &mut self,
        id: u64,
        address: String,
        outbox: mpsc::Sender<v1::AgentMessage>,
        close: oneshot::Sender<()>,
    ) {
        self.session = Some(Session {
            id,
            address,
            outbox,
            _close: close,
        });
        self.feed(Input::Connected { session: id });
    }

    pub(super) fn on_gone(&mut self, id: u64) {
        if self.session.as_ref().is_some_and(|s| s.id == id) {
            self.drop_session();
            self.feed(Input::Disconnected { session: id });
        }
    }

    /// Has the GPUs read from now on.
    pub(super) fn watch_gpus(&mut self, telemetry: Telemetry, program: PathBuf) {
        let Some(gpus) = &mut self.gpus else {
            return;
        };
        let settings = probes::Settings {
            program,
            library: telemetry.library,
            tasks_dir: self.layout.tasks(),
            interval: telemetry.interval,
            deadline: telemetry.deadline,
        };
        let out = self.out.clone();
        gpus.watched(probes::start(settings, move |news| {
            out.send(Happening::Gpus(news))
        }));
        let count = gpus.count();
        self.feed(count);
    }

    pub(super) fn look_at_gpus(&self, look: u64) {
        if let Some(gpus) = &self.gpus {
            gpus.look(look);
        }
    }

    pub(super) fn on_gpu_news(&mut self, news: News) {
        let Some(gpus) = &mut self.gpus else {
            return;
        };
        let outcome = gpus.on_news(news);
        self.inputs.extend(outcome.inputs);
        if outcome.offer_changed {
            self.node.gpus.clone_from(&gpus.offer);
            tracing::info!(gpus = self.node.gpus.len(), "the GPUs of this node are");
            // Leaders learn of it from a registration only.
            if let Some(session) = &self.session {
                let session = session.id;
                self.drop_session();
                self.feed(Input::Disconnected { session });
            }
        }
    }

    pub(super) fn connected(&self) -> bool {
        self.session.is_some()
    }

    pub(super) fn drop_session(&mut self) {
        self.session = None;
        self.logs.close_all();
        self.report = AgentReport::default();
        self.report_at = None;
    }

    fn send(&mut self, kind: Kind) {
        let Some(session) = &self.session else {
            return;
        };
        let message = v1::AgentMessage { kind: Some(kind) };
        if session.outbox.try_send(message).is_err() {
            let (id, address) = (session.id, session.address.clone());
            tracing::warn!(address, "the master takes no messages");
            self.drop_session();
            self.feed(Input::Disconnected { session: id });
        }
    }

    pub(super) fn register(
        &mut self,
        incarnation: u64,
        fence: berth_agent_core::Fence,
        inventory: &AgentReport,
    ) {
        self.report = AgentReport::default();
        self.report_at = None;
        let address = self
            .session
            .as_ref()
            .map(|s| s.address.clone())
            .unwrap_or_default();
        tracing::info!(master = address, tasks = self.core.held(), "registering");
        self.send(Kind::Register(v1::Register {
            spec: Some((&self.node).into()),
            incarnation,
            cluster_id: fence.cluster_id,
            term: fence.term,
            applied: fence.applied,
            inventory: Some(inventory.into()),
        }));
        self.tell_ready(&format!("registered with {address}"));
    }

    /// Reports soon, together with what else comes in the meantime.
    pub(super) fn report(&mut self, session: u64, report: AgentReport) {
        if self.session.as_ref().is_none_or(|s| s.id != session) {
            return;
        }
        if report.full_inventory {
            self.send_report();
            self.report = report;
            self.send_report();
        } else {
            self.report.events.extend(report.events);
            self.report_at
                .get_or_insert_with(|| Instant::now() + COALESCE);
        }
    }

    pub(super) fn report_at(&self) -> Option<Instant> {
        self.report_at
    }

    pub(super) fn send_report(&mut self) {
        if self.report_at.take().is_some() || self.report.full_inventory {
            self.counts.reports += 1;
            let report = std::mem::take(&mut self.report);
            self.send(Kind::Report((&report).into()));
        }
    }

    pub(super) fn on_read_log(&mut self, request: v1::ReadLog) {
        if let Some(session) = &self.session {
            self.logs.read(request, session.outbox.clone());
        }
    }

    pub(super) fn on_log_credit(&mut self, credit: v1::LogCredit) {
        self.logs.credit(credit.request_id, credit.bytes);
    }

    pub(super) fn on_close_log(&mut self, close: v1::CloseLog) {
        self.logs.close(close.request_id);
    }

    pub(super) fn forget(&mut self, key: TaskKey) {
        if let Some(retention) = &mut self.retention {
            retention.keep(key);
        }
        match self.keeper_requests.last_mut() {
            Some(Request::Forget { keys }) => keys.push(key),
            _ => self
                .keeper_requests
                .push(Request::Forget { keys: vec![key] }),
        }
    }

    pub(super) fn retire_directories(&mut self) {
        let due = self
            .retention
            .as_mut()
            .map(Retention::due)
            .unwrap_or_default();
        if !due.is_empty() {
            tokio::task::spawn_blocking(move || retention::delete(due));
        }
    }

    pub(super) fn tell_ready(&mut self, status: &str) {
        if !self.ready {
            self.ready = true;
            let states = [
                sd_notify::NotifyState::Ready,
                sd_notify::NotifyState::Status(status),
            ];
            // Not run by systemd: nobody to tell.
            let _ = sd_notify::notify(&states);
        }
    }

    pub(super) fn signal(&mut self, key: TaskKey, signal: StopSignal, by_node: bool) {
        let kill = signal == StopSignal::Kill;
        self.keeper_requests
            .push(Request::Signal { key, kill, by_node });
    }

    /// The whole environment of a task.
    pub(super) fn environment(
        &self,
        launch: &berth_types::LaunchTask,
        prepared: &berth_agent_core::Prepared,
    ) -> BTreeMap<String, String> {
        let local = LocalEnv {
            base: self.base_env.clone(),
            socket: self.layout.task_socket().display().to_string(),
            checkpoint_dir: prepared.checkpoint_dir.clone(),
            resume_from: prepared
                .resume
                .as_ref()
                .map(|r| r.path.clone())
                .unwrap_or_default(),
            task_dir: self.layout.task_dir(launch.key).display().to_string(),
            gpu_uuids: self.gpu_uuids(),
        };
        task_env(launch, &local)
    }

    fn carry_out(&mut self, effect: Effect) {
        super::effects::carry_out(self, effect);
    }
}

fn base_env() -> BTreeMap<String, String> {
    let inherited = INHERITED
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let mut base: BTreeMap<String, String> = inherited.collect();
    base.entry("PATH".into())
        .or_insert_with(|| DEFAULT_PATH.into());
    base
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
