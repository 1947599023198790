//! What answers look like, to the letter.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_types::{
    Attempt, AttemptEnd, AttemptPhase, CheckpointRecord, Epoch, Event, GpuInfo, GpuShare,
    GroupSpec, Isolation, IsolationKind, JobId, JobSpec, JobState, JobView, MasterId, MasterInfo,
    MasterView, NodeId, NodeSpec, NodeState, NodeView, Outcome, PastAttempt, Progress, Rank,
    Resources, TaskPhase, TaskPlacement, TaskRecord, WhyView,
};

use super::*;

const T0: u64 = 1_700_000_000_000;

fn screen(format: Format) -> Screen {
    Screen {
        format,
        heading: true,
        colour: false,
    }
}

fn spec(name: &str, workers: u32) -> Arc<JobSpec> {
    Arc::new(JobSpec {
        name: name.into(),
        user: "ada".into(),
        groups: vec![GroupSpec {
            name: "worker".into(),
            command: vec!["python3".into(), "train.py".into()],
            min_workers: workers,
            max_workers: workers,
            gang: true,
            resources: Resources {
                milligpu: 500,
                millicpu: 1_000,
                mem_bytes: 1 << 30,
                ..Resources::default()
            },
            node_labels: BTreeMap::new(),
        }],
        ..JobSpec::default()
    })
}

fn pending(id: u64) -> JobView {
    JobView {
        id: JobId(id),
        spec: spec("digits", 4),
        state: JobState::Pending,
        reason: "Resources".into(),
        reason_text: "needs 2 GPUs, 1 is free".into(),
        submitted_ms: T0,
        started_ms: None,
        ended_ms: None,
        outcome: None,
        attempt: None,
        past: Vec::new(),
        restarts: 0,
        checkpoints: Vec::new(),
        progress: None,
        node_names: BTreeMap::new(),
    }
}

fn running(id: u64) -> JobView {
    let task = |rank: u32, node: u32| TaskRecord {
        placement: TaskPlacement {
            rank: Rank(rank),
            group: 0,
            node: NodeId(node),
            gpus: vec![GpuShare {
                gpu: 1,
                milligpu: 500,
            }],
        },
        phase: TaskPhase::Running {
            since_ms: T0 + 1_000,
        },
    };
    let past = PastAttempt {
        epoch: Epoch(1),
        started_ms: T0,
        ended_ms: T0 + 5_000,
        end: AttemptEnd::Failed {
            rank: Rank(2),
            code: 137,
            reason: "out of memory".into(),
        },
        nodes: vec![NodeId(1), NodeId(2)],
        resumed_step: None,
    };
    let checkpoint = CheckpointRecord {
        epoch: Epoch(1),
        step: 100,
        path: "/ckpt/7/1/100".into(),
        bytes: 4_096,
        manifest_sha256: "ab".into(),
        save_ms: 12,
    };
    JobView {
        state: JobState::Running,
        reason: String::new(),
        reason_text: String::new(),
        started_ms: Some(T0),
        attempt: Some(Attempt {
            epoch: Epoch(2),
            phase: AttemptPhase::Running,
            tasks: vec![task(0, 1), task(1, 2), task(2, 3)],
            master_port: 21_000,
            started_ms: T0 + 6_000,
            resumed_step: Some(100),
            placed_because: "best fit in one rack".into(),
        }),
        past: vec![past],
        restarts: 1,
        checkpoints: vec![checkpoint],
        progress: Some(Progress {
            step: 150,
            samples: 9_600,
            loss_micros: Some(250_000),
            step_us: Some(20_000),
            at_ms: T0 + 7_000,
        }),
        node_names: (1..=3).map(|n| (NodeId(n), format!("n{n}"))).collect(),
        ..pending(id)
    }
}

fn failed(id: u64) -> JobView {
    JobView {
        state: JobState::Failed,
        reason: String::new(),
        outcome: Some(Outcome::Failed { code: 3 }),
        ended_ms: Some(T0 + 9_000),
        ..pending(id)
    }
}

