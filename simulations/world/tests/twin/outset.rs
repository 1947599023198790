//! A cluster that is already at work.

use berth_types::{GpuShare, MILLI, NodeId, Rank, TaskPlacement};
use berth_world::twin::Outset;

use crate::lab::{Queue, cluster, job, outcome, setting, times};

fn on(node: u32) -> Vec<TaskPlacement> {
    vec![TaskPlacement {
        rank: Rank(0),
        group: 0,
        node: NodeId(node),
        gpus: vec![GpuShare {
            gpu: 0,
            milligpu: MILLI,
        }],
    }]
}

#[test]
fn what_runs_stays_where_it_is_and_the_rest_is_planned_from_then_on() {
    let jobs = vec![
        job("waits", 10, 1_000, 5),
        job("runs", 20, 1_000, 70),
        job("runs too", 30, 1_000, 50),
        job("new", 120, 1_000, 5),
    ];
    let mut setting = setting(cluster(&[1, 1]), jobs);
    let outset = Outset {
        at_ms: 100,
        placed: vec![(1, on(1)), (2, on(2))],
        drained: Vec::new(),
    };
    setting.outset = Some(outset);
    setting.timeline = true;
    let found = outcome(&setting, &mut Queue).unwrap();
    assert_eq!(
        times(&found),
        [
            (Some(150), Some(155)),
            (Some(100), Some(170)),
            (Some(100), Some(150)),
            (Some(155), Some(160)),
        ]
    );
    let placed = |job: usize| found.timeline.iter().find(|s| s.job == job).unwrap().node;
    assert_eq!((placed(1), placed(2)), (0, 1));
}

#[test]
fn a_drained_node_finishes_what_it_has_and_takes_nothing_new() {
    let jobs = vec![
        job("waits", 10, 1_000, 5),
        job("runs", 20, 1_000, 70),
        job("runs too", 30, 1_000, 50),
    ];
    let mut setting = setting(cluster(&[1, 1]), jobs);
    setting.outset = Some(Outset {
        at_ms: 100,
        placed: vec![(1, on(1)), (2, on(2))],
        drained: vec!["n1".to_owned()],
    });
    let found = outcome(&setting, &mut Queue).unwrap();
    assert_eq!(
        times(&found),
        [
            (Some(170), Some(175)),
            (Some(100), Some(170)),
            (Some(100), Some(150)),
        ]
    );
}
