//! Stepping rules of adaptive jobs, on a made-up application whose figures come out even.

use std::sync::Arc;

use berth_core::goodput::GradientNoise;
use berth_core::insight::Configuration;
use berth_types::{JobSpec, NodeId};

use super::*;
use crate::twin::behaviour::{Behaviour, Held, HeldNode, Model, Spent, Stop};
use crate::twin::trace::{TraceJob, Truth};

/// Two epochs of 100 and 200; one worker makes 1 per second at the first batch (a step of half a second, twice as slow as
/// the profile says), two workers of a node 2 per second.
fn application() -> Arc<Application> {
    let curve = |step_s: f64, synchronise_s: f64| {
        let time = StepTime {
            step_s,
            synchronise_s,
        };
        Arc::new(Curve::new(vec![(8, time), (64, time)]))
    };
    let profile = Profile {
        gpu_model: "t4".into(),
        gpus_per_node: 4,
        nodes_most: 4,
        local_least: 8,
        local_most: 64,
        placements: [
            (vec![1], curve(0.5, 0.0)),
            (vec![2], curve(0.25, 0.05)),
            (vec![1, 1], curve(0.5, 0.3)),
        ]
        .into(),
        ..Profile::default()
    };
    // All signal, no noise: larger batches are worth nothing.
    let clear = GradientNoise {
        squared_norm: 1.0,
        variance: 0.0,
    };
    Arc::new(Application {
        name: "made up".into(),
        epochs: vec![100.0, 300.0],
        noise: vec![(16, vec![clear; 2]), (256, vec![clear; 2])],
        restart_ms: 30_000,
        believed_restart_ms: 20_000,
        slowdown: 2.0,
        profiles: vec![Arc::new(profile)],
    })
}

fn adaptive() -> Adaptive {
    Adaptive {
        application: application(),
        tuning: Tuning::PerModel,
        knowledge: Knowledge::Learned,
        asked_batch: 64,
        most_workers: 16,
        free_moves: true,
    }
}

fn begin(adaptive: Adaptive) -> Box<dyn Behaviour> {
    let model: Arc<dyn Model> = Arc::new(adaptive);
    let job = TraceJob {
        key: "one".into(),
        submit_ms: 0,
        spec: Arc::new(JobSpec::default()),
        truth: Truth::Model(Arc::clone(&model)),
    };
    model.begin(&job)
}

fn held(nodes: &[(u32, u32)]) -> Held {
    let node = |&(node, gpus): &(u32, u32)| HeldNode {
        node: NodeId(node),
        gpu_model: "t4".into(),
        speed: 1.0,
        workers: gpus,
        gpus,
    };
    Held {
        workers: vec![nodes.iter().map(|node| node.1).sum()],
        nodes: nodes.iter().map(node).collect(),
        milligpu: nodes.iter().map(|node| u64::from(node.1) * 1000).sum(),
    }
}

fn spent(useful_ms: u64, restart_ms: u64, lost_ms: u64, idle_ms: u64) -> Spent {
    Spent {
        useful_ms,
        restart_ms,
        lost_ms,
        saving_ms: 0,
        idle_ms,
    }
}

#[test]
fn a_job_loads_and_trains_to_its_end_inside_a_round() {
    let mut job = begin(adaptive());
    job.on_start(&held(&[(1, 1)]), 60_000);
    assert!(job.insight().expect("news").starting);
    for round in 2..=6 {
        assert_eq!(job.advance(round * 60_000), None);
    }
    // 30 s of loading and 300 s of training end at 390 s; the round ends at 420 s.
    let ended = job.advance(420_000).expect("over");
    assert_eq!(ended.at_ms, 390_000);
    assert_eq!(
        job.on_stop(420_000, Stop::Ended),
        spent(300_000, 30_000, 0, 30_000)
    );
}

#[test]
fn event_by_event_it_ends_at_the_same_time() {
    let mut job = begin(adaptive());
    job.on_start(&held(&[(1, 1)]), 60_000);
    let mut due = Vec::new();
    let ended = loop {
        let at_ms = job.due_ms().expect("it goes on");
        due.push(at_ms);
        if let Some(ended) = job.advance(at_ms) {
            break ended;
        }
    };
    assert_eq!(
        (ended.at_ms, due),
        (390_000, vec![90_000, 190_000, 390_000])
    );
}

