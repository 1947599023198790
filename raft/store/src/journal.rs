//! Two preallocated files, written in turn: what makes a batch durable with one write and one `fdatasync`.
//!
//! A file begins with a header (generation, number of its first record, how far the engine was flushed when it was
//! begun), then come records with consecutive numbers and checksums. Beyond the last one lies zero or what an earlier
//! generation left, whose numbers are lower. The last record may be torn by a crash (it was not acknowledged then); a
//! valid record after a damaged one proves that something acknowledged is gone.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use berth_raft::PeerId;
use bytes::Bytes;

use crate::{StoreError, file};

/// Names of the two files.
pub(crate) const FILES: [&str; 2] = ["journal-a", "journal-b"];

const HEADER_BYTES: usize = 64;
const HEADER_MAGIC: &[u8; 8] = b"brthjrn1";
const RECORD_MAGIC: &[u8; 4] = b"brec";

/// Magic, length, number, checksum.
const RECORD_HEADER_BYTES: usize = 4 + 4 + 8 + 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    generation: u64,
    first_seq: u64,
    engine_flushed: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(HEADER_MAGIC);
        for (i, n) in [self.generation, self.first_seq, self.engine_flushed]
            .into_iter()
            .enumerate()
        {
            out[8 + 8 * i..16 + 8 * i].copy_from_slice(&n.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..HEADER_BYTES - 4]);
        out[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Header> {
        let (body, crc) = bytes.get(..HEADER_BYTES)?.split_at(HEADER_BYTES - 4);
        if !body.starts_with(HEADER_MAGIC) || crc32fast::hash(body).to_le_bytes() != crc {
            return None;
        }
        let number = |i: usize| {
            Some(u64::from_le_bytes(
                body.get(8 + 8 * i..16 + 8 * i)?.try_into().ok()?,
            ))
        };
        Some(Header {
            generation: number(0)?,
            first_seq: number(1)?,
            engine_flushed: number(2)?,
        })
    }
}

/// A record as found on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) seq: u64,
    pub(crate) payload: Bytes,
}

fn record_checksum(seq: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seq.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn record_at(bytes: &Bytes, at: usize) -> Option<Found> {
    let header = bytes.get(at..at.checked_add(RECORD_HEADER_BYTES)?)?;
    if &header[..4] != RECORD_MAGIC {
        return None;
    }
    let length = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    let seq = u64::from_le_bytes(header[8..16].try_into().ok()?);
    let start = at + RECORD_HEADER_BYTES;
    let end = start
        .checked_add(length)
        .filter(|end| *end <= bytes.len())?;
    let payload = bytes.slice(start..end);
    (record_checksum(seq, &payload).to_le_bytes() == header[16..20])
        .then_some(Found { seq, payload })
}

/// What both files hold.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Every valid record by number, including any beyond a damaged one.
    pub(crate) records: Vec<Found>,
    /// The engine must have flushed at least this.
    pub(crate) engine_flushed: u64,
    /// The last number that must exist: that of the last record, or the one before the newest file.
    pub(crate) top: u64,
    generations: [u64; 2],
    last_seqs: [u64; 2],
}

/// Reads both files. They are preallocated, so a short one was cut behind our back.
pub(crate) fn scan(dir: &Path, journal_bytes: u64, member: PeerId) -> Result<Scan, StoreError> {
    let mut scan = Scan::default();
    for (i, name) in FILES.iter().enumerate() {
        let path = dir.join(name);
        let damaged = |what: &str| StoreError::corrupt(what, &path, member);
        let bytes = file::read_if_exists(&path)?.ok_or_else(|| damaged("a journal is missing"))?;
        if bytes.len() < 4096 || (bytes.len() as u64) < journal_bytes.min(4096) {
            return Err(damaged("a journal is empty or was cut short"));
        }
        let bytes = Bytes::from(bytes);
        let Some(header) = Header::decode(&bytes) else {
            continue;
        };
        scan.generations[i] = header.generation;
        scan.engine_flushed = scan.engine_flushed.max(header.engine_flushed);
        scan.top = scan.top.max(header.first_seq - 1);
        let first = scan.records.len();
        read_records(&bytes, header.first_seq, &mut scan.records);
        scan.last_seqs[i] = scan.records[first..]
            .last()
            .map_or(header.first_seq - 1, |r| r.seq);
        scan.top = scan.top.max(scan.last_seqs[i]);
    }
    scan.records.sort_by_key(|r| r.seq);
    Ok(scan)
}

