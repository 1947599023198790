//! Opening a store: making a new one, or judging whether an old one is whole.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use berth_raft::Recovered;
use prost::Message;

use crate::acked::{self, Acked, AckedFile};
use crate::applier::Applier;
use crate::engine::Engine;
use crate::history::EngineHistory;
use crate::identity::{self, Identity};
use crate::image::Image;
use crate::journal::{self, Journal, Scan};
use crate::options::{Backend, StoreOptions};
use crate::record::JournalRecord;
use crate::redb_engine::{self, RedbEngine};
use crate::sled_engine::{self, SledEngine};
use crate::store::{Store, note_acked};
use crate::{HistoryStore, LogStore, StoreError, file, snapshot_file};

/// Opens the store in `dir`, making a new one in an empty or missing directory. A new store is [`Recovered::is_blank`].
/// Both handles must be dropped before the directory can be opened again.
///
/// # Errors
/// [`StoreError::Corrupt`] when something that was acknowledged is missing or damaged: this member must not vote again.
/// [`StoreError::Mismatch`] for another member's store. Else what the system or the engine says.
#[allow(clippy::type_complexity)]
pub fn open(
    dir: &Path,
    backend: Backend,
    options: StoreOptions,
) -> Result<(Recovered, Box<dyn LogStore>, Arc<dyn HistoryStore>), StoreError> {
    let (recovered, store, history) = open_store(dir, backend, &options)?;
    Ok((recovered, Box::new(store), Arc::new(history)))
}

pub(crate) fn open_store(
    dir: &Path,
    backend: Backend,
    options: &StoreOptions,
) -> Result<(Recovered, Store, EngineHistory), StoreError> {
    options.validate()?;
    fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
    remove_unfinished(dir)?;
    let identity = Identity::of(options, backend);
    match identity.check(dir)? {
        None => create(dir, &identity, options)?,
        Some(found) if found.cluster.is_none() && identity.cluster.is_some() => {
            identity.write(dir)?
        }
        Some(_) => {}
    }
    load(dir, backend, options)
}

fn remove_unfinished(dir: &Path) -> Result<(), StoreError> {
    for name in file::names_in(dir)?
        .iter()
        .filter(|n| n.ends_with(file::UNFINISHED))
    {
        file::remove_if_exists(&dir.join(name))?;
    }
    Ok(())
}

/// Makes a new store. The format file comes last: before it, nothing was ever acknowledged.
fn create(dir: &Path, identity: &Identity, options: &StoreOptions) -> Result<(), StoreError> {
    remove_interrupted_creation(dir, options)?;
    AckedFile::create(dir)?;
    Journal::create(dir, options.journal_bytes)?;
    {
        let engine = open_engine(dir, identity.backend, options, true)?;
        Image::blank().write(&*engine, 0)?;
        engine.flush()?;
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        file::sync_dir(parent)?;
    }
    identity.write(dir)
}

/// Without its format file a directory holds no store, or one whose making was cut short, or one that was tampered with.
fn remove_interrupted_creation(dir: &Path, options: &StoreOptions) -> Result<(), StoreError> {
    let names = file::names_in(dir)?;
    let ours = [
        acked::FILE,
        journal::FILES[0],
        journal::FILES[1],
        sled_engine::DIR,
        redb_engine::FILE,
    ];
    if !names.iter().any(|n| ours.contains(&n.as_str())) {
        return Ok(());
    }
    let path = dir.join(identity::FILE);
    let damaged = || {
        StoreError::corrupt(
            "the format file of a store in use is missing",
            &path,
            options.member,
        )
    };
    let (_, acked) = AckedFile::open(dir, options.member).map_err(|_| damaged())?;
    if acked != Acked::default() {
        return Err(damaged());
    }
    for name in journal::FILES
        .iter()
        .copied()
        .chain([redb_engine::FILE, acked::FILE])
    {
        file::remove_if_exists(&dir.join(name))?;
    }
    let sled = dir.join(sled_engine::DIR);
    if sled.exists() {
        fs::remove_dir_all(&sled).map_err(StoreError::io("remove", &sled))?;
    }
    Ok(())
}

fn open_engine(
    dir: &Path,
    backend: Backend,
    options: &StoreOptions,
    create: bool,
) -> Result<Arc<dyn Engine>, StoreError> {
    let (cache, member) = (options.cache_bytes, options.member);
    Ok(match backend {
        Backend::Sled => Arc::new(SledEngine::open(
            &dir.join(sled_engine::DIR),
            create,
            cache,
            member,
        )?),
        Backend::Redb => Arc::new(RedbEngine::open(
            &dir.join(redb_engine::FILE),
            create,
            cache,
            member,
        )?),
    })
}

