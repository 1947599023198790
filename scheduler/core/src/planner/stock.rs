//! What a planner keeps between rounds, so that a round costs what changed and not what there is: the indexes over free
//! amounts, what makes nodes equal, and which requests suit which nodes.
//!
//! **Exact by construction.** A node's record is shared and never changed in place while it is watched, so a record at
//! the same address is the same record. Whatever else there is (a changed record, a seat that the last round tried
//! something on) is read anew from the state, and if the nodes in service are not the same ones, with the same offers,
//! everything is built anew. So a plan never depends on what was kept; a test compares the two.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use berth_types::{JobSpec, NodeId, NodeSpec};

use super::capacity::Capacity;
use super::class::{Class, ClassKey, Links, links};
use super::room::{Amounts, Look, Room};
use super::seat::{PortRange, Seat};
use super::shape::{GpuMatch, Matches, Request};
use crate::state::{Node, State};

/// Most requests remembered; then all are forgotten.
const MAX_REQUESTS: usize = 4_096;

/// How nodes are arranged, whatever is free on them.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// By seat.
    places: Vec<Place>,
    /// By class: a seat of it, and its links.
    classes: Vec<(u32, Arc<Links>)>,
    /// By rack: a seat in it.
    racks: Vec<u32>,
}

/// What of a seat does not change. Kept here, so that a round need not touch the records of nodes that did not change.
#[derive(Clone, Copy, Debug)]
struct Place {
    class: u32,
    rack: Option<u32>,
    first_gpu: u32,
    gpu_count: u16,
}

impl Layout {
    pub(super) fn of(nodes: &[&Node]) -> Self {
        let mut layout = Self::default();
        let mut classes: BTreeMap<ClassKey<'_>, u32> = BTreeMap::new();
        let mut racks: BTreeMap<&str, u32> = BTreeMap::new();
        let mut first_gpu = 0;
        for (index, node) in (0u32..).zip(nodes) {
            let spec = &*node.spec;
            let class = *classes.entry(ClassKey(spec)).or_insert_with(|| {
                layout.classes.push((index, links(spec)));
                u32::try_from(layout.classes.len() - 1).unwrap_or(u32::MAX)
            });
            let rack = (!spec.rack.is_empty()).then(|| {
                *racks.entry(spec.rack.as_str()).or_insert_with(|| {
                    layout.racks.push(index);
                    u32::try_from(layout.racks.len() - 1).unwrap_or(u32::MAX)
                })
            });
            let gpu_count = u16::try_from(spec.gpus.len()).unwrap_or(u16::MAX);
            layout.places.push(Place {
                class,
                rack,
                first_gpu,
                gpu_count,
            });
            first_gpu += u32::from(gpu_count);
        }
        layout
    }

    pub(super) fn class_count(&self) -> usize {
        self.classes.len()
    }

    pub(super) fn seats<'a>(&self, nodes: &[&'a Node]) -> Vec<Seat<'a>> {
        let seats = nodes.iter().zip(&self.places);
        let seats = seats.map(|(node, place)| Seat {
            node,
            class: place.class,
            rack: place.rack,
            first_gpu: place.first_gpu,
            gpu_count: place.gpu_count,
            ports_left: 0,
            closed: false,
        });
        seats.collect()
    }

    pub(super) fn classes<'a>(&self, nodes: &[&'a Node]) -> Vec<Class<'a>> {
        let classes = self.classes.iter();
        let classes =
            classes.map(|(seat, links)| Class::of(&nodes[*seat as usize].spec, Arc::clone(links)));
        classes.collect()
    }

    pub(super) fn rack_names<'a>(&self, nodes: &[&'a Node]) -> Vec<&'a str> {
        let racks = self.racks.iter();
        racks
            .map(|&seat| nodes[seat as usize].spec.rack.as_str())
            .collect()
    }
}

/// GPUs of a node that are out of service.
fn blocked(node: &Node) -> impl Iterator<Item = u16> {
    let gpus = (0u16..).zip(&node.gpus);
    gpus.filter(|(_, used)| used.blocked).map(|(gpu, _)| gpu)
}

/// A node in service, as it was when it was looked at last.
#[derive(Debug)]
struct Seen {
    /// Its record. Weak, so that it is not copied because of us when it changes; it moves then.
    node: Weak<Node>,
    id: NodeId,
    spec: Arc<NodeSpec>,
    ports_left: u32,
    /// GPUs out of service.
    blocked: Vec<u16>,
}

