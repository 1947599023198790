//! The invariants of the replicated state, derived anew from its records: one per file.
//!
//! Runs in tests and simulations after every entry, and sampled in production, where a violation stops scheduling and
//! raises an alarm but leaves running jobs alone.

mod capacity;
mod certificates;
mod derived;
mod epochs;
mod events;
mod fencing;
mod finished;
mod gang;
mod health;
mod keys;
mod nodes;
mod ports;
mod reservations;

use thiserror::Error;

use crate::state::State;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{code}: {text}")]
pub struct Violation {
    /// Which invariant. Stable.
    pub code: &'static str,
    /// What is wrong, for people.
    pub text: String,
}

/// Most violations that are reported: the first few tell enough.
const MAX_VIOLATIONS: usize = 32;

impl State {
    /// Every broken invariant, up to a few.
    pub fn check(&self) -> Result<(), Vec<Violation>> {
        let mut report = Report::default();
        derived::check(self, &mut report);
        capacity::check(self, &mut report);
        gang::check(self, &mut report);
        epochs::check(self, &mut report);
        fencing::check(self, &mut report);
        ports::check(self, &mut report);
        reservations::check(self, &mut report);
        keys::check(self, &mut report);
        nodes::check(self, &mut report);
        health::check(self, &mut report);
        events::check(self, &mut report);
        finished::check(self, &mut report);
        certificates::check(self, &mut report);
        if report.0.is_empty() {
            Ok(())
        } else {
            Err(report.0)
        }
    }
}

#[derive(Default)]
struct Report(Vec<Violation>);

impl Report {
    /// Notes a violation unless `holds`.
    fn expect(&mut self, holds: bool, code: &'static str, text: impl FnOnce() -> String) {
        if !holds && self.0.len() < MAX_VIOLATIONS {
            let text = text();
            self.0.push(Violation { code, text });
        }
    }
}
