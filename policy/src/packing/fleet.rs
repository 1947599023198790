//! All nodes as the packing rules see them, kept from round to round.
//!
//! A round changes few nodes, so only those whose record is another one than last time are read again. A stamp per node
//! tells whoever remembers something about it whether that still holds.

use std::sync::Arc;

use berth_core::state::State;

use super::ask::Ask;
use super::seat::Seat;

/// The size of the largest node in service: what a score is measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// CPUs in thousandths, at least 1.
    pub millicpu: u32,
    /// GPUs in thousandths, at least 1.
    pub milligpu: u32,
}

/// The nodes, by id.
#[derive(Debug, Default)]
pub struct Fleet {
    seats: Vec<Seat>,
    /// By seat: another number after every change.
    stamps: Vec<u64>,
    newest: u64,
    /// Seats as they were before each thing that this round has placed, in order.
    journal: Vec<(usize, Seat)>,
    /// Names of GPU models, by number.
    models: Vec<String>,
    scale: Scale,
}

impl Fleet {
    /// Reads what changed since the last round. True if seats have other numbers now or are measured by another scale:
    /// then nothing that was remembered holds.
    pub fn refresh(&mut self, state: &State) -> bool {
        self.roll_back(0);
        let same_nodes = self.seats.len() == state.nodes.len()
            && (self.seats.iter().zip(state.nodes.keys())).all(|(seat, id)| seat.node == *id);
        if !same_nodes {
            self.seats = (state.nodes.values())
                .map(|node| Seat::of(node, state, &mut self.models))
                .collect();
            self.stamps = (self.newest + 1..).take(self.seats.len()).collect();
            self.newest += self.seats.len() as u64;
            self.scale = self.measure();
            return true;
        }
        let mut specs_changed = false;
        for (index, node) in state.nodes.values().enumerate() {
            if !Arc::ptr_eq(&self.seats[index].record, node) {
                let before = Arc::clone(&self.seats[index].record);
                self.reload(index, state, node);
                let is_open = before.is_schedulable() == node.is_schedulable();
                specs_changed |= !is_open || !Arc::ptr_eq(&before.spec, &node.spec);
            }
        }
        let scale = if specs_changed {
            self.measure()
        } else {
            self.scale
        };
        std::mem::replace(&mut self.scale, scale) != scale
    }

    fn reload(&mut self, index: usize, state: &State, node: &Arc<berth_core::state::Node>) {
        self.seats[index] = Seat::of(node, state, &mut self.models);
        self.restamp(index);
    }

    fn restamp(&mut self, index: usize) {
        self.newest += 1;
        self.stamps[index] = self.newest;
    }

    fn measure(&self) -> Scale {
        let open = || self.seats.iter().filter(|seat| seat.is_open());
        let millicpu = open().map(Seat::total_millicpu).max().unwrap_or(0);
        let gpus = open().map(|seat| seat.gpus.len()).max().unwrap_or(0);
        let gpus = u32::try_from(gpus).unwrap_or(u32::MAX);
        Scale {
            millicpu: millicpu.max(1),
            milligpu: gpus.saturating_mul(berth_types::MILLI).max(1),
        }
    }

    /// The nodes, by id.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// By seat: a number that is another one whenever the seat has changed.
    pub fn stamps(&self) -> &[u64] {
        &self.stamps
    }

    /// Names of GPU models, by the number that [`Part`](super::seat::Part) has for them.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// The size of the largest node in service.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Takes what workers need, for this round.
    pub(super) fn take(&mut self, index: usize, ask: &Ask, gpus: &[u16]) {
        self.journal.push((index, self.seats[index].clone()));
        self.seats[index].take(ask, gpus);
        self.restamp(index);
    }

    /// How much has been placed in this round.
    pub(super) fn mark(&self) -> usize {
        self.journal.len()
    }

    /// Takes back what was placed since a mark.
    pub(super) fn roll_back(&mut self, mark: usize) {
        while self.journal.len() > mark {
            if let Some((index, seat)) = self.journal.pop() {
                self.seats[index] = seat;
                self.restamp(index);
            }
        }
    }
}