/// Reads records from `first_seq` on. After the end or a damaged record, looks for later ones that should not be there.
fn read_records(bytes: &Bytes, first_seq: u64, records: &mut Vec<Found>) {
    let (mut at, mut next) = (HEADER_BYTES, first_seq);
    while let Some(found) = record_at(bytes, at).filter(|r| r.seq == next) {
        at += RECORD_HEADER_BYTES + found.payload.len();
        next += 1;
        records.push(found);
    }
    let rest = &bytes[at.min(bytes.len())..];
    let magic_at = |from: usize| {
        rest.get(from..)?
            .windows(RECORD_MAGIC.len())
            .position(|w| w == RECORD_MAGIC)
            .map(|p| from + p)
    };
    let mut from = 0;
    while let Some(candidate) = magic_at(from) {
        match record_at(bytes, at + candidate).filter(|r| r.seq > next) {
            Some(found) => {
                from = candidate + RECORD_HEADER_BYTES + found.payload.len();
                records.push(found);
            }
            None => from = candidate + 1,
        }
    }
}

#[derive(Debug)]
struct JournalFile {
    file: File,
    path: PathBuf,
    generation: u64,
    last_seq: u64,
}

/// The journal, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    files: [JournalFile; 2],
    active: usize,
    /// Where the next record goes in the active file; 0 when the file has not been begun.
    offset: u64,
    next_seq: u64,
    capacity: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Makes both files, full of zeros, durably.
    pub(crate) fn create(dir: &Path, journal_bytes: u64) -> Result<(), StoreError> {
        let zeros = vec![0; usize::try_from(journal_bytes).unwrap_or(usize::MAX)];
        FILES
            .iter()
            .try_for_each(|name| file::write_atomically(&dir.join(name), &[&zeros]))
    }

    /// Opens for appending after `last_seq`, all of which the engine has flushed.
    pub(crate) fn open(dir: &Path, scan: &Scan, last_seq: u64) -> Result<Journal, StoreError> {
        let open = |i: usize| -> Result<JournalFile, StoreError> {
            let path = dir.join(FILES[i]);
            let file = OpenOptions::new()
                .write(true)
                .open(&path)
                .map_err(StoreError::io("open", &path))?;
            Ok(JournalFile {
                file,
                path,
                generation: scan.generations[i],
                last_seq: scan.last_seqs[i],
            })
        };
        let files = [open(0)?, open(1)?];
        let active = usize::from(files[1].generation < files[0].generation);
        let length = fs::metadata(&files[0].path)
            .map_err(StoreError::io("read", &files[0].path))?
            .len();
        Ok(Journal {
            files,
            active,
            offset: 0,
            next_seq: last_seq + 1,
            capacity: length,
            buffer: Vec::new(),
        })
    }

    /// Number of the last record.
    pub(crate) fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// True when the next record of this payload goes into the other file.
    pub(crate) fn is_full_for(&self, payload_bytes: usize) -> bool {
        let end = self.offset + (RECORD_HEADER_BYTES + payload_bytes) as u64;
        self.offset > HEADER_BYTES as u64 && end > self.capacity
    }

    /// Last record of the file that would be written over next; the engine must have flushed it first.
    pub(crate) fn last_seq_of_other(&self) -> u64 {
        self.files[1 - self.active].last_seq
    }

    /// Goes on in the other file.
    pub(crate) fn switch(&mut self) {
        self.active = 1 - self.active;
        self.offset = 0;
    }

    /// Appends a record and makes it durable. `engine_flushed` is written down when a file is begun.
    pub(crate) fn append(
        &mut self,
        payload: &impl prost::Message,
        engine_flushed: u64,
    ) -> Result<u64, StoreError> {
        let seq = self.next_seq;
        let at = self.offset;
        self.buffer.clear();
        if at == 0 {
            let newest = self.files[0].generation.max(self.files[1].generation);
            self.files[self.active].generation = newest + 1;
            let header = Header {
                generation: newest + 1,
                first_seq: seq,
                engine_flushed,
            };
            self.buffer.extend_from_slice(&header.encode());
        }
        self.encode_record(seq, payload)?;
        let file = &mut self.files[self.active];
        file.file
            .write_all_at(&self.buffer, at)
            .map_err(StoreError::io("write", &file.path))?;
        file.file
            .sync_data()
            .map_err(StoreError::io("sync", &file.path))?;
        file.last_seq = seq;
        self.offset = at + self.buffer.len() as u64;
        self.next_seq += 1;
        // One huge record must not keep its buffer for ever.
        self.buffer.shrink_to(1 << 20);
        Ok(seq)
    }

    fn encode_record(&mut self, seq: u64, payload: &impl prost::Message) -> Result<(), StoreError> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        payload.encode_raw(&mut self.buffer);
        let (header, body) = self.buffer[start..].split_at_mut(RECORD_HEADER_BYTES);
        let length = u32::try_from(body.len())
            .map_err(|_| StoreError::Invalid("one batch never holds 4 GiB".to_owned()))?;
        header[..4].copy_from_slice(RECORD_MAGIC);
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[8..16].copy_from_slice(&seq.to_le_bytes());
        header[16..20].copy_from_slice(&record_checksum(seq, body).to_le_bytes());
        Ok(())
    }
}
