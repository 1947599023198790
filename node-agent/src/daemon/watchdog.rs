//! Words for the service manager: that this process is well, and that it ends.
//!
//! Only the loop that does the work says so, so that a loop that is stuck is noticed and restarted.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The manager hears from us so many times within the time that it allows.
const TIMES: u32 = 8;

/// Feeds the manager's watchdog, if it has one.
#[derive(Debug)]
pub(crate) struct Watchdog {
    every: Option<Duration>,
    due: Instant,
}

impl Watchdog {
    /// As the environment says.
    pub(crate) fn of_service_manager() -> Self {
        Self {
            every: sd_notify::watchdog_enabled().map(|patience| patience / TIMES),
            due: Instant::now(),
        }
    }

    /// The loop has turned once more.
    pub(crate) fn turned(&mut self) {
        let now = Instant::now();
        let Some(every) = self.every.filter(|_| now >= self.due) else {
            return;
        };
        self.due = now + every;
        // Not told in time is the manager's to judge.
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }
}

/// This process ends because it was asked to.
pub(crate) fn stopping() {
    // Not run by a service manager: nobody to tell.
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}
