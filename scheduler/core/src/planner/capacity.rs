//! What is free in a round: a scratch copy of the nodes' free amounts, indexed so that a search looks only at nodes
//! that can matter.
//!
//! Two rooms are kept. `now` is what is free this moment. `long` is what is free for a job that may still run when a
//! promise falls due: it leaves out what was promised. Which one a job sees, it sees per class of nodes (its
//! [`Leeway`]), since each promise covers classes of its own.

use std::collections::{BTreeMap, BTreeSet};

use berth_types::{Epoch, GpuShare, GroupSpec, JobId, MILLI, NodeId, TaskPlacement};

use super::class::{Class, ClassKey};
use crate::state::{Node, State};

/// One GPU, in the signed thousandths of the scratch amounts.
pub(super) const WHOLE: i32 = MILLI as i32;

/// Which promises a job may borrow from, because it ends before they fall due. One bit per promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leeway(u8);

impl Leeway {
    /// May take everything that is free.
    pub const ALL: Leeway = Leeway(u8::MAX);

    /// May borrow from no promise made so far; those yet to be made do not concern it.
    pub(super) fn none_of(promises: usize) -> Self {
        Leeway(
            u8::MAX
                .checked_shl(u32::try_from(promises).unwrap_or(u32::MAX))
                .unwrap_or(0),
        )
    }

    /// The same, and it may borrow from this promise.
    pub(super) fn with(self, promise: usize) -> Self {
        Leeway(self.0 | 1 << promise)
    }

    pub(super) fn has(self, promise: u8) -> bool {
        self.0 & (1 << promise) != 0
    }

    /// True if whatever `other` may borrow, this may as well.
    pub(super) fn covers(self, other: Leeway) -> bool {
        self.0 & other.0 == other.0
    }
}

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

/// What a task takes from, or gives back to, a seat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'p> {
    pub(super) seat: u32,
    pub(super) gpus: &'p [GpuShare],
    pub(super) cpu: i64,
    pub(super) mem: i64,
}

impl Amounts {
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

/// A node in service.
#[derive(Clone, Debug)]
pub(super) struct Seat<'a> {
    pub(super) node: &'a Node,
    pub(super) class: u32,
    /// Number of its rack; `None` if unknown.
    pub(super) rack: Option<u32>,
    first_gpu: u32,
    pub(super) gpu_count: u16,
    /// Ports not yet leased. A node without one takes no more gangs: any task may become rank 0's.
    pub(super) ports_left: u32,
}

impl Seat<'_> {
    fn gpu(&self, gpu: u16) -> usize {
        self.first_gpu as usize + usize::from(gpu)
    }

    pub(super) fn gpus(&self) -> std::ops::Range<usize> {
        self.first_gpu as usize..self.first_gpu as usize + usize::from(self.gpu_count)
    }

    pub(super) fn name(&self) -> &str {
        &self.node.spec.name
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
}

