//! Each invariant can fail: a sound state, one thing broken, the code that says so.

use std::sync::Arc;

use berth_core::State;
use berth_core::state::{Fencing, Job, Node, PendingKey, Submission};
use berth_types::{
    AttemptEnd, AttemptPhase, Epoch, JobId, NodeId, Outcome, PastAttempt, Rank, TaskPhase,
};

use crate::script::Script;

/// Jobs 1 (running), 2 (evicted for 3), 3 (its place is kept), 4 (pending), 5 (fencing on n3), one finished.
fn sound() -> State {
    let mut script = Script::new();
    for line in [
        "node n1 gpus=4",
        "node n2 gpus=4",
        "node n3 gpus=4",
        "submit a workers=2",
        "submit b",
        "submit c",
        "submit d",
        "submit e rule=wait",
        "submit f",
        "start 1 n1:0 n2:0",
        "start 2 n1:1",
        "start 5 n3:0",
        "running 1 0",
        "running 1 1",
        "running 5",
        "checkpoint 1 10",
        "checkpoint 1 20",
        "evict 2 room then start 3 n1:1",
        "lost n3",
        "cancel 6",
    ] {
        script.line(line);
    }
    script.state
}

fn job(state: &mut State, id: u64) -> &mut Job {
    Arc::make_mut(state.jobs.get_mut(&JobId(id)).expect("exists"))
}

fn node(state: &mut State, id: u32) -> &mut Node {
    Arc::make_mut(state.nodes.get_mut(&NodeId(id)).expect("exists"))
}

fn phase(state: &mut State, id: u64) -> &mut AttemptPhase {
    &mut job(state, id).attempt.as_mut().expect("runs").phase
}

/// What to break, and the invariants that then do not hold.
type Case = (&'static str, fn(&mut State));

const CASES: &[Case] = &[
    ("PENDING_INDEX", |s| {
        s.pending.remove(&PendingKey {
            priority: std::cmp::Reverse(0),
            job: JobId(4),
        });
    }),
    ("ACTIVE_INDEX", |s| {
        s.active.remove(&JobId(1));
    }),
    ("PENDING_AND_ACTIVE", |s| {
        s.active.insert(JobId(4));
    }),
    ("SHAPE_INDEX", |s| s.shapes.clear()),
    ("NODE_NAMES", |s| {
        s.node_ids.remove("n1");
    }),
    ("NODE_USE", |s| node(s, 2).gpus[0].milligpu -= 1),
    ("NODE_USE", |s| node(s, 1).gpus[1].reserved = 0),
    ("NODE_USE", |s| node(s, 1).used_millicpu += 1),
    ("NODE_USE", |s| node(s, 1).used_mem_bytes += 1),
    ("NODE_USE", |s| {
        node(s, 1).jobs.remove(&JobId(1));
    }),
    ("NODE_USE", |s| {
        node(s, 1).ports.insert(7, JobId(1));
    }),
    ("GPU_OVERCOMMIT", |s| node(s, 1).gpus[0].milligpu = 1001),
    ("GPU_PROMISED", |s| *phase(s, 2) = AttemptPhase::Running),
    ("CPU_OVERCOMMIT", |s| {
        let spec = Arc::make_mut(&mut node(s, 2).spec);
        spec.millicpu = 999;
    }),
    ("MEM_OVERCOMMIT", |s| {
        let spec = Arc::make_mut(&mut node(s, 2).spec);
        spec.mem_bytes = 1;
    }),
    ("NODE_UNKNOWN", |s| {
        let attempt = job(s, 1).attempt.as_mut().expect("runs");
        attempt.tasks[1].placement.node = NodeId(77);
    }),
    ("RANKS", |s| {
        let attempt = job(s, 1).attempt.as_mut().expect("runs");
        attempt.tasks[1].placement.rank = Rank(2);
    }),
    ("GROUP_SIZE", |s| {
        job(s, 1).attempt.as_mut().expect("runs").tasks.pop();
    }),
    ("ATTEMPT_OVER", |s| {
        for task in &mut job(s, 1).attempt.as_mut().expect("runs").tasks {
            task.phase = TaskPhase::Ended { code: 0, at_ms: 0 };
        }
    }),
    ("ATTEMPT_PHASE", |s| *phase(s, 1) = AttemptPhase::Starting),
    ("JOB_ID", |s| job(s, 1).id = JobId(2)),
    ("EPOCH_CURRENT", |s| job(s, 1).epoch = Epoch(2)),
    ("EPOCH_PAST", |s| {
        let past = PastAttempt {
            epoch: Epoch(1),
            started_ms: 0,
            ended_ms: 0,
            end: AttemptEnd::Cancelled,
            nodes: Vec::new(),
            resumed_step: None,
        };
        job(s, 1).past.push(past);
    }),
    ("EPOCH_LOST", |s| job(s, 4).epoch = Epoch(1)),
    ("CHECKPOINTS", |s| job(s, 1).checkpoints.reverse()),
    ("CHECKPOINTS", |s| job(s, 1).checkpoints[0].epoch = Epoch(9)),
    ("FENCING_NODES", |s| {
        job(s, 5).fencing = Some(Fencing {
            nodes: Default::default(),
            operator_only: true,
        });
    }),
    ("FENCING_NODES", |s| job(s, 5).fencing = None),
    ("FENCING_NODES", |s| node(s, 2).lost = true),
    ("FENCING_RULE", |s| {
        let fencing = job(s, 5).fencing.as_mut().expect("waits");
        fencing.operator_only = false;
    }),
    ("PORT_MISSING", |s| {
        job(s, 1).attempt.as_mut().expect("runs").master_port = 0;
    }),
    ("PORT_TWICE", |s| {
        job(s, 2).attempt.as_mut().expect("runs").master_port = 20_001;
    }),
    ("RESERVATION_JOB", |s| {
        s.jobs.remove(&JobId(3));
    }),
    ("RESERVATION_WAITS", |s| {
        *phase(s, 2) = AttemptPhase::Running;
    }),
    ("RESERVATION_NODE", |s| node(s, 1).lost = true),
    ("KEY_JOB", |s| {
        let key = *s.submissions.keys().next().expect("some");
        let submission = Submission {
            hash: 0,
            job: JobId(99),
        };
        s.submissions.insert(key, submission);
    }),
    ("KEY_KIND", |s| {
        let submission = Submission {
            hash: 0,
            job: JobId(1),
        };
        s.submissions.insert(1, submission);
    }),
    ("NODE_NAME_TWICE", |s| {
        s.node_ids.insert("n9".into(), NodeId(1));
    }),
    ("NODE_ID", |s| node(s, 1).id = NodeId(2)),
    ("FENCED_IN_CONTACT", |s| node(s, 2).fenced = true),
    ("EVENT_GAP", |s| s.next_event += 1),
    ("EVENT_GAP", |s| {
        s.events.remove(3);
    }),
    ("JOBS_CONSERVED", |s| s.finished += 1),
    ("JOBS_CONSERVED", |s| {
        s.jobs.remove(&JobId(4));
    }),
    ("FINISHED_COUNTS", |s| {
        s.finished_by_class[berth_core::state::outcome_class(Outcome::Completed)] += 1;
    }),
];

#[test]
fn each_broken_invariant_is_found() {
    sound().check().expect("the state to break is sound");
    for (code, break_it) in CASES {
        let mut state = sound();
        break_it(&mut state);
        let violations = state.check().expect_err(code);
        let codes: Vec<&str> = violations.iter().map(|v| v.code).collect();
        assert!(
            codes.contains(code),
            "expected {code}, found {violations:#?}"
        );
    }
}
