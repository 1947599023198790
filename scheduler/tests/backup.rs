//! A backup over real gRPC, and a new cluster out of it.

mod support;

use std::path::{Path, PathBuf};

use berth_proto::v1;
use berth_raft_store::Backend;
use berth_scheduler::restore::{Restore, RestoreError, restore};
use berth_types::{JobState, MasterId};
use support::agent::{FakeAgent, node};
use support::{Running, configs, finished, free_ports, job, ok, one_master, spec, submit, within};

/// Saves a backup into `dir`.
async fn save(master: &Running, dir: &Path) -> PathBuf {
    let mut chunks = ok(master.cluster().snapshot(v1::SnapshotRequest {})).await;
    let (mut data, mut total) = (Vec::new(), 0);
    while let Some(chunk) = chunks.message().await.expect("no failure") {
        assert!(chunk.index > 0);
        total = chunk.total_bytes;
        data.extend_from_slice(&chunk.data);
    }
    assert_eq!(data.len() as u64, total);
    let path = dir.join("backup");
    std::fs::write(&path, &data).expect("written");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_becomes_a_new_cluster() {
    within(async {
        let (dir, master) = one_master().await;
        let mut jobs = master.jobs();
        let agent = FakeAgent::connect(master.channel(), &node("n1", 2))
            .await
            .expect("registered");
        let agent = tokio::spawn(agent.obey());
        let done = submit(&mut jobs, 1, &spec("done", 1000)).await;
        finished(&mut jobs, done).await;
        agent.abort();
        for n in 10..110 {
            submit(&mut jobs, n, &spec("waits", 2000)).await;
        }
        let backup = save(&master, dir.path()).await;
        drop(jobs);
        master.stop().await;

        let mut config = configs(dir.path(), &free_ports(1)).remove(0);
        (config.id, config.masters[0].0) = (MasterId(7), MasterId(7));
        config.data_dir = dir.path().join("restored");
        let plan = Restore {
            backup,
            data_dir: config.data_dir.clone(),
            id: MasterId(7),
            masters: config.masters.clone(),
            backend: Backend::Sled,
        };
        let restored = restore(&plan).expect("restored");
        assert_eq!((restored.jobs, restored.finished), (100, 1));
        let again = restore(&plan);
        assert!(matches!(again, Err(RestoreError::NotEmpty { .. })));

        let master = Running::start(&config).await;
        let mut jobs = master.jobs();
        assert_eq!(job(&mut jobs, done).await.state, JobState::Completed);
        let status = ok(master.cluster().status(v1::StatusRequest {})).await;
        assert_eq!((status.masters.len(), status.masters[0].id), (1, 7));
        assert_eq!(status.alarm, "");
        submit(&mut jobs, 200, &spec("new", 1000)).await;
        drop(jobs);
        master.stop().await;
    })
    .await;
}

#[test]
fn a_damaged_backup_makes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let backup = dir.path().join("backup");
    std::fs::write(&backup, b"brthbkp1 but no more").expect("written");
    let plan = Restore {
        backup,
        data_dir: dir.path().join("m1"),
        id: MasterId(1),
        masters: configs(dir.path(), &free_ports(1)).remove(0).masters,
        backend: Backend::Redb,
    };
    assert!(matches!(restore(&plan), Err(RestoreError::Store(_))));
    assert!(!plan.data_dir.exists() && !dir.path().join("m1.restoring").exists());
    let (id, none) = (MasterId(2), plan.clone());
    let not_listed = Restore { id, ..none };
    assert!(matches!(
        restore(&not_listed),
        Err(RestoreError::Masters(_))
    ));
}