impl Room {
    pub(super) fn build(amounts: Amounts, seats: &[Seat<'_>], classes: usize) -> Self {
        let mut room = Self {
            whole: vec![0; seats.len()],
            by_whole: vec![BTreeSet::new(); classes],
            partial: vec![BTreeSet::new(); classes],
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
    fn change(&mut self, seats: &[Seat<'_>], claim: Claim<'_>, sign: i32) {
        let seat = &seats[claim.seat as usize];
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
    fn set_least(&mut self, index: u32, seat: &Seat<'_>, a: &Amounts, b: &Amounts) {
        for (gpu, at) in (0u16..).zip(seat.gpus()) {
            self.set_gpu(index, seat, gpu, a.gpus[at].min(b.gpus[at]));
        }
        let at = index as usize;
        self.amounts.cpu[at] = a.cpu[at].min(b.cpu[at]);
        self.amounts.mem[at] = a.mem[at].min(b.mem[at]);
    }
}

/// What promises leave to jobs that may outlast the time they fall due.
#[derive(Clone, Debug)]
struct Kept {
    /// By class: the promise that covers it.
    promise: Vec<Option<u8>>,
    /// Free when the promise falls due, without what was promised. Only seats of covered classes count.
    later: Amounts,
    /// The smaller of now and later.
    long: Room,
}

/// Free amounts of the nodes in service, for one round.
#[derive(Clone, Debug)]
pub struct Capacity<'a> {
    pub(super) seats: Vec<Seat<'a>>,
    pub(super) classes: Vec<Class<'a>>,
    pub(super) rack_names: Vec<&'a str>,
    pub(super) now: Room,
    kept: Option<Kept>,
    leased: BTreeSet<(u32, u16)>,
}

impl<'a> Capacity<'a> {
    /// What is free on the nodes in service.
    pub fn of(state: &'a State) -> Self {
        Self::of_nodes(
            state
                .nodes
                .values()
                .map(|n| &**n)
                .filter(|n| n.is_schedulable()),
            false,
        )
    }

    /// What these nodes, in ascending order of their ids, have free, or would have if they were empty.
    pub(super) fn of_nodes(nodes: impl Iterator<Item = &'a Node>, emptied: bool) -> Self {
        let mut classes = Vec::new();
        let mut class_ids = BTreeMap::new();
        let mut racks = BTreeMap::new();
        let mut rack_names = Vec::new();
        let mut seats: Vec<Seat<'a>> = Vec::new();
        let mut amounts = Amounts::default();
        for node in nodes {
            let spec = &*node.spec;
            let class = *class_ids.entry(ClassKey(spec)).or_insert_with(|| {
                classes.push(Class::of(spec));
                u32::try_from(classes.len() - 1).unwrap_or(u32::MAX)
            });
            let rack = (!spec.rack.is_empty()).then(|| {
                *racks.entry(spec.rack.as_str()).or_insert_with(|| {
                    rack_names.push(spec.rack.as_str());
                    u32::try_from(rack_names.len() - 1).unwrap_or(u32::MAX)
                })
            });
            let ports = PortRange::of(node);
            seats.push(Seat {
                node,
                class,
                rack,
                first_gpu: u32::try_from(amounts.gpus.len()).unwrap_or(u32::MAX),
                gpu_count: u16::try_from(spec.gpus.len()).unwrap_or(u16::MAX),
                ports_left: if emptied {
                    ports.count
                } else {
                    ports.left(node)
                },
            });
            push_free(&mut amounts, node, emptied);
        }
        let now = Room::build(amounts, &seats, classes.len());
        Self {
            seats,
            classes,
            rack_names,
            now,
            kept: None,
            leased: BTreeSet::new(),
        }
    }

    /// The same nodes with other free amounts and no promises, as they may be later.
    pub(super) fn with_free(&self, amounts: Amounts) -> Self {
        let mut seats = self.seats.clone();
        for seat in &mut seats {
            // A port that is leased now will be free then.
            seat.ports_left = seat
                .ports_left
                .max(u32::from(seat.node.spec.port_count > 0));
        }
        Self {
            now: Room::build(amounts, &seats, self.classes.len()),
            seats,
            classes: self.classes.clone(),
            rack_names: self.rack_names.clone(),
            kept: None,
            leased: BTreeSet::new(),
        }
    }

    /// Index of a node in service.
    pub(super) fn seat_of(&self, node: NodeId) -> Option<u32> {
        let found = self.seats.binary_search_by_key(&node, |seat| seat.node.id);
        found.ok().and_then(|index| u32::try_from(index).ok())
    }

    /// The room that a job with this leeway sees in a class.
    pub(super) fn room(&self, class: u32, leeway: Leeway) -> &Room {
        match &self.kept {
            Some(kept) => match kept.promise[class as usize] {
                Some(promise) if !leeway.has(promise) => &kept.long,
                _ => &self.now,
            },
            None => &self.now,
        }
    }

    /// What a placement claims; `None` on a node that is not in service.
    pub(super) fn claim<'p>(
        &self,
        groups: &[GroupSpec],
        task: &'p TaskPlacement,
    ) -> Option<Claim<'p>> {
        let seat = self.seat_of(task.node)?;
        let resources = groups
            .get(usize::from(task.group))
            .map(|group| &group.resources);
        Some(Claim {
            seat,
            gpus: &task.gpus,
            cpu: resources.map_or(0, |r| i64::from(r.millicpu)),
            mem: resources.map_or(0, |r| bytes(r.mem_bytes)),
        })
    }

    /// Takes what these tasks need. `leeway` is that of the job: what it borrows is back when the promise falls due.
    pub fn take(&mut self, groups: &[GroupSpec], tasks: &[TaskPlacement], leeway: Leeway) {
        for task in tasks {
            if let Some(claim) = self.claim(groups, task) {
                self.now.change(&self.seats, claim, -1);
                self.keep_in_step(claim, leeway);
            }
        }
    }

    /// Gives back what these tasks hold now; undoes a [`take`](Self::take) with [`Leeway::ALL`].
    pub(super) fn give(&mut self, groups: &[GroupSpec], tasks: &[TaskPlacement]) {
        for task in tasks {
            if let Some(claim) = self.claim(groups, task) {
                self.now.change(&self.seats, claim, 1);
                self.keep_in_step(claim, Leeway::ALL);
            }
        }
    }

    fn keep_in_step(&mut self, claim: Claim<'_>, leeway: Leeway) {
        let seat = &self.seats[claim.seat as usize];
        let Some(kept) = &mut self.kept else { return };
        let Some(promise) = kept.promise[seat.class as usize] else {
            return;
        };
        if !leeway.has(promise) {
            kept.later.take(&self.seats, claim);
        }
        kept.long
            .set_least(claim.seat, seat, &self.now.amounts, &kept.later);
    }

    /// Keeps what a promise needs: `later` is what is free when it falls due, without what it promises.
    pub(super) fn keep(&mut self, promise: u8, classes: &[u32], later: &Amounts) {
        let (seats, now) = (&self.seats, &self.now);
        let count = self.classes.len();
        let kept = self.kept.get_or_insert_with(|| Kept {
            promise: vec![None; count],
            later: now.amounts.clone(),
            long: now.clone(),
        });
        for &class in classes {
            kept.promise[class as usize] = Some(promise);
        }
        for (index, seat) in (0u32..).zip(seats) {
            if kept.promise[seat.class as usize] != Some(promise) {
                continue;
            }
            let at = index as usize;
            kept.later.gpus[seat.gpus()].copy_from_slice(&later.gpus[seat.gpus()]);
            kept.later.cpu[at] = later.cpu[at];
            kept.later.mem[at] = later.mem[at];
            kept.long.set_least(index, seat, &now.amounts, &kept.later);
        }
    }

    /// True if a promise covers this class already.
    pub(super) fn is_promised(&self, class: u32) -> bool {
        (self.kept.as_ref()).is_some_and(|kept| kept.promise[class as usize].is_some())
    }

    /// Leases a port for these tasks' rendezvous on rank 0's node: 0 for a single task where none is left, `None` for
    /// a gang there.
    pub(super) fn lease_for(
        &mut self,
        tasks: &[TaskPlacement],
        job: JobId,
        epoch: Epoch,
    ) -> Option<u16> {
        let port = self.lease_port(tasks.first()?.node, job, epoch);
        port.or((tasks.len() == 1).then_some(0))
    }

    /// Starts at another port each time, since the one used last may linger in the kernel.
    fn lease_port(&mut self, node: NodeId, job: JobId, epoch: Epoch) -> Option<u16> {
        let index = self.seat_of(node)?;
        let seat = &mut self.seats[index as usize];
        let range = PortRange::of(seat.node);
        let from = job.0.wrapping_add(u64::from(epoch.0).wrapping_mul(97));
        let port = (0..u64::from(range.count))
            .map(|step| range.port(from.wrapping_add(step)))
            .find(|port| {
                !seat.node.ports.contains_key(port) && !self.leased.contains(&(index, *port))
            })?;
        self.leased.insert((index, port));
        seat.ports_left = seat.ports_left.saturating_sub(1);
        Some(port)
    }
}

/// Ports that a node leases.
struct PortRange {
    first: u16,
    count: u32,
}

impl PortRange {
    fn of(node: &Node) -> Self {
        let first = node.spec.port_first.max(1);
        let room = u32::from(u16::MAX - first) + 1;
        Self {
            first,
            count: u32::from(node.spec.port_count).min(room),
        }
    }

    fn left(&self, node: &Node) -> u32 {
        let leased = node.ports.range(self.first..).count();
        self.count
            .saturating_sub(u32::try_from(leased).unwrap_or(u32::MAX))
    }

    fn port(&self, step: u64) -> u16 {
        let offset = step % u64::from(self.count.max(1));
        self.first
            .saturating_add(u16::try_from(offset).unwrap_or(u16::MAX))
    }
}

fn push_free(amounts: &mut Amounts, node: &Node, emptied: bool) {
    let spec = &node.spec;
    let count = spec.gpus.len().min(usize::from(u16::MAX));
    for gpu in 0..count {
        let used = if emptied { None } else { node.gpus.get(gpu) };
        let used = used.map_or(0, |u| signed(u.milligpu).saturating_add(signed(u.reserved)));
        amounts.gpus.push(WHOLE.saturating_sub(used));
    }
    let (cpu, mem) = if emptied {
        (0, 0)
    } else {
        (node.used_millicpu, node.used_mem_bytes)
    };
    amounts.cpu.push(i64::from(spec.millicpu) - i64::from(cpu));
    amounts.mem.push(bytes(spec.mem_bytes) - bytes(mem));
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
