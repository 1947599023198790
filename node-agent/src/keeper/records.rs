//! The keeper's durable memory: an append-only file of checksummed records.
//!
//! Layout: the magic `BRTHKPR1`, then records of `length: u32 LE, crc32: u32 LE, body: postcard(Record)`. A torn tail
//! is cut off on reading: it was never announced. The file is rewritten with only what still counts at each start, and
//! when it has grown.
//!
//! Behind the records lie zeros, written ahead in large pieces: a flush then only has to write data in place, and no
//! file system journal has to record a new length for every task that ends.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use berth_types::TaskKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::keeper::protocol::ExitRecord;

const MAGIC: &[u8; 8] = b"BRTHKPR1";
/// Rewritten when it is larger than this and mostly garbage.
const COMPACT_BYTES: u64 = 1 << 20;
/// How much room is written ahead.
const RESERVE_BYTES: u64 = 256 << 10;
/// Largest record; longer lengths are damage.
const MAX_RECORD_BYTES: usize = 1 << 20;

/// One fact. Append-only: positions and fields never change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A task is about to be started; written before its process exists.
    Starting {
        /// Which task.
        key: TaskKey,
    },
    /// It has a process.
    Running {
        /// Which task.
        key: TaskKey,
        /// Process id, also of its group.
        pid: u32,
        /// When it started, in milliseconds since the machine's boot: tells a reused process id.
        boot_ms: u64,
    },
    /// It is over.
    Ended {
        /// Which task.
        key: TaskKey,
        /// How.
        exit: ExitRecord,
    },
    /// A master has committed its end.
    Forgotten {
        /// Which task.
        key: TaskKey,
    },
}

/// What the file says of a task that is not forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// It was about to start, or ran, with this process if one was noted: (process id, start since boot in ms).
    Alive(Option<(u32, u64)>),
    /// It is over.
    Ended(ExitRecord),
}

/// Why the records cannot be used.
#[derive(Debug, Error)]
pub enum RecordsError {
    /// The system said no.
    #[error("{path}: {what}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{0} is no file of records; move it away to start without them")]
    Magic(PathBuf),
    /// A record cannot be encoded.
    #[error("a record cannot be encoded")]
    Encode(#[from] postcard::Error),
}

/// The open file. Appends are buffered until [`Records::write`] or [`Records::sync`].
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    file: File,
    /// Where the records end.
    length: u64,
    /// Where the zeros behind them end.
    reserved: u64,
    live: u64,
    buffer: Vec<u8>,
}

impl Records {
    /// Opens or creates the file and says what it remembers.
    ///
    /// # Errors
    /// If it cannot be read or written, or is no such file.
    pub fn open(path: &Path) -> Result<(Self, BTreeMap<TaskKey, Remembered>), RecordsError> {
        let io = |what| move |source| io_error(path, what, source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("open"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let mut tasks = BTreeMap::new();
        if bytes.len() >= MAGIC.len() {
            if !bytes.starts_with(MAGIC) {
                return Err(RecordsError::Magic(path.to_path_buf()));
            }
            replay(&bytes[MAGIC.len()..], &mut tasks);
        }
        let mut records = Self {
            path: path.to_path_buf(),
            file,
            length: 0,
            reserved: 0,
            live: 0,
            buffer: Vec::new(),
        };
        records.rewrite(&tasks)?;
        Ok((records, tasks))
    }

    /// Notes a fact for the next write.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn push(&mut self, record: &Record) -> Result<(), RecordsError> {
        append(&mut self.buffer, record)?;
        Ok(())
    }

    /// Hands what is noted to the system: it survives the keeper's death, not the machine's.
    ///
    /// # Errors
    /// If the file cannot be written; nothing may be announced then.
    pub fn write(&mut self) -> Result<(), RecordsError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let end = self.length + self.buffer.len() as u64;
        let io = |what| move |source| (what, source);
        let written = self
            .reserve(end)
            .map_err(io("reserve room"))
            .and_then(|()| {
                let writing = self.file.write_all_at(&self.buffer, self.length);
                writing.map_err(io("write"))
            });
        written.map_err(|(what, source)| io_error(&self.path, what, source))?;
        self.length = end;
        self.buffer.clear();
        Ok(())
    }

    /// Writes zeros ahead if the records would reach beyond them.
    fn reserve(&mut self, end: u64) -> std::io::Result<()> {
        if end <= self.reserved {
            return Ok(());
        }
        let from = self.reserved.max(self.length);
        let zeros = vec![0; usize::try_from(end - from + RESERVE_BYTES).unwrap_or(0)];
        self.file.write_all_at(&zeros, from)?;
        self.file.sync_data()?;
        self.reserved = from + zeros.len() as u64;
        Ok(())
    }

    /// Makes what is noted durable.
    ///
    /// # Errors
    /// If the file cannot be written or flushed; nothing may be announced then.
    pub fn sync(&mut self) -> Result<(), RecordsError> {
        self.write()?;
        self.file
            .sync_data()
            .map_err(|source| io_error(&self.path, "flush", source))
    }

    /// True if most of a large file is garbage.
    pub fn wants_rewrite(&self) -> bool {
        self.length > COMPACT_BYTES.max(4 * self.live)
    }

    /// Replaces the file by one that holds only these tasks.
    ///
    /// # Errors
    /// If that cannot be done; the old file then stays.
    pub fn rewrite(&mut self, tasks: &BTreeMap<TaskKey, Remembered>) -> Result<(), RecordsError> {
        let mut bytes = MAGIC.to_vec();
        for (key, task) in tasks {
            let key = *key;
            append(&mut bytes, &Record::Starting { key })?;
            match task {
                Remembered::Alive(None) => {}
                Remembered::Alive(Some((pid, boot_ms))) => {
                    let (pid, boot_ms) = (*pid, *boot_ms);
                    append(&mut bytes, &Record::Running { key, pid, boot_ms })?;
                }
                Remembered::Ended(exit) => {
                    let exit = exit.clone();
                    append(&mut bytes, &Record::Ended { key, exit })?;
                }
            }
        }
        self.file = replace_file(&self.path, &bytes)?;
        self.length = bytes.len() as u64;
        self.reserved = self.length;
        self.live = self.length;
        self.buffer.clear();
        Ok(())
    }
}

