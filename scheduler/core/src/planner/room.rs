//! Free amounts, and the indexes over them that keep searches short.

use std::collections::BTreeSet;

use berth_types::{GpuShare, MILLI};

use super::seat::Seat;
use crate::state::Node;

/// One GPU, in the signed thousandths of the scratch amounts.
pub(super) const WHOLE: i32 = MILLI as i32;

/// Free amounts of all nodes, by seat. Negative where reservations and what they wait for overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Amounts {
    /// Thousandths by GPU; a seat's begin at [`Seat::first_gpu`].
    pub(super) gpus: Vec<i32>,
    /// Thousandths of CPUs.
    pub(super) cpu: Vec<i64>,
    /// Bytes.
    pub(super) mem: Vec<i64>,
}

/// How nodes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// As they are.
    Now,
    /// As if nothing ran there.
    Emptied,
    /// As if nothing ran there and every GPU were in service.
    Mended,
}

/// What a task takes from, or gives back to, a seat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'p> {
    pub(super) seat: u32,
    pub(super) gpus: &'p [GpuShare],
    pub(super) cpu: i64,
    pub(super) mem: i64,
}

impl Amounts {
    /// Adds what a node has free, or would have.
    pub(super) fn push_node(&mut self, node: &Node, look: Look) {
        let spec = &node.spec;
        let count = spec.gpus.len().min(usize::from(u16::MAX));
        for gpu in 0..count {
            let known = node.gpus.get(gpu);
            let used = match look {
                Look::Now => {
                    known.map_or(0, |u| signed(u.milligpu).saturating_add(signed(u.reserved)))
                }
                Look::Emptied | Look::Mended => 0,
            };
            // As if something held it for ever; what does hold it is given back on top.
            let is_out = look != Look::Mended && known.is_some_and(|u| u.blocked);
            let out = if is_out { WHOLE } else { 0 };
            self.gpus
                .push(WHOLE.saturating_sub(used).saturating_sub(out));
        }
        let (cpu, mem) = match look {
            Look::Now => (node.used_millicpu, node.used_mem_bytes),
            Look::Emptied | Look::Mended => (0, 0),
        };
        self.cpu.push(i64::from(spec.millicpu) - i64::from(cpu));
        self.mem.push(bytes(spec.mem_bytes) - bytes(mem));
    }

