//! The thread that carries durable batches from the journal into the engine, off the path of acknowledgements.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::StoreError;
use crate::engine::Engine;
use crate::image::Image;
use crate::record::BatchRecord;

/// Groups of batches that may wait. The writer waits when there are more: a bound on memory.
const QUEUED_GROUPS: usize = 16;

/// Batches up to journal record `seq`.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) seq: u64,
    pub(crate) batches: Vec<BatchRecord>,
    /// Flush the engine after them.
    pub(crate) flush: bool,
}

#[derive(Debug, Default)]
struct Progress {
    /// The engine has flushed everything up to this journal record.
    flushed: u64,
    failure: Option<String>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle of the thread. Dropping it waits until everything queued is applied.
pub(crate) struct Applier {
    queue: Option<SyncSender<Group>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Applier {
    /// Starts the thread on an engine that has flushed everything up to `flushed`.
    pub(crate) fn start(
        engine: Arc<dyn Engine>,
        image: Image,
        flushed: u64,
    ) -> Result<Applier, StoreError> {
        let (queue, groups) = sync_channel(QUEUED_GROUPS);
        let shared = Arc::new(Shared::default());
        shared.lock().flushed = flushed;
        let in_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("berth-store-apply".to_owned())
            .spawn(move || run(&*engine, image, &groups, &in_thread))
            .map_err(|e| StoreError::Engine {
                what: "start a thread",
                message: e.to_string(),
            })?;
        Ok(Applier {
            queue: Some(queue),
            thread: Some(thread),
            shared,
        })
    }

    /// Queues a group; waits while too many are queued.
    pub(crate) fn push(&self, group: Group) -> Result<(), StoreError> {
        let sent = self
            .queue
            .as_ref()
            .is_some_and(|queue| queue.send(group).is_ok());
        if sent {
            self.check()
        } else {
            self.check()
                .and(Err(StoreError::Failed("the engine thread is gone".into())))
        }
    }

    /// The failure of the thread, if it failed.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match &self.shared.lock().failure {
            Some(failure) => Err(StoreError::Failed(failure.clone())),
            None => Ok(()),
        }
    }

    /// How far the engine has flushed.
    pub(crate) fn flushed(&self) -> u64 {
        self.shared.lock().flushed
    }

    /// Waits until the engine has flushed journal record `seq`.
    pub(crate) fn wait_flushed(&self, seq: u64) -> Result<(), StoreError> {
        let mut progress = self.shared.lock();
        while progress.flushed < seq {
            if let Some(failure) = &progress.failure {
                return Err(StoreError::Failed(failure.clone()));
            }
            if progress.ended {
                return Err(StoreError::Failed("the engine thread is gone".to_owned()));
            }
            progress = self
                .shared
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(engine: &dyn Engine, mut image: Image, groups: &Receiver<Group>, shared: &Shared) {
    for group in groups {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            apply(engine, &mut image, &group)
        }));
        let outcome = outcome
            .unwrap_or_else(|_| Err(StoreError::Failed("the storage engine gave up".to_owned())));
        let mut progress = shared.lock();
        match outcome {
            Ok(()) if group.flush => progress.flushed = group.seq,
            Ok(()) => {}
            Err(e) => {
                tracing::error!(error = %e, "the storage engine failed");
                progress.failure = Some(e.to_string());
            }
        }
        shared.changed.notify_all();
        if progress.failure.is_some() {
            break;
        }
    }
    shared.lock().ended = true;
    shared.changed.notify_all();
}

fn apply(engine: &dyn Engine, image: &mut Image, group: &Group) -> Result<(), StoreError> {
    group.batches.iter().for_each(|batch| image.stage(batch));
    image.write(engine, group.seq)?;
    while image.sweep(engine)? {}
    if group.flush { engine.flush() } else { Ok(()) }
}
