//! Pending jobs in the order of their turn, without looking at each of them.
//!
//! Jobs that ask for the same stand in one line ([`State::lines`](crate::state::State::lines)). The walk takes the
//! earliest of the heads of all lines, which is the order of the queue. Once a head did not fit, and nobody behind it in
//! its line may borrow more from promises than it could, the rest of the line cannot start in this round and is passed
//! over: within a round nothing is freed, and promises only take away.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::capacity::Leeway;
use super::round::{Round, Wish};
use crate::policy::Backfill;
use crate::state::PendingKey;

impl Round<'_> {
    /// Starts pending jobs in their order.
    pub(super) fn start_in_turn(&mut self, backfill: Backfill) {
        let view = self.view;
        if self.limits.explain {
            // Whoever waits is told why.
            for key in &view.state.pending {
                if !self.take_turn(key, backfill) {
                    return;
                }
            }
            return;
        }
        let lines = &view.state.lines;
        let mut lines: Vec<_> = (lines.iter())
            .map(|(asked, line)| (asked, line.iter()))
            .collect();
        let heads = (lines.iter_mut().enumerate())
            .filter_map(|(index, (_, line))| Some(Reverse((*line.next()?, index))));
        let mut heads: BinaryHeap<Reverse<(PendingKey, usize)>> = heads.collect();
        while let Some(Reverse((key, index))) = heads.pop() {
            if !self.take_turn(&key, backfill) {
                return;
            }
            let (asked, line) = &mut lines[index];
            let is_over = asked.is_plain() && self.is_hopeless(&key);
            if let Some(next) = line.next().filter(|_| !is_over) {
                heads.push(Reverse((*next, index)));
            }
        }
    }

    /// Starts a job if it fits. False if the round is spent.
    fn take_turn(&mut self, key: &PendingKey, backfill: Backfill) -> bool {
        if self.is_spent() {
            self.plan.stats.cut = true;
            return false;
        }
        self.plan.stats.looked_at += 1;
        let wish = Wish {
            job: key.job,
            workers: None,
            slots: None,
            why: "",
        };
        self.start_one(&wish, backfill);
        true
    }

    /// True if no job that asks for the same as this one can start in this round any more.
    fn is_hopeless(&mut self, key: &PendingKey) -> bool {
        if self.stopped {
            return true;
        }
        let Some(job) = self.view.state.jobs.get(&key.job) else {
            return false;
        };
        let shape = self.shape_of(job);
        let failed = &self.memos[shape.0 as usize].failed;
        if failed.is_empty() {
            return false;
        }
        let mut widest = Leeway::none_of(self.promises.len());
        for (index, promise) in self.promises.iter().enumerate() {
            if promise.told.start_ms.is_some() {
                widest = widest.with(index);
            }
        }
        failed.iter().any(|failed| failed.covers(widest))
    }
}
