//! `berth.acked`: how far this member has acknowledged. Written after every durable step, so it never promises too much;
//! not synced itself, so after a power cut it may be a little old. A journal that ends before it has lost something that
//! others rely on.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use berth_raft::PeerId;

use crate::{StoreError, file};

/// Name of the file.
pub(crate) const FILE: &str = "berth.acked";

/// Two slots, written in turn, so that a torn write leaves the other one.
const SLOT_BYTES: usize = 64;

/// The acknowledged position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Acked {
    /// Number of the last journal record that is durable.
    pub(crate) seq: u64,
    /// Term, vote and last index after it; for people who look at the file, and compared after recovery.
    pub(crate) term: u64,
    pub(crate) vote: u64,
    pub(crate) last_index: u64,
}

impl Acked {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(b"brthackd");
        for (i, n) in [self.seq, self.term, self.vote, self.last_index]
            .into_iter()
            .enumerate()
        {
            slot[8 + 8 * i..16 + 8 * i].copy_from_slice(&n.to_le_bytes());
        }
        let crc = crc32fast::hash(&slot[..SLOT_BYTES - 4]);
        slot[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    fn decode(slot: &[u8]) -> Option<Acked> {
        let (body, crc) = slot.split_at_checked(SLOT_BYTES - 4)?;
        if !body.starts_with(b"brthackd") || crc32fast::hash(body).to_le_bytes() != crc {
            return None;
        }
        let number = |i: usize| {
            Some(u64::from_le_bytes(
                body.get(8 + 8 * i..16 + 8 * i)?.try_into().ok()?,
            ))
        };
        Some(Acked {
            seq: number(0)?,
            term: number(1)?,
            vote: number(2)?,
            last_index: number(3)?,
        })
    }
}

/// The open file.
#[derive(Debug)]
pub(crate) struct AckedFile {
    file: File,
    path: PathBuf,
    next_slot: u64,
}

impl AckedFile {
    /// Makes the file of a new store.
    pub(crate) fn create(dir: &Path) -> Result<(), StoreError> {
        let slot = Acked::default().encode();
        file::write_atomically(&dir.join(FILE), &[&slot, &slot])
    }

    /// Opens the file of an existing store.
    pub(crate) fn open(dir: &Path, member: PeerId) -> Result<(AckedFile, Acked), StoreError> {
        let path = dir.join(FILE);
        let damaged = |what: &str| StoreError::corrupt(what, &path, member);
        let bytes = file::read_if_exists(&path)?
            .ok_or_else(|| damaged("the record of what was acknowledged is missing"))?;
        let slots: Vec<Option<Acked>> = bytes.chunks(SLOT_BYTES).map(Acked::decode).collect();
        if bytes.len() != 2 * SLOT_BYTES || slots.iter().all(Option::is_none) {
            return Err(damaged(
                "the record of what was acknowledged is torn or empty",
            ));
        }
        let newest = slots
            .iter()
            .flatten()
            .max_by_key(|a| a.seq)
            .copied()
            .unwrap_or_default();
        let next_slot = u64::from(slots[0] == Some(newest));
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        Ok((
            AckedFile {
                file,
                path,
                next_slot,
            },
            newest,
        ))
    }

    /// Records a new position.
    pub(crate) fn write(&mut self, acked: &Acked) -> Result<(), StoreError> {
        self.file
            .write_all_at(&acked.encode(), self.next_slot * SLOT_BYTES as u64)
            .map_err(StoreError::io("write", &self.path))?;
        self.next_slot ^= 1;
        Ok(())
    }

    /// Makes the newest position durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file
            .sync_data()
            .map_err(StoreError::io("sync", &self.path))
    }
}
