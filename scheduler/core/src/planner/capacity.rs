//! What is free in a round: a scratch copy of the nodes' free amounts, indexed so that a search looks only at nodes
//! that can matter.
//!
//! Two rooms are kept. `now` is what is free this moment. `long` is what is free for a job that may still run when a
//! promise falls due: it leaves out what was promised. Which one a job sees, it sees per class of nodes (its
//! [`Leeway`]), since each promise covers classes of its own.

use std::collections::BTreeSet;

use berth_types::{Epoch, GroupSpec, JobId, NodeId, TaskPlacement};

use super::class::Class;
use super::room::{Amounts, Claim, Look, Room, bytes};
use super::seat::{PortRange, Seat};
use super::stock::Layout;
use crate::state::{Node, State};

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
            Look::Now,
        )
    }

    /// What these nodes, in ascending order of their ids, have free, or would have.
    pub(super) fn of_nodes(nodes: impl Iterator<Item = &'a Node>, look: Look) -> Self {
        let nodes: Vec<&Node> = nodes.collect();
        Self::of_arranged(&nodes, &Layout::of(&nodes), look)
    }

    /// The same, if it is known how they are arranged.
    pub(super) fn of_arranged(nodes: &[&'a Node], layout: &Layout, look: Look) -> Self {
        let mut amounts = Amounts::default();
        let mut seats = layout.seats(nodes);
        for (seat, node) in seats.iter_mut().zip(nodes) {
            let ports = PortRange::of(node);
            seat.ports_left = match look {
                Look::Now => ports.left(node),
                Look::Emptied | Look::Mended => ports.count,
            };
            amounts.push_node(node, look);
        }
        let room = Room::build(amounts, &seats, layout.class_count());
        Self::new(seats, layout.classes(nodes), layout.rack_names(nodes), room)
    }

    /// From its parts, which belong together.
    pub(super) fn new(
        seats: Vec<Seat<'a>>,
        classes: Vec<Class<'a>>,
        rack_names: Vec<&'a str>,
        now: Room,
    ) -> Self {
        Self {
            seats,
            classes,
            rack_names,
            now,
            kept: None,
            leased: BTreeSet::new(),
        }
    }

    /// What is free, with what was changed in it.
    pub(super) fn into_room(self) -> Room {
        self.now
    }

    /// The same nodes as if nothing ran on them. `kept` is an earlier answer's room, if there is one.
    pub(super) fn emptied(&self, kept: Option<Room>) -> Self {
        let mut seats = self.seats.clone();
        for seat in &mut seats {
            seat.ports_left = PortRange::of(seat.node).count;
            seat.closed = false;
        }
        let room = kept.unwrap_or_else(|| {
            let mut amounts = Amounts::default();
            for seat in &seats {
                amounts.push_node(seat.node, Look::Emptied);
            }
            Room::build(amounts, &seats, self.classes.len())
        });
        let (classes, racks) = (self.classes.clone(), self.rack_names.clone());
        Self::new(seats, classes, racks, room)
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

    /// Leaves nodes out of searches, or lets them take part again.
    pub(super) fn set_closed(&mut self, nodes: &[NodeId], closed: bool) {
        for node in nodes {
            if let Some(seat) = self.seat_of(*node) {
                self.seats[seat as usize].closed = closed;
            }
        }
    }

    /// Classes of the nodes where these tasks sit, ascending.
    pub(super) fn classes_of(&self, tasks: &[TaskPlacement]) -> Vec<u32> {
        let seats = tasks.iter().filter_map(|task| self.seat_of(task.node));
        let mut classes: Vec<u32> = seats.map(|seat| self.seats[seat as usize].class).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
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
    pub fn give(&mut self, groups: &[GroupSpec], tasks: &[TaskPlacement]) {
        for task in tasks {
            if let Some(claim) = self.claim(groups, task) {
                self.now.change(&self.seats, claim, 1);
                self.keep_in_step(claim, Leeway::ALL);
            }
        }
    }

    /// True if nothing that these tasks touch is less than nothing, after a [`take`](Self::take) of more than there was.
    pub fn is_sound(&self, groups: &[GroupSpec], tasks: &[TaskPlacement]) -> bool {
        let mut claims = tasks.iter().filter_map(|task| self.claim(groups, task));
        claims.all(|claim| self.now.amounts.is_sound(&self.seats, claim))
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

    /// Takes back a lease of this round.
    pub(super) fn end_lease(&mut self, node: NodeId, port: u16) {
        if let Some(index) = self.seat_of(node)
            && self.leased.remove(&(index, port))
        {
            self.seats[index as usize].ports_left += 1;
        }
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