#[test]
fn another_shape_costs_a_start_and_another_node_does_not() {
    let mut job = begin(adaptive());
    job.on_start(&held(&[(1, 1)]), 0);
    job.advance(60_000);
    assert_eq!(
        job.on_stop(60_000, Stop::Evicted),
        spent(30_000, 30_000, 0, 0)
    );
    job.on_start(&held(&[(2, 1)]), 60_000);
    let insight = job.insight().expect("news");
    assert_eq!((insight.starting, insight.restarts), (false, 0));
    job.advance(120_000);
    assert_eq!(job.on_stop(120_000, Stop::Evicted), spent(60_000, 0, 0, 0));
    job.on_start(&held(&[(2, 2)]), 120_000);
    let insight = job.insight().expect("news");
    assert_eq!((insight.starting, insight.restarts), (true, 1));
    job.on_stop(120_000, Stop::Evicted);
    job.on_start(&held(&[(2, 2)]), 180_000);
    assert_eq!(
        job.insight().expect("news").restarts,
        2,
        "coming back costs a start"
    );
}

#[test]
fn a_node_that_dies_throws_it_back_to_the_start_of_its_epoch() {
    let mut job = begin(adaptive());
    job.on_start(&held(&[(1, 1)]), 0);
    job.advance(180_000);
    // 150 s of training: the first epoch, and 50 s of the second.
    assert_eq!(
        job.on_stop(180_000, Stop::NodeLost),
        spent(100_000, 30_000, 50_000, 0)
    );
    job.on_start(&held(&[(1, 1)]), 180_000);
    assert_eq!(job.due_ms(), Some(210_000));
    job.advance(210_000);
    assert_eq!(job.due_ms(), Some(410_000));
}

#[test]
fn what_it_was_seen_to_do_is_published() {
    let mut job = begin(adaptive());
    let on = |nodes, workers| Configuration {
        gpu_model: "t4",
        nodes,
        workers,
    };
    let goodput = |job: &mut Box<dyn Behaviour>, at: &Configuration<'_>| {
        let insight = job.insight().expect("news");
        (
            insight.max_workers,
            insight.speed.as_ref().and_then(|speed| speed.goodput(at)),
        )
    };
    assert_eq!(goodput(&mut job, &on(1, 1)), (1, None));
    job.on_start(&held(&[(1, 1)]), 0);
    job.advance(60_000);
    let (most, one) = goodput(&mut job, &on(1, 1));
    assert_eq!(most, 2);
    // Sixteen samples in half a second, and no batch is better; the slowdown is not part of the profile.
    assert!((one.expect("seen") / 32.0 - 1.0).abs() < 0.03);
}

#[test]
fn who_knows_everything_knows_it_before_the_start() {
    let knowing = Adaptive {
        knowledge: Knowledge::True,
        ..adaptive()
    };
    let insight = begin(knowing).insight().expect("news");
    let at = |nodes, workers| {
        let speed = insight.speed.as_ref().expect("published");
        speed.goodput(&Configuration {
            gpu_model: "t4",
            nodes,
            workers,
        })
    };
    assert!((at(1, 2).expect("measured") / at(1, 1).expect("measured") - 2.0).abs() < 1e-9);
    assert_eq!(at(1, 1), at(2, 2));
    assert_eq!(at(1, 3), None);
    assert_eq!(insight.max_workers, 16);
}

#[test]
fn a_fixed_batch_is_the_one_asked_for() {
    let fixed = Adaptive {
        tuning: Tuning::Fixed,
        ..adaptive()
    };
    let insight = begin(fixed).insight().expect("news");
    let speed = insight.speed.as_ref().expect("published");
    // 64 samples of two workers are 32 each: a quarter of a second, twice as slow.
    let steps = speed.steps_per_s(&Configuration {
        gpu_model: "t4",
        nodes: 1,
        workers: 2,
    });
    assert!((steps.expect("measured") - 2.0).abs() < 1e-9);
}
