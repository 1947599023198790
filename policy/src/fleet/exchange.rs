//! From seats to bundles: who starts, moves and stops, and whose changes need whose.

use std::collections::BTreeMap;

use berth_core::policy::{Action, ProposedBundle};
use berth_types::{JobId, NodeId};

use super::kinds::{Fleet, Managed};
use super::seating::Seated;

/// The changes that lead from what jobs hold to these seats. Changes that need each other's room make one bundle; those
/// that do not have one each. A job without a seat stops only if somebody takes its place.
pub fn exchange(
    fleet: &Fleet<'_>,
    seats: &BTreeMap<JobId, Seated>,
    reason: impl Fn(&Managed<'_>) -> String,
) -> Vec<ProposedBundle> {
    let changes = changes(fleet, seats);
    let mut holders: BTreeMap<(NodeId, u16), usize> = BTreeMap::new();
    for (index, (job, _)) in changes.iter().enumerate() {
        let gpus = job.held.iter().flat_map(|held| &held.gpus);
        holders.extend(gpus.map(|gpu| (*gpu, index)));
    }
    let mut groups = Groups::new(changes.len());
    for (index, (_, seat)) in changes.iter().enumerate() {
        let gpus = seat.iter().flat_map(|seated| &seated.0);
        for holder in gpus.filter_map(|gpu| holders.get(gpu)) {
            groups.join(index, *holder);
        }
    }
    let mut bundles: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..changes.len() {
        bundles.entry(groups.root(index)).or_default().push(index);
    }
    let useful = |members: &Vec<usize>| members.iter().any(|&member| changes[member].1.is_some());
    let bundles = bundles.into_values().filter(useful);
    let bundle = |members: Vec<usize>| ProposedBundle {
        actions: members
            .iter()
            .map(|&member| action(&changes[member]))
            .collect(),
        score: 0.0,
        reason: match members.as_slice() {
            [single] => reason(changes[*single].0),
            _ => String::new(),
        },
    };
    bundles.map(bundle).collect()
}

/// What is left: jobs without a seat wait, and say why; those that do not fit any kind, and those of other shapes, are the
/// planner's to place, and so is to say why they wait.
pub fn rest(
    fleet: &Fleet<'_>,
    seats: &BTreeMap<JobId, Seated>,
    fits: impl Fn(usize) -> bool,
    reason: &str,
) -> Vec<ProposedBundle> {
    let jobs = fleet
        .jobs
        .iter()
        .enumerate()
        .filter(|(_, job)| job.held.is_none());
    let seatless = jobs.filter(|(_, job)| !seats.contains_key(&job.job.id));
    let left = seatless.map(|(index, job)| match fits(index) {
        true => ProposedBundle {
            actions: vec![Action::Wait(job.job.id)],
            score: 0.0,
            reason: reason.to_owned(),
        },
        false => ProposedBundle::start(job.job.id),
    });
    let others = fleet.others.iter().map(|job| ProposedBundle::start(*job));
    left.chain(others).collect()
}

type Change<'f, 'a> = (&'f Managed<'a>, Option<&'f Seated>);

/// Jobs whose seat is not what they hold.
fn changes<'f, 'a>(
    fleet: &'f Fleet<'a>,
    seats: &'f BTreeMap<JobId, Seated>,
) -> Vec<Change<'f, 'a>> {
    let jobs = fleet.jobs.iter().filter(|job| !job.pinned);
    let wanted = jobs.map(|job| (job, seats.get(&job.job.id)));
    wanted
        .filter(|(job, seat)| match (&job.held, seat) {
            (None, None) => false,
            (Some(held), Some(seat)) => held.gpus != seat.0,
            _ => true,
        })
        .collect()
}

fn action((job, seat): &Change<'_, '_>) -> Action {
    let id = job.job.id;
    match (&job.held, seat) {
        (_, None) => Action::Stop(id),
        (None, Some(seat)) => Action::Start {
            job: id,
            workers: Some(vec![seat.0.len() as u32]),
            slots: Some(seat.slots()),
        },
        (Some(_), Some(seat)) => Action::Resize {
            job: id,
            workers: vec![seat.0.len() as u32],
            slots: Some(seat.slots()),
        },
    }
}

/// Sets that are joined.
struct Groups(Vec<usize>);

impl Groups {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn root(&mut self, mut index: usize) -> usize {
        while self.0[index] != index {
            self.0[index] = self.0[self.0[index]];
            index = self.0[index];
        }
        index
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}
