//! Idempotency keys: the same submission twice is one job.
//!
//! Keys are UUIDv7, so they sort by the time at which a client drew them. A key is remembered for
//! [`KEY_WINDOW_MS`]; what has been forgotten is refused by its time, so a late repetition is told that it is late and
//! never becomes a second job. Forgetting happens a few keys at a time and only as new ones arrive, so that no entry
//! pays for all and a refused submission changes nothing.

use berth_types::JobId;

use super::{Rejection, transition::Transition};
use crate::state::{KEY_WINDOW_MS, MAX_KEYS, Submission};

/// Old keys forgotten per new key: more than one, so that a backlog shrinks.
const FORGOTTEN_PER_KEY: usize = 4;

/// When a UUIDv7 was drawn, in milliseconds since 1970; `None` if the number is no UUIDv7.
pub fn key_time_ms(key: u128) -> Option<u64> {
    let version = (key >> 76) & 0xf;
    let variant = (key >> 62) & 0b11;
    (version == 7 && variant == 0b10).then_some((key >> 80) as u64)
}

impl Transition<'_> {
    /// The job that this key became, or `None` if the key is new and acceptable.
    pub(super) fn known_key(&self, key: u128, hash: u128) -> Result<Option<JobId>, Rejection> {
        let drawn_ms = key_time_ms(key).ok_or(Rejection::KeyMalformed(key))?;
        if let Some(known) = self.state.submissions.get(&key) {
            if known.hash == hash {
                return Ok(Some(known.job));
            }
            return Err(Rejection::KeyReused(known.job));
        }
        let from_ms = self.keys_from_ms();
        if drawn_ms < from_ms {
            return Err(Rejection::KeyExpired(from_ms - drawn_ms));
        }
        if drawn_ms > self.now().saturating_add(KEY_WINDOW_MS) {
            return Err(Rejection::KeyFromFuture(drawn_ms - self.now()));
        }
        Ok(None)
    }

    pub(super) fn remember_key(&mut self, key: u128, hash: u128, job: JobId) {
        self.state.keys_from_ms = self.keys_from_ms();
        self.state.submissions.insert(key, Submission { hash, job });
        for _ in 0..FORGOTTEN_PER_KEY {
            let Some((oldest, _)) = self.state.submissions.get_min() else {
                return;
            };
            let oldest = *oldest;
            let drawn_ms = key_time_ms(oldest).unwrap_or(0);
            if self.state.submissions.len() <= MAX_KEYS && drawn_ms >= self.state.keys_from_ms {
                return;
            }
            self.state.submissions.remove(&oldest);
            let after = drawn_ms.saturating_add(1);
            self.state.keys_from_ms = self.state.keys_from_ms.max(after);
        }
    }

    /// Keys drawn before this may have been forgotten.
    fn keys_from_ms(&self) -> u64 {
        let window = self.now().saturating_sub(KEY_WINDOW_MS);
        self.state.keys_from_ms.max(window)
    }
}
