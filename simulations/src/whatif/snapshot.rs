//! What the masters know at one moment.

use std::path::Path;

use anyhow::Context;
use berth_core::{State, codec};
use berth_policy::history::History;
use berth_types::Outcome;

/// A cluster's state, and what its finished jobs tell about those to come.
#[derive(Debug)]
pub struct Snapshot {
    /// Everything replicated.
    pub state: State,
    /// When it was taken, in milliseconds since 1970, UTC.
    pub now_ms: u64,
    /// How long jobs ran that completed.
    pub history: History,
}

impl Snapshot {
    /// Reads a backup.
    ///
    /// # Errors
    /// If it is damaged or of an unknown version.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let (info, state, finished) = berth_raft_store::read_backup(path)?;
        let state = codec::decode_state(&state).with_context(|| path.display().to_string())?;
        let mut history = History::default();
        for (_, _, record) in &finished {
            let finished =
                codec::decode_finished(record).with_context(|| path.display().to_string())?;
            if finished.outcome == Outcome::Completed
                && let Some(last) = finished.job.past.last()
            {
                let ran_ms = last.ended_ms.saturating_sub(last.started_ms);
                history.learn(&finished.job, ran_ms);
            }
        }
        Ok(Self {
            now_ms: info.created_unix_ms.max(state.time_ms),
            state,
            history,
        })
    }
}
