//! `fifo`: higher priority first, then first come, first served.
//!
//! Source: the default order of every batch queue (Slurm's `priority/basic`, for one). Backfill behind a reservation
//! for the blocked head is the planner's (EASY: Lifka, "The ANL/IBM SP scheduling system", 1995; see
//! [`berth_core::planner`]). `backfill=none` is the strict, blocking order that published comparisons call FIFO (Helios,
//! SC 2021, section 4.2); `backfill=greedy` starts whatever fits and promises nothing.
//!
//! Starvation: none within a priority. Every job becomes the head of the queue once those before it have started, and
//! the head's wait is bounded by the planner's promise. With `backfill=greedy` large jobs can starve.

use berth_core::policy::{Backfill, Policy, Proposal, Rest, View};
use rand_chacha::ChaCha8Rng;

use crate::options::{NameError, Options};

/// Priority, then arrival.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fifo {
    backfill: Backfill,
}

impl Fifo {
    /// With settings: `backfill`.
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(options: &mut Options) -> Result<Self, NameError> {
        let backfill = options.backfill()?;
        Ok(Self { backfill })
    }
}

impl Policy for Fifo {
    fn name(&self) -> &str {
        "fifo"
    }

    /// The queue's own order is this policy's, so a round costs what kinds of requests wait, not what jobs do.
    fn propose(&mut self, _view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        Proposal {
            rest: Rest::InTurn,
            backfill: self.backfill,
            ..Proposal::default()
        }
    }
}
