//! Three replicas in one thread with disks that always work: calls, agents, rounds and membership.
//!
//! Faults are the simulator's business (`berth-world`); this holds what each input must lead to.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use berth_core::planner::{self, PlanLimits};
use berth_core::replica::{Bootstrap, PeerMessage};
use berth_core::{Action, Backfill, Effect, Input, Proposal, Replica, ReplicaConfig, View};
use berth_raft::Recovered;
use berth_types::api::{ErrorKind, JobFilter, MasterInfo, Request, Response};
use berth_types::{
    AgentReport, Directive, Epoch, GpuInfo, GroupSpec, HostReport, JobId, JobSpec, JobState,
    MasterId, NodeSpec, NodeState, Rank, Resources, TaskEvent, TaskExit, TaskInventory, TaskKey,
};

struct Fifo;

impl berth_core::policy::Policy for Fifo {
    fn name(&self) -> &str {
        "fifo"
    }

    fn propose(&mut self, view: &View, _: &mut rand_chacha::ChaCha8Rng) -> Proposal {
        let start = |key: &berth_core::state::PendingKey| berth_core::policy::ProposedBundle {
            actions: vec![Action::Start {
                job: key.job,
                workers: None,
                slots: None,
            }],
            score: 0.0,
            reason: "its turn".into(),
        };
        let bundles = view.state.pending.iter().map(start).collect();
        Proposal {
            bundles,
            backfill: Backfill::BehindReservation,
            ..Proposal::default()
        }
    }
}

/// Masters joined by perfect wires, and the agents' ends of their connections.
struct Cluster {
    replicas: BTreeMap<MasterId, Replica>,
    now_ms: u64,
    inputs: VecDeque<(MasterId, Input)>,
    replies: BTreeMap<u64, Response>,
    directives: BTreeMap<u64, Vec<Directive>>,
    closed: BTreeMap<u64, String>,
    next_id: u64,
}

impl Cluster {
    fn new(masters: u64) -> Self {
        let list: Vec<_> = (1..=masters)
            .map(|id| {
                let address = format!("127.0.0.1:{}", 7600 + id);
                (MasterId(id), MasterInfo { address })
            })
            .collect();
        let mut cluster = Cluster {
            replicas: BTreeMap::new(),
            now_ms: 1_700_000_000_000,
            inputs: VecDeque::new(),
            replies: BTreeMap::new(),
            directives: BTreeMap::new(),
            closed: BTreeMap::new(),
            next_id: 0,
        };
        for (id, _) in &list {
            let bootstrap = Some(Bootstrap {
                cluster_id: 42,
                masters: list.clone(),
            });
            cluster.add(*id, bootstrap);
        }
        cluster.run(1_000);
        cluster
    }

    fn add(&mut self, id: MasterId, bootstrap: Option<Bootstrap>) {
        let config = ReplicaConfig {
            id,
            seed: id.0,
            proposer: 1_000 + id.0,
            bootstrap,
            check_every: 1,
            ..ReplicaConfig::default()
        };
        let (replica, effects) = Replica::new(config, Recovered::default()).unwrap();
        self.replicas.insert(id, replica);
        self.carry_out(id, effects);
    }

    fn leader(&self) -> MasterId {
        let serving = self.replicas.iter().find(|(_, r)| r.is_serving());
        *serving.expect("somebody leads").0
    }

    fn follower(&self) -> MasterId {
        let following = self.replicas.iter().find(|(_, r)| !r.is_serving());
        *following.expect("somebody follows").0
    }

