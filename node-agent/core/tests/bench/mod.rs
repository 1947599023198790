//! A core on a workbench: connected to a leader that speaks with ever newer marks.

use std::collections::BTreeMap;

use berth_agent_core::{AgentConfig, AgentCore, Effect, Fence, Input, Prepared};
use berth_types::{
    Directive, Epoch, JobId, LaunchTask, LostNodeRule, Rank, TaskEvent, TaskExit, TaskInventory,
    TaskKey,
};

pub(crate) struct Bench {
    pub(crate) core: AgentCore,
    pub(crate) now_ms: u64,
    pub(crate) session: u64,
    applied: u64,
}

pub(crate) fn key(job: u64, epoch: u32, rank: u32) -> TaskKey {
    TaskKey {
        job: JobId(job),
        epoch: Epoch(epoch),
        rank: Rank(rank),
    }
}

pub(crate) fn launch(key: TaskKey) -> LaunchTask {
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
        node_names: vec!["n1".into()],
        master_addr: "127.0.0.1".into(),
        master_port: 0,
        checkpoint_dir: String::new(),
        checkpoint_keep: 2,
        resume_from: Vec::new(),
        restart_count: 0,
        lost_node: LostNodeRule::Restart,
        grace_ms: 500,
    }
}

pub(crate) fn spawned(key: TaskKey) -> Input {
    Input::Spawned {
        key,
        pid: 99,
        at_ms: 7,
    }
}

pub(crate) fn exit(key: TaskKey, code: i32) -> Input {
    let exit = TaskExit {
        code,
        at_ms: 8,
        reason: String::new(),
        node_fault: false,
    };
    Input::TaskExited { key, exit }
}

/// Everything that was reported.
pub(crate) fn events(effects: &[Effect]) -> impl Iterator<Item = &TaskEvent> {
    effects.iter().flat_map(|effect| match effect {
        Effect::Report { report, .. } => report.events.as_slice(),
        _ => &[],
    })
}

pub(crate) fn states(effects: &[Effect]) -> Vec<(TaskKey, TaskInventory)> {
    let state = |event: &TaskEvent| match event {
        TaskEvent::State(key, state) => Some((*key, state.clone())),
        _ => None,
    };
    events(effects).filter_map(state).collect()
}

impl Bench {
    pub(crate) fn connected() -> Self {
        Self::with(AgentConfig::default())
    }

    pub(crate) fn with(config: AgentConfig) -> Self {
        let mut bench = Self {
            core: AgentCore::new(config, Fence::default(), 10_000),
            now_ms: 10_000,
            session: 1,
            applied: 10,
        };
        bench.step(Input::KeeperState {
            incarnation: 1,
            tasks: Vec::new(),
        });
        let effects = bench.step(Input::Connected { session: 1 });
        assert!(matches!(&effects[..], [Effect::Register { .. }]));
        bench
    }

    pub(crate) fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.step(self.now_ms, input, &mut effects);
        effects
    }

    pub(crate) fn tick(&mut self, passed_ms: u64) -> Vec<Effect> {
        self.now_ms += passed_ms;
        self.step(Input::Tick)
    }

    /// A directive with newer marks.
    pub(crate) fn direct(&mut self, fill: impl FnOnce(&mut Directive)) -> Vec<Effect> {
        self.applied += 1;
        self.again(fill)
    }

    /// A directive with the marks of the one before.
    pub(crate) fn again(&mut self, fill: impl FnOnce(&mut Directive)) -> Vec<Effect> {
        let mut directive = Directive {
            cluster_id: 5,
            term: 1,
            applied: self.applied,
            lease_ms: 8_000,
            ..Directive::default()
        };
        fill(&mut directive);
        let session = self.session;
        self.step(Input::Directive { session, directive })
    }

    pub(crate) fn prepared(&mut self, key: TaskKey) -> Vec<Effect> {
        let result = Ok(Prepared::default());
        self.step(Input::Prepared { key, result })
    }

    pub(crate) fn run(&mut self, key: TaskKey) {
        self.run_task(launch(key));
    }

    pub(crate) fn run_task(&mut self, launch: LaunchTask) {
        let key = launch.key;
        self.direct(|d| d.launch.push(launch));
        self.prepared(key);
        self.step(spawned(key));
        assert!(self.core.live().any(|live| live == key));
    }
}
