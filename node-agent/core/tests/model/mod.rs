//! A leader that keeps its word, a keeper, and the wires between them and the agent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use berth_agent_core::{
    AgentConfig, AgentCore, Effect, Fence, HookRun, Hooks, Input, KeptPhase, KeptTask,
    PrepareFault, Prepared, StopSignal, TaskMemo,
};
use berth_types::{
    Directive, Epoch, Hook, JobId, LaunchTask, LostNodeRule, Rank, TaskEvent, TaskExit, TaskKey,
    Tombstone,
};
use proptest::sample::Index;

/// Something that may happen.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    Launch { job: u64, rank: u32, newer: bool },
    Tombstone(u64),
    ForgetSome,
    Replay(Index),
    Reconnect,
    Disconnect,
    KeeperTakes,
    AgentHears,
    Prepared(bool),
    HookEnds(bool),
    ProcessEnds(Index),
    Time(u64),
    AgentRestarts(bool),
    KeeperRestarts,
}

#[derive(Clone, Debug)]
enum Process {
    Runs { pid: u32, stubborn: bool },
    Ended(TaskExit),
}

pub(crate) struct World {
    core: AgentCore,
    now_ms: u64,
    // The leader.
    applied: u64,
    epochs: BTreeMap<JobId, u32>,
    tombstones: BTreeMap<JobId, Epoch>,
    may_forget: BTreeSet<TaskKey>,
    sent: Vec<Directive>,
    accepted: Vec<Directive>,
    session: u64,
    last_inventory: Vec<TaskEvent>,
    // The agent's disk.
    fence: Fence,
    preparing: VecDeque<TaskKey>,
    hooks: Hooks,
    running_hooks: VecDeque<HookRun>,
    /// Attempts whose prolog has ended well, and whose epilog has not begun since.
    entered: BTreeSet<(JobId, Epoch)>,
    // The keeper and the wires to and from it.
    requests: VecDeque<Effect>,
    replies: VecDeque<Input>,
    processes: BTreeMap<TaskKey, (TaskMemo, Process)>,
    incarnation: u64,
    next_pid: u32,
    /// Spawned, so that nothing starts twice.
    started: BTreeSet<TaskKey>,
}

impl World {
    pub(crate) fn new(hooks: Hooks) -> Self {
        let config = AgentConfig {
            hooks,
            ..AgentConfig::default()
        };
        let mut world = Self {
            hooks,
            running_hooks: VecDeque::new(),
            entered: BTreeSet::new(),
            core: AgentCore::new(config, Fence::default(), 1_000),
            now_ms: 1_000,
            applied: 1,
            epochs: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            may_forget: BTreeSet::new(),
            sent: Vec::new(),
            accepted: Vec::new(),
            session: 0,
            last_inventory: Vec::new(),
            fence: Fence::default(),
            preparing: VecDeque::new(),
            requests: VecDeque::new(),
            replies: VecDeque::new(),
            processes: BTreeMap::new(),
            incarnation: 1,
            next_pid: 100,
            started: BTreeSet::new(),
        };
        world.tell_keeper_state();
        world
    }

    pub(crate) fn play(&mut self, step: Move) {
        match step {
            Move::Launch { job, rank, newer } => self.launch(JobId(job + 1), Rank(rank), newer),
            Move::Tombstone(job) => self.tombstone(JobId(job + 1)),
            Move::ForgetSome => {
                let ended: Vec<TaskKey> = self.recorded().into_iter().take(2).collect();
                self.forget(ended);
            }
            Move::Replay(index) => {
                if !self.sent.is_empty() {
                    let directive = index.get(&self.sent).clone();
                    let session = self.session;
                    self.step(Input::Directive { session, directive });
                }
            }
            Move::Reconnect => {
                self.session += 1;
                let session = self.session;
                self.step(Input::Connected { session });
            }
            Move::Disconnect => {
                let session = self.session;
                self.step(Input::Disconnected { session });
            }
            Move::KeeperTakes => self.keeper_takes(),
            Move::AgentHears => {
                if let Some(reply) = self.replies.pop_front() {
                    self.step(reply);
                }
            }
            Move::Prepared(well) => self.prepared(well),
            Move::HookEnds(well) => self.end_hook(well),
            Move::ProcessEnds(index) => {
                let running = self.running();
                if !running.is_empty() {
                    let key = *index.get(&running);
                    self.end(key, 0);
                }
            }
            Move::Time(passed) => {
                self.now_ms += passed;
                self.step(Input::Tick);
            }
            Move::AgentRestarts(requests_arrive) => self.restart_agent(requests_arrive),
            Move::KeeperRestarts => self.restart_keeper(),
        }
    }

