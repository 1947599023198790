//! The newest directive seen, on disk: 28 bytes, written in place.
//!
//! Layout, little-endian: cluster id, term, applied index (`u64` each), CRC-32 of them (`u32`). A write this small is
//! whole for whoever reads it after this process has died. It is flushed when the cluster or the term changes; an
//! index that a machine's crash loses does not matter, because no task survives that.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use berth_agent_core::Fence;

const BYTES: usize = 28;

/// The open file.
#[derive(Debug)]
pub(super) struct FenceFile {
    file: File,
    saved: Fence,
}

impl FenceFile {
    /// Opens or creates it.
    ///
    /// # Errors
    /// If the system says no, or the content is damaged: then the operator must say whom this node serves.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let saved = match bytes.len() {
            0 => Fence::default(),
            _ => decode(&bytes).ok_or_else(|| {
                let what = format!(
                    "{} is damaged; remove it if this node's tasks may be forgotten",
                    path.display()
                );
                std::io::Error::new(std::io::ErrorKind::InvalidData, what)
            })?,
        };
        Ok(Self { file, saved })
    }

    /// What was saved last.
    pub(super) fn saved(&self) -> Fence {
        self.saved
    }

    /// Saves a newer one.
    ///
    /// # Errors
    /// If the system says no.
    pub(super) fn save(&mut self, fence: Fence) -> std::io::Result<()> {
        self.file.write_all_at(&encode(fence), 0)?;
        if (fence.cluster_id, fence.term) != (self.saved.cluster_id, self.saved.term) {
            self.file.sync_data()?;
        }
        self.saved = fence;
        Ok(())
    }
}

fn encode(fence: Fence) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&fence.cluster_id.to_le_bytes());
    bytes[8..16].copy_from_slice(&fence.term.to_le_bytes());
    bytes[16..24].copy_from_slice(&fence.applied.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..24]);
    bytes[24..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Fence> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let fence = Fence {
        cluster_id: number(0)?,
        term: number(8)?,
        applied: number(16)?,
    };
    (encode(fence) == *bytes).then_some(fence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_read_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fence");
        let fence = |term, applied| Fence {
            cluster_id: 9,
            term,
            applied,
        };
        let mut file = FenceFile::open(&path).unwrap();
        assert_eq!(file.saved(), Fence::default());
        file.save(fence(1, 5)).unwrap();
        file.save(fence(1, 6)).unwrap();
        assert_eq!(FenceFile::open(&path).unwrap().saved(), fence(1, 6));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[17] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        assert!(FenceFile::open(&path).is_err());
    }
}