    /// Lets virtual time pass.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            self.now_ms += 20;
            let ids: Vec<_> = self.replicas.keys().copied().collect();
            for id in ids {
                self.inputs.push_back((id, Input::Tick));
            }
            while let Some((id, input)) = self.inputs.pop_front() {
                let Some(replica) = self.replicas.get_mut(&id) else {
                    continue;
                };
                let mut effects = Vec::new();
                replica.step(self.now_ms, input, &mut effects);
                self.carry_out(id, effects);
            }
        }
    }

    fn carry_out(&mut self, id: MasterId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist(batch) => {
                    self.inputs.push_back((id, Input::Persisted(batch.number)))
                }
                Effect::SendPeer { to, message } => {
                    let message = PeerMessage::decode(message.encode()).unwrap();
                    self.inputs
                        .push_back((to, Input::Peer { from: id, message }));
                }
                Effect::SendAgent { session, directive } => {
                    self.directives.entry(session).or_default().push(directive);
                }
                Effect::CloseAgent {
                    session, reason, ..
                } => {
                    self.closed.insert(session, reason);
                }
                Effect::AskPolicy { round, view } => {
                    let plan = planner::decide(&mut Fifo, &view, &PlanLimits::default());
                    let plan = Some(Box::new(plan));
                    self.inputs
                        .push_back((id, Input::PolicyAnswer { round, plan }));
                }
                Effect::Reply { id, response } => {
                    self.replies.insert(id, response);
                }
                Effect::Stopped(reason) => panic!("replica {id} stopped: {reason}"),
                _ => {}
            }
        }
    }

    fn call(&mut self, master: MasterId, request: Request) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.inputs
            .push_back((master, Input::Request { id, request }));
        id
    }

    fn ask(&mut self, master: MasterId, request: Request) -> Response {
        let id = self.call(master, request);
        self.run(400);
        self.replies.remove(&id).expect("an answer")
    }

    fn submit(&mut self, master: MasterId, spec: JobSpec) -> JobId {
        let key = self.key();
        match self.ask(
            master,
            Request::Submit {
                key,
                spec: Arc::new(spec),
            },
        ) {
            Response::Submitted {
                job,
                duplicate: false,
            } => job,
            other => panic!("{other:?}"),
        }
    }

    /// A UUIDv7 of this moment.
    fn key(&mut self) -> u128 {
        self.next_id += 1;
        u128::from(self.now_ms) << 80 | 7 << 76 | 2 << 62 | u128::from(self.next_id)
    }

    fn connect(
        &mut self,
        session: u64,
        name: &str,
        incarnation: u64,
        tasks: Vec<(TaskKey, TaskInventory)>,
    ) {
        let master = self.leader();
        let events = tasks
            .into_iter()
            .map(|(key, task)| TaskEvent::State(key, task))
            .collect();
        let input = Input::AgentConnected {
            session,
            spec: Arc::new(node(name)),
            incarnation,
            cluster_id: 0,
            inventory: AgentReport {
                full_inventory: true,
                events,
            },
        };
        self.inputs.push_back((master, input));
        self.run(200);
    }

    fn report(&mut self, session: u64, key: TaskKey, task: TaskInventory) {
        let events = vec![TaskEvent::State(key, task)];
        let report = AgentReport {
            full_inventory: false,
            events,
        };
        let master = self.leader();
        self.inputs
            .push_back((master, Input::AgentReport { session, report }));
        self.run(100);
    }

    fn job(&mut self, job: JobId) -> berth_types::JobView {
        let master = self.leader();
        match self.ask(master, Request::GetJob { job }) {
            Response::Job(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    fn told(&mut self, session: u64) -> Vec<Directive> {
        self.directives.remove(&session).unwrap_or_default()
    }
}

fn node(name: &str) -> NodeSpec {
    let gpu = |i: u16| GpuInfo {
        uuid: format!("{name}-{i}"),
        model: "sim".into(),
        mem_bytes: 1 << 34,
        nvlink_group: 0,
        numa: 0,
    };
    NodeSpec {
        name: name.into(),
        address: "127.0.0.1".into(),
        millicpu: 8_000,
        mem_bytes: 1 << 34,
        gpus: (0..2).map(gpu).collect(),
        simulated_gpus: true,
        port_first: 20_000,
        port_count: 100,
        ..NodeSpec::default()
    }
}

fn gang(workers: u32) -> JobSpec {
    let group = GroupSpec {
        name: "worker".into(),
        command: vec!["true".into()],
        min_workers: workers,
        max_workers: workers,
        gang: true,
        resources: Resources {
            milligpu: 1_000,
            ..Resources::default()
        },
        node_labels: BTreeMap::new(),
    };
    JobSpec {
        name: "train".into(),
        user: "ada".into(),
        groups: vec![group],
        ..JobSpec::default()
    }
}

fn running() -> TaskInventory {
    TaskInventory::Running { since_ms: 1 }
}

fn exit(code: i32) -> TaskInventory {
    TaskInventory::Ended(TaskExit {
        code,
        at_ms: 2,
        reason: String::new(),
        node_fault: false,
    })
}

fn key(job: JobId, epoch: u32, rank: u32) -> TaskKey {
    TaskKey {
        job,
        epoch: Epoch(epoch),
        rank: Rank(rank),
    }
}

#[test]
fn a_job_runs_from_submission_through_a_follower_to_its_end() {
    let mut cluster = Cluster::new(3);
    cluster.connect(1, "n1", 7, Vec::new());
    let follower = cluster.follower();
    let job = cluster.submit(follower, gang(2));
    let launched: Vec<_> = cluster.told(1).into_iter().flat_map(|d| d.launch).collect();
    assert_eq!(
        launched.iter().map(|l| l.key).collect::<Vec<_>>(),
        [key(job, 1, 0), key(job, 1, 1)]
    );
    assert!(
        launched
            .iter()
            .all(|l| l.world_size == 2 && l.master_port >= 20_000)
    );
    for rank in 0..2 {
        cluster.report(1, key(job, 1, rank), running());
    }
    assert_eq!(cluster.job(job).state, JobState::Running);
    cluster.report(1, key(job, 1, 0), exit(0));
    cluster.report(1, key(job, 1, 1), exit(0));
    let forgotten: Vec<_> = cluster.told(1).into_iter().flat_map(|d| d.forget).collect();
    assert_eq!(forgotten, [key(job, 1, 0), key(job, 1, 1)]);
    let state = cluster.replicas[&follower].state();
    assert!(state.jobs.is_empty() && state.finished_by_class == [1, 0, 0, 0]);
}

#[test]
fn the_same_key_is_the_same_job_whichever_master_is_asked() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let key = cluster.key();
    let request = Request::Submit {
        key,
        spec: Arc::new(gang(1)),
    };
    let first = cluster.ask(leader, request.clone());
    let Response::Submitted {
        job,
        duplicate: false,
    } = first
    else {
        panic!("{first:?}")
    };
    assert_eq!(
        cluster.ask(follower, request),
        Response::Submitted {
            job,
            duplicate: true
        }
    );
    let other = Request::Submit {
        key,
        spec: Arc::new(gang(2)),
    };
    let Response::Error(error) = cluster.ask(follower, other) else {
        panic!("accepted")
    };
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
}

#[test]
fn calls_survive_the_loss_of_the_leader() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let key = cluster.key();
    let submission = cluster.call(
        follower,
        Request::Submit {
            key,
            spec: Arc::new(gang(1)),
        },
    );
    // The leader dies before it hears of the call.
    cluster.replicas.remove(&leader);
    cluster.run(2_000);
    assert!(matches!(
        cluster.replies[&submission],
        Response::Submitted {
            duplicate: false,
            ..
        }
    ));
    let Response::Jobs { jobs, .. } =
        cluster.ask(follower, Request::ListJobs(JobFilter::default()))
    else {
        panic!("no list")
    };
    assert_eq!(jobs.len(), 1);
}

