//! The time that a replica is told.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch that never run backwards and never jump: the wall clock at the start plus the
/// steady clock since. A clock that is set while the master runs must not make nodes look lost or jobs look overdue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self {
            started: Instant::now(),
            started_ms: millis(wall),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.started_ms + millis(self.started.elapsed())
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