    pub(super) fn give(&mut self, seats: &[Seat<'_>], claim: Claim<'_>) {
        let seat = &seats[claim.seat as usize];
        for share in claim.gpus {
            if share.gpu < seat.gpu_count {
                self.gpus[seat.gpu(share.gpu)] += signed(share.milligpu);
            }
        }
        self.cpu[claim.seat as usize] += claim.cpu;
        self.mem[claim.seat as usize] += claim.mem;
    }

    pub(super) fn take(&mut self, seats: &[Seat<'_>], claim: Claim<'_>) {
        let seat = &seats[claim.seat as usize];
        for share in claim.gpus {
            if share.gpu < seat.gpu_count {
                self.gpus[seat.gpu(share.gpu)] -= signed(share.milligpu);
            }
        }
        self.cpu[claim.seat as usize] -= claim.cpu;
        self.mem[claim.seat as usize] -= claim.mem;
    }
}

impl Amounts {
    /// True if nothing that a claim touches is less than nothing.
    pub(super) fn is_sound(&self, seats: &[Seat<'_>], claim: Claim<'_>) -> bool {
        let seat = &seats[claim.seat as usize];
        let mut gpus = claim.gpus.iter().filter(|share| share.gpu < seat.gpu_count);
        self.cpu[claim.seat as usize] >= 0
            && self.mem[claim.seat as usize] >= 0
            && gpus.all(|share| self.gpus[seat.gpu(share.gpu)] >= 0)
    }
}

/// Free amounts with indexes by class.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    pub(super) amounts: Amounts,
    /// Wholly free GPUs by seat.
    pub(super) whole: Vec<u16>,
    /// By class: seats by their wholly free GPUs, fewest first.
    pub(super) by_whole: Vec<BTreeSet<(u16, u32)>>,
    /// By class: partly used GPUs as (free thousandths, seat, GPU), fullest first.
    pub(super) partial: Vec<BTreeSet<(i32, u32, u16)>>,
    /// Seats whose amounts were changed since this was last emptied, in order of the changes.
    pub(super) touched: Vec<u32>,
}

impl Room {
    pub(super) fn build(amounts: Amounts, seats: &[Seat<'_>], classes: usize) -> Self {
        let mut room = Self {
            whole: vec![0; seats.len()],
            by_whole: vec![BTreeSet::new(); classes],
            partial: vec![BTreeSet::new(); classes],
            touched: Vec::new(),
            amounts,
        };
        for (index, seat) in (0u32..).zip(seats) {
            let class = seat.class as usize;
            let mut whole = 0;
            for (gpu, &free) in (0u16..).zip(&room.amounts.gpus[seat.gpus()]) {
                if free >= WHOLE {
                    whole += 1;
                } else if free > 0 {
                    room.partial[class].insert((free, index, gpu));
                }
            }
            room.whole[index as usize] = whole;
            room.by_whole[class].insert((whole, index));
        }
        room
    }

    /// Seats of a class that have so many wholly free GPUs, or at least such a share of one, fewest free GPUs first.
    pub(super) fn seats_with(
        &self,
        class: u32,
        whole: u16,
        share: i32,
    ) -> impl Iterator<Item = (u16, u32)> + '_ {
        let class = class as usize;
        let mut shared: Vec<(u16, u32)> = Vec::new();
        if whole == 0 && share > 0 {
            let seats = self.partial[class].range((share, 0, 0)..);
            let seats = seats.map(|&(_, seat, _)| (self.whole[seat as usize], seat));
            shared.extend(seats.filter(|(whole, _)| *whole == 0));
            shared.sort_unstable();
            shared.dedup();
        }
        let least = if share > 0 { whole.max(1) } else { whole };
        let rest = self.by_whole[class].range((least, 0)..).copied();
        shared.into_iter().chain(rest)
    }

    /// Sets a seat to what is free there, which is the only one in `free`. Does not count as a change.
    pub(super) fn set(&mut self, index: u32, seat: &Seat<'_>, free: &Amounts) {
        for gpu in 0..seat.gpu_count {
            self.set_gpu(index, seat, gpu, free.gpus[usize::from(gpu)]);
        }
        self.amounts.cpu[index as usize] = free.cpu[0];
        self.amounts.mem[index as usize] = free.mem[0];
    }

    fn set_gpu(&mut self, index: u32, seat: &Seat<'_>, gpu: u16, free: i32) {
        let at = seat.gpu(gpu);
        let before = std::mem::replace(&mut self.amounts.gpus[at], free);
        if before == free {
            return;
        }
        let partial = &mut self.partial[seat.class as usize];
        if (1..WHOLE).contains(&before) {
            partial.remove(&(before, index, gpu));
        }
        if (1..WHOLE).contains(&free) {
            partial.insert((free, index, gpu));
        }
        let whole = &mut self.whole[index as usize];
        let counted = (*whole, index);
        *whole = *whole + u16::from(free >= WHOLE) - u16::from(before >= WHOLE);
        if *whole != counted.0 {
            let by_whole = &mut self.by_whole[seat.class as usize];
            by_whole.remove(&counted);
            by_whole.insert((*whole, index));
        }
    }

    /// Adds `sign` times the claim to what is free.
    pub(super) fn change(&mut self, seats: &[Seat<'_>], claim: Claim<'_>, sign: i32) {
        let seat = &seats[claim.seat as usize];
        self.touched.push(claim.seat);
        for share in claim.gpus {
            if share.gpu < seat.gpu_count {
                let free = self.amounts.gpus[seat.gpu(share.gpu)];
                let free = free + sign * signed(share.milligpu);
                self.set_gpu(claim.seat, seat, share.gpu, free);
            }
        }
        self.amounts.cpu[claim.seat as usize] += i64::from(sign) * claim.cpu;
        self.amounts.mem[claim.seat as usize] += i64::from(sign) * claim.mem;
    }

    /// Sets a seat to the smaller of two amounts.
    pub(super) fn set_least(&mut self, index: u32, seat: &Seat<'_>, a: &Amounts, b: &Amounts) {
        for (gpu, at) in (0u16..).zip(seat.gpus()) {
            self.set_gpu(index, seat, gpu, a.gpus[at].min(b.gpus[at]));
        }
        let at = index as usize;
        self.amounts.cpu[at] = a.cpu[at].min(b.cpu[at]);
        self.amounts.mem[at] = a.mem[at].min(b.mem[at]);
    }
}

pub(super) fn signed(milli: u32) -> i32 {
    i32::try_from(milli).unwrap_or(i32::MAX)
}

/// Bytes as a signed number; sums of a few stay in range.
pub(super) fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes)
        .unwrap_or(i64::MAX / 4)
        .min(i64::MAX / 4)
}
