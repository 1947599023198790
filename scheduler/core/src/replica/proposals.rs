//! Commands on their way into the log, and who waits for them.
//!
//! Commands gather in a queue. A batch leaves at once while few batches are in flight, and otherwise when one comes back:
//! a single caller waits for nothing, and many share entries and flushes.

use std::collections::{BTreeMap, VecDeque};

use berth_types::api::Request;

use super::Replica;
use super::calls::Origin;
use crate::codec;
use crate::command::{Command, LogEntry, ProposalTag};

/// A caller that waits for a command.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) origin: Origin,
    pub(super) request: Request,
    pub(super) deadline_ms: u64,
}

#[derive(Default)]
pub(super) struct Proposals {
    queue: VecDeque<(Command, Option<Waiter>)>,
    /// Last sequence number of each batch in flight.
    batches: VecDeque<u64>,
    waiters: BTreeMap<u64, Vec<Option<Waiter>>>,
    last_seq: u64,
}

/// A guess at a bundle's encoded size.
pub(super) fn bundle_size(bundle: &crate::Bundle) -> usize {
    let starts: usize = bundle
        .starts
        .iter()
        .map(|s| 24 + s.because.len() + 16 * s.placements.len())
        .sum();
    starts + 64 * bundle.evictions.len()
}

impl Proposals {
    /// Queues a command. One that is too large to be read back is dropped: callers were refused before, and agents
    /// repeat what matters.
    pub(super) fn push(&mut self, command: Command, waiter: Option<Waiter>) {
        if codec::command_bytes(&command) <= MAX_COMMAND_BYTES {
            self.queue.push_back((command, waiter));
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.waiters.values().map(Vec::len).sum::<usize>()
    }

    /// A sequence number for an entry that is proposed by itself.
    pub(super) fn reserve(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }

    /// Remembers who waits for an entry that was proposed by itself.
    pub(super) fn await_entry(&mut self, seq: u64, waiters: Vec<Option<Waiter>>) {
        self.waiters.insert(seq, waiters);
    }

    /// The callers of an applied entry of this master, one slot per command.
    pub(super) fn take_waiters(&mut self, seq: u64) -> Vec<Option<Waiter>> {
        while self.batches.front().is_some_and(|last| *last <= seq) {
            self.batches.pop_front();
        }
        self.waiters.remove(&seq).unwrap_or_default()
    }

    /// Everybody who waits, when leadership is lost.
    pub(super) fn drain(&mut self) -> Vec<Waiter> {
        let flown = std::mem::take(&mut self.waiters)
            .into_values()
            .flatten()
            .flatten();
        let mut all: Vec<Waiter> = flown.collect();
        all.extend(self.queue.drain(..).filter_map(|(_, waiter)| waiter));
        self.batches.clear();
        all
    }

    /// Callers past their deadline; their commands stay on their way.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<Waiter> {
        let queued = self.queue.iter_mut().map(|(_, waiter)| waiter);
        queued
            .chain(self.waiters.values_mut().flatten())
            .filter_map(|slot| slot.take_if(|waiter| waiter.deadline_ms <= now_ms))
            .collect()
    }

    /// The next batch of entries, and their callers; `None` if there is nothing to do or enough in flight.
    fn next_batch(
        &mut self,
        stamp_ms: u64,
        proposer: u64,
        limits: (usize, usize),
    ) -> Option<Vec<Drafted>> {
        let (max_entry_bytes, max_in_flight) = limits;
        if self.queue.is_empty() || self.batches.len() >= max_in_flight {
            return None;
        }
        let mut batch = Vec::new();
        while !self.queue.is_empty() && batch.len() < MAX_ENTRIES_PER_BATCH {
            let (mut commands, mut waiters, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some((command, _)) = self.queue.front() {
                let size = codec::command_bytes(command);
                if !commands.is_empty() && bytes + size > max_entry_bytes {
                    break;
                }
                bytes += size;
                let (command, waiter) = self.queue.pop_front().expect("the front was just seen");
                commands.push(command);
                waiters.push(waiter);
            }
            self.last_seq += 1;
            let tag = ProposalTag {
                proposer,
                seq: self.last_seq,
            };
            batch.push(Drafted {
                entry: LogEntry {
                    tag,
                    stamp_ms,
                    commands,
                },
                waiters,
            });
        }
        Some(batch)
    }

    /// Puts a refused batch back where it was.
    fn put_back(&mut self, batch: Vec<Drafted>) {
        for drafted in batch.into_iter().rev() {
            for pair in drafted
                .entry
                .commands
                .into_iter()
                .zip(drafted.waiters)
                .rev()
            {
                self.queue.push_front(pair);
            }
        }
    }

    fn flown(&mut self, batch: Vec<Drafted>) {
        self.batches.push_back(self.last_seq);
        for drafted in batch {
            self.waiters.insert(drafted.entry.tag.seq, drafted.waiters);
        }
    }
}

/// An entry holds at least one command whatever its size, and must stay well below what the codec reads back.
pub(super) const MAX_COMMAND_BYTES: usize = codec::MAX_ENTRY_BYTES / 2;

/// Entries in one batch; more would only make one flush long.
const MAX_ENTRIES_PER_BATCH: usize = 16;

struct Drafted {
    entry: LogEntry,
    waiters: Vec<Option<Waiter>>,
}

impl Replica {
    /// Proposes what has gathered. True if something left.
    pub(super) fn propose_queued(&mut self) -> bool {
        if !self.raft.ready_to_lead() {
            return false;
        }
        let limits = (
            self.config.max_entry_bytes,
            self.config.max_batches_in_flight,
        );
        let Some(batch) = self
            .proposals
            .next_batch(self.now_ms, self.config.proposer, limits)
        else {
            return false;
        };
        let encoded: Vec<_> = batch
            .iter()
            .map(|d| codec::encode_entry(&d.entry))
            .collect();
        match self.raft.propose_all(encoded) {
            Ok(()) => {
                self.proposals.flown(batch);
                true
            }
            Err(_) => {
                // Busy, or leadership is going: settle() parks the callers if it has gone.
                self.proposals.put_back(batch);
                false
            }
        }
    }
}
