//! Pools grow and shrink as plans say: after their delay, within their bounds, never under a job.

use std::collections::BTreeMap;

use berth_core::policy::{POOL_LABEL, Policy, Proposal, Rest, View};
use berth_world::twin::{Cluster, NodeFaults, PoolRules, Setting, TraceJob};
use rand_chacha::ChaCha8Rng;

use crate::lab::{cluster, job, outcome, setting, times};

/// In order, with the pool's size as it is told for a time.
struct Sized(Vec<(u64, u32)>);

impl Policy for Sized {
    fn name(&self) -> &str {
        "sized"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let pool = &view.pools[0];
        assert!(pool.nodes + pool.coming <= pool.max_nodes);
        let begun = self.0.iter().rev().find(|(at_ms, _)| *at_ms <= view.now_ms);
        let next = self.0.iter().find(|(at_ms, _)| *at_ms > view.now_ms);
        Proposal {
            rest: Rest::InTurn,
            pools: begun
                .map(|(_, size)| ("p".to_owned(), *size))
                .into_iter()
                .collect(),
            wake_ms: next.map(|(at_ms, _)| *at_ms),
            ..Proposal::default()
        }
    }
}

/// One node of one GPU, and two that can come.
fn pool(rules: PoolRules) -> Cluster {
    let mut cluster = cluster(&[1, 1, 1]);
    for node in &mut cluster.nodes {
        node.labels.insert(POOL_LABEL.to_owned(), "p".to_owned());
    }
    cluster.later = cluster.nodes.split_off(1);
    cluster.pools = vec![PoolRules {
        name: "p".to_owned(),
        boot_ms: 100,
        retry_ms: 40,
        price_per_hour: 3_600.0,
        ..rules
    }];
    cluster
}

fn of(rules: PoolRules, jobs: Vec<TraceJob>) -> Setting {
    setting(pool(rules), jobs)
}

fn three_jobs() -> Vec<TraceJob> {
    ["a", "b", "c"].map(|key| job(key, 0, 1_000, 1_000)).into()
}

#[test]
fn nodes_come_after_their_delay_and_cost_from_when_they_are_granted() {
    let setting = of(PoolRules::default(), three_jobs());
    let alone = outcome(&setting, &mut Sized(Vec::new())).unwrap();
    assert_eq!(alone.jobs[2].end_ms, Some(3_000), "nobody asked for more");
    assert_eq!((alone.nodes[0].held_ms, alone.nodes[0].granted), (3_000, 0));
    let grown = outcome(&setting, &mut Sized(vec![(0, 2)])).unwrap();
    let start = |at_ms| (Some(at_ms), Some(at_ms + 1_000));
    assert_eq!(times(&grown), [start(0), start(100), start(1_000)]);
    let used = &grown.nodes[0];
    assert_eq!((used.held_ms, used.most, used.granted), (4_000, 2, 1));
    assert_eq!(used.cost, 4.0, "at 3600 per hour");
    let beyond = outcome(&setting, &mut Sized(vec![(0, 99)])).unwrap();
    assert_eq!(times(&beyond), [start(0), start(100), start(100)]);
}

#[test]
fn a_pool_shrinks_when_nothing_runs_there() {
    let setting = of(PoolRules::default(), three_jobs());
    // The wish comes while all three run; each node goes when its job has ended.
    let mut policy = Sized(vec![(0, 3), (500, 0)]);
    let shrunk = outcome(&setting, &mut policy).unwrap();
    let start = |at_ms| (Some(at_ms), Some(at_ms + 1_000));
    assert_eq!(times(&shrunk), [start(0), start(100), start(100)]);
    assert_eq!(shrunk.evictions, 0);
    let used = &shrunk.nodes[0];
    assert_eq!((used.held_ms, used.granted), (1_000 + 2 * 1_100, 2));
    // It does not go below its least size, and what was given back can come again.
    let least = PoolRules {
        min_nodes: 1,
        ..PoolRules::default()
    };
    let mut jobs = three_jobs();
    jobs.push(job("d", 5_000, 1_000, 1_000));
    jobs.push(job("e", 5_000, 1_000, 1_000));
    let again = outcome(
        &of(least, jobs),
        &mut Sized(vec![(0, 3), (500, 0), (5_000, 2)]),
    );
    let again = again.unwrap();
    assert_eq!(times(&again)[3..], [start(5_000), start(5_100)]);
    let used = &again.nodes[0];
    assert_eq!((used.most, used.granted), (3, 3));
    // The first one was idle first, so it went first.
    assert_eq!(used.held_ms, 1_000 + 6_100 + 1_100 + 1_100);
}

#[test]
fn a_node_on_its_way_can_be_given_back() {
    let setting = of(PoolRules::default(), three_jobs());
    let outcome = outcome(&setting, &mut Sized(vec![(0, 3), (50, 1)])).unwrap();
    assert_eq!(outcome.jobs[2].end_ms, Some(3_000));
    assert_eq!(outcome.nodes[0].held_ms, 3_000 + 2 * 50);
}

#[test]
fn quota_and_chance_deny_and_are_asked_again() {
    let quota = PoolRules {
        quota_nodes: Some(2),
        ..PoolRules::default()
    };
    let limited = outcome(&of(quota, three_jobs()), &mut Sized(vec![(0, 3)])).unwrap();
    let used = &limited.nodes[0];
    assert_eq!((used.most, used.granted), (2, 1));
    assert!(used.denied > 10, "asked again every 40 ms: {}", used.denied);
    let unlucky = PoolRules {
        denied_per_mille: 700,
        ..PoolRules::default()
    };
    let mut granted_at = BTreeMap::new();
    for seed in 0..40 {
        let mut setting = of(unlucky.clone(), three_jobs());
        setting.seed = seed;
        let first = outcome(&setting, &mut Sized(vec![(0, 2)])).unwrap();
        let again = outcome(&setting, &mut Sized(vec![(0, 2)])).unwrap();
        assert_eq!(first, again);
        let begun_ms = first.jobs[1].first_start_ms.unwrap();
        if begun_ms < 1_000 {
            assert_eq!((begun_ms - 100) % 40, 0, "{begun_ms}");
        }
        *granted_at.entry(begun_ms).or_insert(0) += 1;
    }
    assert!(granted_at.len() > 3, "{granted_at:?}");
}

#[test]
fn a_node_that_dies_keeps_its_place_in_the_pool() {
    let mut setting = of(PoolRules::default(), three_jobs());
    setting.faults.usual = NodeFaults {
        fails_every_ms: 600,
        repair_ms: 50,
        ..NodeFaults::default()
    };
    for seed in 0..20 {
        setting.seed = seed;
        let mut policy = Sized(vec![(0, 3), (700, 1), (1_500, 3), (2_000, 0)]);
        let outcome = outcome(&setting, &mut policy).unwrap();
        assert!(outcome.nodes[0].most <= 3);
    }
}
