//! Agents and keepers that die under running tasks.

use berth_types::{LostNodeRule, TaskInventory};
use rustix::process::Signal;

use crate::harness::{FakeMaster, Node, alive, key, shell, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agents_tasks_go_on_and_are_adopted() {
    let master = FakeMaster::start().await;
    let mut node = Node::start(&[&master.address]);
    let (during, after) = (key(1, 1, 0), key(2, 1, 0));
    let gate = |name: &str| node.dir.path().join(name);
    let (first, second) = (gate("first"), gate("second"));
    let wait_for = |gate: &std::path::Path, code: u32| {
        format!(
            "while [ ! -e {} ]; do sleep 0.02; done; exit {code}",
            gate.display()
        )
    };
    master
        .launch([
            shell(during, &wait_for(&first, 3)),
            shell(after, &wait_for(&second, 4)),
        ])
        .await;
    master.running(during).await;
    master.running(after).await;
    let keeper = node.keeper_pid();
    let incarnation = master.registration(0).await.incarnation;
    node.kill_agent();
    std::fs::write(first, "").unwrap();
    // Nobody tells of an end without an agent; its process is gone when the keeper has recorded it.
    node.start_agent();
    assert_eq!(master.ended(during).await.code, 3);
    let inventory = master.inventory(1).await;
    assert!(
        inventory
            .iter()
            .any(|(k, s)| *k == after && matches!(s, TaskInventory::Running { .. }))
    );
    assert_eq!(master.registration(1).await.incarnation, incarnation);
    assert_eq!(node.keeper_pid(), keeper);
    std::fs::write(second, "").unwrap();
    assert_eq!(master.ended(after).await.code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_task_can_be_stopped() {
    let master = FakeMaster::start().await;
    let mut node = Node::start(&[&master.address]);
    let task = key(1, 1, 0);
    let mut launch = shell(task, "trap '' TERM; while :; do sleep 0.05; done");
    launch.grace_ms = 200;
    master.launch([launch]).await;
    master.running(task).await;
    node.stop_agent();
    node.start_agent();
    master.registration(1).await;
    master.tombstone(task).await;
    assert_eq!(master.ended(task).await.code, 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_killed_keeper_end_and_are_told_as_lost() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let (live, ended) = (key(1, 1, 0), key(2, 1, 0));
    master
        .launch([shell(live, "echo $$; sleep 1000"), shell(ended, "exit 3")])
        .await;
    master.running(live).await;
    master.ended(ended).await;
    until("it prints", || node.stdout(live).ends_with('\n')).await;
    let pid: u32 = node.stdout(live).trim().parse().unwrap();
    let incarnation = master.registration(0).await.incarnation;
    crate::harness::signal(node.keeper_pid(), Signal::KILL);
    let exit = master.ended(live).await;
    assert_eq!(
        (exit.code, exit.reason.as_str()),
        (-1, "lost with the keeper")
    );
    assert!(!alive(pid), "a new keeper leaves no older task alive");
    assert_ne!(master.registration(1).await.incarnation, incarnation);
    let inventory = master.inventory(1).await;
    assert!(
        inventory
            .iter()
            .any(|(k, s)| *k == ended && matches!(s, TaskInventory::Ended(e) if e.code == 3))
    );
    // And the node works on.
    master.launch([shell(key(3, 1, 0), "exit 5")]).await;
    assert_eq!(master.ended(key(3, 1, 0)).await.code, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_fence_tasks_holds_while_the_agent_is_dead() {
    let master = FakeMaster::start().await;
    master.set_lease(1_500);
    let mut node = Node::start(&[&master.address]);
    let (fenced, free) = (key(1, 1, 0), key(2, 1, 0));
    let mut launch = shell(fenced, "echo $$; sleep 1000");
    launch.lost_node = LostNodeRule::Fence;
    master
        .launch([launch, shell(free, "echo $$; sleep 1000")])
        .await;
    for task in [fenced, free] {
        master.running(task).await;
        until("it prints", || node.stdout(task).ends_with('\n')).await;
    }
    node.kill_agent();
    let pid = |task| node.stdout(task).trim().parse::<u32>().unwrap();
    let (fenced_pid, free_pid) = (pid(fenced), pid(free));
    until("the keeper kills it", || !alive(fenced_pid)).await;
    assert!(alive(free_pid));
    node.start_agent();
    assert_eq!(master.ended(fenced).await.code, 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_leader_stops_fence_tasks_alone() {
    let mut master = FakeMaster::start().await;
    master.set_lease(1_500);
    let node = Node::start(&[&master.address]);
    let (fenced, free) = (key(1, 1, 0), key(2, 1, 0));
    let mut launch = shell(
        fenced,
        "trap 'echo asked; exit 0' TERM; while :; do sleep 0.02; done",
    );
    launch.lost_node = LostNodeRule::Fence;
    launch.grace_ms = 500;
    master
        .launch([launch, shell(free, "echo $$; sleep 1000")])
        .await;
    for task in [fenced, free] {
        master.running(task).await;
    }
    let address = master.address.clone();
    master.crash();
    until("it is asked", || node.stdout(fenced) == "asked\n").await;
    let free_pid = node.stdout(free).trim().parse().unwrap();
    assert!(alive(free_pid));
    let next = FakeMaster::start_at(&address, 2).await;
    let exit = next.ended(fenced).await;
    assert_eq!(exit.code, 0);
    assert!(exit.reason.contains("no leader was heard"), "{exit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keeper_stop_ends_keeper_and_tasks() {
    let master = FakeMaster::start().await;
    let mut node = Node::start(&[&master.address]);
    let tasks = [key(1, 1, 0), key(2, 1, 0)];
    let script = "trap '' TERM; echo $$; while :; do sleep 0.05; done";
    master.launch(tasks.map(|task| shell(task, script))).await;
    for task in tasks {
        until("it prints", || node.stdout(task).ends_with('\n')).await;
    }
    let keeper = node.keeper_pid();
    node.kill_agent();
    let output = node.keeper_stop("100ms");
    assert!(output.status.success(), "{output:?}");
    until("the keeper ends", || !alive(keeper)).await;
    for task in tasks {
        assert!(!alive(node.stdout(task).trim().parse().unwrap()));
    }
    let again = node.keeper_stop("0s");
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("no keeper runs"),
        "{again:?}"
    );
}
