//! Snapshots: one checksummed file each, named by position.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use berth_raft::{PeerId, Snapshot, SnapshotMeta};
use bytes::Bytes;
use prost::Message;

use crate::record::SnapshotRecord;
use crate::{StoreError, file};

const PREFIX: &str = "snapshot-";
const MAGIC: &[u8; 8] = b"brthsnp1";

/// Magic, length of the position, checksum of the position, length of the payload, checksum of the payload.
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 4;

fn path(dir: &Path, meta: &SnapshotMeta) -> PathBuf {
    dir.join(format!("{PREFIX}{:020}-{}", meta.index, meta.term))
}

/// Writes a snapshot; it is durable on return.
pub(crate) fn write(dir: &Path, snapshot: &Snapshot) -> Result<(), StoreError> {
    let path = path(dir, &snapshot.meta);
    let position = SnapshotRecord::from(&snapshot.meta).encode_to_vec();
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&(position.len() as u32).to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&position).to_le_bytes());
    header.extend_from_slice(&(snapshot.data.len() as u64).to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&snapshot.data).to_le_bytes());
    let unfinished = file::unfinished_name(&path);
    let mut out = File::create(&unfinished).map_err(StoreError::io("create", &unfinished))?;
    for part in [
        header.as_slice(),
        position.as_slice(),
        snapshot.data.as_ref(),
    ] {
        out.write_all(part)
            .map_err(StoreError::io("write", &unfinished))?;
    }
    file::finish(out, &unfinished, &path)
}

/// Reads the snapshot at `meta`; anything but exactly that snapshot is damage.
pub(crate) fn read(
    dir: &Path,
    meta: &SnapshotMeta,
    member: PeerId,
) -> Result<Snapshot, StoreError> {
    let path = path(dir, meta);
    let damaged = |what: &str| StoreError::corrupt(what, &path, member);
    let bytes = file::read_if_exists(&path)?.ok_or_else(|| damaged("the snapshot is missing"))?;
    let bytes = Bytes::from(bytes);
    let snapshot = decode(&bytes).ok_or_else(|| damaged("the snapshot is torn or damaged"))?;
    if snapshot.meta != *meta {
        return Err(damaged("the snapshot is of another position"));
    }
    Ok(snapshot)
}

fn decode(bytes: &Bytes) -> Option<Snapshot> {
    let header = bytes.get(..HEADER_BYTES)?;
    let position_bytes = u32::from_le_bytes(header[8..12].try_into().ok()?) as usize;
    let data_bytes = usize::try_from(u64::from_le_bytes(header[16..24].try_into().ok()?)).ok()?;
    let data_at = HEADER_BYTES.checked_add(position_bytes)?;
    if &header[..8] != MAGIC || bytes.len() != data_at.checked_add(data_bytes)? {
        return None;
    }
    let position = bytes.slice(HEADER_BYTES..data_at);
    let data = bytes.slice(data_at..);
    let sums = [&position, &data].map(|part| crc32fast::hash(part).to_le_bytes());
    if sums[0] != header[12..16] || sums[1] != header[24..28] {
        return None;
    }
    Some(Snapshot {
        meta: SnapshotRecord::decode(position).ok()?.into(),
        data,
    })
}

/// Removes every snapshot but the one at `keep`; only while none is being written.
pub(crate) fn remove_others(dir: &Path, keep: Option<&SnapshotMeta>) -> Result<(), StoreError> {
    let kept = keep.map(|meta| path(dir, meta));
    remove_where(dir, |path, _| Some(path) != kept.as_deref())
}

/// Removes the snapshots before `keep`. A newer one may be under way.
pub(crate) fn remove_older(dir: &Path, keep: &SnapshotMeta) -> Result<(), StoreError> {
    remove_where(dir, |_, index| {
        index.is_some_and(|index| index < keep.index)
    })
}

fn remove_where(
    dir: &Path,
    is_removed: impl Fn(&Path, Option<u64>) -> bool,
) -> Result<(), StoreError> {
    for name in file::names_in(dir)? {
        let Some(position) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let index = position.split('-').next().and_then(|n| n.parse().ok());
        let path = dir.join(&name);
        if is_removed(&path, index) {
            file::remove_if_exists(&path)?;
        }
    }
    Ok(())
}
