//! Jobs wait, run, end and are refused at the times that follow from their durations.

use berth_types::Outcome as JobEnd;
use berth_world::twin::{End, TwinError};

use crate::lab::{NewestFirst, Queue, cluster, ending, job, outcome, setting, times, with};

#[test]
fn jobs_run_one_after_the_other_where_they_do_not_fit_together() {
    let jobs = vec![
        job("a", 0, 2_000, 100),
        job("b", 10, 1_000, 50),
        job("c", 20, 1_000, 30),
        job("d", 500, 2_000, 5),
    ];
    let outcome = outcome(&setting(cluster(&[2]), jobs), &mut Queue).unwrap();
    assert_eq!(
        times(&outcome),
        [
            (Some(0), Some(100)),
            (Some(100), Some(150)),
            (Some(100), Some(130)),
            (Some(500), Some(505))
        ]
    );
    let figures = outcome.figures("queue", "small");
    assert_eq!((figures.jobs, figures.completed), (4, 4));
    assert_eq!(figures.makespan_s, 0.505);
    assert_eq!(figures.avg_queue_s, 0.0425);
    let held = 2_000 * 100 + 1_000 * 50 + 1_000 * 30 + 2_000 * 5;
    assert_eq!(outcome.ledger().held(), held);
    assert_eq!(outcome.ledger().useful, held);
    assert_eq!(figures.gpu_utilisation, held as f64 / (505.0 * 2_000.0));
}

#[test]
fn a_recorded_end_is_the_end_that_the_state_sees() {
    let no_restarts = |spec: &mut berth_types::JobSpec| spec.restart.max_restarts = 0;
    let jobs = vec![
        with(ending(job("fails", 0, 1_000, 10), End::Failed), no_restarts),
        ending(job("is-cancelled", 0, 1_000, 20), End::Cancelled),
        job("takes-no-time", 0, 1_000, 0),
        with(job("is-too-slow", 0, 1_000, 90), |spec| {
            spec.time_limit_ms = 30
        }),
    ];
    let outcome = outcome(&setting(cluster(&[4]), jobs), &mut Queue).unwrap();
    let ends: Vec<_> = (outcome.jobs.iter())
        .map(|job| (job.outcome, job.end_ms))
        .collect();
    assert_eq!(
        ends,
        [
            (Some(JobEnd::Failed { code: 1 }), Some(10)),
            (Some(JobEnd::Cancelled), Some(20)),
            (Some(JobEnd::Completed), Some(0)),
            (Some(JobEnd::TimedOut), Some(30)),
        ]
    );
}

#[test]
fn a_failed_job_with_restarts_left_comes_back_after_its_pause() {
    let jobs = vec![with(
        ending(job("fails", 0, 1_000, 10), End::Failed),
        |spec| {
            spec.restart.max_restarts = 1;
            spec.restart.backoff_ms = 100;
        },
    )];
    let outcome = outcome(&setting(cluster(&[1]), jobs), &mut Queue).unwrap();
    assert_eq!(outcome.jobs[0].restarts, 1);
    assert_eq!(
        outcome.jobs[0].end_ms,
        Some(110),
        "nothing is left to do, so it fails at once"
    );
}

#[test]
fn what_never_fits_is_unfinished_and_the_run_is_over() {
    let jobs = vec![
        job("large", 0, 9_000, 10),
        job("endless", 5, 1_000, u64::MAX),
    ];
    let mut setting = setting(cluster(&[2]), jobs);
    setting.limits.max_looked_at = 10;
    let outcome = outcome(&setting, &mut NewestFirst).unwrap();
    assert_eq!(times(&outcome), [(None, None), (Some(5), None)]);
    assert_eq!(outcome.unfinished, 2);
}

#[test]
fn who_starts_now_or_never_is_refused_and_every_arrival_is_sampled() {
    let now = |spec: &mut berth_types::JobSpec| spec.start_now = true;
    let jobs = (0..4).map(|n| with(job(&n.to_string(), n, 800, u64::MAX), now));
    let outcome = outcome(&setting(cluster(&[2]), jobs.collect()), &mut Queue).unwrap();
    let samples: Vec<_> = (outcome.packed.iter())
        .map(|p| (p.arrived_milligpu, p.allocated_milligpu))
        .collect();
    assert_eq!(
        samples,
        [(800, 800), (1_600, 1_600), (2_400, 1_600), (3_200, 1_600)]
    );
    assert_eq!(outcome.jobs[2].outcome, Some(JobEnd::Rejected));
    assert_eq!(outcome.gpu_allocation_at(120, 2_000), Some(80.0));
    assert_eq!(outcome.gpu_allocation_at(90, 2_000), None);
}

#[test]
fn an_evicted_job_makes_room_at_once_and_keeps_what_it_did() {
    let jobs = vec![job("old", 0, 1_000, 100), job("new", 40, 1_000, 30)];
    let outcome = outcome(&setting(cluster(&[1]), jobs), &mut NewestFirst).unwrap();
    assert_eq!(
        times(&outcome),
        [(Some(0), Some(130)), (Some(40), Some(70))]
    );
    assert_eq!((outcome.jobs[0].restarts, outcome.evictions), (1, 1));
    assert_eq!(outcome.ledger().useful, 1_000 * 130);
}

#[test]
fn faults_of_trace_and_cluster_name_their_object() {
    let run = |cluster, jobs| outcome(&setting(cluster, jobs), &mut Queue).unwrap_err();
    let unsorted = run(
        cluster(&[1]),
        vec![job("b", 5, 1_000, 1), job("a", 4, 1_000, 1)],
    );
    assert_eq!(unsorted, TwinError::Order { key: "a".into() });
    let bad = with(job("bad", 0, 1_000, 1), |spec| spec.groups.clear());
    let bad = run(cluster(&[1]), vec![job("good", 0, 1_000, 1), bad]);
    assert!(
        matches!(&bad, TwinError::Job { key, .. } if key == "bad"),
        "{bad}"
    );
    let mut twice = cluster(&[1, 1]);
    twice.nodes[1].name = "n0".into();
    let twice = run(twice, Vec::new());
    assert!(
        matches!(&twice, TwinError::Node { node, .. } if node == "n0"),
        "{twice}"
    );
}