#[test]
fn jobs_are_listed_as_squeue_does() {
    let jobs = [running(7), pending(42), failed(8)];
    let view = job::list(&screen(Format::Table), &jobs, None, T0 + 71_000);
    let expected = "\
JOBID  NAME    USER  QUEUE    ST  TIME  NODES  GPUS  NODELIST(REASON)
    7  digits  ada   default  R   1:05      3   1.5  n[1-3]
   42  digits  ada   default  PD  0:00      0     2  (Resources)
    8  digits  ada   default  F   0:00      0     2  (exit code 3)
";
    assert_eq!(view.text, expected);
    assert_eq!(view.names, ["7", "42", "8"]);
}

#[test]
fn without_heading_only_rows_are_left() {
    let plain = Screen {
        heading: false,
        ..screen(Format::Table)
    };
    let view = job::list(&plain, &[pending(42)], None, T0);
    assert_eq!(
        view.text,
        "42  digits  ada  default  PD  0:00  0  2  (Resources)\n"
    );
}

#[test]
fn one_job_is_shown_in_full() {
    let view = job::detail(&screen(Format::Table), &running(7), T0 + 71_000);
    let expected = "\
job:       7
name:      digits
user:      ada
queue:     default (priority 0)
state:     running
submitted: 2023-11-14T22:13:20.000Z
started:   2023-11-14T22:13:20.000Z
time:      1:05
restarts:  1 of 3
progress:  step 150, 9600 samples, loss 0.250000, 0.020 s a step
group: worker: 4 x (0.5 GPUs, 1 CPUs, 1 GiB), all or none: python3 train.py

attempt 2
phase:     running
started:   2023-11-14T22:13:26.000Z
nodes:     n[1-3]
from step: 100
placed:    best fit in one rack
RANK  NODE  GPUS   STATE
   0  n1    0.5*1  running since 2023-11-14T22:13:21.000Z
   1  n2    0.5*1  running since 2023-11-14T22:13:21.000Z
   2  n3    0.5*1  running since 2023-11-14T22:13:21.000Z

attempts before
ATTEMPT  STARTED                   TIME  FROM STEP  NODES   END
      1  2023-11-14T22:13:20.000Z  0:05          -  n[1-2]  rank 2: exit code 137, signal 9 (out of memory)

checkpoints
ATTEMPT  STEP   SIZE  SAVED IN  PATH
      1   100  4 KiB   0.012 s  /ckpt/7/1/100
";
    assert_eq!(view.text, expected);
}

/// Scripts depend on these: keys are added, never renamed.
#[test]
fn json_has_the_promised_keys_and_types() {
    let view = job::list(&screen(Format::Json), &[running(7)], Some(9), T0);
    let jobs = &view.value;
    assert_eq!(jobs["next_page_token"], "9");
    let job = &jobs["jobs"][0];
    let keys: Vec<&str> = job
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let promised = [
        "attempt",
        "ended_at",
        "gpus",
        "id",
        "name",
        "nodes",
        "outcome",
        "priority",
        "queue",
        "reason",
        "reason_text",
        "restarts",
        "started_at",
        "state",
        "step",
        "submitted_at",
        "user",
        "workers",
    ];
    assert_eq!(keys, promised);
    assert_eq!(job["id"], "7");
    assert_eq!(job["gpus"], 1.5);
    assert_eq!(job["submitted_at"], "2023-11-14T22:13:20.000Z");
    let full = job::full(&running(7));
    assert_eq!(full["current_attempt"]["tasks"][2]["node"], "n3");
    assert_eq!(full["past_attempts"][0]["end"]["exit_code"], 137);
    assert_eq!(full["past_attempts"][0]["seconds"], 5.0);
    assert_eq!(full["checkpoints"][0]["step"], 100);
    assert_eq!(full["progress"]["loss"], 0.25);
    assert_eq!(full["spec"]["restart"]["backoff_seconds"], 1.0);
}

#[test]
fn every_format_is_written() {
    let view = View {
        text: "text\n".into(),
        value: serde_json::json!({ "id": "7" }),
        names: vec!["7".into()],
    };
    for (format, expected) in [
        (Format::Table, "text\n"),
        (Format::Wide, "text\n"),
        (Format::Json, "{\n  \"id\": \"7\"\n}\n"),
        (Format::Yaml, "id: '7'\n"),
        (Format::Name, "7\n"),
    ] {
        assert_eq!(screen(format).render(&view), expected);
    }
}

