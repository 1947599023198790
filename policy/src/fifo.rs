//! `fifo`: higher priority first, then first come, first served.
//!
//! Source: the default order of every batch queue (Slurm's `priority/basic`, for one). Backfill behind a reservation
//! for the blocked head is the planner's (EASY; see [`berth_core::planner`]).
//!
//! Starvation: none within a priority. Every job becomes the head of the queue once those before it have started, and
//! the head's wait is bounded by the planner's promise.

use berth_core::policy::{Backfill, Policy, Proposal, ProposedBundle, View};
use rand_chacha::ChaCha8Rng;

/// Priority, then arrival.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fifo;

impl Policy for Fifo {
    fn name(&self) -> &str {
        "fifo"
    }

    /// All pending jobs in order: about 100 ns each, so no window is needed at the design point of 100,000. The
    /// planner looks at a request shape once, however many jobs share it.
    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        Proposal {
            bundles: (view.state.pending.iter())
                .map(|key| ProposedBundle::start(key.job))
                .collect(),
            backfill: Backfill::BehindReservation,
        }
    }
}
