//! One call at a time, with a note of which one and since when.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nvml_wrapper::error::NvmlError;

use super::lock;
use crate::gpu::line::Waiting;

/// Where a thread notes the call that it is in.
#[derive(Debug)]
pub(super) struct Slot {
    index: Option<u16>,
    call: Mutex<Option<(&'static str, Instant)>>,
}

impl Slot {
    pub(super) fn new(index: Option<u16>) -> Self {
        Self {
            index,
            call: Mutex::new(None),
        }
    }

    /// Notes a call while it lasts.
    pub(super) fn during<T>(&self, name: &'static str, call: impl FnOnce() -> T) -> T {
        *lock(&self.call) = Some((name, Instant::now()));
        let result = call();
        *lock(&self.call) = None;
        result
    }

    pub(super) fn waiting(&self) -> Option<Waiting> {
        let (call, since) = (*lock(&self.call))?;
        Some(Waiting {
            index: self.index,
            call: call.into(),
            for_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// Why a GPU cannot be read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// Fell off the bus, or is not listed.
    Lost,
    /// Needs a reset.
    ResetRequired,
    /// Answers with errors only.
    Failing,
}

/// Asks one GPU, and remembers what it does not support, so that it is not asked for that again.
#[derive(Debug)]
pub(super) struct Asker {
    slot: Arc<Slot>,
    unsupported: BTreeSet<&'static str>,
}

impl Asker {
    pub(super) fn new(slot: Arc<Slot>) -> Self {
        Self {
            slot,
            unsupported: BTreeSet::new(),
        }
    }

    /// The answer, or nothing if there is none. `name` stands for function and arguments.
    ///
    /// # Errors
    /// If the whole GPU is gone.
    pub(super) fn ask<T>(
        &mut self,
        name: &'static str,
        call: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Result<Option<T>, Gone> {
        if self.unsupported.contains(name) {
            return Ok(None);
        }
        match self.slot.during(name, call) {
            Ok(answer) => Ok(Some(answer)),
            Err(NvmlError::GpuLost) => Err(Gone::Lost),
            Err(NvmlError::ResetRequired) => Err(Gone::ResetRequired),
            Err(
                NvmlError::NotSupported
                | NvmlError::FailedToLoadSymbol(_)
                | NvmlError::FunctionNotFound
                | NvmlError::NoPermission,
            ) => {
                self.unsupported.insert(name);
                Ok(None)
            }
            // A value that cannot be had or understood now is absent now.
            Err(_) => Ok(None),
        }
    }

    /// The same, for numbers where more than one function knows the answer, and for those with a limit of their own.
    pub(super) fn try_ask<T>(
        &mut self,
        name: &'static str,
        call: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Result<T, NvmlError> {
        self.slot.during(name, call)
    }
}
