//! What goes wrong costs what it should.

use berth_types::LostNodeRule;
use berth_world::twin::{
    Interference, Neighbours, NodeFaults, Overhead, Setting, Stragglers, TraceJob,
};

use crate::lab::{Queue, cluster, job, outcome, setting, times, with};

/// One job of `run_ms` on a first node that dies about every second, with a second one that never does.
fn with_a_bad_node(run_ms: u64, rule: LostNodeRule, overhead: Overhead) -> Setting {
    let rule = |spec: &mut berth_types::JobSpec| spec.restart.on_lost_node = rule;
    let mut setting = setting(
        cluster(&[1, 2]),
        vec![with(job("a", 0, 1_000, run_ms), rule)],
    );
    let faults = NodeFaults {
        fails_every_ms: 1_000,
        repair_ms: 10,
        ..NodeFaults::default()
    };
    setting.faults.by_node.insert("n0".into(), faults);
    setting.overheads.usual = overhead;
    setting
}

#[test]
fn a_node_that_dies_costs_what_was_done_since_the_last_checkpoint() {
    let overhead = Overhead {
        restart_ms: 30,
        checkpoint_every_ms: 100,
        ..Overhead::default()
    };
    for rule in [
        LostNodeRule::Restart,
        LostNodeRule::Fence,
        LostNodeRule::Wait,
    ] {
        let outcome = outcome(&with_a_bad_node(20_000, rule, overhead), &mut Queue).unwrap();
        let a = &outcome.jobs[0];
        let lost_ms = a.ledger.lost / 1_000;
        let restarts = u64::from(a.restarts);
        assert!(restarts > 0, "{rule:?}");
        assert!(
            lost_ms > 0 && lost_ms < 100 * restarts,
            "{lost_ms} ms in {restarts} restarts"
        );
        assert_eq!(a.ledger.restart, 1_000 * 30 * restarts);
        assert_eq!(a.end_ms, Some(20_000 + 30 * restarts + lost_ms), "{rule:?}");
    }
}

#[test]
fn who_saves_all_the_time_loses_nothing_and_pays_the_restarts() {
    let overhead = Overhead {
        restart_ms: 30,
        ..Overhead::default()
    };
    let setting = with_a_bad_node(20_000, LostNodeRule::Restart, overhead);
    let outcome = outcome(&setting, &mut Queue).unwrap();
    let a = &outcome.jobs[0];
    assert_eq!((a.ledger.lost, a.ledger.useful), (0, 1_000 * 20_000));
    assert_eq!(a.end_ms, Some(20_000 + 30 * u64::from(a.restarts)));
}

#[test]
fn nodes_that_are_not_there_yet_are_waited_for() {
    let mut setting = setting(
        cluster(&[1, 1]),
        vec![job("a", 0, 1_000, 10), job("b", 0, 1_000, 10)],
    );
    setting.faults.usual = NodeFaults {
        cold: true,
        boot_ms: 500,
        ..NodeFaults::default()
    };
    let slow = NodeFaults {
        boot_ms: 800,
        ..setting.faults.usual
    };
    setting.faults.by_node.insert("n0".into(), slow);
    setting.timeline = true;
    let outcome = outcome(&setting, &mut Queue).unwrap();
    assert_eq!(
        times(&outcome),
        [(Some(500), Some(510)), (Some(510), Some(520))]
    );
    let nodes: Vec<usize> = outcome.timeline.iter().map(|span| span.node).collect();
    assert_eq!(nodes, [1, 1], "by the cluster's order, whoever came first");
}

#[test]
fn a_slow_gpu_slows_the_whole_gang_for_as_long_as_it_is_slow() {
    let gang = with(job("gang", 0, 1_000, 10_000), |spec| {
        spec.groups[0].min_workers = 2;
        spec.groups[0].max_workers = 2;
    });
    let mut setting = setting(cluster(&[1, 1]), vec![gang]);
    let sick = NodeFaults {
        degrades_every_ms: 1_000,
        degraded_ms: 1_000,
        degraded_per_mille: 500,
        ..NodeFaults::default()
    };
    setting.faults.by_node.insert("n1".into(), sick);
    let outcome = outcome(&setting, &mut Queue).unwrap();
    let end_ms = outcome.jobs[0].end_ms.unwrap();
    assert!(
        (11_000..19_000).contains(&end_ms),
        "about two thirds of full speed: {end_ms} ms"
    );
    assert_eq!(outcome.jobs[0].restarts, 0);
}

#[test]
fn neighbours_slow_each_other_while_they_are_together() {
    let jobs: Vec<TraceJob> = vec![job("a", 0, 500, 100), job("b", 40, 500, 100)];
    let mut setting = setting(cluster(&[1]), jobs);
    let half = Neighbours {
        usual: 0.5,
        ..Neighbours::default()
    };
    setting.faults.interference = Interference {
        elsewhere: half.clone(),
        ..Interference::default()
    };
    let together = outcome(&setting, &mut Queue).unwrap();
    assert_eq!(
        times(&together),
        [(Some(0), Some(160)), (Some(40), Some(200))]
    );
    let beside = ("a".to_owned(), "b".to_owned());
    let mut uneven = half;
    uneven.beside.insert(beside, 0.25);
    let interference = &mut setting.faults.interference;
    (interference.by_gpu).insert("h100".to_owned(), uneven.clone());
    let elsewhere = outcome(&setting, &mut Queue).unwrap();
    assert_eq!(elsewhere, together, "these are no h100");
    let interference = &mut setting.faults.interference;
    interference.by_gpu.insert("a100".to_owned(), uneven);
    let uneven = outcome(&setting, &mut Queue).unwrap();
    assert_eq!(
        times(&uneven),
        [(Some(0), Some(240 + 10)), (Some(40), Some(240))],
        "a does 40, then 50 beside b, then 10 alone"
    );
}

#[test]
fn a_slow_rank_slows_its_attempt() {
    let mut setting = setting(cluster(&[1]), vec![job("a", 0, 1_000, 100)]);
    setting.faults.stragglers = Stragglers {
        per_mille: 1_000,
        left_per_mille: 250,
    };
    let outcome = outcome(&setting, &mut Queue).unwrap();
    assert_eq!(outcome.jobs[0].end_ms, Some(400));
}

#[test]
fn who_waits_for_nothing_ends_the_run_though_nodes_come_and_go() {
    let mut setting = setting(cluster(&[1]), vec![job("large", 0, 9_000, 10)]);
    setting.faults.usual = NodeFaults {
        fails_every_ms: 50,
        repair_ms: 50,
        ..NodeFaults::default()
    };
    let outcome = outcome(&setting, &mut Queue).unwrap();
    assert_eq!(outcome.unfinished, 1);
}
