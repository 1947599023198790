//! Preemption by rank: of all unfinished jobs in order of importance, those run that the cluster's GPUs suffice for.
//!
//! Jobs are admitted in order for as long as there are GPUs, counted over the whole cluster; a job that asks for more
//! than is left is passed over. A job that is admitted and waits may take the place of jobs that run and are not
//! admitted, the least important first, and only of as many as it takes. Each such bundle is proven on a scratch copy of
//! what is free before it is proposed, and proven again by the planner: nobody is evicted for a start that does not fit
//! (unlike in the simulators of the published policies, which evict by count and then try to place).
//!
//! What nobody more important can use goes to whoever fits, in order. So the policy is work-conserving, and a kind of
//! GPU that the admitted cannot use does not lie idle.

use std::collections::BTreeMap;

use berth_core::planner::{self, Capacity, Leeway, Placed, ShapeId, Shapes, largest, place};
use berth_core::policy::{Action, Backfill, Proposal, ProposedBundle, View};
use berth_core::state::Job;
use berth_types::{JobId, MILLI};

use crate::duration;

/// Most starts proposed with places of their own in one round: as many as a plan starts.
const MAX_PLACED: usize = 512;

/// Most running jobs considered for one start, the least important ones. A start that needs more of them gone waits.
const MAX_VICTIMS: usize = 4_096;

/// Most running jobs given up or taken back while evictions are tried, about 500 ns each: bounds a round's time. The
/// next round goes on.
const MAX_MOVES: usize = 100_000;

/// Proposes that the first of these jobs run, which are all that are pending or placed, the most important first.
/// `why` is told with each eviction.
pub fn by_rank(view: &View, ranked: &[JobId], why: &str) -> Proposal {
    let jobs = ranked.iter().filter_map(|id| view.state.jobs.get(id));
    let jobs: Vec<&Job> = jobs.map(|job| &**job).collect();
    let admitted = admit(view, &jobs);
    let mut round = Round {
        capacity: Capacity::of(&view.state),
        shapes: Shapes::new(),
        failed: BTreeMap::new(),
        victims: (jobs.iter().zip(&admitted).rev())
            .filter(|(job, admitted)| !**admitted && planner::is_evictable(&view.state, job))
            .map(|(job, _)| *job)
            .collect(),
        moves: 0,
        checks: 0,
    };
    let waits = |job: &Job| job.is_pending() && !view.state.reservations.contains_key(&job.id);
    let mut bundles = Vec::new();
    let mut rest = Vec::new();
    for (job, &is_admitted) in jobs.iter().zip(&admitted) {
        if !waits(job) {
            continue;
        }
        let startable = job.not_before_ms <= view.now_ms && bundles.len() < MAX_PLACED;
        match (is_admitted && startable).then(|| round.start(job, why)) {
            Some(Some(bundle)) => bundles.push(bundle),
            _ => rest.push(ProposedBundle::start(job.id)),
        }
    }
    bundles.extend(rest);
    Proposal {
        bundles,
        backfill: Backfill::Greedy,
        ..Proposal::default()
    }
}

/// Which jobs the GPUs of the nodes in service suffice for, in order.
fn admit(view: &View, jobs: &[&Job]) -> Vec<bool> {
    let nodes = view.state.nodes.values();
    let gpus = nodes.filter(|node| node.is_schedulable());
    let mut left: u64 = gpus
        .map(|node| node.spec.gpus.len() as u64 * u64::from(MILLI))
        .sum();
    let admitted = jobs.iter().map(|job| {
        let needs = match job.attempt {
            Some(_) => duration::held_milligpu(job),
            None => duration::asked_milligpu(job),
        };
        let fits = needs <= left;
        left -= if fits { needs } else { 0 };
        fits
    });
    admitted.collect()
}

struct Round<'v> {
    /// What is free, without what the proposal has taken, and with what it has vacated.
    capacity: Capacity<'v>,
    shapes: Shapes<'v>,
    /// Shapes that did not fit, with the number of victims that there were.
    failed: BTreeMap<usize, usize>,
    /// Who may be evicted, the least important first.
    victims: Vec<&'v Job>,
    /// Victims given up or taken back so far.
    moves: usize,
    checks: u64,
}

