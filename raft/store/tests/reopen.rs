//! What was persisted comes back.

#![allow(clippy::unwrap_used)]

use berth_raft::{Entry, HardState, Membership, Persist, Recovered, Snapshot, SnapshotMeta};
use berth_raft_store::{Backend, StoreError, StoreOptions, open};
use bytes::Bytes;

const BACKENDS: [Backend; 2] = [Backend::Sled, Backend::Redb];

fn options() -> StoreOptions {
    StoreOptions {
        journal_bytes: 64 << 10,
        ..StoreOptions::new(1)
    }
}

fn entries(indices: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    indices
        .map(|i| Entry::normal(i, term, Bytes::from(vec![i as u8; 300])))
        .collect()
}

fn batch(entries: Vec<Entry>, term: u64, commit: u64) -> Persist {
    Persist {
        entries,
        hard_state: Some(HardState {
            term,
            vote: 1,
            commit,
        }),
        must_sync: true,
        ..Persist::default()
    }
}

#[test]
fn a_log_comes_back_with_its_conflicts_resolved() {
    for backend in BACKENDS {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Recovered::default();
        let (blank, mut store, history) = open(dir.path(), backend, options()).unwrap();
        assert!(blank.is_blank());
        let first = Persist {
            membership: Some(Membership::of_voters([1, 2, 3])),
            ..Persist::default()
        };
        let mut batches = vec![first, batch(entries(1..=50, 1), 1, 0)];
        batches.extend((51..=400).map(|i| batch(entries(i..=i, 1), 1, i - 1)));
        batches.push(batch(entries(399..=399, 2), 2, 398));
        for group in batches.chunks(3) {
            store.persist(group).unwrap();
            group.iter().for_each(|b| model.apply(b));
        }
        drop((store, history));
        let (again, store, history) = open(dir.path(), backend, options()).unwrap();
        assert_eq!(again, model);
        assert_eq!(again.last_index(), 399);
        drop((store, history));
    }
}

#[test]
fn a_snapshot_compacts_the_log_and_survives() {
    for backend in BACKENDS {
        let dir = tempfile::tempdir().unwrap();
        let (_, mut store, history) = open(dir.path(), backend, options()).unwrap();
        store
            .persist(&[batch(entries(1..=5_000, 1), 1, 5_000)])
            .unwrap();
        let meta = SnapshotMeta {
            index: 4_900,
            term: 1,
            membership: Membership::of_voters([1]),
        };
        let snapshot = Snapshot {
            meta: meta.clone(),
            data: Bytes::from(vec![9; 100_000]),
        };
        let compaction = Persist {
            snapshot: Some(snapshot.clone()),
            membership: Some(meta.membership.clone()),
            compact_to: Some(4_800),
            ..Persist::default()
        };
        store.persist(&[compaction]).unwrap();
        store
            .persist(&[batch(entries(5_001..=5_001, 1), 1, 5_000)])
            .unwrap();
        drop((store, history));
        let (again, store, history) = open(dir.path(), backend, options()).unwrap();
        assert_eq!(again.snapshot, Some(snapshot));
        assert_eq!(again.membership, meta.membership);
        assert_eq!((again.entries[0].index, again.last_index()), (4_801, 5_001));
        drop((store, history));
    }
}

#[test]
fn history_is_kept_by_number_and_by_job() {
    for backend in BACKENDS {
        let dir = tempfile::tempdir().unwrap();
        let (_, store, history) = open(dir.path(), backend, options()).unwrap();
        let record = |seq: u64| (seq, 100 + seq, Bytes::from(format!("job {seq}")));
        history
            .append(&(1..=20).map(record).collect::<Vec<_>>())
            .unwrap();
        history
            .append(&(15..=25).map(record).collect::<Vec<_>>())
            .unwrap();
        let check = |history: &dyn berth_raft_store::HistoryStore| {
            assert_eq!((history.count(), history.last_seq()), (25, Some(25)));
            assert_eq!(
                history.get(107).unwrap(),
                Some(Bytes::from_static(b"job 7"))
            );
            assert_eq!(history.get(7).unwrap(), None);
            assert_eq!(
                history.scan(24, 9, false).unwrap(),
                vec![record(24), record(25)]
            );
            assert_eq!(
                history.scan(3, 2, true).unwrap(),
                vec![record(3), record(2)]
            );
        };
        check(&*history);
        drop((store, history));
        let (_, store, history) = open(dir.path(), backend, options()).unwrap();
        check(&*history);
        drop((store, history));
    }
}

#[test]
fn after_a_failed_write_nothing_more_is_acknowledged() {
    for backend in BACKENDS {
        let dir = tempfile::tempdir().unwrap();
        let (_, mut store, history) = open(dir.path(), backend, options()).unwrap();
        store.persist(&[batch(entries(1..=3, 1), 1, 0)]).unwrap();
        // A directory where the snapshot is to be written makes writing it fail.
        let meta = SnapshotMeta {
            index: 9,
            term: 1,
            membership: Membership::of_voters([1]),
        };
        let name = format!("snapshot-{:020}-1.unfinished", meta.index);
        std::fs::create_dir(dir.path().join(&name)).unwrap();
        let install = Persist {
            reset_log: true,
            snapshot: Some(Snapshot {
                meta,
                data: Bytes::from_static(b"x"),
            }),
            must_sync: true,
            ..Persist::default()
        };
        assert!(matches!(
            store.persist(&[install]),
            Err(StoreError::Io { .. })
        ));
        let next = store.persist(&[batch(entries(4..=4, 1), 1, 0)]);
        assert!(matches!(next, Err(StoreError::Failed(_))), "{next:?}");
        drop((store, history));
        std::fs::remove_dir(dir.path().join(&name)).unwrap();
        let (again, store, history) = open(dir.path(), backend, options()).unwrap();
        assert_eq!(again.last_index(), 3);
        drop((store, history));
    }
}

#[test]
fn a_gap_in_the_history_is_filled_later() {
    for backend in BACKENDS {
        let dir = tempfile::tempdir().unwrap();
        let (_, store, history) = open(dir.path(), backend, options()).unwrap();
        let record = |seq: u64| (seq, seq % 3, Bytes::from(format!("record {seq}")));
        history
            .append(&[record(9), record(1), record(8), record(9)])
            .unwrap();
        history
            .append(&(2..=9).map(record).collect::<Vec<_>>())
            .unwrap();
        assert_eq!(
            history.scan(0, 99, false).unwrap(),
            (1..=9).map(record).collect::<Vec<_>>()
        );
        for job in 0..3 {
            assert_eq!(
                history.get(job).unwrap(),
                Some(record([9, 7, 8][job as usize]).2)
            );
        }
        assert_eq!((history.count(), history.last_seq()), (9, Some(9)));
        drop((store, history));
    }
}
