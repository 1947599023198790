//! The lease: how long tasks of `fence` jobs may run without contact to a leader.
//!
//! ```text
//! last contact ......... ask (TERM) ......... kill .... lease over ....... (master) lease + margin: restart elsewhere
//! ```

/// Counted from the last directive that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    contact_ms: u64,
    lease_ms: u64,
}

impl Lease {
    pub(crate) fn new(now_ms: u64, lease_ms: u64) -> Self {
        Self {
            contact_ms: now_ms,
            lease_ms,
        }
    }

    /// A leader spoke; `lease_ms` of 0 keeps the length as it was.
    pub(crate) fn renew(&mut self, now_ms: u64, lease_ms: u64) {
        self.contact_ms = now_ms;
        if lease_ms > 0 {
            self.lease_ms = lease_ms;
        }
    }

    pub(crate) fn length_ms(&self) -> u64 {
        self.lease_ms
    }

    /// How long a `fence` task may still run.
    pub(crate) fn left_ms(&self, now_ms: u64) -> u64 {
        self.kill_at_ms().saturating_sub(now_ms)
    }

    /// When a task with this grace must be killed: a sixteenth before the end, so that it is gone by then.
    pub(crate) fn kill_at_ms(&self) -> u64 {
        self.contact_ms
            .saturating_add(self.lease_ms - self.lease_ms / 16)
    }

    /// When a task with this grace is asked to stop: its grace before the kill, but not in the lease's first half.
    pub(crate) fn term_at_ms(&self, grace_ms: u64) -> u64 {
        let earliest = self.contact_ms.saturating_add(self.lease_ms / 2);
        self.kill_at_ms().saturating_sub(grace_ms).max(earliest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_fit_into_the_lease() {
        let lease = Lease::new(1_000, 8_000);
        assert_eq!(lease.kill_at_ms(), 8_500);
        assert_eq!(lease.term_at_ms(500), 8_000);
        assert_eq!(
            lease.term_at_ms(60_000),
            5_000,
            "a long grace may not eat the first half"
        );
        let mut renewed = lease;
        renewed.renew(9_000, 0);
        assert_eq!(renewed.kill_at_ms(), 16_500);
    }
}
