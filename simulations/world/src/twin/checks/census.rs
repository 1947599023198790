//! Every job that arrived waits, runs or is over; it ends once, and never runs again.

use std::collections::BTreeSet;

use berth_core::apply::Applied;
use berth_types::JobId;

use super::{Belief, Verdict};

/// Remembers who is over.
#[derive(Debug, Default)]
pub(super) struct Census {
    over: BTreeSet<JobId>,
}

impl Census {
    pub(super) fn on_applied(&mut self, applied: &Applied) -> Verdict {
        for finished in &applied.finished {
            let id = finished.job.id;
            if !self.over.insert(id) {
                return Err(format!("CENSUS: job {id} is over for the second time"));
            }
        }
        Ok(())
    }

    pub(super) fn check(&self, belief: &Belief<'_>) -> Verdict {
        let unfinished = belief.state.jobs.len();
        let (arrived, over) = (belief.arrived, self.over.len());
        if unfinished + over != arrived {
            return Err(format!(
                "CENSUS: {arrived} jobs arrived, {unfinished} are unfinished, {over} are over"
            ));
        }
        if over != belief.finished {
            let counted = belief.finished;
            return Err(format!(
                "CENSUS: {over} jobs are over, {counted} were counted"
            ));
        }
        let active = belief.state.active.iter().copied();
        let waiting = belief.state.pending.iter().map(|key| key.job);
        if let Some(job) = active.chain(waiting).find(|job| self.over.contains(job)) {
            return Err(format!("CENSUS: job {job} is over and still there"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use berth_core::state::FinishedJob;
    use berth_types::Outcome;

    use super::*;
    use crate::twin::Ledger;
    use crate::twin::checks::made_up::{self, State, placed, state};

    fn ends(job: u64) -> Applied {
        Applied {
            finished: vec![FinishedJob {
                seq: job,
                job: made_up::job(job, 1),
                outcome: Outcome::Completed,
                reason: String::new(),
                ended_ms: 1,
                node_names: Vec::new(),
            }],
            ..Applied::default()
        }
    }

    fn belief(state: &State, arrived: usize, finished: usize) -> Belief<'_> {
        Belief {
            state,
            arrived,
            finished,
            ledger: Ledger::default(),
            open: Vec::new(),
        }
    }

    #[test]
    fn who_is_lost_or_miscounted_is_seen() {
        let mut state = state();
        placed(&mut state, 1, &[(1, &[])]);
        let mut census = Census::default();
        census.on_applied(&ends(2)).unwrap();
        assert_eq!(census.check(&belief(&state, 2, 1)), Ok(()));
        let lost = census.check(&belief(&state, 3, 1)).unwrap_err();
        assert!(lost.contains("3 jobs arrived, 1 are unfinished, 1 are over"));
        let miscounted = census.check(&belief(&state, 2, 2)).unwrap_err();
        assert!(miscounted.contains("2 were counted"));
    }

    #[test]
    fn who_ends_twice_or_comes_back_is_seen() {
        let mut census = Census::default();
        census.on_applied(&ends(1)).unwrap();
        let twice = census.on_applied(&ends(1)).unwrap_err();
        assert!(twice.contains("second time"));
        let mut state = state();
        placed(&mut state, 1, &[(1, &[])]);
        let back = census.check(&belief(&state, 2, 1)).unwrap_err();
        assert!(back.contains("job 1 is over and still there"));
    }
}
