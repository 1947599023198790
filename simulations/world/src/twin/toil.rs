//! Work that is done at some speed: start-up costs, checkpoints, and what a stop takes away. Shared by the models of jobs
//! whose work is an amount.
//!
//! Work is counted in milliseconds at speed 1. An attempt first loads for a while, then works; after every
//! [`checkpoint_every_ms`](Overhead::checkpoint_every_ms) of work it saves, except right at the end. What it has to do
//! again after a stop is the work since the last complete save.

use super::behaviour::{Ended, Spent, Stop};
use super::setting::Overhead;
use super::trace::End;

/// An amount of work, and how far it is.
#[derive(Debug)]
pub(super) struct Toil {
    /// `u64::MAX` if it never ends.
    work_ms: u64,
    end: End,
    overhead: Overhead,
    started_before: bool,
    /// Work that no stop can take away.
    saved_ms: u64,
    attempt: Attempt,
}

/// The running attempt.
#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    /// It is accounted for up to here.
    at_ms: u64,
    start_left_ms: u64,
    save_left_ms: u64,
    /// Time worked since the last complete save, at whatever speed.
    since_save_ms: u64,
    /// Work done when the speed changed last.
    leg_base_ms: u64,
    /// Time worked since then.
    leg_ms: u64,
    /// Speed of the GPUs held, undisturbed.
    full_speed: f64,
    /// Speed now.
    speed: f64,
    spent: Spent,
    ended_ms: Option<u64>,
}

impl Toil {
    pub(super) fn new(work_ms: u64, end: End, overhead: Overhead) -> Self {
        Self {
            work_ms,
            end,
            overhead,
            started_before: false,
            saved_ms: 0,
            attempt: Attempt::default(),
        }
    }

    /// Work done.
    fn done_ms(&self) -> u64 {
        let leg = &self.attempt;
        let done = leg
            .leg_base_ms
            .saturating_add(scaled(leg.leg_ms, leg.speed));
        done.min(self.work_ms)
    }

    /// Time until the work is done, without saves; `None` if it never is.
    fn left_ms(&self) -> Option<u64> {
        let leg = &self.attempt;
        if self.work_ms == u64::MAX || leg.speed <= 0.0 {
            return None;
        }
        let work_ms = self.work_ms.saturating_sub(leg.leg_base_ms);
        let leg_total_ms = if leg.speed == 1.0 {
            work_ms
        } else {
            (work_ms as f64 / leg.speed).ceil() as u64
        };
        Some(leg_total_ms.saturating_sub(leg.leg_ms))
    }

    /// Works for `time_ms`, which is not beyond the end, with saves in between.
    fn work(&mut self, mut time_ms: u64) {
        let every_ms = self.overhead.checkpoint_every_ms;
        if every_ms == 0 {
            self.attempt.leg_ms += time_ms;
            self.attempt.spent.useful_ms += time_ms;
            self.saved_ms = self.done_ms();
            return;
        }
        while time_ms > 0 {
            if self.attempt.save_left_ms > 0 {
                let saving_ms = self.attempt.save_left_ms.min(time_ms);
                self.attempt.save_left_ms -= saving_ms;
                self.attempt.spent.saving_ms += saving_ms;
                time_ms -= saving_ms;
                if self.attempt.save_left_ms == 0 {
                    self.on_saved();
                }
                continue;
            }
            let cycles = match self.attempt.since_save_ms {
                0 => time_ms / every_ms.saturating_add(self.overhead.save_ms),
                _ => 0,
            };
            if cycles > 1 {
                // All but the last one, which may be the job's end and then needs no save.
                let cycles = cycles - 1;
                self.attempt.leg_ms += cycles * every_ms;
                self.attempt.spent.useful_ms += cycles * every_ms;
                self.attempt.spent.saving_ms += cycles * self.overhead.save_ms;
                time_ms -= cycles * (every_ms + self.overhead.save_ms);
                self.on_saved();
                continue;
            }
            let working_ms = (every_ms - self.attempt.since_save_ms).min(time_ms);
            self.attempt.leg_ms += working_ms;
            self.attempt.since_save_ms += working_ms;
            self.attempt.spent.useful_ms += working_ms;
            time_ms -= working_ms;
            if self.attempt.since_save_ms == every_ms && self.left_ms() != Some(0) {
                self.attempt.save_left_ms = self.overhead.save_ms;
                if self.overhead.save_ms == 0 {
                    self.on_saved();
                }
            }
        }
    }

    fn on_saved(&mut self) {
        self.attempt.since_save_ms = 0;
        self.saved_ms = self.done_ms();
    }
    /// An attempt begins on GPUs of this speed.
    pub(super) fn start(&mut self, speed: f64, now_ms: u64) {
        let start_left_ms = if self.started_before {
            self.overhead.restart_ms
        } else {
            self.overhead.first_start_ms
        };
        self.started_before = true;
        self.attempt = Attempt {
            at_ms: now_ms,
            start_left_ms,
            leg_base_ms: self.saved_ms,
            full_speed: speed,
            speed,
            ..Attempt::default()
        };
    }

