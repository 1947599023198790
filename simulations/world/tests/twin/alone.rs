//! Each job as if no other were there.

use std::sync::Arc;

use berth_world::twin::{Elastic, ElasticModel, GpuModel, Overhead, StepTime, Truth, alone};

use crate::lab::{cluster, job, setting, times, with};

#[test]
fn jobs_do_not_wait_for_each_other_and_get_the_fastest_gpus() {
    let mut cluster = cluster(&[1, 2]);
    let fast = &mut cluster.nodes[1].gpus;
    fast.iter_mut().for_each(|gpu| gpu.model = "h100".into());
    cluster
        .gpu_models
        .insert("h100".into(), GpuModel { speed: 2.0 });
    let slow_only = with(job("slow-only", 7, 1_000, 100), |spec| {
        spec.groups[0].resources.gpu_types = vec!["A100".into()];
    });
    let jobs = vec![
        job("a", 0, 2_000, 100),
        job("b", 5, 1_000, 100),
        slow_only,
        job("too-large", 9, 3_000, 100),
        job("for-ever", 9, 1_000, u64::MAX),
    ];
    let outcome = alone(&setting(cluster, jobs));
    assert_eq!(
        times(&outcome),
        [
            (Some(0), Some(50)),
            (Some(5), Some(55)),
            (Some(7), Some(107)),
            (None, None),
            (None, None),
        ]
    );
    assert_eq!(outcome.unfinished, 2);
    assert_eq!(
        outcome.ledger().useful,
        2_000 * 50 + 1_000 * 50 + 1_000 * 100
    );
    let figures = outcome.figures("alone", "tiny");
    assert_eq!((figures.completed, figures.avg_queue_s), (3, 0.0));
}

#[test]
fn an_elastic_job_gets_as_many_workers_as_pay() {
    // Two workers synchronise for nothing, further ones cost, and a second node costs more than it brings.
    let steps = StepTime {
        compute_s: 1.0,
        local_s: 0.0,
        local_each_s: 0.5,
        wide_s: 9.0,
        wide_each_s: 9.0,
        overlap: 1.0,
    };
    let model = ElasticModel(Arc::new(Elastic {
        work_ms: 1_000,
        reference: "a100".into(),
        steps: [("a100".to_owned(), steps)].into(),
        overhead: Overhead::default(),
        is_known: false,
    }));
    let mut elastic = with(job("grows", 3, 1_000, 1), |spec| {
        spec.groups[0].max_workers = 8;
    });
    elastic.truth = Truth::Model(Arc::new(model));
    let outcome = alone(&setting(cluster(&[4, 4]), vec![elastic]));
    assert_eq!(times(&outcome), [(Some(3), Some(503))]);
}
