//! One round: the walk through a proposal.

use std::collections::{BTreeMap, BTreeSet};

use berth_types::{AttemptEnd, JobId, NodeId, TaskPlacement};

use super::capacity::{Capacity, Leeway};
use super::place::{Placed, largest, place};
use super::promise::{self, Promise};
use super::reason::{self, WaitCode, WaitReason};
use super::release::{Release, Trust};
use super::shape::{ShapeId, Shapes};
use super::stock::Stock;
use super::{MAX_WAITING, Plan, PlanLimits, slots};
use crate::command::{Bundle, Start};
use crate::policy::{Action, Backfill, Proposal, ProposedBundle, Rest, View};
use crate::state::Job;

/// What a round has found out about a shape.
#[derive(Clone, Debug, Default)]
pub(super) struct Memo {
    /// Leeways with which it did not fit. Nothing is freed within a round, so it will not fit with less either.
    pub(super) failed: Vec<Leeway>,
    /// Whether it fits the nodes in service at all, once asked.
    pub(super) fits_when_empty: Option<bool>,
    /// Why it waits, once told.
    pub(super) reason: Option<WaitReason>,
    /// True once a job of this shape waits for what is promised; those behind it are promised nothing more.
    pub(super) deferred: bool,
}

/// A round under way.
pub(super) struct Round<'a> {
    pub(super) view: &'a View,
    pub(super) limits: &'a PlanLimits,
    pub(super) capacity: Capacity<'a>,
    /// What is kept between rounds, without what is in `capacity`.
    pub(super) stock: Stock,
    pub(super) shapes: Shapes<'a>,
    pub(super) memos: Vec<Memo>,
    pub(super) promises: Vec<Promise>,
    /// The nodes in service as if nothing ran; fetched when first needed.
    pub(super) emptied: Option<Capacity<'a>>,
    /// Jobs that do not fit and have not been promised anything yet, in order: whether they are matters only once
    /// another job fits.
    pub(super) deferred: Vec<(&'a Job, ShapeId)>,
    /// What attempts and reservations will release, by what is trusted; built when first needed.
    pub(super) releases: BTreeMap<Trust, Vec<Release<'a>>>,
    /// Jobs that this round has decided about.
    pub(super) decided: BTreeSet<JobId>,
    /// True once a job that does not fit stops everything behind it (`Strict`).
    pub(super) stopped: bool,
    /// Shapes whose reason to wait was looked into.
    pub(super) told: usize,
    /// Reservations that there will be; [`apply`](crate::apply) bounds them.
    pub(super) reserved: usize,
    pub(super) checks: u64,
    pub(super) plan: Plan,
}

impl<'a> Round<'a> {
    pub(super) fn new(view: &'a View, limits: &'a PlanLimits, mut stock: Stock) -> Self {
        Self {
            capacity: stock.take(&view.state),
            stock,
            view,
            limits,
            shapes: Shapes::new(),
            memos: Vec::new(),
            promises: Vec::new(),
            emptied: None,
            deferred: Vec::new(),
            releases: BTreeMap::new(),
            decided: BTreeSet::new(),
            stopped: false,
            told: 0,
            reserved: view.state.reservations.len(),
            checks: 0,
            plan: Plan::default(),
        }
    }

    /// The plan, and what is kept for the next round.
    pub(super) fn run(mut self, proposal: &Proposal) -> (Plan, Stock) {
        if self.view.state.alarm.is_none() {
            self.start_reserved();
            self.evict_drained();
            for bundle in &proposal.bundles {
                if self.is_spent() {
                    self.plan.stats.cut = true;
                    break;
                }
                self.plan.stats.looked_at += 1;
                self.consider(bundle, proposal.backfill);
            }
            if proposal.rest == Rest::InTurn && !self.plan.stats.cut {
                self.start_in_turn(proposal.backfill);
            }
        }
        self.set_targets(proposal);
        self.plan.stats.shapes = self.shapes.len();
        self.plan.stats.node_checks = self.checks;
        let mut told = self.promises.into_iter().map(|promise| promise.told);
        self.plan.reservation = told.next();
        self.plan.further = told.collect();
        if let Some(emptied) = self.emptied {
            self.stock.put_back_emptied(emptied);
        }
        self.stock.put_back(self.capacity);
        (self.plan, self.stock)
    }

    pub(super) fn is_spent(&self) -> bool {
        let stats = &self.plan.stats;
        stats.starts >= self.limits.max_starts
            || stats.looked_at >= self.limits.max_looked_at
            || self.checks >= self.limits.max_node_checks
    }