    /// When it ends; `None` if never.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let left_ms = self.left_ms()?;
        let attempt = &self.attempt;
        let every_ms = self.overhead.checkpoint_every_ms;
        let saves = match every_ms {
            0 => 0,
            _ if attempt.save_left_ms > 0 => left_ms.saturating_sub(1) / every_ms,
            _ => (attempt.since_save_ms + left_ms).saturating_sub(1) / every_ms,
        };
        let saving_ms = attempt.save_left_ms + saves * self.overhead.save_ms;
        Some(
            (attempt.at_ms)
                .saturating_add(attempt.start_left_ms)
                .saturating_add(left_ms)
                .saturating_add(saving_ms),
        )
    }

    /// Time passes.
    pub(super) fn advance(&mut self, now_ms: u64) -> Option<Ended> {
        let ended = |at_ms, end| Some(Ended { at_ms, end });
        if let Some(at_ms) = self.attempt.ended_ms {
            self.attempt.spent.idle_ms += now_ms - self.attempt.at_ms;
            self.attempt.at_ms = now_ms;
            return ended(at_ms, self.end);
        }
        let due_ms = self.due_ms();
        let until_ms = due_ms.unwrap_or(u64::MAX).min(now_ms);
        let time_ms = until_ms.saturating_sub(self.attempt.at_ms);
        let starting_ms = time_ms.min(self.attempt.start_left_ms);
        self.attempt.start_left_ms -= starting_ms;
        self.attempt.spent.restart_ms += starting_ms;
        self.work(time_ms - starting_ms);
        self.attempt.at_ms = now_ms;
        let at_ms = due_ms.filter(|&due_ms| due_ms <= now_ms)?;
        self.attempt.spent.idle_ms += now_ms - at_ms;
        self.attempt.ended_ms = Some(at_ms);
        ended(at_ms, self.end)
    }

    /// The attempt is over, at the time it was advanced to.
    pub(super) fn stop(&mut self, why: Stop) -> Spent {
        let loses = match why {
            Stop::Ended | Stop::Unfinished => false,
            Stop::Evicted => self.overhead.eviction_loses,
            Stop::NodeLost => true,
        };
        let mut spent = self.attempt.spent;
        if loses {
            let lost_ms = self.attempt.since_save_ms;
            spent.useful_ms -= lost_ms;
            spent.lost_ms += lost_ms;
        } else {
            self.saved_ms = self.done_ms();
        }
        self.attempt = Attempt::default();
        spent
    }

    /// From now on it has this share of its GPUs' speed.
    pub(super) fn set_share(&mut self, share: f64) {
        let done_ms = self.done_ms();
        self.attempt.leg_base_ms = done_ms;
        self.attempt.leg_ms = 0;
        self.attempt.speed = self.attempt.full_speed * share;
    }
}

/// Work in so much time. Exact at speed 1.
fn scaled(time_ms: u64, speed: f64) -> u64 {
    if speed == 1.0 {
        time_ms
    } else {
        (time_ms as f64 * speed).floor() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    fn begin(work_ms: u64, overhead: Overhead) -> Toil {
        Toil::new(work_ms, End::Completed, overhead)
    }

    #[test]
    fn saves_and_loads_stretch_a_run_and_the_last_save_is_left_out() {
        let mut job = begin(
            300,
            Overhead {
                first_start_ms: 7,
                restart_ms: 50,
                checkpoint_every_ms: 100,
                save_ms: 5,
                eviction_loses: true,
            },
        );
        job.start(1.0, 1_000);
        assert_eq!(job.due_ms(), Some(1_000 + 7 + 300 + 2 * 5));
        assert_eq!(job.advance(1_000 + 7 + 100 + 5 + 60), None);
        let spent = job.stop(Stop::Evicted);
        assert_eq!(
            spent,
            Spent {
                useful_ms: 100,
                restart_ms: 7,
                lost_ms: 60,
                saving_ms: 5,
                idle_ms: 0
            }
        );
        job.start(2.0, 2_000);
        assert_eq!(
            job.due_ms(),
            Some(2_000 + 50 + 100),
            "200 left at twice the speed, and no save in between"
        );
        assert_eq!(job.advance(2_060), None);
        job.set_share(0.25);
        assert_eq!(job.due_ms(), Some(2_060 + 360 + 3 * 5));
    }

    #[test]
    fn in_how_many_pieces_time_comes_makes_no_difference() {
        let mut dice = Dice::new(11, 1);
        for _ in 0..500 {
            let overhead = Overhead {
                first_start_ms: dice.between(0, 20),
                restart_ms: dice.between(0, 20),
                checkpoint_every_ms: dice.between(0, 9) * dice.between(0, 9),
                save_ms: dice.between(0, 4),
                eviction_loses: dice.chance(500),
            };
            let work_ms = dice.between(0, 400);
            let speed = dice.pick(&[1.0, 0.3, 2.7]).unwrap_or(1.0);
            let (mut whole, mut pieces) = (begin(work_ms, overhead), begin(work_ms, overhead));
            whole.start(speed, 0);
            pieces.start(speed, 0);
            let due_ms = whole.due_ms();
            let stop_ms = dice.between(0, 600);
            let ended = whole.advance(stop_ms);
            let mut now_ms = 0;
            while now_ms < stop_ms {
                assert!(pieces.due_ms() == due_ms || due_ms.is_some_and(|due_ms| due_ms <= now_ms));
                now_ms = (now_ms + dice.between(1, 90)).min(stop_ms);
                pieces.advance(now_ms);
            }
            assert_eq!(pieces.advance(stop_ms), ended);
            assert_eq!(
                ended.map(|ended| ended.at_ms),
                due_ms.filter(|&at| at <= stop_ms)
            );
            let spent = whole.stop(Stop::NodeLost);
            assert_eq!(spent, pieces.stop(Stop::NodeLost));
            assert_eq!(spent.sum_ms(), stop_ms);
        }
    }
}
