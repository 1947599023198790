//! A cluster in a test tube: the real state, `apply` and planner, with agents that do at once what they are told.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::apply::{CommandResult, apply};
use berth_core::command::{Bundle, ProposalTag};
use berth_core::insight::Insights;
use berth_core::planner::{Plan, PlanLimits, Planner, plan};
use berth_core::policy::{Backfill, Proposal, ProposedBundle, Rest};
use berth_core::{Command, LogEntry, State, View};
use berth_types::{
    AttemptPhase, Epoch, GpuInfo, GroupSpec, JobId, JobSpec, NodeSpec, Resources, TaskExit,
    TaskInventory, TaskKey, TaskPhase,
};

pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const START_MS: u64 = 1_000_000;

pub(crate) fn node(name: &str, gpus: u16, model: &str) -> NodeSpec {
    let gpu = |index: u16| GpuInfo {
        uuid: format!("{name}-{index}"),
        model: model.to_owned(),
        mem_bytes: 40 * GIB,
        nvlink_group: index / 4,
        numa: 0,
    };
    NodeSpec {
        name: name.to_owned(),
        address: "127.0.0.1".to_owned(),
        millicpu: 64_000,
        mem_bytes: 512 * GIB,
        gpus: (0..gpus).map(gpu).collect(),
        port_first: 20_000,
        port_count: 100,
        ..NodeSpec::default()
    }
}

pub(crate) fn group(workers: u32, milligpu: u32) -> GroupSpec {
    GroupSpec {
        name: "worker".to_owned(),
        command: vec!["train".to_owned()],
        min_workers: workers,
        max_workers: workers,
        gang: true,
        resources: Resources {
            milligpu,
            ..Resources::default()
        },
        node_labels: BTreeMap::new(),
    }
}

pub(crate) fn job(workers: u32, milligpu: u32) -> JobSpec {
    JobSpec {
        name: "job".to_owned(),
        user: "ann".to_owned(),
        groups: vec![group(workers, milligpu)],
        ..JobSpec::default()
    }
}

/// All pending jobs in order.
pub(crate) fn in_order(state: &State, backfill: Backfill) -> Proposal {
    let pending = state.pending.iter();
    Proposal {
        bundles: pending.map(|key| ProposedBundle::start(key.job)).collect(),
        backfill,
        ..Proposal::default()
    }
}

pub(crate) struct Lab {
    pub(crate) state: State,
    pub(crate) now_ms: u64,
    pub(crate) limits: PlanLimits,
    submitted: u128,
    kept: RefCell<Kept>,
}