    /// Everything in flight arrives, and the leader stops every job.
    pub(crate) fn heal(&mut self) {
        self.play(Move::Reconnect);
        for job in self.epochs.keys().copied().collect::<Vec<_>>() {
            self.tombstone(job);
        }
        for _ in 0..60 {
            self.drain();
            self.play(Move::Time(3_000));
        }
        // Tasks that wait for nothing any more are told too.
        self.play(Move::Reconnect);
    }

    pub(crate) fn forget_all(&mut self) {
        self.forget(self.recorded());
        self.drain();
    }

    pub(crate) fn running(&self) -> Vec<TaskKey> {
        let runs = |(key, (_, process)): (&TaskKey, &(TaskMemo, Process))| match process {
            Process::Runs { .. } => Some(*key),
            Process::Ended(_) => None,
        };
        self.processes.iter().filter_map(runs).collect()
    }

    pub(crate) fn recorded(&self) -> Vec<TaskKey> {
        let running = self.running();
        self.processes
            .keys()
            .copied()
            .filter(|key| !running.contains(key))
            .collect()
    }

    pub(crate) fn inventory(&self) -> Vec<TaskEvent> {
        self.last_inventory.clone()
    }

    pub(crate) fn held(&self) -> usize {
        self.core.held()
    }

    fn drain(&mut self) {
        while !self.requests.is_empty()
            || !self.replies.is_empty()
            || !self.preparing.is_empty()
            || !self.running_hooks.is_empty()
        {
            self.play(Move::KeeperTakes);
            self.play(Move::AgentHears);
            self.play(Move::Prepared(true));
            self.play(Move::HookEnds(true));
        }
    }

    fn end_hook(&mut self, well: bool) {
        let Some(run) = self.running_hooks.pop_front() else {
            return;
        };
        if well && run.hook == Hook::Prolog {
            self.entered.insert((run.job, run.epoch));
        }
        let result = well.then_some(()).ok_or_else(|| "exit code 1".to_owned());
        self.step(Input::HookEnded { run, result });
    }

    fn start_hook(&mut self, run: HookRun) {
        let same = |other: &HookRun| (other.job, other.epoch) == (run.job, run.epoch);
        assert!(
            !self.running_hooks.iter().any(same),
            "{run:?} runs beside another"
        );
        if run.hook == Hook::Epilog {
            self.entered.remove(&(run.job, run.epoch));
            let runs = |key: &TaskKey| (key.job, key.epoch) == (run.job, run.epoch);
            assert!(!self.running().iter().any(runs), "{run:?} before the end");
        }
        self.running_hooks.push_back(run);
    }

    fn direct(&mut self, fill: impl FnOnce(&mut Directive)) {
        self.applied += 1;
        let mut directive = Directive {
            cluster_id: 5,
            term: 1,
            applied: self.applied,
            lease_ms: 8_000,
            ..Directive::default()
        };
        fill(&mut directive);
        self.sent.push(directive.clone());
        let session = self.session;
        self.step(Input::Directive { session, directive });
    }

    fn launch(&mut self, job: JobId, rank: Rank, newer: bool) {
        let epoch = self.epochs.entry(job).or_insert(0);
        let dead = self.tombstones.get(&job).is_some_and(|t| t.0 >= *epoch);
        *epoch += u32::from(newer || dead || *epoch == 0);
        let key = TaskKey {
            job,
            epoch: Epoch(*epoch),
            rank,
        };
        // A leader launches a task only until it has its end.
        if !self.may_forget.contains(&key) {
            self.direct(|d| d.launch.push(launch_task(key)));
        }
    }