#[test]
fn calls_that_wait_at_followers_are_served_as_soon_as_there_is_a_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    cluster.replicas.remove(&leader);
    let followers: Vec<_> = cluster.replicas.keys().copied().collect();
    let mut calls = Vec::new();
    for follower in followers {
        let key = cluster.key();
        let spec = Arc::new(gang(1));
        calls.push(cluster.call(follower, Request::Submit { key, spec }));
    }
    while !cluster.replicas.values().any(Replica::is_serving) {
        cluster.run(20);
    }
    // Far less than a follower waits before it asks again.
    cluster.run(100);
    for call in calls {
        let reply = cluster.replies.get(&call);
        assert!(
            matches!(reply, Some(Response::Submitted { .. })),
            "{reply:?}"
        );
    }
}

#[test]
fn without_a_majority_calls_fail_as_unavailable_and_change_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    cluster.replicas.retain(|id, _| *id == leader);
    let key = cluster.key();
    let write = cluster.call(
        leader,
        Request::Submit {
            key,
            spec: Arc::new(gang(1)),
        },
    );
    let read = cluster.call(leader, Request::Status);
    cluster.run(10_000);
    for id in [write, read] {
        let Response::Error(error) = &cluster.replies[&id] else {
            panic!("answered")
        };
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }
}

