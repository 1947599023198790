//! Everything that goes onto the wire comes back the same.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use berth_proto::{DecodeError, v1};
use berth_types::api::{
    Event, JobFilter, JobView, MasterInfo, MasterView, NodeView, Progress, Request, StatusView,
    WhyView,
};
use berth_types::{
    AgentReport, Attempt, AttemptEnd, AttemptPhase, CheckpointRecord, CheckpointSpec, Directive,
    Epoch, GpuCondition, GpuDigest, GpuEvent, GpuInfo, GpuShare, GroupSpec, HealthCheck,
    HealthNote, HealthStage, HealthView, Hook, HostReport, Isolation, IsolationKind, JobId,
    JobSpec, JobState, LaunchTask, LostNodeRule, MasterId, NodeId, NodeSpec, NodeState, Outcome,
    PastAttempt, Rank, Resources, RestartSpec, TaskEvent, TaskExit, TaskInventory, TaskKey,
    TaskPhase, TaskPlacement, TaskRecord, Tombstone,
};
use prost::Message;

/// Encodes to bytes and back.
fn through<W, D>(value: &D) -> Result<D, DecodeError>
where
    W: Message + Default + for<'a> From<&'a D>,
    D: TryFrom<W, Error = DecodeError>,
{
    let bytes = W::from(value).encode_to_vec();
    D::try_from(W::decode(bytes.as_slice()).expect("just encoded"))
}

