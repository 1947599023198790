//! A writer is killed (`kill -9`) again and again; whatever it had acknowledged must be there.
//!
//! The writer is this same test binary, started with the test `writer` alone and a directory in its environment. It prints
//! the last index of every batch after `persist` has returned.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use berth_raft::{Entry, HardState, Persist, Recovered, Snapshot, SnapshotMeta};
use berth_raft_store::{Backend, StoreOptions, open};
use bytes::Bytes;

const DIR: &str = "BERTH_STORE_KILL_DIR";
const BACKEND: &str = "BERTH_STORE_KILL_BACKEND";

fn options() -> StoreOptions {
    StoreOptions {
        journal_bytes: 64 << 10,
        ..StoreOptions::new(1)
    }
}

/// The bytes of an entry can be computed from its index, so the reader needs no record of what was written.
fn data(index: u64) -> Bytes {
    Bytes::from(index.to_le_bytes().repeat(1 + (index % 40) as usize))
}

fn batch(from: u64, count: u64) -> Persist {
    Persist {
        entries: (from..from + count)
            .map(|i| Entry::normal(i, 1, data(i)))
            .collect(),
        hard_state: Some(HardState {
            term: 1,
            vote: 1,
            commit: from - 1,
        }),
        must_sync: true,
        ..Persist::default()
    }
}

#[test]
fn writer() {
    let (Ok(dir), Ok(backend)) = (std::env::var(DIR), std::env::var(BACKEND)) else {
        return;
    };
    let (recovered, mut store, _history) =
        open(Path::new(&dir), backend.parse().unwrap(), options()).unwrap();
    let mut next = recovered.last_index() + 1;
    loop {
        let count = 1 + next % 5;
        let mut batches = vec![batch(next, count)];
        next += count;
        if next % 97 < count {
            let meta = SnapshotMeta {
                index: next - 1,
                term: 1,
                ..SnapshotMeta::default()
            };
            batches.push(Persist {
                snapshot: Some(Snapshot {
                    meta,
                    data: Bytes::from(vec![3; 3_000]),
                }),
                compact_to: Some((next - 1).saturating_sub(50)),
                ..Persist::default()
            });
        }
        store.persist(&batches).unwrap();
        println!("acked {}", next - 1);
    }
}

/// A writer in a process group of its own, killed at the latest when the test is over.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a writer, kills it after `lines` acknowledgements, and returns the last one it printed.
fn write_and_kill(dir: &Path, backend: Backend, lines: usize) -> u64 {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["writer", "--exact", "--nocapture"])
        .env(DIR, dir)
        .env(BACKEND, backend.name())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut writer = Writer(child.unwrap());
    let mut output = BufReader::new(writer.0.stdout.take().unwrap()).lines();
    let acked = |line: String| {
        line.strip_prefix("acked ")
            .and_then(|n| n.parse::<u64>().ok())
    };
    let printed = output
        .by_ref()
        .map_while(Result::ok)
        .filter_map(acked)
        .nth(lines);
    drop(writer);
    let printed = printed.expect("the writer goes on until it is killed");
    // What it printed before it died counts too.
    output
        .map_while(Result::ok)
        .filter_map(acked)
        .last()
        .unwrap_or(printed)
}

fn check(recovered: &Recovered, acked: u64) {
    assert!(
        recovered.last_index() >= acked,
        "acknowledged {acked}, found {}",
        recovered.last_index()
    );
    for entry in &recovered.entries {
        assert_eq!(entry.data, data(entry.index));
    }
}

#[test]
fn no_acknowledged_entry_is_lost_when_the_writer_is_killed() {
    for backend in [Backend::Sled, Backend::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshots = 0;
        for round in 0..12 {
            let acked = write_and_kill(dir.path(), backend, 1 + round * 37);
            let (recovered, store, history) = open(dir.path(), backend, options()).unwrap();
            check(&recovered, acked);
            snapshots = recovered.snapshot.map_or(snapshots, |s| s.meta.index);
            drop((store, history));
        }
        assert!(snapshots > 0);
    }
}