/// Writes a new file beside, flushes it, and renames it over the old one.
fn replace_file(path: &Path, bytes: &[u8]) -> Result<File, RecordsError> {
    let io = |what| move |source| io_error(path, what, source);
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&beside)
        .map_err(io("create"))?;
    file.write_all(bytes).map_err(io("write"))?;
    file.sync_data().map_err(io("flush"))?;
    std::fs::rename(&beside, path).map_err(io("rename"))?;
    if let Some(parent) = path.parent() {
        let dir = File::open(parent).map_err(io("open directory"))?;
        dir.sync_all().map_err(io("flush directory"))?;
    }
    Ok(file)
}

fn io_error(path: &Path, what: &'static str, source: std::io::Error) -> RecordsError {
    RecordsError::Io {
        path: path.to_path_buf(),
        what,
        source,
    }
}

fn append(out: &mut Vec<u8>, record: &Record) -> Result<(), postcard::Error> {
    let body = postcard::to_allocvec(record)?;
    let length = u32::try_from(body.len()).map_err(|_| postcard::Error::SerializeBufferFull)?;
    out.extend(length.to_le_bytes());
    out.extend(crc32fast::hash(&body).to_le_bytes());
    out.extend(body);
    Ok(())
}

/// Applies records until the end or the first torn or damaged one.
fn replay(mut bytes: &[u8], tasks: &mut BTreeMap<TaskKey, Remembered>) {
    while let Some((record, rest)) = next(bytes) {
        bytes = rest;
        match record {
            Record::Starting { key } => {
                tasks.entry(key).or_insert(Remembered::Alive(None));
            }
            Record::Running { key, pid, boot_ms } => {
                tasks.insert(key, Remembered::Alive(Some((pid, boot_ms))));
            }
            Record::Ended { key, exit } => {
                tasks.insert(key, Remembered::Ended(exit));
            }
            Record::Forgotten { key } => {
                tasks.remove(&key);
            }
        }
    }
}

fn next(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > MAX_RECORD_BYTES || length > rest.len() {
        return None;
    }
    let (body, rest) = rest.split_at(length);
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    Some((postcard::from_bytes(body).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use berth_types::{Epoch, JobId, Rank};

    use super::*;

    fn key(job: u64) -> TaskKey {
        TaskKey {
            job: JobId(job),
            epoch: Epoch(1),
            rank: Rank(0),
        }
    }

    fn exit(code: i32) -> ExitRecord {
        ExitRecord {
            code,
            at_ms: 5,
            reason: "why".into(),
            node_fault: true,
        }
    }

    fn sample(path: &Path) -> Records {
        let (mut records, before) = Records::open(path).unwrap();
        assert!(before.is_empty());
        for record in [
            Record::Starting { key: key(1) },
            Record::Running {
                key: key(1),
                pid: 77,
                boot_ms: 9,
            },
            Record::Starting { key: key(2) },
            Record::Starting { key: key(3) },
            Record::Ended {
                key: key(3),
                exit: exit(4),
            },
            Record::Forgotten { key: key(3) },
            Record::Ended {
                key: key(1),
                exit: exit(3),
            },
        ] {
            records.push(&record).unwrap();
        }
        records.sync().unwrap();
        records
    }

    /// The file without the zeros behind its records, none of which ends in one.
    fn content(path: &Path) -> Vec<u8> {
        let mut bytes = std::fs::read(path).unwrap();
        assert!(bytes.len() as u64 >= RESERVE_BYTES);
        while bytes.pop_if(|byte| *byte == 0).is_some() {}
        bytes
    }

    #[test]
    fn what_is_not_forgotten_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        drop(sample(&path));
        let expected = BTreeMap::from([
            (key(1), Remembered::Ended(exit(3))),
            (key(2), Remembered::Alive(None)),
        ]);
        for _ in 0..2 {
            let (_, tasks) = Records::open(&path).unwrap();
            assert_eq!(tasks, expected, "also after the rewrite at opening");
        }
    }

    #[test]
    fn a_torn_tail_loses_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        drop(sample(&path));
        let whole = content(&path);
        let mut shorter = 0;
        for cut in MAGIC.len()..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut records, tasks) = Records::open(&path).unwrap();
            assert!(!matches!(tasks.get(&key(1)), Some(Remembered::Ended(_))));
            shorter += usize::from(tasks.len() < 2);
            let ended = Record::Ended {
                key: key(9),
                exit: exit(0),
            };
            records.push(&ended).unwrap();
            records.sync().unwrap();
            let (_, tasks) = Records::open(&path).unwrap();
            assert_eq!(
                tasks.get(&key(9)),
                Some(&Remembered::Ended(exit(0))),
                "cut at {cut}"
            );
        }
        assert!(shorter > 0);
    }

    #[test]
    fn a_flipped_bit_ends_the_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        drop(sample(&path));
        let mut bytes = content(&path);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (_, tasks) = Records::open(&path).unwrap();
        assert_eq!(tasks.get(&key(1)), Some(&Remembered::Alive(Some((77, 9)))));
    }

    #[test]
    fn another_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        std::fs::write(&path, b"something else").unwrap();
        assert!(matches!(Records::open(&path), Err(RecordsError::Magic(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
    }
}