fn load(
    dir: &Path,
    backend: Backend,
    options: &StoreOptions,
) -> Result<(Recovered, Store, EngineHistory), StoreError> {
    let member = options.member;
    let engine = open_engine(dir, backend, options, false)?;
    let engine_path = dir.join(backend.name());
    let mut image = Image::load(&*engine, &engine_path, member)?
        .ok_or_else(|| StoreError::corrupt("vote and log are gone", &engine_path, member))?;
    let (acked_file, acked) = AckedFile::open(dir, member)?;
    let scan = journal::scan(dir, options.journal_bytes, member)?;
    check_complete(dir, image.head().applied, &scan, acked, options)?;

    let mut recovered = image.recovered(&*engine, &engine_path, member)?;
    let mut position = acked_position(&recovered, image.head().applied);
    replay(
        dir,
        &scan,
        &mut image,
        &mut recovered,
        &mut position,
        options,
    )?;
    check_acked(dir, acked, position, options)?;
    recovered
        .check()
        .map_err(|what| StoreError::corrupt(what, &engine_path, member))?;
    if let Some(snapshot) = &mut recovered.snapshot {
        *snapshot = snapshot_file::read(dir, &snapshot.meta, member)?;
    }
    snapshot_file::remove_others(dir, recovered.snapshot.as_ref().map(|s| &s.meta))?;

    image.write(&*engine, position.seq)?;
    engine.flush()?;
    let history = EngineHistory::load(Arc::clone(&engine)).map_err(|e| match e {
        StoreError::Engine { message, .. } => StoreError::corrupt(message, &engine_path, member),
        other => other,
    })?;
    let journal = Journal::open(dir, &scan, position.seq)?;
    let snapshot_index = recovered.snapshot.as_ref().map_or(0, |s| s.meta.index);
    let applier = Applier::start(Arc::clone(&engine), image, position.seq)?;
    let store = Store::new(
        dir.to_owned(),
        engine,
        journal,
        (acked_file, position),
        snapshot_index,
        applier,
    );
    Ok((recovered, store, history))
}

/// Engine and journal together must hold every record up to the last one that was acknowledged.
fn check_complete(
    dir: &Path,
    applied: u64,
    scan: &Scan,
    acked: Acked,
    options: &StoreOptions,
) -> Result<(), StoreError> {
    let lost = |what: String| Err(StoreError::corrupt(what, dir, options.member));
    if scan.engine_flushed > applied {
        return lost(format!(
            "the storage engine lost what it had flushed: it ends at record {applied}, not {}",
            scan.engine_flushed
        ));
    }
    let mut next = applied + 1;
    for found in scan.records.iter().filter(|r| r.seq > applied) {
        if found.seq != next {
            return lost(format!(
                "acknowledged journal records {next} to {} are gone",
                found.seq - 1
            ));
        }
        next += 1;
    }
    let end = next - 1;
    if end < scan.top.max(acked.seq) {
        return lost(format!(
            "acknowledged journal records {next} to {} are gone",
            scan.top.max(acked.seq)
        ));
    }
    Ok(())
}

/// Carries what only the journal holds over into the engine's image and the result.
fn replay(
    dir: &Path,
    scan: &Scan,
    image: &mut Image,
    recovered: &mut Recovered,
    position: &mut Acked,
    options: &StoreOptions,
) -> Result<(), StoreError> {
    let applied = image.head().applied;
    for found in scan.records.iter().filter(|r| r.seq > applied) {
        let record = JournalRecord::decode(found.payload.clone()).map_err(|_| {
            StoreError::corrupt(
                format!("journal record {} is unreadable", found.seq),
                dir,
                options.member,
            )
        })?;
        for batch in record.batches {
            image.stage(&batch);
            note_acked(position, &batch);
            recovered.apply(&batch.into_persist());
        }
        position.seq = found.seq;
    }
    Ok(())
}

fn acked_position(recovered: &Recovered, applied: u64) -> Acked {
    Acked {
        seq: applied,
        term: recovered.hard_state.term,
        vote: recovered.hard_state.vote,
        last_index: recovered.last_index(),
    }
}

/// When nothing was written after the last acknowledgement, term, vote and end of the log must be what it says.
fn check_acked(
    dir: &Path,
    acked: Acked,
    position: Acked,
    options: &StoreOptions,
) -> Result<(), StoreError> {
    if acked.seq > 0 && acked.seq == position.seq && acked != position {
        let what = format!("recovered {position:?}, but had acknowledged {acked:?}");
        return Err(StoreError::corrupt(what, dir, options.member));
    }
    Ok(())
}
