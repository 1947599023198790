//! Durations predicted from jobs that ended, without a look at the truth.

use std::sync::Arc;

use berth_policy::by_name;
use berth_types::{GpuInfo, GroupSpec, JobSpec, MILLI, NodeSpec, Resources};
use berth_world::twin::{
    Cluster, End, Foresight, Outcome, Rigid, Setting, Trace, TraceJob, Truth, run,
};

fn cluster() -> Cluster {
    Cluster {
        name: "one GPU".into(),
        nodes: vec![NodeSpec {
            name: "n0".into(),
            millicpu: 64_000,
            mem_bytes: 256 << 30,
            gpus: vec![GpuInfo {
                uuid: "GPU-0".into(),
                model: "a100".into(),
                mem_bytes: 40 << 30,
                nvlink_group: 0,
                numa: 0,
            }],
            ..NodeSpec::default()
        }],
        ..Cluster::default()
    }
}

fn job(key: &str, submit_ms: u64, run_ms: u64) -> TraceJob {
    let group = GroupSpec {
        name: "w".into(),
        command: vec!["train".into()],
        min_workers: 1,
        max_workers: 1,
        gang: true,
        resources: Resources {
            milligpu: MILLI,
            ..Resources::default()
        },
        node_labels: Default::default(),
    };
    TraceJob {
        key: key.into(),
        submit_ms,
        spec: Arc::new(JobSpec {
            name: key.into(),
            user: "u".into(),
            groups: vec![group],
            ..JobSpec::default()
        }),
        truth: Truth::Rigid(Rigid {
            run_ms,
            end: End::Completed,
        }),
    }
}

/// One job of each family has ended when two long ones and two short ones come.
fn trace() -> Trace {
    Trace {
        name: "families".into(),
        jobs: vec![
            job("long-0", 0, 20_000),
            job("short-0", 1, 1_000),
            job("long-1", 100_000, 20_000),
            job("long-2", 100_001, 20_000),
            job("short-1", 100_002, 1_000),
            job("short-2", 100_003, 1_000),
        ],
    }
}

fn under(policy: &str, foresight: Foresight) -> Outcome {
    let mut setting = Setting::new(Arc::new(cluster()), Arc::new(trace()));
    setting.checks = true;
    setting.foresight = foresight;
    let mut policy = by_name(policy).expect("it is a policy");
    run(&setting, &mut *policy, &mut berth_world::twin::unwatched).expect("it runs")
}

/// Keys in the order of the ends.
fn order(outcome: &Outcome) -> Vec<&str> {
    let mut jobs: Vec<_> = outcome.jobs.iter().collect();
    jobs.sort_by_key(|job| job.end_ms);
    jobs.into_iter().map(|job| job.key.as_str()).collect()
}

#[test]
fn what_was_short_before_is_taken_to_be_short_again() {
    let by_arrival = [
        "long-0", "short-0", "long-1", "long-2", "short-1", "short-2",
    ];
    let short_first = [
        "long-0", "short-0", "long-1", "short-1", "short-2", "long-2",
    ];
    let evicting = [
        "long-0", "short-0", "short-1", "short-2", "long-1", "long-2",
    ];
    for (policy, ends) in [
        ("sjf", by_arrival),
        ("srtf", by_arrival),
        ("sjf:durations=predicted", short_first),
        ("srtf:durations=predicted", short_first),
        ("srtf:preempt=yes", by_arrival),
        ("srtf:preempt=yes,durations=predicted", evicting),
    ] {
        assert_eq!(order(&under(policy, Foresight::Blind)), ends, "{policy}");
    }
}

#[test]
fn predictions_do_not_look_at_the_truth() {
    for policy in [
        "sjf:durations=predicted",
        "srtf:preempt=yes,durations=predicted",
    ] {
        let blind = under(policy, Foresight::Blind);
        assert_eq!(blind.hash, under(policy, Foresight::True).hash, "{policy}");
    }
    let known = |foresight| under("srtf:preempt=yes", foresight).hash;
    assert_ne!(known(Foresight::Blind), known(Foresight::True));
}