#[test]
fn a_call_too_large_to_be_read_back_is_refused() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader();
    cluster.connect(1, "n1", 7, Vec::new());
    let drain = berth_types::Drain {
        reason: "x".repeat(900_000),
        evict: false,
    };
    let request = Request::SetDrain {
        name: "n1".into(),
        drain: Some(drain),
    };
    let Response::Error(error) = cluster.ask(leader, request) else {
        panic!("accepted")
    };
    assert_eq!(error.reason, "REQUEST_TOO_LARGE");
    assert!(cluster.replicas[&leader].is_serving());
}

#[test]
fn ranks_that_fail_because_a_node_died_are_not_charged_to_the_job() {
    let mut cluster = Cluster::new(1);
    cluster.connect(1, "n1", 7, Vec::new());
    cluster.connect(2, "n2", 8, Vec::new());
    let leader = cluster.leader();
    let job = cluster.submit(leader, gang(4));
    let tasks: Vec<(u64, TaskKey)> = [1, 2]
        .into_iter()
        .flat_map(|session| {
            let launches: Vec<_> = cluster
                .told(session)
                .into_iter()
                .flat_map(|d| d.launch)
                .collect();
            launches.into_iter().map(move |l| (session, l.key))
        })
        .collect();
    for (session, key) in &tasks {
        cluster.report(*session, *key, running());
    }
    // The first node dies; the ranks on the other notice at once and fail.
    cluster
        .inputs
        .push_back((leader, Input::AgentGone { session: 1 }));
    for (session, key) in tasks.iter().filter(|(session, _)| *session == 2) {
        cluster.report(*session, *key, exit(1));
    }
    for _ in 0..30 {
        let report = AgentReport::default();
        cluster
            .inputs
            .push_back((leader, Input::AgentReport { session: 2, report }));
        cluster.run(200);
    }
    let view = cluster.job(job);
    assert_eq!((view.past.len(), view.restarts), (1, 0));
    assert!(matches!(
        view.past[0].end,
        berth_types::AttemptEnd::NodeLost { .. }
    ));
}

#[test]
fn a_master_that_knows_nothing_stops_nothing() {
    let mut cluster = Cluster::new(1);
    let unknown = key(JobId(17), 3, 0);
    cluster.connect(1, "n1", 7, vec![(unknown, running())]);
    let told = cluster.told(1);
    assert!(
        !told.is_empty()
            && told
                .iter()
                .all(|d| d.stop.is_empty() && d.forget.is_empty())
    );
}

#[test]
fn superseded_tasks_are_stopped_before_a_lost_node_returns() {
    let mut cluster = Cluster::new(1);
    cluster.connect(1, "n1", 7, Vec::new());
    let leader = cluster.leader();
    let job = cluster.submit(leader, gang(1));
    cluster.report(1, key(job, 1, 0), running());
    cluster
        .inputs
        .push_back((leader, Input::AgentGone { session: 1 }));
    cluster.run(6_000);
    assert_eq!(
        cluster.job(job).state,
        JobState::Pending,
        "its only node is lost"
    );
    cluster.connect(2, "n1", 7, vec![(key(job, 1, 0), running())]);
    let stops: Vec<_> = cluster.told(2).into_iter().flat_map(|d| d.stop).collect();
    assert_eq!(
        stops.iter().map(|t| (t.job, t.through)).collect::<Vec<_>>(),
        [(job, Epoch(1))]
    );
    assert_eq!(
        cluster.job(job).state,
        JobState::Pending,
        "the old copy still runs"
    );
    cluster.report(2, key(job, 1, 0), exit(143));
    cluster.run(2_000);
    let told = cluster.told(2);
    assert!(told.iter().any(|d| d.forget == [key(job, 1, 0)]));
    assert!(
        told.iter()
            .flat_map(|d| &d.launch)
            .any(|l| l.key == key(job, 2, 0))
    );
}

