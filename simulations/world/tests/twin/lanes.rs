//! The fast lane against the full one, which has replicas, logs, disks, networks and agents.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::policy::Policy;
use berth_world::twin::{Outcome, Overhead, Rounds, Setting, TraceJob, TwinError};
use berth_world::{Latency, full_lane};

use crate::lab::{Queue, Urgent, cluster, job, outcome, setting, with};

/// Jobs of all sizes that queue up. `stretch` makes their durations longer, `salt` just different.
fn workload(count: u64, pause_ms: u64, stretch: u64, salt: u64) -> Setting {
    let drawn = |n: u64| -> TraceJob {
        let milligpu = [1_000, 2_000, 500, 1_000, 4_000, 250][(n * 7 % 6) as usize];
        let run_ms = stretch * (3_001 + n * 7_919 % 9_973) + (n + salt) * (n + salt) * 31 % 1_999;
        let key = format!("job-{n}");
        let drawn = job(&key, n * pause_ms + n * n % 211, milligpu, run_ms);
        with(drawn, |spec| {
            spec.priority = [0, 0, 0, 5, 0, 2, 0][(n % 7) as usize];
            if n.is_multiple_of(5) && milligpu <= 1_000 {
                spec.groups[0].min_workers = 3;
                spec.groups[0].max_workers = 3;
            }
        })
    };
    setting(cluster(&[4, 4, 2]), (0..count).map(drawn).collect())
}

/// Makes one worker of each gang: of a gang that ends masters hear task by task, and may plan in between, at the same
/// millisecond.
fn split_gangs(setting: &mut Setting) {
    for job in &mut Arc::make_mut(&mut setting.trace).jobs {
        *job = with(job.clone(), |spec| {
            (spec.groups[0].min_workers, spec.groups[0].max_workers) = (1, 1);
        });
    }
}

/// True if no two jobs arrive or end within one millisecond, and nobody arrives right after something else: masters let
/// arrivals gather for 20 ms after a round in which nothing fitted, and look at their clock every 50 ms.
fn has_an_order(outcome: &Outcome) -> bool {
    let arrivals = outcome.jobs.iter().map(|job| (job.submit_ms, true));
    let ends = (outcome.jobs.iter()).filter_map(|job| Some((job.end_ms?, false)));
    let events: BTreeMap<u64, bool> = arrivals.chain(ends).collect();
    let times: Vec<(u64, bool)> = events.into_iter().collect();
    let apart = |pair: &[(u64, bool)]| !pair[1].1 || pair[1].0 > pair[0].0 + 20 + 50;
    times.len() == 2 * outcome.jobs.len() && times.windows(2).all(apart)
}

type Maker = fn(u64) -> Box<dyn Policy>;

#[test]
fn without_latency_both_lanes_do_the_same() {
    let policies: [(Maker, &str); 2] = [
        (|_| Box::new(Queue), "queue"),
        (|_| Box::new(Urgent), "urgent"),
    ];
    for (policy, name) in policies {
        let mut runs = (0..1_000).map(|salt| {
            let mut setting = workload(60, 1_009, 1, salt);
            split_gangs(&mut setting);
            setting.overheads.usual = Overhead::NEVER_SAVES;
            let fast = outcome(&setting, policy(0).as_mut()).unwrap();
            (setting, fast)
        });
        let evicts = name == "urgent";
        let (setting, fast) = runs
            .find(|(_, fast)| has_an_order(fast) && (fast.evictions > 0) == evicts)
            .expect("one of them has no two things at once");
        let waited = (fast.jobs.iter()).filter(|job| job.first_start_ms > Some(job.submit_ms));
        assert!(waited.count() > 10, "{name}: nobody waits");
        let full = full_lane(&setting, 1, &Latency::default(), &policy).unwrap();
        for (job, (submit_ms, start_ms, end_ms)) in fast.jobs.iter().zip(&full.jobs) {
            let fast = (job.submit_ms, job.first_start_ms, job.end_ms);
            let full = (*submit_ms, Some(*start_ms), Some(*end_ms));
            assert_eq!(fast, full, "{name}: {}", job.key);
        }
        assert_eq!(fast.hash, full.hash, "{name}");
    }
}

#[test]
fn another_decision_is_another_hash() {
    let hash = |setting: &Setting| outcome(setting, &mut Queue).unwrap().hash;
    let first = hash(&workload(12, 1_009, 1, 0));
    assert_eq!(first, hash(&workload(12, 1_009, 1, 0)));
    assert_ne!(first, hash(&workload(12, 1_009, 1, 1)), "other ends");
    let mut other = workload(12, 1_009, 1, 0);
    Arc::make_mut(&mut other.cluster).nodes.swap(0, 2);
    assert_ne!(first, hash(&other), "other places");
}

#[test]
fn with_latency_the_average_completion_time_differs_by_less_than_a_percent() {
    let latency = Latency {
        network_ms: 2,
        flush_ms: 3,
        policy_ms: 2,
        prepare_ms: 10,
        stop_ms: 20,
    };
    let (mut fast_s, mut full_s) = (0.0, 0.0);
    for salt in 0..4 {
        // Jobs of minutes, as short as real ones get.
        let mut setting = workload(60, 40_009, 20, salt);
        setting.seed = salt;
        let fast = outcome(&setting, &mut Queue).unwrap();
        let full = full_lane(&setting, 3, &latency, &|_| Box::new(Queue)).unwrap();
        fast_s += fast.figures("", "").avg_jct_s;
        full_s += full.avg_jct_s();
    }
    assert!(
        full_s > fast_s,
        "latency costs something: {full_s} s, {fast_s} s"
    );
    assert!(full_s < 1.01 * fast_s, "{full_s} s against {fast_s} s");
}

#[test]
fn the_full_lane_refuses_what_it_does_not_do() {
    let refused = |change: fn(&mut Setting)| {
        let mut setting = workload(2, 1_009, 1, 0);
        change(&mut setting);
        let run = full_lane(&setting, 1, &Latency::default(), &|_| Box::new(Queue));
        assert!(matches!(run, Err(TwinError::FullLane(_))), "{run:?}");
    };
    refused(|setting| setting.rounds = Rounds::Every { ms: 60 });
    refused(|setting| {
        let trace = Arc::make_mut(&mut setting.trace);
        trace.jobs[1] = job("endless", 2_000, 1_000, u64::MAX);
    });
    refused(|setting| setting.faults.usual.fails_every_ms = 1_000);
    refused(|setting| setting.overheads.usual.restart_ms = 1_000);
}
