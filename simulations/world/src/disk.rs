//! A master's disk: writes take time and share flushes; a crash loses what was not yet flushed, or keeps a prefix of it.

use std::collections::{BTreeMap, VecDeque};

use berth_core::state::FinishedJob;
use berth_raft::{Persist, Recovered};

use crate::dice::Dice;

/// How fast a disk is.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpeed {
    /// Shortest flush.
    pub flush_min_ms: u64,
    /// Longest ordinary flush.
    pub flush_max_ms: u64,
    /// How often, in thousandths, a flush is a slow one.
    pub slow_per_mille: u32,
    /// How long a slow one takes.
    pub slow_ms: u64,
}

#[derive(Clone, Debug)]
enum Write {
    Batch(Box<Persist>),
    History(Vec<FinishedJob>),
}

/// One disk. Writes become durable in order; everything that waits when a flush starts shares it.
#[derive(Debug)]
pub(crate) struct Disk {
    durable: Recovered,
    history: BTreeMap<u64, FinishedJob>,
    queue: VecDeque<Write>,
    flushing: usize,
    /// Speed, which faults change.
    pub(crate) speed: DiskSpeed,
    /// True while every flush is a slow one.
    pub(crate) crawling: bool,
}

impl Disk {
    /// A disk that holds `durable`.
    pub(crate) fn new(durable: Recovered, speed: DiskSpeed) -> Self {
        Self {
            durable,
            history: BTreeMap::new(),
            queue: VecDeque::new(),
            flushing: 0,
            speed,
            crawling: false,
        }
    }

    /// What a start finds.
    pub(crate) fn recovered(&self) -> Recovered {
        self.durable.clone()
    }

    /// Highest index that the disk knows to be committed.
    pub(crate) fn durable_commit(&self) -> u64 {
        self.durable.hard_state.commit
    }

    /// Finished jobs, written ones first seen at once: reads see the page cache.
    pub(crate) fn history(&self) -> BTreeMap<u64, &FinishedJob> {
        let mut all: BTreeMap<u64, &FinishedJob> =
            self.history.iter().map(|(seq, job)| (*seq, job)).collect();
        for write in &self.queue {
            if let Write::History(jobs) = write {
                all.extend(jobs.iter().map(|job| (job.seq, job)));
            }
        }
        all
    }

    /// Queues a batch. Returns how long the flush takes that starts now, if one does.
    pub(crate) fn persist(&mut self, batch: Persist, dice: &mut Dice) -> Option<u64> {
        self.queue.push_back(Write::Batch(Box::new(batch)));
        self.start(dice)
    }

    /// Queues finished jobs. Returns how long the flush takes that starts now, if one does.
    pub(crate) fn append_history(
        &mut self,
        jobs: Vec<FinishedJob>,
        dice: &mut Dice,
    ) -> Option<u64> {
        self.queue.push_back(Write::History(jobs));
        self.start(dice)
    }

    /// The flush under way is done: returns the number of the newest durable batch in it, and how long the next flush
    /// takes, if there is one.
    pub(crate) fn flushed(&mut self, dice: &mut Dice) -> (Option<u64>, Option<u64>) {
        let newest = self.land(self.flushing);
        self.flushing = 0;
        (newest, self.start(dice))
    }

    /// Power is gone: of what was not yet durable, a prefix survives. Returns how many writes were lost.
    pub(crate) fn crash(&mut self, dice: &mut Dice) -> usize {
        let survive = dice.index(self.queue.len() + 1);
        self.land(survive);
        let lost = self.queue.len();
        self.queue.clear();
        self.flushing = 0;
        lost
    }

    fn start(&mut self, dice: &mut Dice) -> Option<u64> {
        if self.flushing > 0 || self.queue.is_empty() {
            return None;
        }
        self.flushing = self.queue.len();
        let slow = self.crawling || dice.chance(self.speed.slow_per_mille);
        let ordinary = dice.between(self.speed.flush_min_ms, self.speed.flush_max_ms);
        Some(if slow {
            ordinary + dice.between(self.speed.slow_ms / 4, self.speed.slow_ms)
        } else {
            ordinary
        })
    }

    fn land(&mut self, writes: usize) -> Option<u64> {
        let mut newest = None;
        for write in self.queue.drain(..writes.min(self.queue.len())) {
            match write {
                Write::Batch(batch) => {
                    newest = Some(batch.number);
                    self.durable.apply(&batch);
                }
                Write::History(jobs) => self
                    .history
                    .extend(jobs.into_iter().map(|job| (job.seq, job))),
            }
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use berth_raft::{HardState, Persist, Recovered};

    use super::{Disk, DiskSpeed};
    use crate::dice::Dice;

    fn batch(number: u64) -> Persist {
        let hard_state = HardState {
            term: number,
            ..HardState::default()
        };
        Persist {
            number,
            hard_state: Some(hard_state),
            must_sync: true,
            ..Persist::default()
        }
    }

    fn disk() -> Disk {
        let speed = DiskSpeed {
            flush_min_ms: 1,
            flush_max_ms: 3,
            slow_per_mille: 0,
            slow_ms: 0,
        };
        Disk::new(Recovered::default(), speed)
    }

    #[test]
    fn what_waits_shares_the_next_flush() {
        let (mut disk, mut dice) = (disk(), Dice::new(1, 1));
        assert!(disk.persist(batch(1), &mut dice).is_some());
        assert!(disk.persist(batch(2), &mut dice).is_none());
        assert!(disk.persist(batch(3), &mut dice).is_none());
        let (newest, next) = disk.flushed(&mut dice);
        assert_eq!(newest, Some(1));
        assert!(next.is_some());
        assert_eq!(disk.recovered().hard_state.term, 1);
        assert_eq!(disk.flushed(&mut dice), (Some(3), None));
    }

    #[test]
    fn a_crash_keeps_a_prefix_and_never_a_gap() {
        let mut kept = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let (mut disk, mut dice) = (disk(), Dice::new(seed, 1));
            for number in 1..=3 {
                disk.persist(batch(number), &mut dice);
            }
            let lost = disk.crash(&mut dice);
            let term = disk.recovered().hard_state.term;
            assert_eq!(term as usize + lost, 3);
            kept.insert(term);
        }
        assert_eq!(kept.len(), 4, "every prefix happens");
    }
}