/// Planners that have seen every round so far.
#[derive(Default)]
struct Kept {
    explaining: Planner,
    brief: Planner,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self {
            state: State::new(),
            now_ms: START_MS,
            limits: PlanLimits::default(),
            submitted: 0,
            kept: RefCell::default(),
        }
    }

    /// Commits a command; the invariants must hold afterwards.
    pub(crate) fn commit(&mut self, command: Command) -> CommandResult {
        let entry = LogEntry {
            tag: ProposalTag::default(),
            stamp_ms: self.now_ms,
            commands: vec![command],
        };
        let applied = apply(&mut self.state, 1, &entry);
        if let Err(violations) = self.state.check() {
            panic!("an invariant is broken: {violations:?}");
        }
        applied.results.into_iter().next().expect("one command")
    }

    pub(crate) fn add_node(&mut self, spec: NodeSpec) {
        let spec = Arc::new(spec);
        let result = self.commit(Command::RegisterNode {
            spec,
            incarnation: 1,
        });
        assert_eq!(result, CommandResult::Done);
    }

    pub(crate) fn submit(&mut self, spec: JobSpec) -> Result<JobId, String> {
        self.submitted += 1;
        let key = (u128::from(self.now_ms) << 80) | (7 << 76) | (2 << 62) | self.submitted;
        let hash = berth_core::codec::spec_hash(&spec);
        let spec = Arc::new(spec);
        match self.commit(Command::SubmitJob { key, hash, spec }) {
            CommandResult::Submitted { job, .. } => Ok(job),
            CommandResult::Rejected(rejection) => Err(rejection.to_string()),
            other => panic!("no answer to a submission: {other:?}"),
        }
    }

    pub(crate) fn view(&self) -> View {
        View {
            round: 1,
            seed: 1,
            now_ms: self.now_ms,
            state: self.state.clone(),
            insights: Insights::new(),
            pools: Arc::default(),
            telemetry: Default::default(),
        }
    }

    /// A plan by a planner that has seen nothing. One that has seen everything, and one that explains nothing, must
    /// decide the same.
    pub(crate) fn plan(&self, proposal: &Proposal) -> Plan {
        let view = self.view();
        let fresh = plan(&view, proposal, &self.limits);
        let kept = &mut *self.kept.borrow_mut();
        let explained = kept.explaining.plan(&view, proposal, &self.limits);
        assert_eq!(
            explained, fresh,
            "a planner remembers something that matters"
        );
        let limits = PlanLimits {
            explain: false,
            ..self.limits.clone()
        };
        let brief = kept.brief.plan(&view, proposal, &limits);
        assert_eq!(
            decisions(&brief),
            decisions(&fresh),
            "explaining changes decisions"
        );
        fresh
    }

    /// The plan of all pending jobs in order is the same if they are not named one by one, explained or not.
    pub(crate) fn says_the_same_in_turn(&self, backfill: Backfill, named: &Plan) {
        let proposal = Proposal {
            rest: Rest::InTurn,
            backfill,
            ..Proposal::default()
        };
        for explain in [true, false] {
            let limits = PlanLimits {
                explain,
                ..self.limits.clone()
            };
            let in_turn = plan(&self.view(), &proposal, &limits);
            assert_eq!(in_turn.bundles.len(), named.bundles.len());
            for (a, b) in in_turn.bundles.iter().zip(&named.bundles) {
                assert_eq!(a.evictions, b.evictions);
                let starts = |bundle: &Bundle| -> Vec<_> {
                    let starts = bundle.starts.iter();
                    starts
                        .map(|s| (s.job, s.epoch, s.placements.clone(), s.master_port))
                        .collect()
                };
                assert_eq!(starts(a), starts(b), "explained: {explain}");
            }
            let jobs = |plan: &Plan| -> Vec<JobId> { plan.rejects.iter().map(|r| r.0).collect() };
            assert_eq!(jobs(&in_turn), jobs(named));
            assert_eq!(in_turn.wake_ms, named.wake_ms);
        }
    }

    /// Commits a plan: every bundle must be accepted, since nothing happened in between.
    pub(crate) fn carry_out(&mut self, plan: &Plan) {
        for (job, reason) in &plan.rejects {
            let (job, reason) = (*job, reason.clone());
            assert_eq!(
                self.commit(Command::RejectJob { job, reason }),
                CommandResult::Done
            );
        }
        let bundles = plan.bundles.clone();
        let result = self.commit(Command::ApplyPlan { plan: 1, bundles });
        let CommandResult::Bundles(results) = result else {
            panic!("no answer to a plan: {result:?}");
        };
        for (bundle, result) in plan.bundles.iter().zip(results) {
            assert_eq!(result, Ok(()), "apply refused {bundle:#?}");
        }
    }

    /// Says that all tasks of a job's attempt run.
    pub(crate) fn run(&mut self, job: JobId) {
        let since_ms = self.now_ms;
        self.tell(job, |_| TaskInventory::Running { since_ms });
    }

    /// Says that all tasks of a job's attempt ended with this code.
    pub(crate) fn end(&mut self, job: JobId, code: i32) {
        self.exit(job, code, false);
    }

    /// Says that no task of a job's attempt could start, which is the node's fault.
    pub(crate) fn fault(&mut self, job: JobId) {
        self.exit(job, -1, true);
    }

    fn exit(&mut self, job: JobId, code: i32, node_fault: bool) {
        let at_ms = self.now_ms;
        self.tell(job, |_| {
            TaskInventory::Ended(TaskExit {
                code,
                at_ms,
                reason: String::new(),
                node_fault,
            })
        });
    }

    /// Ends the attempts that were asked to stop.
    pub(crate) fn stop_stopping(&mut self) {
        let stopping: Vec<JobId> = (self.state.active.iter())
            .filter_map(|id| self.state.job(*id))
            .filter(|job| {
                let phase = job.attempt.as_ref().map(|attempt| &attempt.phase);
                matches!(phase, Some(AttemptPhase::Stopping(_)))
            })
            .map(|job| job.id)
            .collect();
        for job in stopping {
            self.end(job, 143);
        }
    }

    fn tell(&mut self, job: JobId, says: impl Fn(Epoch) -> TaskInventory) {
        let record = Arc::clone(self.state.job(job).expect("the job is there"));
        let attempt = record.attempt.as_ref().expect("it is placed");
        for task in &attempt.tasks {
            if matches!(task.phase, TaskPhase::Ended { .. }) {
                continue;
            }
            let key = TaskKey {
                job,
                epoch: attempt.epoch,
                rank: task.placement.rank,
            };
            let tasks = vec![(key, says(attempt.epoch))];
            let node = task.placement.node;
            let result = self.commit(Command::RecordTasks { node, tasks });
            assert_eq!(result, CommandResult::Done);
        }
    }
}

/// What a plan does, without its words.
fn decisions(plan: &Plan) -> (Vec<Bundle>, Vec<JobId>, Option<u64>, [usize; 5]) {
    let mut bundles = plan.bundles.clone();
    for start in bundles.iter_mut().flat_map(|bundle| &mut bundle.starts) {
        start.because.clear();
    }
    let rejects = plan.rejects.iter().map(|(job, _)| *job).collect();
    let stats = &plan.stats;
    let counts = [
        stats.looked_at,
        stats.starts,
        stats.evictions,
        stats.backfilled,
        stats.replaced,
    ];
    (bundles, rejects, plan.wake_ms, counts)
}
