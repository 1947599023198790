//! When the scheduler looks.

use berth_world::twin::{Rounds, TwinError};

use crate::lab::{NewestFirst, Queue, cluster, job, outcome, setting, times};

#[test]
fn fixed_rounds_start_at_their_boundaries_and_hold_what_ended_inside() {
    let jobs = vec![job("a", 0, 1_000, 90), job("b", 60, 1_000, 10)];
    let mut setting = setting(cluster(&[1]), jobs);
    setting.rounds = Rounds::Every { ms: 60 };
    let outcome = outcome(&setting, &mut Queue).unwrap();
    assert_eq!(
        times(&outcome),
        [(Some(60), Some(150)), (Some(180), Some(190))],
        "a starts at the boundary after its submission and ends inside a round"
    );
    let ledger = outcome.ledger();
    assert_eq!(
        (ledger.useful, ledger.idle),
        (1_000 * 100, 1_000 * (30 + 50))
    );
    assert_eq!(
        outcome.decisions, 3,
        "at 60, 120 and 180, and none once all is over"
    );
}

#[test]
fn fixed_rounds_redeem_what_they_reserved_at_the_same_boundary() {
    let jobs = vec![job("old", 0, 1_000, 100), job("new", 61, 1_000, 30)];
    let mut setting = setting(cluster(&[1]), jobs);
    setting.rounds = Rounds::Every { ms: 60 };
    let outcome = outcome(&setting, &mut NewestFirst).unwrap();
    assert_eq!(
        times(&outcome),
        [(Some(60), Some(220)), (Some(120), Some(150))]
    );
}

#[test]
fn fixed_rounds_end_when_nothing_can_happen_any_more() {
    let jobs = vec![
        job("large", 0, 9_000, 10),
        job("endless", 0, 1_000, u64::MAX),
    ];
    let mut setting = setting(cluster(&[1]), jobs);
    setting.rounds = Rounds::Every { ms: 60 };
    let outcome = outcome(&setting, &mut NewestFirst).unwrap();
    assert_eq!(outcome.unfinished, 2);
    setting.rounds = Rounds::Every { ms: 0 };
    let refused = crate::lab::outcome(&setting, &mut Queue);
    assert_eq!(refused, Err(TwinError::Round));
}

#[test]
fn events_within_the_pause_share_a_round() {
    let jobs = vec![
        job("a", 0, 1_000, 90),
        job("b", 7, 1_000, 10),
        job("c", 11, 1_000, 1),
    ];
    let mut setting = setting(cluster(&[3]), jobs);
    setting.rounds = Rounds::OnEvent { coalesce_ms: 10 };
    let outcome = outcome(&setting, &mut Queue).unwrap();
    assert_eq!(
        times(&outcome),
        [
            (Some(10), Some(100)),
            (Some(10), Some(20)),
            (Some(21), Some(22))
        ]
    );
    assert_eq!(outcome.rounds, 2);
}

#[test]
fn a_cut_run_counts_what_was_held_until_then() {
    let mut setting = setting(
        cluster(&[1]),
        vec![job("a", 0, 1_000, 90), job("b", 70, 1_000, 10)],
    );
    setting.until_ms = Some(50);
    let outcome = outcome(&setting, &mut Queue).unwrap();
    assert_eq!(outcome.unfinished, 2);
    assert_eq!((outcome.end_ms, outcome.ledger().held()), (50, 1_000 * 50));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let jobs = || {
        (0..40).map(|n| {
            job(
                &n.to_string(),
                n * 3,
                1_000 + 1_000 * (n as u32 % 3),
                50 + n,
            )
        })
    };
    let setting = setting(cluster(&[4, 2]), jobs().collect());
    let first = outcome(&setting, &mut NewestFirst).unwrap();
    assert_eq!(first, outcome(&setting, &mut NewestFirst).unwrap());
    let other = outcome(&setting, &mut Queue).unwrap();
    assert_ne!(first.hash, other.hash);
}
