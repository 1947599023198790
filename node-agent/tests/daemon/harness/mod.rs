//! A master that records, an agent process that is cleaned up, and launches to fill in.

mod master;
mod node;

use std::collections::BTreeMap;
use std::time::Duration;

use berth_types::{Epoch, JobId, LaunchTask, LostNodeRule, Rank, TaskKey};

pub(crate) use master::FakeMaster;
pub(crate) use node::{Node, signal};

/// How long anything may take before a test fails; generous, because the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn key(job: u64, epoch: u32, rank: u32) -> TaskKey {
    TaskKey {
        job: JobId(job),
        epoch: Epoch(epoch),
        rank: Rank(rank),
    }
}

/// A launch of a shell script.
pub(crate) fn shell(key: TaskKey, script: &str) -> LaunchTask {
    LaunchTask {
        key,
        job_name: "test".into(),
        user: "tester".into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        env: BTreeMap::new(),
        work_dir: String::new(),
        gpus: Vec::new(),
        millicpu: 1_000,
        mem_bytes: 1 << 20,
        world_size: 1,
        local_rank: 0,
        local_world_size: 1,
        node_rank: 0,
        node_names: vec!["n1".into()],
        master_addr: "127.0.0.1".into(),
        master_port: 0,
        checkpoint_dir: String::new(),
        checkpoint_keep: 2,
        resume_from: Vec::new(),
        restart_count: 0,
        lost_node: LostNodeRule::Restart,
        grace_ms: 60_000,
    }
}

/// Waits until a condition holds that nothing announces.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// True while a process of this number exists and is no zombie.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}
