//! What must hold at every instant of a run, whatever the policy and the trace. One promise per file.
//!
//! | file | promise |
//! | --- | --- |
//! | [`conservation`] | what was held, watched from outside, is exactly the sum of the ledger's classes |
//! | [`room`] | no GPU, CPU or byte is given twice |
//! | [`gangs`] | a gang is placed whole, and stays whole |
//! | [`census`] | every job that arrived waits, runs or is over; it ends once, and never runs again |
//!
//! The replicated state's own invariants ([`State::check`]) are looked at beside these. Checkers read the state and
//! what the engine says of it, and share no code with either, so that the same mistake is not made twice.

mod census;
mod conservation;
mod gangs;
#[cfg(test)]
mod made_up;
mod room;

use berth_core::apply::Applied;
use berth_core::state::State;

use super::outcome::Ledger;

/// What a checker says: nothing, or what is broken.
type Verdict = Result<(), String>;

/// What the engine believes at the end of an instant.
#[derive(Debug)]
pub(super) struct Belief<'a> {
    /// The state.
    pub(super) state: &'a State,
    /// Jobs that were submitted.
    pub(super) arrived: usize,
    /// Jobs that are over.
    pub(super) finished: usize,
    /// Ledger of all attempts that are over.
    pub(super) ledger: Ledger,
    /// Begin of each attempt that is not, and thousandths of GPUs that it holds.
    pub(super) open: Vec<(u64, u64)>,
}

/// All checkers.
#[derive(Debug, Default)]
pub(super) struct Checks {
    conservation: conservation::Conservation,
    census: census::Census,
}

impl Checks {
    /// Time passes; nothing changed since the last instant.
    pub(super) fn on_time(&mut self, now_ms: u64) {
        self.conservation.on_time(now_ms);
    }

    /// An entry was applied.
    pub(super) fn on_applied(&mut self, applied: &Applied) -> Verdict {
        self.census.on_applied(applied)
    }

    /// The end of an instant.
    pub(super) fn on_instant(&mut self, belief: &Belief<'_>) -> Verdict {
        belief.state.check().map_err(|violations| {
            let what: Vec<String> = violations.iter().map(ToString::to_string).collect();
            what.join("; ")
        })?;
        room::check(belief.state)?;
        gangs::check(belief.state, belief.open.len())?;
        self.census.check(belief)?;
        self.conservation.check(belief)
    }
}