    fn tombstone(&mut self, job: JobId) {
        let Some(epoch) = self.epochs.get(&job) else {
            return;
        };
        let through = Epoch(*epoch);
        self.tombstones.insert(job, through);
        self.direct(|d| d.stop.push(Tombstone { job, through }));
    }

    fn forget(&mut self, keys: Vec<TaskKey>) {
        self.may_forget.extend(&keys);
        self.direct(|d| d.forget = keys);
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        let directive = match &input {
            Input::Directive { directive, .. } => Some(directive.clone()),
            _ => None,
        };
        self.core.step(self.now_ms, input, &mut effects);
        let refused = |e: &Effect| matches!(e, Effect::Refused { .. });
        // Accepted ones, as far as can be seen from outside: the fence stands where they put it.
        self.accepted
            .extend(directive.filter(|d| {
                self.core.fence().applied == d.applied && !effects.iter().any(refused)
            }));
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Register { inventory, .. } => self.last_inventory = inventory.events,
            Effect::SaveFence(fence) => {
                let newer = (fence.term, fence.applied) >= (self.fence.term, self.fence.applied);
                assert!(newer, "the fence never goes back");
                self.fence = fence;
            }
            Effect::Prepare { launch } => self.preparing.push_back(launch.key),
            Effect::Spawn { ref launch, .. } => {
                let key = launch.key;
                assert!(
                    !self.heard_stop(key),
                    "{key:?} starts though a tombstone has named it"
                );
                assert!(
                    !self.hooks.prolog || self.entered.contains(&(key.job, key.epoch)),
                    "{key:?} starts before its prolog has ended well"
                );
                self.requests.push_back(effect);
            }
            Effect::RunHook(run) => self.start_hook(run),
            Effect::Signal { .. } | Effect::PersistExit { .. } | Effect::Forget { .. } => {
                self.requests.push_back(effect);
            }
            Effect::Disconnect { .. }
            | Effect::Report { .. }
            | Effect::RenewLease { .. }
            | Effect::VerifyCheckpoint { .. }
            | Effect::PruneCheckpoints { .. }
            | Effect::TellTask { .. }
            | Effect::LookAtGpus { .. }
            | Effect::RunCheck { .. }
            | Effect::EndProcess { .. }
            | Effect::SaveMasters(_)
            | Effect::Refused { .. } => {}
        }
    }

    /// True if a tombstone of this task is among the directives that the agent has accepted.
    fn heard_stop(&self, key: TaskKey) -> bool {
        let names = |d: &Directive| {
            d.stop
                .iter()
                .any(|t| t.job == key.job && key.epoch <= t.through)
        };
        self.accepted.iter().any(names)
    }

    fn keeper_takes(&mut self) {
        let Some(request) = self.requests.pop_front() else {
            return;
        };
        match request {
            Effect::Spawn { launch, memo, .. } => self.spawn(launch, memo),
            Effect::Signal { key, signal, .. } => self.signal(key, signal),
            Effect::PersistExit { key, exit } => self.record(key, exit),
            Effect::Forget { key } => {
                assert!(
                    self.may_forget.contains(&key),
                    "{key:?} is forgotten unasked"
                );
                if self.recorded().contains(&key) {
                    self.processes.remove(&key);
                }
            }
            other => panic!("not for the keeper: {other:?}"),
        }
    }

    fn spawn(&mut self, launch: Arc<LaunchTask>, memo: TaskMemo) {
        let key = launch.key;
        let at_ms = self.now_ms;
        let reply = match self.processes.get(&key) {
            Some((_, Process::Runs { pid, .. })) => Input::Spawned {
                key,
                pid: *pid,
                at_ms,
            },
            Some((_, Process::Ended(exit))) => Input::TaskExited {
                key,
                exit: exit.clone(),
            },
            None => {
                let others: Vec<_> = self
                    .running()
                    .into_iter()
                    .filter(|k| k.job == key.job && k.epoch != key.epoch)
                    .collect();
                assert!(others.is_empty(), "{key:?} starts beside {others:?}");
                assert!(self.started.insert(key), "{key:?} starts twice");
                self.next_pid += 1;
                let (pid, stubborn) = (self.next_pid, self.next_pid.is_multiple_of(3));
                self.processes
                    .insert(key, (memo, Process::Runs { pid, stubborn }));
                Input::Spawned { key, pid, at_ms }
            }
        };
        self.replies.push_back(reply);
    }

    fn signal(&mut self, key: TaskKey, signal: StopSignal) {
        if let Some((_, Process::Runs { stubborn, .. })) = self.processes.get(&key)
            && (signal == StopSignal::Kill || !stubborn)
        {
            self.end(key, 143);
        }
    }

    fn record(&mut self, key: TaskKey, exit: TaskExit) {
        match self.processes.get(&key) {
            None => {
                self.processes
                    .insert(key, (TaskMemo::default(), Process::Ended(exit.clone())));
                self.replies.push_back(Input::TaskExited { key, exit });
            }
            Some((_, Process::Ended(exit))) => {
                self.replies.push_back(Input::TaskExited {
                    key,
                    exit: exit.clone(),
                });
            }
            Some((_, Process::Runs { .. })) => {}
        }
    }

    fn end(&mut self, key: TaskKey, code: i32) {
        let exit = exit(code, self.now_ms);
        if let Some((_, process)) = self.processes.get_mut(&key) {
            *process = Process::Ended(exit.clone());
        }
        self.replies.push_back(Input::TaskExited { key, exit });
    }

    fn prepared(&mut self, well: bool) {
        if let Some(key) = self.preparing.pop_front() {
            let result = match well {
                true => Ok(Prepared::default()),
                false => Err(PrepareFault::PortInUse { port: 1 }),
            };
            self.step(Input::Prepared { key, result });
        }
    }

    /// The agent dies with all that it had in mind; what it has sent to the keeper may still arrive.
    fn restart_agent(&mut self, requests_arrive: bool) {
        while requests_arrive && !self.requests.is_empty() {
            self.keeper_takes();
        }
        self.requests.clear();
        self.replies.clear();
        self.preparing.clear();
        self.running_hooks.clear();
        let config = AgentConfig {
            hooks: self.hooks,
            ..AgentConfig::default()
        };
        self.core = AgentCore::new(config, self.fence, self.now_ms);
        self.tell_keeper_state();
    }

    /// The keeper dies with its tasks; what was on the wires is lost.
    fn restart_keeper(&mut self) {
        self.requests.clear();
        self.replies.clear();
        for key in self.running() {
            let lost = exit(-1, self.now_ms);
            self.processes
                .insert(key, (TaskMemo::default(), Process::Ended(lost)));
        }
        self.incarnation += 1;
        self.tell_keeper_state();
    }

    fn tell_keeper_state(&mut self) {
        let tasks = self
            .processes
            .iter()
            .map(|(key, (memo, process))| KeptTask {
                key: *key,
                memo: memo.clone(),
                phase: match process {
                    Process::Runs { pid, .. } => KeptPhase::Running {
                        pid: *pid,
                        since_ms: 1,
                    },
                    Process::Ended(exit) => KeptPhase::Ended(exit.clone()),
                },
            })
            .collect();
        let incarnation = self.incarnation;
        self.step(Input::KeeperState { incarnation, tasks });
    }
}

fn exit(code: i32, at_ms: u64) -> TaskExit {
    TaskExit {
        code,
        at_ms,
        reason: String::new(),
        node_fault: false,
    }
}

fn launch_task(key: TaskKey) -> LaunchTask {
    LaunchTask {
        key,
        job_name: "job".into(),
        user: "u".into(),
        command: vec!["true".into()],
        env: BTreeMap::new(),
        work_dir: String::new(),
        gpus: Vec::new(),
        millicpu: 1_000,
        mem_bytes: 0,
        world_size: 2,
        local_rank: 0,
        local_world_size: 1,
        node_rank: 0,
        node_names: Vec::new(),
        master_addr: String::new(),
        master_port: 0,
        checkpoint_dir: String::new(),
        checkpoint_keep: 1,
        resume_from: Vec::new(),
        restart_count: 0,
        lost_node: match key.job.0 {
            1 => LostNodeRule::Fence,
            _ => LostNodeRule::Restart,
        },
        grace_ms: 500,
    }
}