#[test]
fn text_of_others_cannot_control_the_terminal() {
    let mut job = pending(1);
    Arc::make_mut(&mut job.spec).name = "\x1b[31mred\r\n".into();
    let view = job::list(&screen(Format::Table), &[job], None, T0);
    assert!(!view.text.contains('\x1b'));
    assert_eq!(view.text.lines().count(), 2);
}

fn node() -> NodeView {
    let gpu = |i: u16| GpuInfo {
        uuid: format!("SIM-{i}"),
        model: "sim".into(),
        mem_bytes: 16 << 30,
        nvlink_group: 0,
        numa: 0,
    };
    NodeView {
        id: NodeId(1),
        spec: Arc::new(NodeSpec {
            name: "n1".into(),
            address: "127.0.0.1".into(),
            millicpu: 2_000,
            mem_bytes: 8 << 30,
            gpus: vec![gpu(0), gpu(1)],
            simulated_gpus: true,
            port_first: 21_000,
            port_count: 100,
            agent_version: "0.1.0".into(),
            ..NodeSpec::default()
        }),
        state: NodeState::Draining,
        reason: "new fan".into(),
        since_ms: T0,
        used_milligpu: vec![500, 1_000],
        used_millicpu: 100,
        used_mem_bytes: 1 << 30,
        tasks: 2,
        jobs: vec![JobId(7)],
        connected: true,
        isolation: Isolation {
            kind: IsolationKind::Cgroup,
            enforced: vec!["memory".into()],
            note: String::new(),
        },
        health: Vec::new(),
        telemetry: Vec::new(),
    }
}

#[test]
fn nodes_are_listed_and_shown() {
    let view = node::list(&screen(Format::Table), &[node()]);
    let expected = "\
NODE  STATE     GPUS   MODEL              CPUS   MEMORY       TASKS  ISOLATION  REASON
n1    draining  1.5/2  2 sim (simulated)  0.1/2  1 GiB/8 GiB      2  cgroup     new fan
";
    assert_eq!(view.text, expected);
    let detail = node::detail(&screen(Format::Table), &node());
    assert!(
        detail.text.contains("gpus (simulated)\n"),
        "{}",
        detail.text
    );
    assert_eq!(detail.value["gpus"][0]["used"], 0.5);
}

#[test]
fn why_and_masters_and_events_are_shown() {
    let why = other::why(&WhyView {
        job: JobId(42),
        state: JobState::Pending,
        reason: "Resources".into(),
        text: "needs 4 GPUs on one node".into(),
        unblock: "when job 7 ends".into(),
        ahead: Some(0),
        evidence: vec!["3 nodes sim x2: 1 GPU free of 6".into()],
    });
    let expected = "\
job:         42 (pending)
because:     Resources: needs 4 GPUs on one node
would start: when job 7 ends
ahead:       none: it is the next one
  3 nodes sim x2: 1 GPU free of 6
";
    assert_eq!(why.text, expected);
    let master = MasterView {
        id: MasterId(1),
        info: MasterInfo {
            address: "127.0.0.1:7600".into(),
        },
        leader: true,
        voter: true,
        matched: 12,
        reachable: true,
    };
    let view = other::masters(&screen(Format::Table), &[master]);
    assert_eq!(
        view.text,
        "MASTER  ADDRESS         ROLE    REACHABLE  MATCHED\n     1  127.0.0.1:7600  leader  yes             12\n"
    );
    let event = Event {
        seq: 3,
        at_ms: T0,
        kind: "task.ended".into(),
        job: Some(JobId(7)),
        node: Some(NodeId(1)),
        text: "exit code 0".into(),
    };
    let names = BTreeMap::from([(NodeId(1), "n1".to_owned())]);
    assert_eq!(
        other::event(&event, &names).text,
        "2023-11-14T22:13:20.000Z  task.ended            job 7 on n1       exit code 0\n"
    );
}
