//! What was acknowledged is all there, or the store says what is missing and how to repair it. Never a silent loss.

#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use berth_raft::{Entry, HardState, Membership, Persist, Recovered, Snapshot, SnapshotMeta};
use berth_raft_store::{Backend, StoreError, StoreOptions, open};
use bytes::Bytes;

const BACKENDS: [Backend; 2] = [Backend::Sled, Backend::Redb];

fn options() -> StoreOptions {
    StoreOptions {
        journal_bytes: 32 << 10,
        ..StoreOptions::new(3)
    }
}

fn one(index: u64) -> Persist {
    Persist {
        number: index,
        entries: vec![Entry::normal(
            index,
            1 + index / 100,
            Bytes::from(vec![index as u8; 200]),
        )],
        hard_state: Some(HardState {
            term: 1 + index / 100,
            vote: 3,
            commit: index - 1,
        }),
        must_sync: true,
        ..Persist::default()
    }
}

/// A store with `count` acknowledged batches and a snapshot, as it lies on the disk at `copy` if the process were killed
/// now.
fn killed(backend: Backend, count: u64, copy: &Path) -> Recovered {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut store, history) = open(dir.path(), backend, options()).unwrap();
    let mut model = Recovered::default();
    let mut persist = |batch: Persist| {
        store.persist(std::slice::from_ref(&batch)).unwrap();
        model.apply(&batch);
    };
    persist(Persist {
        membership: Some(Membership::of_voters([1, 2, 3])),
        must_sync: true,
        ..Persist::default()
    });
    // A snapshot that replaces the log is durable on return, whatever the background does.
    let meta = SnapshotMeta {
        index: 10,
        term: 1,
        membership: Membership::of_voters([1, 2, 3]),
    };
    persist(Persist {
        reset_log: true,
        membership: Some(meta.membership.clone()),
        snapshot: Some(Snapshot {
            meta,
            data: Bytes::from(vec![5; 5_000]),
        }),
        hard_state: Some(HardState {
            term: 1,
            vote: 3,
            commit: 10,
        }),
        must_sync: true,
        ..Persist::default()
    });
    (11..=10 + count).for_each(|index| persist(one(index)));
    copy_dir(dir.path(), copy);
    drop((store, history));
    model
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_in(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Opens a damaged store: everything must be back, or the damage named together with its repair.
fn all_or_corrupt(dir: &Path, backend: Backend, model: &Recovered, what: &str) -> bool {
    match open(dir, backend, options()) {
        Ok((recovered, store, history)) => {
            assert!(
                recovered == *model,
                "{what}: a silent loss, ends at {}",
                recovered.last_index()
            );
            drop((store, history));
            true
        }
        Err(e @ StoreError::Corrupt { .. }) => {
            let text = e.to_string();
            assert!(text.contains("berth masters replace 3"), "{what}: {text}");
            false
        }
        Err(e) => panic!("{what}: {e}"),
    }
}

#[test]
fn a_killed_store_comes_back_whole() {
    for backend in BACKENDS {
        for count in [0, 1, 50, 700] {
            let dir = tempfile::tempdir().unwrap();
            let model = killed(backend, count, dir.path());
            assert!(all_or_corrupt(dir.path(), backend, &model, "untouched"));
            // And once more, from what the first recovery left.
            assert!(all_or_corrupt(dir.path(), backend, &model, "recovered"));
        }
    }
}

#[test]
fn no_file_can_be_cut_short_unnoticed() {
    for backend in BACKENDS {
        let whole = tempfile::tempdir().unwrap();
        let model = killed(backend, 600, whole.path());
        let mut refused = 0;
        for file in files_in(whole.path()) {
            let length = fs::metadata(&file).unwrap().len();
            let name = file.strip_prefix(whole.path()).unwrap();
            let cuts = [
                0,
                1,
                63,
                64,
                100,
                4_096,
                length / 3,
                length / 2,
                length - length / 10,
                length.saturating_sub(1),
            ];
            for cut in cuts.into_iter().filter(|cut| *cut < length) {
                let dir = tempfile::tempdir().unwrap();
                copy_dir(whole.path(), dir.path());
                OpenOptions::new()
                    .write(true)
                    .open(dir.path().join(name))
                    .unwrap()
                    .set_len(cut)
                    .unwrap();
                let what = format!(
                    "{} of {length} cut to {cut} ({})",
                    name.display(),
                    backend.name()
                );
                refused += u32::from(!all_or_corrupt(dir.path(), backend, &model, &what));
            }
        }
        assert!(refused > 10, "{refused} cuts refused");
    }
}

#[test]
fn no_file_can_be_overwritten_or_removed_unnoticed() {
    for backend in BACKENDS {
        let whole = tempfile::tempdir().unwrap();
        let model = killed(backend, 600, whole.path());
        for file in files_in(whole.path()) {
            let length = fs::metadata(&file).unwrap().len();
            let name = file.strip_prefix(whole.path()).unwrap();
            let mut damages: Vec<(String, u64, Vec<u8>)> = Vec::new();
            for part in 0..8 {
                let at = length * part / 8;
                damages.push((
                    format!("zeros at {at}"),
                    at,
                    vec![0; 512.min((length - at) as usize)],
                ));
                damages.push((
                    format!("noise at {at}"),
                    at,
                    vec![0xa5; 16.min((length - at) as usize)],
                ));
            }
            damages.push(("all zeros".to_owned(), 0, vec![0; length as usize]));
            for (damage, at, bytes) in damages {
                let dir = tempfile::tempdir().unwrap();
                copy_dir(whole.path(), dir.path());
                let target = OpenOptions::new()
                    .write(true)
                    .open(dir.path().join(name))
                    .unwrap();
                target.write_all_at(&bytes, at).unwrap();
                let what = format!("{damage} in {} ({})", name.display(), backend.name());
                all_or_corrupt(dir.path(), backend, &model, &what);
            }
            let dir = tempfile::tempdir().unwrap();
            copy_dir(whole.path(), dir.path());
            fs::remove_file(dir.path().join(name)).unwrap();
            all_or_corrupt(
                dir.path(),
                backend,
                &model,
                &format!("{} removed ({})", name.display(), backend.name()),
            );
        }
    }
}

#[test]
fn a_torn_last_record_that_was_never_acknowledged_is_no_damage() {
    for backend in BACKENDS {
        let before = tempfile::tempdir().unwrap();
        let after = tempfile::tempdir().unwrap();
        let model = killed(backend, 20, before.path());
        killed(backend, 21, after.path());
        // The first bytes of the next record reached the disk, the acknowledgement did not.
        for name in ["journal-a", "journal-b"] {
            let (old, new) = (
                fs::read(before.path().join(name)).unwrap(),
                fs::read(after.path().join(name)).unwrap(),
            );
            let Some(at) = old.iter().zip(&new).position(|(a, b)| a != b) else {
                continue;
            };
            let file = OpenOptions::new()
                .write(true)
                .open(before.path().join(name))
                .unwrap();
            file.write_all_at(&new[at..at + 40], at as u64).unwrap();
        }
        assert!(all_or_corrupt(before.path(), backend, &model, "torn tail"));
    }
}

#[test]
fn what_sled_leaves_behind_when_it_is_killed_at_its_start_is_repaired() {
    let whole = tempfile::tempdir().unwrap();
    let model = killed(Backend::Sled, 300, whole.path());
    let reopened = tempfile::tempdir().unwrap();
    copy_dir(whole.path(), reopened.path());
    // Opening once makes sled write a snapshot of its own.
    assert!(all_or_corrupt(
        reopened.path(),
        Backend::Sled,
        &model,
        "first"
    ));
    let sled = reopened.path().join("sled");
    fs::write(sled.join("snap.0000000000000000.generating"), b"short").unwrap();
    assert!(all_or_corrupt(
        reopened.path(),
        Backend::Sled,
        &model,
        "half-written snapshot"
    ));
    assert!(!sled.join("snap.0000000000000000.generating").exists());
    let snapshots: Vec<PathBuf> = files_in(&sled)
        .into_iter()
        .filter(|p| {
            p.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("snap.")
        })
        .collect();
    assert!(!snapshots.is_empty());
    for snapshot in snapshots {
        let length = fs::metadata(&snapshot).unwrap().len();
        OpenOptions::new()
            .write(true)
            .open(&snapshot)
            .unwrap()
            .set_len(length / 2)
            .unwrap();
    }
    assert!(all_or_corrupt(
        reopened.path(),
        Backend::Sled,
        &model,
        "damaged snapshot"
    ));
}

#[test]
fn a_store_is_opened_only_by_its_owner() {
    for backend in BACKENDS {
        let dir = tempfile::tempdir().unwrap();
        let with = |member, cluster: &str| StoreOptions {
            cluster: Some(cluster.to_owned()),
            journal_bytes: 8 << 10,
            ..StoreOptions::new(member)
        };
        drop(open(dir.path(), backend, with(3, "a")).unwrap());
        let other = if backend == Backend::Sled {
            Backend::Redb
        } else {
            Backend::Sled
        };
        for (backend, options) in [
            (backend, with(4, "a")),
            (backend, with(3, "b")),
            (other, with(3, "a")),
        ] {
            let refused = open(dir.path(), backend, options).map(drop);
            assert!(
                matches!(refused, Err(StoreError::Mismatch { .. })),
                "{refused:?}"
            );
        }
        let (recovered, store, _history) = open(dir.path(), backend, with(3, "a")).unwrap();
        assert!(recovered.is_blank());
        let twice = open(dir.path(), backend, with(3, "a")).map(drop);
        assert!(matches!(twice, Err(StoreError::Engine { .. })), "{twice:?}");
        drop(store);
    }
}

#[test]
fn a_creation_that_was_cut_short_starts_over() {
    for backend in BACKENDS {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), backend, options()).unwrap());
        fs::remove_file(dir.path().join("berth.format")).unwrap();
        let (recovered, mut store, history) = open(dir.path(), backend, options()).unwrap();
        assert!(recovered.is_blank());
        store.persist(&[one(1)]).unwrap();
        drop((store, history));
        // Now something was acknowledged, and the same loss is damage.
        fs::remove_file(dir.path().join("berth.format")).unwrap();
        let refused = open(dir.path(), backend, options()).map(drop);
        assert!(
            matches!(refused, Err(StoreError::Corrupt { .. })),
            "{refused:?}"
        );
    }
}