    fn consider(&mut self, bundle: &ProposedBundle, backfill: Backfill) {
        match bundle.actions.as_slice() {
            [
                Action::Start {
                    job,
                    workers,
                    slots,
                },
            ] => {
                let wish = Wish {
                    job: *job,
                    workers: workers.as_deref(),
                    slots: slots.as_deref(),
                    why: &bundle.reason,
                };
                self.start_one(&wish, backfill);
            }
            actions => {
                for action in actions {
                    if let Action::Wait(job) = action {
                        self.wait_by_policy(*job, &bundle.reason);
                    }
                }
                self.carry_out(actions, &bundle.reason);
            }
        }
    }

    /// Targets that pools can have, and when the policy wants to be asked again.
    fn set_targets(&mut self, proposal: &Proposal) {
        for (name, &target) in &proposal.pools {
            let Some(pool) = self.view.pools.iter().find(|pool| pool.name == *name) else {
                self.plan.stats.refused += 1;
                continue;
            };
            let target = target.min(pool.max_nodes).max(pool.min_nodes);
            self.plan.pools.insert(name.clone(), target);
        }
        let later = proposal.wake_ms.filter(|&at| at > self.view.now_ms);
        self.plan.wake_ms = self.plan.wake_ms.into_iter().chain(later).min();
    }

    fn wait_by_policy(&mut self, job: JobId, why: &str) {
        let Some(record) = self.startable(job) else {
            return;
        };
        let why = if why.is_empty() {
            "the policy lets it wait"
        } else {
            why
        };
        self.turn_away(record, WaitReason::new(WaitCode::Policy, why));
    }

