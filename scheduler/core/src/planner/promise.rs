//! The promise to a job that does not fit yet, so that a large gang never starves behind small jobs (EASY backfill:
//! Lifka, "The ANL/IBM SP scheduling system", 1995; here with topology, fractions and unknown durations).
//!
//! The first job in order that does not fit gets the place where it can start soonest. What runs is let go one by one,
//! in the order of expected ends, until the job fits; the last one let go tells the time that the promise falls due.
//! Jobs behind may start if they leave the promised GPUs, CPUs and memory alone, or end before the promise falls due.
//!
//! **Nothing is remembered, and yet nothing flaps.** Let *t* be the place in the order of the last attempt that the
//! promise depends on. Nothing that outlasts the promise is put on the promised place, so in the next round the job
//! still fits once everything up to *t* is let go: *t* only ever moves forward in the order, whichever of several
//! equally good places is chosen. That needs an order in which nobody moves back: by enforced limits first, then,
//! where there is none, by start, oldest first (then *t* is a start before the promise was first made, and everything
//! as old ends within the longest run time). Expected durations make a better order, but an attempt that outlasts its
//! expectation moves back in it, and one that merely claims to be short moves to the front. So they count, for the
//! order and for borrowing, only while the head has waited for less than
//! [`patience_ms`](super::PlanLimits::patience_ms).
//!
//! **Bound.** The head starts within `patience + D + L` of becoming the head: *D* is the longest time that an attempt
//! without a limit runs (for *D* up to a day, see [`release`](super::release)), *L* the longest limit with its grace.
//! The tests hold the planner to it. Jobs of higher priority that arrive later go first, as they should, and a new head
//! is promised anew.
//!
//! **No promise for what cannot start.** A job that would not fit even if everything running on nodes in service were
//! let go (it needs nodes that are lost or drain, or that do not exist) gets no promise and blocks nobody; the next
//! one that does not fit is the head. So is a job that can only use classes of nodes that no promise covers yet: a
//! head that waits for one kind of GPU does not leave a gang that waits for another to starve.

use berth_types::{JobId, JobSpec, NodeId};

use super::HeadReservation;
use super::capacity::{Capacity, Leeway};
use super::place::{Placed, place};
use super::release::{Release, Trust, When, duration};
use super::room::Amounts;
use super::shape::Shape;

/// A place and a time for a job that does not fit yet.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    /// As it is told to others.
    pub(super) told: HeadReservation,
    /// What the durations of those who may borrow from it are told by.
    pub(super) trust: Trust,
}

impl Promise {
    /// True if it covers one of these classes, which are in ascending order.
    pub(super) fn concerns(&self, capacity: &Capacity<'_>, classes: &[u32]) -> bool {
        let first = self
            .told
            .nodes
            .first()
            .and_then(|node| capacity.seat_of(*node));
        first.is_some_and(|seat| {
            let class = capacity.seats[seat as usize].class;
            classes.binary_search(&class).is_ok()
        })
    }
}

/// What a promise leaves to others.
pub(super) struct Remainder {
    /// Free when the promise falls due, without what it promises.
    pub(super) later: Amounts,
    /// Classes of nodes that it covers: all that the job can use.
    pub(super) classes: Vec<u32>,
}

