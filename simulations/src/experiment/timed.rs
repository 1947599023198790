//! How long a policy thinks.

use std::time::Instant;

use berth_core::policy::{Policy, Proposal, View};
use rand_chacha::ChaCha8Rng;

/// A policy with a stopwatch around it.
pub struct Timed<'p> {
    policy: &'p mut dyn Policy,
    nanos: Vec<u64>,
}

impl std::fmt::Debug for Timed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decisions = self.nanos.len();
        write!(f, "{} after {decisions} decisions", self.policy.name())
    }
}

impl<'p> Timed<'p> {
    /// Around this one.
    pub fn new(policy: &'p mut dyn Policy) -> Self {
        let nanos = Vec::new();
        Self { policy, nanos }
    }

    /// This percentile of all decisions, in milliseconds: the value at `floor(percent / 100 * n)` of the sorted ones; 0
    /// without decisions.
    pub fn percentile_ms(&mut self, percent: usize) -> f64 {
        let last = self.nanos.len().saturating_sub(1);
        let index = (self.nanos.len() * percent / 100).min(last);
        if self.nanos.is_empty() {
            return 0.0;
        }
        let (_, nanos, _) = self.nanos.select_nth_unstable(index);
        *nanos as f64 / 1e6
    }
}

impl Policy for Timed<'_> {
    fn name(&self) -> &str {
        self.policy.name()
    }

    fn propose(&mut self, view: &View, rng: &mut ChaCha8Rng) -> Proposal {
        let begin = Instant::now();
        let proposal = self.policy.propose(view, rng);
        let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.push(nanos);
        proposal
    }
}