#[test]
fn a_task_that_a_node_has_no_trace_of_is_not_waited_for() {
    let mut cluster = Cluster::new(1);
    cluster.connect(1, "n1", 7, Vec::new());
    let leader = cluster.leader();
    let job = cluster.submit(leader, gang(1));
    cluster.report(1, key(job, 1, 0), running());
    cluster.connect(2, "n1", 7, Vec::new());
    cluster.run(2_000);
    let view = cluster.job(job);
    assert_eq!(view.past.len(), 1, "the attempt ended");
    assert_eq!(view.restarts, 0, "and was not charged");
}

#[test]
fn a_node_out_of_contact_is_lost_within_the_timeout_and_its_job_moves() {
    let mut cluster = Cluster::new(1);
    cluster.connect(1, "n1", 7, Vec::new());
    let leader = cluster.leader();
    let job = cluster.submit(leader, gang(2));
    cluster.report(1, key(job, 1, 0), running());
    cluster.connect(2, "n2", 8, Vec::new());
    for _ in 0..30 {
        let report = AgentReport::default();
        cluster
            .inputs
            .push_back((leader, Input::AgentReport { session: 2, report }));
        cluster.run(200);
    }
    let launches: Vec<_> = cluster
        .told(2)
        .into_iter()
        .flat_map(|d| d.launch)
        .map(|l| l.key)
        .collect();
    assert_eq!(launches, [key(job, 2, 0), key(job, 2, 1)]);
}

#[test]
fn cancelling_tells_the_agent_and_ends_the_job() {
    let mut cluster = Cluster::new(1);
    cluster.connect(1, "n1", 7, Vec::new());
    let leader = cluster.leader();
    let job = cluster.submit(leader, gang(1));
    cluster.report(1, key(job, 1, 0), running());
    cluster.told(1);
    let cancel = Request::Cancel {
        job,
        user: "ada".into(),
    };
    assert!(matches!(
        cluster.ask(leader, cancel.clone()),
        Response::Done(_)
    ));
    assert!(cluster.told(1).iter().any(|d| d.stop.len() == 1));
    cluster.report(1, key(job, 1, 0), exit(143));
    let state = cluster.replicas[&leader].state();
    assert_eq!(state.finished_by_class, [0, 0, 1, 0]);
    let Response::Done(text) = cluster.ask(leader, cancel) else {
        panic!("not done")
    };
    assert!(text.contains("already"), "{text}");
    let unknown = Request::Cancel {
        job: JobId(99),
        user: "ada".into(),
    };
    assert!(
        matches!(cluster.ask(leader, unknown), Response::Error(e) if e.kind == ErrorKind::NotFound)
    );
}

#[test]
fn a_master_joins_replaces_another_and_gets_its_vote() {
    let mut cluster = Cluster::new(3);
    let (leader, old) = (cluster.leader(), cluster.follower());
    let info = MasterInfo {
        address: "127.0.0.1:7700".into(),
    };
    cluster.replicas.remove(&old);
    cluster.add(MasterId(4), None);
    let request = Request::AddMaster {
        id: MasterId(4),
        info,
        replaces: Some(old),
    };
    assert!(matches!(cluster.ask(leader, request), Response::Done(_)));
    cluster.run(4_000);
    let Response::Status(status) = cluster.ask(leader, Request::Status) else {
        panic!("no status")
    };
    let ids: Vec<_> = status.masters.iter().map(|m| (m.id.0, m.voter)).collect();
    let expected: Vec<_> = (1..=4)
        .filter(|id| *id != old.0)
        .map(|id| (id, true))
        .collect();
    assert_eq!(ids, expected);
    assert_eq!(cluster.replicas[&MasterId(4)].state().masters.len(), 3);
}

