//! Backups and what is restored from them.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use berth_raft::{Config, Membership, Raft, Role, Snapshot, SnapshotMeta};
use berth_raft_store::{
    Backend, StoreError, StoreOptions, backup, open, read_backup_info, restore,
};
use bytes::Bytes;

fn snapshot() -> Snapshot {
    Snapshot {
        meta: SnapshotMeta {
            index: 70,
            term: 9,
            membership: Membership::of_voters([1, 2, 3]),
        },
        data: Bytes::from_static(b"the whole state"),
    }
}

/// A backup with 2,500 records of history.
fn make(dir: &Path, backend: Backend) -> std::path::PathBuf {
    let (_, store, history) = open(&dir.join("old"), backend, options(1)).unwrap();
    let rows: Vec<_> = (1..=2_500)
        .map(|s| (s, 10_000 + s, Bytes::from(format!("job {s}"))))
        .collect();
    history.append(&rows).unwrap();
    let path = dir.join("cluster.backup");
    let info = backup(&path, "c-1", 1_700_000_000_000, &snapshot(), &*history).unwrap();
    assert_eq!(info.bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(read_backup_info(&path).unwrap(), info);
    assert_eq!(
        (info.history_count, info.meta, info.cluster.as_str()),
        (2_500, snapshot().meta, "c-1")
    );
    drop((store, history));
    path
}

fn options(member: u64) -> StoreOptions {
    StoreOptions {
        journal_bytes: 16 << 10,
        ..StoreOptions::new(member)
    }
}

#[test]
fn a_restored_group_has_everything_and_starts_in_a_later_term() {
    for backend in [Backend::Sled, Backend::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let path = make(dir.path(), backend);
        let voters = Membership::of_voters([11, 12]);
        let mut members = Vec::new();
        for id in [11, 12] {
            let store = dir.path().join(format!("new-{id}"));
            restore(&path, &store, backend, options(id), voters.clone()).unwrap();
            let (recovered, _log, history) = open(&store, backend, options(id)).unwrap();
            let restored = recovered.snapshot.clone().unwrap();
            assert_eq!(restored.data, snapshot().data);
            assert!(restored.meta.term > 9 && restored.meta.index > 70);
            assert_eq!(
                (&recovered.membership, &restored.meta.membership),
                (&voters, &voters)
            );
            assert_eq!((history.count(), history.last_seq()), (2_500, Some(2_500)));
            assert_eq!(
                history.get(12_000).unwrap(),
                Some(Bytes::from_static(b"job 2000"))
            );
            members.push(
                Raft::new(
                    Config {
                        id,
                        ..Config::default()
                    },
                    recovered,
                )
                .unwrap(),
            );
        }
        // They agree and elect a leader.
        for _ in 0..60 {
            for i in 0..2 {
                members[i].tick();
                for _ in 0..4 {
                    let ready = members[i].ready();
                    if let Some(batch) = ready.persist {
                        members[i].persisted(batch.number).unwrap();
                    }
                    ready
                        .messages
                        .into_iter()
                        .for_each(|m| members[1 - i].step(m).unwrap());
                }
            }
        }
        assert!(
            members
                .iter()
                .any(|m| m.role() == Role::Leader && m.ready_to_lead())
        );
        assert!(members.iter().all(|m| m.status().first_index == 72));
    }
}

#[test]
fn a_store_is_never_restored_over_something() {
    let dir = tempfile::tempdir().unwrap();
    let path = make(dir.path(), Backend::Sled);
    let voters = Membership::of_voters([1]);
    let over = restore(
        &path,
        &dir.path().join("old"),
        Backend::Sled,
        options(1),
        voters.clone(),
    );
    assert!(matches!(over, Err(StoreError::NotEmpty { .. })), "{over:?}");
    let stranger = restore(
        &path,
        &dir.path().join("new"),
        Backend::Sled,
        options(2),
        voters,
    );
    assert!(
        matches!(stranger, Err(StoreError::Invalid(_))),
        "{stranger:?}"
    );
    assert!(!dir.path().join("new").exists());
}

#[test]
fn a_damaged_backup_restores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = make(dir.path(), Backend::Redb);
    let whole = fs::read(&path).unwrap();
    let mut cases: Vec<Vec<u8>> = [0, 7, 20, whole.len() / 2, whole.len() - 1]
        .map(|n| whole[..n].to_vec())
        .into();
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        cases.push(bytes);
    }
    for bytes in cases {
        fs::write(&path, bytes).unwrap();
        let target = dir.path().join("new");
        let refused = restore(
            &path,
            &target,
            Backend::Redb,
            options(1),
            Membership::of_voters([1]),
        );
        assert!(
            matches!(refused, Err(StoreError::Backup { .. })),
            "{refused:?}"
        );
        assert!(!target.exists());
    }
    let missing = read_backup_info(&dir.path().join("nowhere"));
    assert!(matches!(missing, Err(StoreError::Backup { .. })));
}