fn survives<W, D>(value: &D)
where
    W: Message + Default + for<'a> From<&'a D>,
    D: TryFrom<W, Error = DecodeError> + Debug + PartialEq,
{
    assert_eq!(through::<W, D>(value).as_ref(), Ok(value));
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn spec() -> JobSpec {
    JobSpec {
        name: "digits".into(),
        user: "ada".into(),
        queue: "night".into(),
        priority: -7,
        groups: vec![GroupSpec {
            name: "workers".into(),
            command: vec!["python3".into(), "train.py".into(), "ü".into()],
            min_workers: 2,
            max_workers: 4,
            gang: false,
            resources: Resources {
                milligpu: 500,
                millicpu: 1,
                mem_bytes: u64::MAX,
                gpu_types: vec!["a100".into()],
                gpu_mem_bytes: 1 << 40,
            },
            node_labels: map(&[("zone", "a")]),
        }],
        env: map(&[("A", ""), ("B", "1")]),
        work_dir: "/work".into(),
        checkpoint: CheckpointSpec {
            dir: "/ckpt".into(),
            keep: 1,
        },
        restart: RestartSpec {
            max_restarts: 0,
            backoff_ms: 0,
            on_lost_node: LostNodeRule::Fence,
        },
        time_limit_ms: 1,
        expected_ms: 2,
        grace_ms: 0,
        start_now: true,
        labels: map(&[("team", "vision")]),
    }
}

fn checkpoint() -> CheckpointRecord {
    CheckpointRecord {
        epoch: Epoch(2),
        step: 300,
        path: "/ckpt/2/300".into(),
        bytes: 1 << 33,
        manifest_sha256: "ab".repeat(32),
        save_ms: 12,
    }
}

fn ends() -> Vec<AttemptEnd> {
    vec![
        AttemptEnd::Completed,
        AttemptEnd::Failed {
            rank: Rank(1),
            code: -1,
            reason: "no such file".into(),
        },
        AttemptEnd::NodeLost { node: NodeId(0) },
        AttemptEnd::GpuFault {
            node: NodeId(3),
            gpu: 7,
            reason: "XID 79".into(),
        },
        AttemptEnd::NotStarted {
            reason: String::new(),
        },
        AttemptEnd::Evicted {
            reason: "a larger gang".into(),
        },
        AttemptEnd::Cancelled,
        AttemptEnd::TimedOut,
    ]
}

fn attempt(phase: AttemptPhase) -> Attempt {
    let task = |rank, phase| TaskRecord {
        placement: TaskPlacement {
            rank: Rank(rank),
            group: u16::MAX,
            node: NodeId(9),
            gpus: vec![GpuShare {
                gpu: 7,
                milligpu: 1000,
            }],
        },
        phase,
    };
    Attempt {
        epoch: Epoch(3),
        phase,
        tasks: vec![
            task(0, TaskPhase::Assigned),
            task(1, TaskPhase::Running { since_ms: 5 }),
            task(2, TaskPhase::Ended { code: -1, at_ms: 6 }),
        ],
        master_port: 65_535,
        started_ms: 4,
        resumed_step: Some(0),
        placed_because: "one node".into(),
    }
}

fn job(state: JobState) -> JobView {
    JobView {
        id: JobId(u64::MAX),
        spec: Arc::new(spec()),
        state,
        reason: "Resources".into(),
        reason_text: "waits".into(),
        submitted_ms: 1,
        started_ms: Some(0),
        ended_ms: None,
        outcome: None,
        attempt: Some(attempt(AttemptPhase::Running)),
        past: vec![],
        restarts: 1,
        checkpoints: vec![checkpoint()],
        progress: Some(Progress {
            step: 1,
            samples: 2,
            loss_micros: Some(-3),
            step_us: Some(0),
            at_ms: 4,
        }),
        node_names: [(NodeId(9), "n9".to_owned())].into(),
    }
}

#[test]
fn job_specs() {
    survives::<v1::JobSpec, _>(&spec());
    for on_lost_node in [
        LostNodeRule::Restart,
        LostNodeRule::Fence,
        LostNodeRule::Wait,
    ] {
        let restart = RestartSpec {
            on_lost_node,
            ..RestartSpec::default()
        };
        survives::<v1::JobSpec, _>(&JobSpec { restart, ..spec() });
    }
}

#[test]
fn an_absent_field_is_its_default() {
    let wire = v1::JobSpec {
        groups: vec![v1::GroupSpec {
            min_workers: 3,
            ..v1::GroupSpec::default()
        }],
        ..v1::JobSpec::default()
    };
    let spec = JobSpec::try_from(wire).expect("nothing is malformed");
    assert_eq!(
        JobSpec {
            groups: vec![],
            ..spec.clone()
        },
        JobSpec::default()
    );
    assert_eq!((spec.groups[0].max_workers, spec.groups[0].gang), (3, true));
}

#[test]
fn jobs_in_every_state() {
    use JobState::*;
    for state in [
        Pending, Starting, Running, Stopping, Fencing, Completed, Failed, Cancelled, TimedOut,
    ] {
        survives::<v1::Job, _>(&job(state));
    }
    let outcomes = [
        Outcome::Completed,
        Outcome::Failed { code: 137 },
        Outcome::Failed { code: -1 },
        Outcome::Cancelled,
        Outcome::TimedOut,
        Outcome::NodeLost,
        Outcome::Rejected,
    ];
    for outcome in outcomes {
        let (outcome, attempt, progress) = (Some(outcome), None, None);
        survives::<v1::Job, _>(&JobView {
            outcome,
            attempt,
            progress,
            ..job(Failed)
        });
    }
}

#[test]
fn attempts_in_every_phase_and_with_every_end() {
    survives::<v1::Attempt, _>(&attempt(AttemptPhase::Starting));
    for end in ends() {
        survives::<v1::Attempt, _>(&attempt(AttemptPhase::Stopping(end.clone())));
        survives::<v1::PastAttempt, _>(&PastAttempt {
            epoch: Epoch(1),
            started_ms: 2,
            ended_ms: 3,
            end,
            nodes: vec![NodeId(1), NodeId(1)],
            resumed_step: None,
        });
    }
}

fn node_spec() -> NodeSpec {
    NodeSpec {
        name: "n1".into(),
        address: "127.0.0.1".into(),
        labels: map(&[("gpu", "yes")]),
        rack: "r1".into(),
        millicpu: 64_000,
        mem_bytes: 1 << 40,
        gpus: vec![GpuInfo {
            uuid: "GPU-1".into(),
            model: "a100".into(),
            mem_bytes: 80 << 30,
            nvlink_group: 1,
            numa: u16::MAX,
        }],
        simulated_gpus: true,
        port_first: 65_000,
        port_count: 536,
        agent_version: "0.1.0".into(),
    }
}

#[test]
fn nodes_in_every_state() {
    survives::<v1::NodeSpec, _>(&node_spec());
    for state in [NodeState::Ready, NodeState::Draining, NodeState::Lost] {
        survives::<v1::Node, _>(&NodeView {
            id: NodeId(1),
            spec: Arc::new(node_spec()),
            state,
            reason: "kernel update".into(),
            since_ms: 1,
            used_milligpu: vec![500, 0],
            used_millicpu: 1,
            used_mem_bytes: 2,
            tasks: 3,
            jobs: vec![JobId(1), JobId(2)],
            connected: true,
            isolation: isolation(),
            health: vec![HealthView {
                gpu: Some(3),
                stage: HealthStage::Quarantined,
                score: 1_200,
                strikes: 2,
                until_ms: 9,
                by_hand: true,
                evidence: vec![HealthNote {
                    at_ms: 7,
                    text: "XID 79".into(),
                }],
                history: vec![HealthNote::default()],
            }],
            telemetry: vec![GpuDigest {
                gpu: 3,
                condition: GpuCondition::Lost,
                util_pct: Some(0),
                ..GpuDigest::default()
            }],
        });
    }
}

fn isolation() -> Isolation {
    Isolation {
        kind: IsolationKind::Cgroup,
        enforced: vec!["cpu".into(), "memory".into()],
        note: "devices are not enforced".into(),
    }
}

#[test]
fn status_and_members() {
    let master = MasterView {
        id: MasterId(2),
        info: MasterInfo {
            address: "127.0.0.1:7102".into(),
        },
        leader: true,
        voter: true,
        matched: 9,
        reachable: false,
    };
    survives::<v1::StatusResponse, _>(&StatusView {
        cluster_id: u64::MAX,
        cluster_version: 1,
        term: 2,
        applied: 3,
        masters: vec![master],
        jobs: [(JobState::Pending, 4), (JobState::TimedOut, 5)].into(),
        nodes: (1, 2, 3),
        milligpu: (500, 8000),
        policy: "fifo".into(),
        rounds: (7, 8),
        time_ms: 9,
        alarm: "broken".into(),
    });
}

#[test]
fn events_and_reasons() {
    let event = Event {
        seq: 1,
        at_ms: 2,
        kind: "job.submitted".into(),
        job: Some(JobId(0)),
        node: None,
        text: "ada submitted digits".into(),
    };
    survives::<v1::Event, _>(&event);
    survives::<v1::Event, _>(&Event {
        job: None,
        node: Some(NodeId(3)),
        ..event
    });
    let why = WhyView {
        job: JobId(1),
        state: JobState::Pending,
        reason: "Priority".into(),
        text: "behind 3 jobs".into(),
        unblock: "job 2 ends".into(),
        ahead: Some(0),
        evidence: vec!["a".into(), "b".into()],
    };
    let back = WhyView::try_from(v1::WhyResponse::from(why.clone()));
    assert_eq!(back, Ok(why));
}

#[test]
fn directives() {
    let key = TaskKey {
        job: JobId(1),
        epoch: Epoch(2),
        rank: Rank(3),
    };
    let launch = LaunchTask {
        key,
        job_name: "digits".into(),
        user: "ada".into(),
        command: vec!["true".into()],
        env: map(&[("A", "1")]),
        work_dir: "/w".into(),
        gpus: vec![GpuShare {
            gpu: 0,
            milligpu: 250,
        }],
        millicpu: 4,
        mem_bytes: 5,
        world_size: 6,
        local_rank: 7,
        local_world_size: 8,
        node_rank: 9,
        node_names: vec!["n1".into(), "n2".into()],
        master_addr: "127.0.0.1".into(),
        master_port: 29_500,
        checkpoint_dir: "/c".into(),
        checkpoint_keep: 3,
        resume_from: vec![checkpoint()],
        restart_count: 1,
        lost_node: LostNodeRule::Wait,
        grace_ms: 10,
    };
    survives::<v1::Directive, _>(&Directive {
        cluster_id: 1,
        term: 2,
        applied: 3,
        launch: vec![launch],
        stop: vec![Tombstone {
            job: JobId(4),
            through: Epoch(5),
        }],
        forget: vec![key],
        checkpoints_recorded: vec![(JobId(6), Epoch(7), 8)],
        lease_ms: 9,
        masters: vec!["127.0.0.1:1".into(), "127.0.0.1:2".into()],
        checks: vec![
            HealthCheck {
                gpu: Some(7),
                number: 2,
            },
            HealthCheck {
                gpu: None,
                number: 1,
            },
        ],
    });
    survives::<v1::Directive, _>(&Directive::default());
}

#[test]
fn reports_with_every_event() {
    let key = TaskKey {
        job: JobId(1),
        epoch: Epoch(2),
        rank: Rank(3),
    };
    let exit = TaskExit {
        code: 137,
        at_ms: 1,
        reason: "out of memory".into(),
        node_fault: true,
    };
    let events = vec![
        TaskEvent::State(key, TaskInventory::Preparing),
        TaskEvent::State(key, TaskInventory::Running { since_ms: 4 }),
        TaskEvent::State(key, TaskInventory::Ended(exit)),
        TaskEvent::Progress {
            key,
            step: 1,
            samples: 2,
            loss_micros: Some(-1),
            step_us: None,
        },
        TaskEvent::CheckpointVerified {
            job: JobId(1),
            record: checkpoint(),
        },
        TaskEvent::CheckpointDamaged {
            job: JobId(1),
            epoch: Epoch(1),
            step: 2,
            reason: "short file".into(),
        },
        TaskEvent::Host(HostReport {
            isolation: isolation(),
            unfit: Some("no InfiniBand".into()),
        }),
        TaskEvent::Host(HostReport::default()),
        TaskEvent::HookFailed {
            key,
            hook: Hook::Prolog,
            reason: "exit code 1".into(),
        },
        TaskEvent::Gpu(GpuEvent::Xid {
            gpu: 3,
            xid: 79,
            at_ms: 5,
        }),
        TaskEvent::Gpu(GpuEvent::Digests(vec![GpuDigest {
            gpu: 1,
            condition: GpuCondition::ResetRequired,
            ecc_uncorrected: Some(0),
            ..GpuDigest::default()
        }])),
        TaskEvent::Gpu(GpuEvent::Checked {
            check: HealthCheck {
                gpu: None,
                number: 9,
            },
            passed: true,
            text: "sound".into(),
        }),
    ];
    survives::<v1::AgentReport, _>(&AgentReport {
        full_inventory: true,
        events,
    });
}

#[test]
fn filters_and_submissions() {
    let filter = JobFilter {
        states: vec![JobState::Running, JobState::Failed],
        user: Some("ada".into()),
        queue: Some(String::new()),
        name_prefix: Some("dig".into()),
        id_prefix: Some("12".into()),
        finished: true,
        page_token: Some(0),
        limit: 7,
    };
    let wire = v1::ListJobsRequest::from(&filter);
    assert_eq!(Request::try_from(wire), Ok(Request::ListJobs(filter)));
    // A UUIDv7: version 7 in bits 76 to 79, variant 2 in the top bits of the lower half.
    let key = (0x0192_0000_0000_u128 << 80) | (0x7_u128 << 76) | (0b10_u128 << 62) | 42;
    let wire = v1::SubmitRequest::new(key, &spec());
    assert_eq!(
        Request::try_from(wire),
        Ok(Request::Submit {
            key,
            spec: Arc::new(spec())
        })
    );
}