/// What agents were told of where the masters are.
fn masters_told(directives: &[Directive]) -> Vec<&[String]> {
    let said = |d: &&Directive| !d.masters.is_empty();
    directives
        .iter()
        .filter(said)
        .map(|d| d.masters.as_slice())
        .collect()
}

#[test]
fn agents_are_told_where_the_masters_are_and_when_that_changes() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    cluster.connect(1, "n1", 1, Vec::new());
    let told = cluster.told(1);
    let first = ["127.0.0.1:7601", "127.0.0.1:7602", "127.0.0.1:7603"];
    assert_eq!(masters_told(&told), [first]);
    assert!(!told[0].masters.is_empty(), "in the first directive");
    let report = AgentReport::default();
    let idle = Input::AgentReport { session: 1, report };
    cluster.inputs.push_back((leader, idle));
    cluster.run(1_000);
    let told = cluster.told(1);
    assert!(!told.is_empty());
    assert!(masters_told(&told).is_empty(), "once is enough: {told:?}");

    let request = Request::AddMaster {
        id: MasterId(4),
        info: MasterInfo {
            address: "127.0.0.1:7700".into(),
        },
        replaces: None,
    };
    cluster.add(MasterId(4), None);
    assert!(matches!(cluster.ask(leader, request), Response::Done(_)));
    let grown = [first[0], first[1], first[2], "127.0.0.1:7700"];
    assert_eq!(masters_told(&cluster.told(1)), [grown]);
    let request = Request::RemoveMaster { id: MasterId(4) };
    cluster.run(2_000);
    cluster.told(1);
    assert!(matches!(cluster.ask(leader, request), Response::Done(_)));
    assert_eq!(masters_told(&cluster.told(1)), [first]);
}

#[test]
fn a_node_that_says_it_is_unfit_drains_until_it_is_fit_or_an_operator_has_spoken() {
    let mut cluster = Cluster::new(1);
    cluster.connect(1, "n1", 7, Vec::new());
    let leader = cluster.leader();
    let say = |cluster: &mut Cluster, event: TaskEvent| {
        let report = AgentReport {
            full_inventory: false,
            events: vec![event],
        };
        let input = Input::AgentReport { session: 1, report };
        cluster.inputs.push_back((leader, input));
        cluster.run(200);
        match cluster.ask(leader, Request::ListNodes) {
            Response::Nodes(nodes) => (nodes[0].state, nodes[0].reason.clone()),
            other => panic!("{other:?}"),
        }
    };
    let host = |unfit: Option<&str>| {
        TaskEvent::Host(HostReport {
            unfit: unfit.map(str::to_owned),
            ..HostReport::default()
        })
    };
    let drain = |cluster: &mut Cluster, reason: Option<&str>| {
        let drain = reason.map(|reason| berth_types::Drain {
            reason: reason.into(),
            evict: false,
        });
        let name = "n1".into();
        cluster.ask(leader, Request::SetDrain { name, drain });
    };
    let ready = (NodeState::Ready, String::new());
    let draining = |reason: &str| (NodeState::Draining, reason.to_owned());
    assert_eq!(say(&mut cluster, host(None)), ready);
    let unfit = host(Some("ib0 is down"));
    assert_eq!(
        say(&mut cluster, unfit.clone()),
        draining("health check: ib0 is down")
    );
    assert_eq!(say(&mut cluster, host(None)), ready);
    // What an operator says meanwhile stays, whatever the words.
    say(&mut cluster, unfit.clone());
    drain(&mut cluster, Some("health check: by hand"));
    assert_eq!(say(&mut cluster, host(None)), draining("operator: by hand"));
    drain(&mut cluster, None);
    assert_eq!(say(&mut cluster, host(None)), ready);
    let hook = berth_types::Hook::Epilog;
    let (key, reason) = (key(JobId(3), 1, 0), "exit code 1".to_owned());
    let failed = TaskEvent::HookFailed { key, hook, reason };
    assert_eq!(
        say(&mut cluster, failed),
        draining("epilog of job 3: exit code 1")
    );
    assert_eq!(
        say(&mut cluster, host(None)),
        draining("epilog of job 3: exit code 1")
    );
}
