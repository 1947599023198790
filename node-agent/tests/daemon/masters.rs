//! Finding the leader, and ends that happen while there is none.

use berth_types::Directive;

use crate::harness::{FakeMaster, Node, key, shell, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_followed_to_a_master_that_is_not_configured() {
    let (follower, leader) = (FakeMaster::start().await, FakeMaster::start().await);
    follower.redirect_to(&leader.address);
    let _node = Node::start_with(
        &[&follower.address],
        "[[gpus]]\nmodel = \"a100\"\nmemory = \"80GiB\"\ncount = 2\n",
    );
    let register = leader.registration(0).await;
    let spec = register.spec.unwrap();
    assert_eq!(
        (spec.name.as_str(), spec.gpus.len(), spec.simulated_gpus),
        ("n1", 2, true)
    );
    assert!(register.inventory.unwrap().full_inventory);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_without_a_leader_reaches_the_next_one() {
    let mut first = FakeMaster::start().await;
    let second = FakeMaster::start_at("127.0.0.1:0", 2).await;
    second.redirect_to("");
    let node = Node::start(&[&first.address, &second.address]);
    let gate = node.dir.path().join("gate");
    let task = key(1, 1, 0);
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; exit 6",
        gate.display()
    );
    first.launch([shell(task, &script)]).await;
    first.running(task).await;
    first.crash();
    let records = node.layout().keeper_records();
    let before = std::fs::read(&records).unwrap();
    std::fs::write(gate, "").unwrap();
    until("the end is recorded", || {
        std::fs::read(&records).unwrap() != before
    })
    .await;
    second.lead();
    assert_eq!(second.ended(task).await.code, 6);
    let register = second.registration(0).await;
    assert_eq!(
        (register.cluster_id, register.term),
        (77, 1),
        "what it has heard so far"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_leader_and_another_cluster_are_refused() {
    let mut newer = FakeMaster::start_at("127.0.0.1:0", 5).await;
    let node = Node::start(&[&newer.address]);
    newer.launch([shell(key(1, 1, 0), "exit 0")]).await;
    newer.ended(key(1, 1, 0)).await;
    let address = newer.address.clone();
    newer.crash();
    let older = FakeMaster::start_at(&address, 4).await;
    older.launch([shell(key(2, 1, 0), "exit 0")]).await;
    // It comes back, is refused again, and starts nothing.
    older.registration(2).await;
    assert!(!node.layout().task_dir(key(2, 1, 0)).exists());
    older.set_marks(|d: &mut Directive| (d.cluster_id, d.term) = (78, 9));
    older
        .direct(|d| d.launch.push(shell(key(3, 1, 0), "exit 0")))
        .await;
    let seen = older.registrations();
    older.registration(seen + 1).await;
    assert!(!node.layout().task_dir(key(3, 1, 0)).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_leader_is_given_up() {
    let mut silent = FakeMaster::start().await;
    let node = Node::start(&[&silent.address]);
    silent.registration(0).await;
    silent.cut_off();
    // The stream stays open, but nothing comes: the agent registers anew.
    silent.registration(1).await;
    silent.crash();
    drop(node);
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_that_a_leader_named_are_found_when_the_configured_one_is_gone() {
    let mut old = FakeMaster::start().await;
    let mut node = Node::start(&[&old.address]);
    let next = FakeMaster::start_at("127.0.0.1:0", 2).await;
    let newest = FakeMaster::start_at("127.0.0.1:0", 3).await;
    old.direct(|d| d.masters = vec![next.address.clone()]).await;
    // What was said is heard before the end.
    old.launch([shell(key(1, 1, 0), "exit 0")]).await;
    old.ended(key(1, 1, 0)).await;
    old.crash();
    next.registration(0).await;

    // The same after a restart: the configuration still names only the one that is gone.
    next.direct(|d| d.masters = vec![newest.address.clone()])
        .await;
    next.launch([shell(key(2, 1, 0), "exit 0")]).await;
    next.ended(key(2, 1, 0)).await;
    node.kill_agent();
    node.start_agent();
    newest.registration(0).await;

    // A file that makes no sense is no reason not to start.
    node.stop_agent();
    std::fs::write(node.layout().masters(), "{").unwrap();
    let back = FakeMaster::start_at(&old.address, 4).await;
    node.start_agent();
    back.registration(0).await;
}
