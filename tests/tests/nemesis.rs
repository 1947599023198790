//! The nemesis in short: what `cargo xtask nemesis` does at length and measures.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use berth_tests::kills;
use berth_tests::rounds::{self, Rounds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_job_is_lost_and_none_counts_twice() {
    let rounds = Rounds {
        rounds: 3,
        // Chosen so that a master, an agent and a whole node are killed.
        seed: 1,
        dir: None,
    };
    let mut killed = Vec::new();
    let verdict = rounds::run(&rounds, &mut |round| killed.push(round.killed.clone()))
        .await
        .unwrap();
    assert!(verdict.holds(), "{verdict:?} after {killed:?}");
    assert!(verdict.acknowledged >= 30, "hardly any load: {verdict:?}");
    assert_eq!(killed.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_after_the_leader_is_killed_twice() {
    let mut told = 0;
    let mut tell = |done, of, _| told = done * 10 + of;
    let times = kills::leaders(None, 2, &mut tell).await.unwrap();
    assert_eq!((times.next_write.spread().count, told), (2, 22));
    assert_eq!(times.patient.spread().count, 4, "two survivors, twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_runs_elsewhere_after_its_node_is_killed() {
    let times = kills::nodes(None, 1, &mut |_, _, _| ()).await.unwrap();
    assert_eq!(times.detected.spread().count, 1);
    // Not a measurement: a node counts as lost only after its silence, and a gang moves only after that.
    assert!(times.restarted.spread().max_ms > times.detected.spread().max_ms);
}