/// What is known of a request, as long as the nodes in service are the same.
#[derive(Debug)]
struct Known {
    spec: Arc<JobSpec>,
    matches: Arc<Matches>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stock {
    seen: Vec<Seen>,
    layout: Layout,
    /// What was free in the last round. Its touched seats are those that differ from what was seen.
    room: Room,
    /// What would be free if nothing ran; built when first needed.
    emptied: Option<Room>,
    /// Sorted by request.
    known: Vec<Known>,
}

impl Stock {
    /// What is free on the nodes in service. Has to be [put back](Self::put_back).
    pub(super) fn take<'a>(&mut self, state: &'a State) -> Capacity<'a> {
        let mut changed = std::mem::take(&mut self.room.touched);
        let Some(nodes) = self.compare(state, &mut changed) else {
            return self.build(state);
        };
        changed.sort_unstable();
        changed.dedup();
        let mut seats = self.layout.seats(&nodes);
        let mut room = std::mem::take(&mut self.room);
        for index in changed {
            let node = nodes[index as usize];
            let mut free = Amounts::default();
            free.push_node(node, Look::Now);
            room.set(index, &seats[index as usize], &free);
            self.seen[index as usize].ports_left = PortRange::of(node).left(node);
        }
        for (seat, seen) in seats.iter_mut().zip(&self.seen) {
            seat.ports_left = seen.ports_left;
        }
        let (classes, racks) = (self.layout.classes(&nodes), self.layout.rack_names(&nodes));
        Capacity::new(seats, classes, racks, room)
    }

    /// Returns what [`take`](Self::take) lent, whatever was tried on it.
    pub(super) fn put_back(&mut self, capacity: Capacity<'_>) {
        self.room = capacity.into_room();
    }

    /// The nodes in service, if they are those that were seen; those whose records differ are added to `changed`.
    fn compare<'a>(&mut self, state: &'a State, changed: &mut Vec<u32>) -> Option<Vec<&'a Node>> {
        let mut nodes: Vec<&Node> = Vec::with_capacity(self.seen.len());
        for node in state.nodes.values() {
            let index = nodes.len();
            let is_same = |seen: &Seen| seen.node.as_ptr() == Arc::as_ptr(node);
            if !self.seen.get(index).is_some_and(is_same) {
                if !node.is_schedulable() {
                    continue;
                }
                let seen = self.seen.get_mut(index)?;
                let same_gpus = seen.blocked.iter().copied().eq(blocked(node));
                if seen.id != node.id || !Arc::ptr_eq(&seen.spec, &node.spec) || !same_gpus {
                    return None;
                }
                seen.node = Arc::downgrade(node);
                changed.push(u32::try_from(index).ok()?);
            }
            nodes.push(node);
        }
        (nodes.len() == self.seen.len() && self.room.whole.len() == nodes.len()).then_some(nodes)
    }

    fn build<'a>(&mut self, state: &'a State) -> Capacity<'a> {
        let records = state.nodes.values().filter(|node| node.is_schedulable());
        let (mut nodes, mut seen) = (Vec::new(), Vec::new());
        for node in records {
            nodes.push(&**node);
            seen.push(Seen {
                node: Arc::downgrade(node),
                id: node.id,
                spec: Arc::clone(&node.spec),
                ports_left: PortRange::of(node).left(node),
                blocked: blocked(node).collect(),
            });
        }
        *self = Self {
            seen,
            layout: Layout::of(&nodes),
            ..Self::default()
        };
        Capacity::of_arranged(&nodes, &self.layout, Look::Now)
    }

    /// What would be free if nothing ran: the indexes, lent as by [`take`](Self::take).
    pub(super) fn take_emptied<'a>(&mut self, capacity: &Capacity<'a>) -> Capacity<'a> {
        let kept = self.emptied.take().map(|mut room| {
            room.touched.clear();
            room
        });
        capacity.emptied(kept)
    }

    /// Returns what [`take_emptied`](Self::take_emptied) lent; nothing may have been taken from it.
    pub(super) fn put_back_emptied(&mut self, capacity: Capacity<'_>) {
        self.emptied = Some(capacity.into_room());
    }

    /// Which GPUs suit a request, by group and class.
    pub(super) fn matches(&mut self, spec: &Arc<JobSpec>, capacity: &Capacity<'_>) -> Arc<Matches> {
        let index = match self.find(spec) {
            Ok(index) => index,
            Err(_) => {
                if self.known.len() >= MAX_REQUESTS {
                    self.known.clear();
                }
                let index = self.find(spec).unwrap_or_else(|index| index);
                let matches = Arc::new(GpuMatch::all(&spec.groups, &capacity.classes));
                let known = Known {
                    spec: Arc::clone(spec),
                    matches,
                };
                self.known.insert(index, known);
                index
            }
        };
        Arc::clone(&self.known[index].matches)
    }

    fn find(&self, spec: &JobSpec) -> Result<usize, usize> {
        let request = Request(&spec.groups);
        let order = |known: &Known| -> Ordering { Request(&known.spec.groups).cmp(&request) };
        self.known.binary_search_by(order)
    }
}