    /// A job that could be started if there were room: pending, not spoken for, its back-off over.
    pub(super) fn startable(&mut self, job: JobId) -> Option<&'a Job> {
        let state = &self.view.state;
        let record = state.jobs.get(&job)?;
        if !record.is_pending()
            || state.reservations.contains_key(&job)
            || self.decided.contains(&job)
        {
            return None;
        }
        if record.not_before_ms > self.view.now_ms {
            let wait_ms = record.not_before_ms - self.view.now_ms;
            let wake_ms = self.plan.wake_ms.get_or_insert(u64::MAX);
            *wake_ms = record.not_before_ms.min(*wake_ms);
            if self.limits.explain {
                let text = format!(
                    "its back-off after {} ends in {}",
                    last_end(record),
                    reason::about(wait_ms)
                );
                self.wait(job, WaitReason::new(WaitCode::BeginTime, text));
            }
            return None;
        }
        Some(record)
    }

    pub(super) fn start_one(&mut self, wish: &Wish<'_>, backfill: Backfill) {
        let Some(job) = self.startable(wish.job) else {
            let is_known =
                self.plan.waiting.contains_key(&wish.job) || self.decided.contains(&wish.job);
            self.plan.stats.refused += usize::from(!is_known);
            return;
        };
        if self.stopped {
            self.turn_away(
                job,
                WaitReason::new(WaitCode::Priority, "a job ahead of it does not fit"),
            );
            return;
        }
        let shape = self.shape_of(job);
        let (mut leeway, mut found) = self.look(job, shape, wish);
        if matches!(found, Ok(Some(_))) && !self.deferred.is_empty() {
            self.promise_deferred();
            (leeway, found) = self.look(job, shape, wish);
        }
        match found {
            Ok(Some(placed)) if self.emit(job, &placed, leeway, wish.why) => {}
            Ok(_) => {
                if wish.workers.is_none() {
                    self.memos[shape.0 as usize].failed.push(leeway);
                }
                self.on_blocked(job, shape, backfill);
            }
            Err(Refused) => self.plan.stats.refused += 1,
        }
    }

    /// Places for a wish beside what has been promised, and the leeway that they were looked for with.
    fn look(
        &mut self,
        job: &Job,
        shape: ShapeId,
        wish: &Wish<'_>,
    ) -> (Leeway, Result<Option<Placed>, Refused>) {
        let leeway = self.leeway(job);
        let failed = &self.memos[shape.0 as usize].failed;
        if wish.workers.is_none() && failed.iter().any(|failed| failed.covers(leeway)) {
            return (leeway, Ok(None));
        }
        (leeway, self.find(job, shape, wish, leeway))
    }

    pub(super) fn shape_of(&mut self, job: &'a Job) -> ShapeId {
        let (stock, capacity) = (&mut self.stock, &self.capacity);
        let matches = || stock.matches(&job.spec, capacity);
        let shape = self.shapes.intern_with(&job.spec, matches);
        self.memos.resize(self.shapes.len(), Memo::default());
        shape
    }

    pub(super) fn leeway(&self, job: &Job) -> Leeway {
        promise::leeway(&self.promises, &job.spec, self.view.now_ms)
    }

    /// Places for a wish, away from nodes that could not start the job lately if others have room.
    pub(super) fn find(
        &mut self,
        job: &Job,
        shape: ShapeId,
        wish: &Wish<'_>,
        leeway: Leeway,
    ) -> Result<Option<Placed>, Refused> {
        let suspects = suspects(job);
        if !suspects.is_empty() {
            self.capacity.set_closed(&suspects, true);
            let found = self.find_anywhere(job, shape, wish, leeway);
            self.capacity.set_closed(&suspects, false);
            if !matches!(found, Ok(None)) {
                return found;
            }
        }
        self.find_anywhere(job, shape, wish, leeway)
    }

    /// Places for a wish: its own slots if they hold, else the best ones.
    fn find_anywhere(
        &mut self,
        job: &Job,
        shape: ShapeId,
        wish: &Wish<'_>,
        leeway: Leeway,
    ) -> Result<Option<Placed>, Refused> {
        let (capacity, checks) = (&self.capacity, &mut self.checks);
        let shape = self.shapes.get(shape);
        if let Some(slots) = wish.slots {
            *checks += slots.len() as u64;
            if let Some(placed) = slots::check(capacity, shape, slots, leeway) {
                return Ok(Some(placed));
            }
            self.plan.stats.replaced += 1;
        }
        let Some(workers) = wish.workers else {
            return Ok(largest(capacity, shape, leeway, checks));
        };
        let bounds = job
            .spec
            .groups
            .iter()
            .map(|group| group.min_workers..=group.max_workers);
        let is_within = bounds.len() == workers.len()
            && bounds.zip(workers).all(|(bounds, n)| bounds.contains(n));
        if !is_within {
            return Err(Refused);
        }
        Ok(place(capacity, shape, workers, leeway, checks))
    }

    /// Adds a bundle with one start. False if no port is left after all.
    fn emit(&mut self, job: &Job, placed: &Placed, leeway: Leeway, why: &str) -> bool {
        let Some(start) = self.start(job, placed, why) else {
            return false;
        };
        self.capacity.take(&job.spec.groups, &placed.tasks, leeway);
        self.plan.stats.backfilled += usize::from(!self.promises.is_empty());
        self.push(Bundle {
            evictions: Vec::new(),
            starts: vec![start],
        });
        true
    }

    /// The start of a job in these places, with a port of rank 0's node.
    pub(super) fn start(&mut self, job: &Job, placed: &Placed, why: &str) -> Option<Start> {
        let because = if self.limits.explain {
            self.because(job, placed, why)
        } else {
            why.to_owned()
        };
        let epoch = self.view.state.next_epoch(job)?;
        let master_port = self.capacity.lease_for(&placed.tasks, job.id, epoch)?;
        Some(Start {
            job: job.id,
            epoch,
            placements: placed.tasks.clone(),
            master_port,
            because,
        })
    }

    fn because(&self, job: &Job, placed: &Placed, why: &str) -> String {
        let mut because = reason::because(&self.capacity, &job.spec.groups, placed);
        let classes = self.capacity.classes_of(&placed.tasks);
        let mut promises = self.promises.iter();
        if let Some(promise) = promises.find(|promise| promise.concerns(&self.capacity, &classes)) {
            because.push_str(&format!(
                "; does not delay job {} ahead of it",
                promise.told.job
            ));
        }
        if why.is_empty() {
            because
        } else {
            format!("{why}: {because}")
        }
    }

    pub(super) fn wait(&mut self, job: JobId, reason: WaitReason) {
        if self.limits.explain && self.plan.waiting.len() < MAX_WAITING {
            self.plan.waiting.insert(job, reason);
        }
    }

    pub(super) fn push(&mut self, bundle: Bundle) {
        self.plan.stats.starts += bundle.starts.len();
        self.plan.stats.evictions += bundle.evictions.len();
        self.decided
            .extend(bundle.starts.iter().map(|start| start.job));
        self.decided
            .extend(bundle.evictions.iter().map(|eviction| eviction.job));
        self.plan.bundles.push(bundle);
    }
}

/// A start that a policy wishes for.
pub(super) struct Wish<'w> {
    pub(super) job: JobId,
    pub(super) workers: Option<&'w [u32]>,
    pub(super) slots: Option<&'w [TaskPlacement]>,
    pub(super) why: &'w str,
}

/// A wish that breaks a hard rule.
pub(super) struct Refused;

/// Nodes that could not start the job's newest attempts, for a cause that is theirs.
fn suspects(job: &Job) -> Vec<NodeId> {
    let newest = job.past.iter().rev();
    let failed = newest.take_while(|past| matches!(past.end, AttemptEnd::NotStarted { .. }));
    failed.flat_map(|past| past.nodes.iter().copied()).collect()
}

fn last_end(job: &Job) -> &'static str {
    match job.past.last().map(|past| &past.end) {
        Some(AttemptEnd::Failed { .. }) => "a failure",
        Some(AttemptEnd::NodeLost { .. }) => "the loss of a node",
        Some(AttemptEnd::NotStarted { .. }) => "a node that could not start it",
        _ => "its last attempt",
    }
}
