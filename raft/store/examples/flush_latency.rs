//! How long it takes to make one small entry durable, and what it costs: the bare disk, the engines flushed directly, and
//! the store on each of them.
//!
//! ```text
//! cargo run --release -p berth-raft-store --example flush_latency -- [DIRECTORY] [COUNT]
//! ```
#![allow(clippy::print_stdout, missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_raft::{Entry, HardState, Persist};
use berth_raft_store::{Backend, StoreOptions, open};
use bytes::Bytes;

const ENTRY_BYTES: usize = 300;
const GROUP: u64 = 64;
const WARM_UP: u64 = 200;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let count: u64 = args.next().map_or(Ok(3_000), |n| n.parse())?;
    let scratch = tempfile::tempdir_in(base)?;
    let dir = scratch.path();
    println!("{count} times {ENTRY_BYTES} bytes in {}", dir.display());
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>8} {:>10}",
        "", "min ms", "p50", "p90", "p99", "cpu ms/op"
    );
    bare_disk(dir, count)?;
    sled_alone(&dir.join("sled-alone"), count)?;
    redb_alone(&dir.join("redb-alone"), count)?;
    for backend in [Backend::Sled, Backend::Redb] {
        store(&dir.join(backend.name()), backend, count)?;
    }
    Ok(())
}

fn bare_disk(dir: &Path, count: u64) -> Outcome {
    let payload = [7; ENTRY_BYTES];
    let mut growing = File::create(dir.join("growing"))?;
    measure("append, fdatasync", count, |_| {
        growing.write_all(&payload)?;
        Ok(growing.sync_data()?)
    })?;
    let path = dir.join("preallocated");
    fs::write(&path, vec![0; (count + WARM_UP) as usize * ENTRY_BYTES])?;
    let preallocated = OpenOptions::new().write(true).open(&path)?;
    preallocated.sync_all()?;
    measure("preallocated, fdatasync", count, |i| {
        preallocated.write_all_at(&payload, i * ENTRY_BYTES as u64)?;
        Ok(preallocated.sync_data()?)
    })
}

fn sled_alone(dir: &Path, count: u64) -> Outcome {
    let db = sled::Config::new()
        .path(dir)
        .flush_every_ms(None)
        .cache_capacity(16 << 20)
        .open()?;
    let tree = db.open_tree("raft")?;
    let pages = OpenOptions::new().write(true).open(dir.join("db"))?;
    measure("sled flush, fdatasync", count, |i| {
        let mut batch = sled::Batch::default();
        batch.insert(&i.to_be_bytes(), [7; ENTRY_BYTES].as_slice());
        batch.insert(b"hard state", &i.to_be_bytes());
        tree.apply_batch(batch)?;
        db.flush()?;
        Ok(pages.sync_data()?)
    })
}

fn redb_alone(path: &Path, count: u64) -> Outcome {
    const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("raft");
    let db = redb::Database::create(path)?;
    measure("redb commit", count, |i| {
        let tx = db.begin_write()?;
        tx.open_table(TABLE)?
            .insert(i + 1, [7; ENTRY_BYTES].as_slice())?;
        Ok(tx.commit()?)
    })
}

fn store(dir: &Path, backend: Backend, count: u64) -> Outcome {
    let (_, mut log, _history) = open(dir, backend, StoreOptions::new(1))?;
    let mut index = 0;
    let mut one = |number: u64| {
        index += 1;
        Persist {
            number,
            entries: vec![Entry::normal(
                index,
                1,
                Bytes::from_static(&[7; ENTRY_BYTES]),
            )],
            hard_state: Some(HardState {
                term: 1,
                vote: 1,
                commit: index - 1,
            }),
            must_sync: true,
            ..Persist::default()
        }
    };
    measure(
        &format!("store on {}, one batch", backend.name()),
        count,
        |i| Ok(log.persist(&[one(i)])?),
    )?;
    measure(
        &format!("store on {}, {GROUP} batches", backend.name()),
        count / 8,
        |i| {
            let group: Vec<Persist> = (0..GROUP).map(|_| one(i)).collect();
            Ok(log.persist(&group)?)
        },
    )?;
    let closing = Instant::now();
    drop((log, _history));
    let closed = closing.elapsed();
    let opening = Instant::now();
    let (recovered, ..) = open(dir, backend, StoreOptions::new(1))?;
    println!(
        "{:<34} close {closed:.0?}, open {:.0?} with {} entries, {} KiB on disk",
        "",
        opening.elapsed(),
        recovered.entries.len(),
        disk_bytes(dir)? >> 10
    );
    Ok(())
}

fn disk_bytes(dir: &Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(sum)
}

fn measure(name: &str, count: u64, mut step: impl FnMut(u64) -> Outcome) -> Outcome {
    for i in 0..WARM_UP {
        step(i)?;
    }
    let cpu = cpu_time()?;
    let mut times = Vec::new();
    for i in 0..count {
        let started = Instant::now();
        step(WARM_UP + i)?;
        times.push(started.elapsed());
    }
    let cpu = (cpu_time()? - cpu).as_secs_f64() * 1e3 / count as f64;
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "{name:<34} {:>8.3} {:>8.3} {:>8.3} {:>8.3} {cpu:>10.3}",
        at(0),
        at(50),
        at(90),
        at(99)
    );
    Ok(())
}

/// Processor time of this process, from its scheduler statistics.
fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += stat.split(' ').next().unwrap_or("0").parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}
