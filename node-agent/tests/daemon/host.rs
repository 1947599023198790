//! Isolation and hooks with real processes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use berth_agent::cgroup::place::Mount;
use berth_types::{Hook, HostReport, IsolationKind, TaskEvent, TaskInventory};

use crate::harness::{FakeMaster, Node, alive, key, shell, until};

/// What the node last said of itself that passes.
async fn host(master: &FakeMaster, what: &str, test: impl Fn(&HostReport) -> bool) -> HostReport {
    let of = |event: &TaskEvent| match event {
        TaskEvent::Host(report) if test(report) => Some(report.clone()),
        _ => None,
    };
    master.event(what, of).await
}

fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    // Written beside and renamed, so that no run ever sees half of it.
    let fresh = dir.join(format!("{name}.new"));
    std::fs::write(&fresh, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&fresh, &path).unwrap();
    path
}

fn pid_in(node: &Node, task: berth_types::TaskKey) -> Option<u32> {
    node.stdout(task).trim().parse().ok()
}

/// A control group for one agent, if this machine lets the test make one; removed with the test.
struct Group(PathBuf);

impl Group {
    #[allow(clippy::print_stderr)]
    fn make() -> Option<Self> {
        let made = Mount::of_host().and_then(|mount| {
            let dir = mount
                .point
                .join(format!("berth-test-agent-{}", std::process::id()));
            std::fs::create_dir(&dir).ok().map(|()| Self(dir))
        });
        if made.is_none() {
            eprintln!(
                "this machine gives the test no control group: only process groups are checked here"
            );
        }
        made
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_its_session_ends_with_its_task_in_a_control_group() {
    let Some(group) = Group::make() else {
        return;
    };
    let master = FakeMaster::start().await;
    let keys = format!("[isolation]\ncgroup = {:?}\n", group.0);
    let mut node = Node::start_with(&[&master.address], &keys);
    let told = host(&master, "how tasks are isolated", |_| true).await;
    assert_eq!(told.isolation.kind, IsolationKind::Cgroup, "{told:?}");
    let (task, other) = (key(1, 1, 0), key(2, 1, 0));
    master
        .launch([
            shell(task, "setsid sleep 600 & echo $!; exit 0"),
            shell(other, "setsid sleep 600 & echo $!; wait"),
        ])
        .await;
    assert_eq!(master.ended(task).await.code, 0);
    until("the task's child", || pid_in(&node, task).is_some()).await;
    let pid = pid_in(&node, task).unwrap();
    until("the child ends with its task", || !alive(pid)).await;
    master.running(other).await;
    // An agent that was upgraded knows how its tasks are held, and still ends all of a gang.
    node.kill_agent();
    node.start_agent();
    master.registration(1).await;
    until("the other's child", || pid_in(&node, other).is_some()).await;
    let pid = pid_in(&node, other).unwrap();
    assert!(alive(pid) && group.0.join("task-2.1.0").is_dir());
    master.tombstone(other).await;
    master.ended(other).await;
    until("nothing is left", || {
        !alive(pid) && !group.0.join("task-2.1.0").exists()
    })
    .await;
    drop(node);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_control_groups_the_node_says_so_and_ends_process_groups() {
    let master = FakeMaster::start().await;
    let node = Node::start_with(&[&master.address], "[isolation]\ncgroup = \"off\"\n");
    let told = host(&master, "how tasks are isolated", |_| true).await;
    assert_eq!(told.isolation.kind, IsolationKind::ProcessGroup);
    assert!(told.isolation.enforced.is_empty());
    assert!(told.isolation.note.contains("switched off"), "{told:?}");
    let task = key(1, 1, 0);
    master
        .launch([shell(task, "sleep 600 & echo $!; exit 0")])
        .await;
    assert_eq!(master.ended(task).await.code, 0);
    until("the task's child", || pid_in(&node, task).is_some()).await;
    let pid = pid_in(&node, task).unwrap();
    until("the child ends with its task", || !alive(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_around_an_attempt_and_are_told_whose_it_is() {
    let master = FakeMaster::start().await;
    let dir = tempfile::tempdir().unwrap();
    let seen = dir.path().join("seen");
    let note = format!(
        "echo $BERTH_HOOK $BERTH_JOB_ID $BERTH_ATTEMPT $BERTH_USER $BERTH_NODE_NAME ${{SECRET_OF_THE_AGENT-none}} >> {}",
        seen.display()
    );
    let prolog = script(dir.path(), "prolog", &note);
    let epilog = script(dir.path(), "epilog", &note);
    let keys = format!("[hooks]\nprolog = {prolog:?}\nepilog = {epilog:?}\n");
    let _node = Node::start_with(&[&master.address], &keys);
    let (a, b) = (key(7, 2, 0), key(7, 2, 1));
    let line = format!("echo task >> {}", seen.display());
    master.launch([shell(a, &line), shell(b, &line)]).await;
    master.ended(a).await;
    master.ended(b).await;
    let told = std::fs::read_to_string(&seen).unwrap();
    let expected = [
        "prolog 7 2 tester n1 none",
        "task",
        "task",
        "epilog 7 2 tester n1 none",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_prolog_is_the_nodes_fault_and_told_before_the_end() {
    let master = FakeMaster::start().await;
    let dir = tempfile::tempdir().unwrap();
    let prolog = script(dir.path(), "prolog", "echo scratch is full >&2; exit 9");
    let keys = format!("[hooks]\nprolog = {prolog:?}\n");
    let node = Node::start_with(&[&master.address], &keys);
    let task = key(3, 1, 0);
    master.launch([shell(task, "echo started")]).await;
    let exit = master.ended(task).await;
    assert!(exit.node_fault && exit.code == -1, "{exit:?}");
    assert!(
        exit.reason.contains("ended with 9: scratch is full"),
        "{exit:?}"
    );
    let events = master.events();
    let failed = events.iter().position(|event| {
        matches!(event, TaskEvent::HookFailed { hook: Hook::Prolog, reason, .. } if reason.contains("scratch is full"))
    });
    let ended = events.iter().position(
        |event| matches!(event, TaskEvent::State(k, TaskInventory::Ended(_)) if *k == task),
    );
    assert!(failed.unwrap() < ended.unwrap(), "{events:?}");
    assert_eq!(node.stdout(task), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_health_check_is_told_and_so_is_its_recovery() {
    let master = FakeMaster::start().await;
    let dir = tempfile::tempdir().unwrap();
    let check = script(dir.path(), "health", "exit 0");
    let keys = format!("[hooks]\nhealth_check = {check:?}\nhealth_check_interval = \"50ms\"\n");
    let node = Node::start_with(&[&master.address], &keys);
    host(&master, "a sound node", |report| report.unfit.is_none()).await;
    script(dir.path(), "health", "echo link of ib0 is down; exit 1");
    let words = "ended with 1: link of ib0 is down";
    let unfit = |report: &HostReport| {
        report
            .unfit
            .as_ref()
            .is_some_and(|why| why.ends_with(words))
    };
    let unfit = host(&master, "an unfit node", unfit).await;
    script(dir.path(), "health", "exit 0");
    let recovered = || {
        let events = master.events();
        let last = events.iter().rev().find_map(|event| match event {
            TaskEvent::Host(report) => Some(report.clone()),
            _ => None,
        });
        last.is_some_and(|last| last.unfit.is_none() && last.isolation == unfit.isolation)
    };
    until("the node recovers", recovered).await;
    drop(node);
}
