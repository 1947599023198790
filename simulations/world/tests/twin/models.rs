//! Jobs that are not rigid.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::insight::Configuration;
use berth_core::policy::{Action, Policy, Proposal, ProposedBundle, View};
use berth_world::twin::{
    Elastic, ElasticModel, Overhead, Served, Service, ServiceModel, StepTime, TraceJob, Truth,
};
use rand_chacha::ChaCha8Rng;

use crate::lab::{NewestFirst, Queue, cluster, job, outcome, setting, times, with};

/// Twice the workers do 1.6 times the work on one node, and 1.25 times the work on two.
fn elastic(key: &str, submit_ms: u64, work_ms: u64, workers: (u32, u32)) -> TraceJob {
    let steps = StepTime {
        compute_s: 1.0,
        local_s: 0.25,
        local_each_s: 0.0,
        wide_s: 0.6,
        wide_each_s: 0.0,
        overlap: 1.0,
    };
    let model = Elastic {
        work_ms,
        reference: "a100".into(),
        steps: BTreeMap::from([("a100".to_owned(), steps)]),
        overhead: Overhead {
            restart_ms: 10,
            ..Overhead::default()
        },
        is_known: true,
    };
    let mut drawn = with(job(key, submit_ms, 1_000, 0), |spec| {
        spec.groups[0].min_workers = workers.0;
        spec.groups[0].max_workers = workers.1;
    });
    drawn.truth = Truth::Model(Arc::new(ElasticModel(Arc::new(model))));
    drawn
}

#[test]
fn throughput_follows_workers_and_nodes() {
    let run = |nodes: &[usize], workers| {
        let jobs = vec![elastic("e", 0, 1_600, (workers, workers))];
        let outcome = outcome(&setting(cluster(nodes), jobs), &mut Queue).unwrap();
        outcome.jobs[0].end_ms
    };
    assert_eq!(run(&[2], 1), Some(1_600));
    assert_eq!(run(&[2], 2), Some(1_000));
    assert_eq!(run(&[1, 1], 2), Some(1_280));
}

/// Grows a lone job to what its insight says is fastest on this cluster of one node with two GPUs.
struct Grower;

impl Policy for Grower {
    fn name(&self) -> &str {
        "grower"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let pending = view
            .state
            .pending
            .iter()
            .map(|key| ProposedBundle::start(key.job));
        let mut bundles: Vec<ProposedBundle> = pending.collect();
        for job in &view.state.active {
            let insight = &view.insights[job];
            let speed = insight.speed.as_ref().expect("the speed is known");
            let at = |workers| {
                let shape = Configuration {
                    gpu_model: "a100",
                    nodes: 1,
                    workers,
                };
                speed.goodput(&shape).expect("runs there")
            };
            assert!((at(2) / at(1) - 1.6).abs() < 1e-9);
            let attempt = view.state.jobs[job].attempt.as_ref();
            let tasks = attempt.map_or(0, |attempt| attempt.tasks.len());
            if tasks == 1 && view.state.active.len() == 1 && insight.max_workers == 2 {
                bundles.push(ProposedBundle {
                    actions: vec![Action::Resize {
                        job: *job,
                        workers: vec![2],
                        slots: None,
                    }],
                    score: 0.0,
                    reason: "grows".into(),
                });
            }
        }
        Proposal {
            bundles,
            ..Proposal::default()
        }
    }
}

#[test]
fn a_resized_job_restarts_and_goes_on_where_it_was() {
    let jobs = vec![
        elastic("short", 0, 100, (1, 1)),
        elastic("grows", 0, 1_000, (1, 2)),
        elastic("late", 5_000, 10, (1, 1)),
    ];
    let mut setting = setting(cluster(&[2]), jobs);
    setting.rounds = berth_world::twin::Rounds::Every { ms: 200 };
    let outcome = outcome(&setting, &mut Grower).unwrap();
    assert_eq!(
        times(&outcome)[..2],
        [(Some(200), Some(300)), (Some(200), Some(910))],
        "200 alone, then 10 to restart and 800 at 1.6 times the speed"
    );
    assert_eq!(outcome.jobs[1].ledger.restart, 2_000 * 10);
}

#[test]
fn a_service_lives_as_long_as_it_should_and_counts_what_it_could_not_serve() {
    let service = Service {
        life_ms: 10_000,
        load: vec![(0, 10.0), (4_000, 30.0)],
        each: 20.0,
        warm_up_ms: 1_000,
    };
    let mut served = job("web", 1_000, 1_000, 0);
    served.truth = Truth::Model(Arc::new(ServiceModel(Arc::new(service))));
    let jobs = vec![served, job("train", 7_000, 1_000, 2_000)];
    let outcome = outcome(&setting(cluster(&[1]), jobs), &mut NewestFirst).unwrap();
    let web = &outcome.jobs[0];
    assert_eq!((web.end_ms, web.restarts), (Some(11_000), 1));
    // 10 a second for 4 s, then 30 a second for 6 s, of which 20 are served. It warms up from 1 to 2 s and from 9 to
    // 10 s, and is evicted from 7 to 9 s.
    let all = 10.0 * 4.0 + 30.0 * 6.0;
    let good = 10.0 * 3.0 + 20.0 * (2.0 + 1.0);
    assert_eq!(
        web.served,
        Some(Served {
            asked: all,
            served: good
        })
    );
    assert_eq!(web.ledger.useful, 1_000 * 6_000);
    assert_eq!(web.ledger.restart, 1_000 * 2_000);
}