/// Finds the soonest place for a job with the fewest workers; `None` if it would not fit even after all releases.
pub(super) fn promise(
    capacity: &Capacity<'_>,
    releases: &[Release<'_>],
    shape: &Shape<'_>,
    job: JobId,
    checks: &mut u64,
) -> Option<(HeadReservation, Remainder)> {
    let classes: Vec<u32> = shape.classes().collect();
    let covered = |node: NodeId| {
        let class = capacity
            .seat_of(node)
            .map(|seat| capacity.seats[seat as usize].class);
        class.is_some_and(|class| classes.binary_search(&class).is_ok())
    };
    let relevant: Vec<&Release<'_>> = (releases.iter())
        .filter(|release| {
            release
                .placements()
                .any(|placement| covered(placement.node))
        })
        .collect();
    let mut search = Search {
        capacity,
        shape,
        relevant: &relevant,
        checks,
    };
    let mut best = search.after(relevant.len())?;
    let (mut fails, mut fits) = (0, relevant.len());
    while fails < fits {
        let middle = fails + (fits - fails) / 2;
        match search.after(middle) {
            Some(found) => (fits, best) = (middle, found),
            None => fails = middle + 1,
        }
    }
    let (placed, mut later) = best;
    for task in &placed.tasks {
        if let Some(claim) = capacity.claim(shape.groups, task) {
            later.take(&capacity.seats, claim);
        }
    }
    let told = tell(capacity, job, placed, &relevant[..fits], &later);
    Some((told, Remainder { later, classes }))
}

struct Search<'s, 'a> {
    capacity: &'s Capacity<'a>,
    shape: &'s Shape<'a>,
    relevant: &'s [&'s Release<'a>],
    checks: &'s mut u64,
}

impl Search<'_, '_> {
    /// The job's place once the first `count` releases have happened, and what is free then.
    fn after(&mut self, count: usize) -> Option<(Placed, Amounts)> {
        let mut amounts = self.capacity.now.amounts.clone();
        for release in &self.relevant[..count] {
            release.give(self.capacity, &mut amounts);
        }
        let cleared = self.capacity.with_free(amounts);
        *self.checks += cleared.seats.len() as u64;
        let placed = place(
            &cleared,
            self.shape,
            &self.shape.least(),
            Leeway::ALL,
            self.checks,
        )?;
        Some((placed, cleared.now.amounts))
    }
}

fn tell(
    capacity: &Capacity<'_>,
    job: JobId,
    placed: Placed,
    before: &[&Release<'_>],
    later: &Amounts,
) -> HeadReservation {
    let mut nodes: Vec<NodeId> = placed.tasks.iter().map(|task| task.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let start_ms = match before.last().map(|release| release.when) {
        Some(When::At(at)) => Some(at),
        Some(When::Unknown(_) | When::Outlived(_)) => None,
        None => Some(0),
    };
    let waits_for = needed(capacity, &nodes, before, later.clone());
    HeadReservation {
        job,
        start_ms,
        nodes,
        placements: placed.tasks,
        waits_for,
    }
}

/// The releases that the promised place really needs: those that cannot be left out, the last ones left out first.
fn needed(
    capacity: &Capacity<'_>,
    nodes: &[NodeId],
    before: &[&Release<'_>],
    mut left: Amounts,
) -> Vec<JobId> {
    let mut needed = Vec::new();
    for release in before.iter().rev() {
        let here = || {
            release
                .placements()
                .filter(|p| nodes.binary_search(&p.node).is_ok())
        };
        let claims = || here().filter_map(|placement| capacity.claim(release.groups(), placement));
        if claims().next().is_none() {
            continue;
        }
        claims().for_each(|claim| left.take(&capacity.seats, claim));
        let is_short = |claim| !left.is_sound(&capacity.seats, claim);
        if claims().any(is_short) {
            claims().for_each(|claim| left.give(&capacity.seats, claim));
            if !needed.contains(&release.job) {
                needed.push(release.job);
            }
        }
    }
    needed.reverse();
    needed
}

/// Which promises a job may borrow from if it starts now: those that fall due after it has ended.
pub(super) fn leeway(promises: &[Promise], spec: &JobSpec, now_ms: u64) -> Leeway {
    let mut leeway = Leeway::none_of(promises.len());
    for (index, promise) in promises.iter().enumerate() {
        let ends_before = promise.told.start_ms.is_some_and(|start_ms| {
            let duration = duration(spec, promise.trust);
            duration.is_some_and(|duration| now_ms.saturating_add(duration) <= start_ms)
        });
        if ends_before {
            leeway = leeway.with(index);
        }
    }
    leeway
}