impl<'v> Round<'v> {
    /// A start, with evictions if it takes some.
    fn start(&mut self, job: &'v Job, why: &str) -> Option<ProposedBundle> {
        let shape = self.shapes.intern(&job.spec, &self.capacity);
        if self.failed.get(&shape.index()) == Some(&self.victims.len()) {
            return None;
        }
        let known = self.shapes.get(shape);
        if let Some(placed) = largest(&self.capacity, known, Leeway::ALL, &mut self.checks) {
            let groups = &job.spec.groups;
            self.capacity.take(groups, &placed.tasks, Leeway::ALL);
            return Some(bundle(job.id, &[], placed, why));
        }
        let found = self.start_instead(job, shape);
        if found.is_none() {
            self.failed.insert(shape.index(), self.victims.len());
        }
        let (evicted, placed) = found?;
        Some(bundle(job.id, &evicted, placed, why))
    }

    /// A place for a job once others are gone, and who has to go. Changes nothing if there is none.
    fn start_instead(&mut self, job: &Job, shape: ShapeId) -> Option<(Vec<JobId>, Placed)> {
        let (count, placed) = self.fewest(shape)?;
        let groups = &job.spec.groups;
        self.capacity.take(groups, &placed.tasks, Leeway::ALL);
        // Of those in question, the more important ones stay if they can.
        let mut evicted = Vec::new();
        for victim in self.victims[..count].iter().rev() {
            let (groups, tasks) = (&victim.spec.groups, planner::held(victim));
            self.capacity.take(groups, &tasks, Leeway::ALL);
            if !self.capacity.is_sound(groups, &tasks) {
                self.capacity.give(groups, &tasks);
                evicted.push(victim.id);
            }
        }
        self.victims.retain(|victim| !evicted.contains(&victim.id));
        Some((evicted, placed))
    }

    /// How many of the victims, the least important first, have to go for a shape to fit, and where it fits then; those
    /// victims are gone when this returns. Changes nothing if there is no such number within the bounds.
    fn fewest(&mut self, shape: ShapeId) -> Option<(usize, Placed)> {
        let most = self.victims.len().min(MAX_VICTIMS);
        if self.moves >= MAX_MOVES {
            return None;
        }
        let (mut fails, mut gone) = (0, 0);
        let mut found = None;
        while found.is_none() && gone < most {
            fails = gone;
            self.vacate(&mut gone, (2 * fails).clamp(1, most));
            found = self.place(shape);
        }
        let Some(mut placed) = found else {
            self.vacate(&mut gone, 0);
            return None;
        };
        let mut fits = gone;
        while fits - fails > 1 {
            let middle = fails + (fits - fails) / 2;
            self.vacate(&mut gone, middle);
            match self.place(shape) {
                Some(better) => (fits, placed) = (middle, better),
                None => fails = middle,
            }
        }
        self.vacate(&mut gone, fits);
        Some((fits, placed))
    }

    /// Goes from so many victims gone to so many.
    fn vacate(&mut self, gone: &mut usize, wanted: usize) {
        self.moves += gone.abs_diff(wanted);
        for victim in &self.victims[(*gone).min(wanted)..(*gone).max(wanted)] {
            let (groups, tasks) = (&victim.spec.groups, planner::held(victim));
            if wanted > *gone {
                self.capacity.give(groups, &tasks);
            } else {
                self.capacity.take(groups, &tasks, Leeway::ALL);
            }
        }
        *gone = wanted;
    }

    fn place(&mut self, shape: ShapeId) -> Option<Placed> {
        let shape = self.shapes.get(shape);
        let (sizes, checks) = (shape.least(), &mut self.checks);
        place(&self.capacity, shape, &sizes, Leeway::ALL, checks)
    }
}

fn bundle(job: JobId, evicted: &[JobId], placed: Placed, why: &str) -> ProposedBundle {
    let stops = evicted.iter().map(|&victim| Action::Stop(victim));
    let start = Action::Start {
        job,
        workers: Some(placed.sizes),
        slots: Some(placed.tasks),
    };
    ProposedBundle {
        actions: stops.chain([start]).collect(),
        score: 0.0,
        reason: if evicted.is_empty() {
            String::new()
        } else {
            why.to_owned()
        },
    }
}
