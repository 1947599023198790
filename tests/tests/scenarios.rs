//! Every named scenario as a test. Promised times get slack, because tests share the machine with other work.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use berth_tests::scenario::{self, Ground};

const SLACK: u32 = 4;

async fn holds(name: &str) {
    let ground = Ground {
        slack: SLACK,
        ..Ground::default()
    };
    if let Err(error) = scenario::named(name).unwrap().run(&ground).await {
        panic!("{name}: {error:#}");
    }
}

macro_rules! scenarios {
    ($($test:ident: $name:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                holds($name).await;
            }
        )*

        #[test]
        fn none_is_left_out() {
            let tested = [$($name),*];
            let all: Vec<&str> = scenario::ALL.iter().map(|s| s.name).collect();
            assert_eq!(all, tested);
        }
    };
}

scenarios! {
    short_jobs_around_a_failover: "short-jobs-around-failover",
    jobs_end_without_a_master: "job-ends-without-master",
    an_agent_is_killed_under_its_task: "agent-killed-under-task",
    a_node_is_away_and_back: "agent-away-and-back",
    an_agent_is_upgraded: "agent-upgrade-restart",
    a_torn_master_is_replaced: "torn-master",
    rule_fence: "lost-node-fence",
    rule_wait: "lost-node-wait",
    the_leader_is_cut_off: "leader-cut-off",
    the_leader_is_frozen: "leader-frozen",
    the_power_is_cut: "power-cut",
    a_backup_is_restored: "backup-and-restore",
    every_master_takes_every_call: "followers",
    masters_come_and_go: "members",
    all_masters_are_replaced: "all-masters-replaced",
    a_gpu_fails_under_a_gang: "fatal-xid",
    a_gpu_vanishes: "gpu-vanished",
    a_node_breaks_every_task: "bad-node",
}

#[test]
fn a_wrong_name_is_answered_with_the_right_ones() {
    let error = scenario::named("torn").map(|s| s.name).unwrap_err();
    assert!(error.to_string().contains("torn-master"), "{error}");
}
