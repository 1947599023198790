//! One round: the walk through a proposal.

use std::collections::{BTreeMap, BTreeSet};

use berth_types::{Epoch, JobId, TaskPlacement};

use super::capacity::{Capacity, Leeway};
use super::place::{Placed, largest, place};
use super::promise::{self, Promise};
use super::reason::{self, WaitCode, WaitReason};
use super::release::{self, Release, Trust};
use super::shape::{ShapeId, Shapes};
use super::{MAX_PROMISES, MAX_WAITING, Plan, PlanLimits, slots};
use crate::command::{Bundle, Start};
use crate::policy::{Action, Backfill, Proposal, ProposedBundle, View};
use crate::state::Job;

/// What a round has found out about a shape.
#[derive(Clone, Debug, Default)]
struct Memo {
    /// Leeways with which it did not fit. Nothing is freed within a round, so it will not fit with less either.
    failed: Vec<Leeway>,
    /// Whether it fits the nodes in service at all, once asked.
    fits_when_empty: Option<bool>,
    /// Why it waits, once told.
    reason: Option<WaitReason>,
}

/// A round under way.
pub(super) struct Round<'a> {
    pub(super) view: &'a View,
    pub(super) limits: &'a PlanLimits,
    pub(super) capacity: Capacity<'a>,
    pub(super) shapes: Shapes<'a>,
    memos: Vec<Memo>,
    pub(super) promises: Vec<Promise>,
    /// The nodes in service as if nothing ran; built when first needed.
    emptied: Option<Capacity<'a>>,
    /// What attempts and reservations will release, by what is trusted; built when first needed.
    releases: BTreeMap<Trust, Vec<Release<'a>>>,
    /// Jobs that this round has decided about.
    pub(super) decided: BTreeSet<JobId>,
    /// True once a job that does not fit stops everything behind it (`Strict`).
    stopped: bool,
    /// Reservations that there will be; [`apply`](crate::apply) bounds them.
    pub(super) reserved: usize,
    pub(super) checks: u64,
    pub(super) plan: Plan,
}

impl<'a> Round<'a> {
    pub(super) fn new(view: &'a View, limits: &'a PlanLimits) -> Self {
        Self {
            capacity: Capacity::of(&view.state),
            view,
            limits,
            shapes: Shapes::new(),
            memos: Vec::new(),
            promises: Vec::new(),
            emptied: None,
            releases: BTreeMap::new(),
            decided: BTreeSet::new(),
            stopped: false,
            reserved: view.state.reservations.len(),
            checks: 0,
            plan: Plan::default(),
        }
    }

    pub(super) fn run(mut self, proposal: &Proposal) -> Plan {
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
        }
        self.plan.stats.shapes = self.shapes.len();
        self.plan.stats.node_checks = self.checks;
        let mut told = self.promises.into_iter().map(|promise| promise.told);
        self.plan.reservation = told.next();
        self.plan.further = told.collect();
        self.plan
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
            let text = format!(
                "its back-off after {} ends in {}",
                last_end(record),
                reason::about(wait_ms)
            );
            let wake_ms = self.plan.wake_ms.get_or_insert(u64::MAX);
            *wake_ms = record.not_before_ms.min(*wake_ms);
            self.wait(job, WaitReason::new(WaitCode::BeginTime, text));
            return None;
        }
        Some(record)
    }

    fn start_one(&mut self, wish: &Wish<'_>, backfill: Backfill) {
        let Some(job) = self.startable(wish.job) else {
            self.plan.stats.refused += usize::from(!self.plan.waiting.contains_key(&wish.job));
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
        let leeway = self.leeway(job);
        let failed = &self.memos[shape.0 as usize].failed;
        if wish.workers.is_none() && failed.iter().any(|failed| failed.covers(leeway)) {
            self.blocked(job, shape, backfill);
            return;
        }
        match self.find(job, shape, wish, leeway) {
            Ok(Some(placed)) if self.emit(job, &placed, leeway, wish.why) => {}
            Ok(_) => {
                if wish.workers.is_none() {
                    self.memos[shape.0 as usize].failed.push(leeway);
                }
                self.blocked(job, shape, backfill);
            }
            Err(Refused) => self.plan.stats.refused += 1,
        }
    }

    pub(super) fn shape_of(&mut self, job: &'a Job) -> ShapeId {
        let shape = self.shapes.intern(&job.spec, &self.capacity);
        self.memos.resize(self.shapes.len(), Memo::default());
        shape
    }

    pub(super) fn leeway(&self, job: &Job) -> Leeway {
        promise::leeway(&self.promises, &job.spec, self.view.now_ms)
    }

    /// Places for a wish: its own slots if they hold, else the best ones.
    pub(super) fn find(
        &mut self,
        job: &Job,
        shape: ShapeId,
        wish: &Wish<'_>,
        leeway: Leeway,
    ) -> Result<Option<Placed>, Refused> {
        let shape = self.shapes.get(shape);
        if let Some(slots) = wish.slots {
            self.checks += slots.len() as u64;
            if let Some(placed) = slots::check(&self.capacity, shape, slots, leeway) {
                return Ok(Some(placed));
            }
            self.plan.stats.replaced += 1;
        }
        let Some(workers) = wish.workers else {
            return Ok(largest(&self.capacity, shape, leeway, &mut self.checks));
        };
        let groups = &job.spec.groups;
        let within = groups.len() == workers.len()
            && (groups.iter().zip(workers))
                .all(|(g, n)| (g.min_workers..=g.max_workers).contains(n));
        if !within {
            return Err(Refused);
        }
        Ok(place(
            &self.capacity,
            shape,
            workers,
            leeway,
            &mut self.checks,
        ))
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
        let mut because = reason::because(&self.capacity, &job.spec.groups, placed);
        if let Some(promise) = self.promises.first() {
            because.push_str(&format!(
                "; does not delay job {} ahead of it",
                promise.told.job
            ));
        }
        if !why.is_empty() {
            because = format!("{why}: {because}");
        }
        let epoch = Epoch(job.epoch.0.saturating_add(1));
        let master_port = self.capacity.lease_for(&placed.tasks, job.id, epoch)?;
        Some(Start {
            job: job.id,
            epoch,
            placements: placed.tasks.clone(),
            master_port,
            because,
        })
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

    /// A job that does not fit: rejected, promised a place, or left to wait.
    fn blocked(&mut self, job: &'a Job, shape: ShapeId, backfill: Backfill) {
        if self.is_for_now_only(job) {
            let reason = self.why_blocked(shape);
            self.turn_away(job, reason);
            return;
        }
        match backfill {
            Backfill::BehindReservation => {
                if let Some(reason) = self.try_promise(job, shape) {
                    self.wait(job.id, reason);
                    return;
                }
            }
            Backfill::Strict => self.stopped |= self.fits_when_empty(shape),
            Backfill::Greedy => {}
        }
        if self.plan.waiting.len() < MAX_WAITING {
            let reason = self.why_blocked(shape);
            self.wait(job.id, reason);
        }
    }

    fn is_for_now_only(&self, job: &Job) -> bool {
        job.spec.start_now && job.epoch == Epoch(0)
    }

    /// Lets a job wait, or rejects it if it did not want to.
    fn turn_away(&mut self, job: &Job, reason: WaitReason) {
        if self.is_for_now_only(job) {
            self.decided.insert(job.id);
            self.plan.rejects.push((job.id, reason.text.to_string()));
        } else {
            self.wait(job.id, reason);
        }
    }

    pub(super) fn wait(&mut self, job: JobId, reason: WaitReason) {
        if self.plan.waiting.len() < MAX_WAITING {
            self.plan.waiting.insert(job, reason);
        }
    }

    fn fits_when_empty(&mut self, shape: ShapeId) -> bool {
        if let Some(known) = self.memos[shape.0 as usize].fits_when_empty {
            return known;
        }
        let emptied = self.emptied.get_or_insert_with(|| {
            let nodes = self.view.state.nodes.values().map(|node| &**node);
            Capacity::of_nodes(nodes.filter(|node| node.is_schedulable()), true)
        });
        let request = self.shapes.get(shape);
        let fits = place(
            emptied,
            request,
            &request.least(),
            Leeway::ALL,
            &mut self.checks,
        )
        .is_some();
        self.memos[shape.0 as usize].fits_when_empty = Some(fits);
        fits
    }

    /// Promises a job its place if it is the first that waits for what it can use, and says so.
    fn try_promise(&mut self, job: &Job, shape: ShapeId) -> Option<WaitReason> {
        let is_covered = self
            .shapes
            .get(shape)
            .classes()
            .any(|class| self.capacity.is_promised(class));
        if is_covered || self.promises.len() >= MAX_PROMISES || !self.fits_when_empty(shape) {
            return None;
        }
        let now_ms = self.view.now_ms;
        let state = &self.view.state;
        let waited_ms = now_ms.saturating_sub(job.submitted_ms);
        let is_patient = waited_ms < self.limits.patience_ms;
        let trust = if is_patient {
            Trust::Expected
        } else {
            Trust::Enforced
        };
        let known =
            (self.releases.entry(trust)).or_insert_with(|| release::releases(state, now_ms, trust));
        let mut releases: Vec<Release<'_>> = known.clone();
        releases.extend(release::planned(state, &self.plan.bundles, now_ms, trust));
        releases.sort_unstable_by_key(|release| (release.when, release.job));
        let request = self.shapes.get(shape);
        let (told, remainder) =
            promise::promise(&self.capacity, &releases, request, job.id, &mut self.checks)?;
        let number = u8::try_from(self.promises.len()).ok()?;
        self.capacity
            .keep(number, &remainder.classes, &remainder.later);
        let text = self.promise_text(shape, &told);
        self.promises.push(Promise { told, trust });
        Some(WaitReason::new(WaitCode::Resources, text))
    }

    fn promise_text(&self, shape: ShapeId, told: &super::HeadReservation) -> String {
        let mut text = reason::does_not_fit(&self.capacity, self.shapes.get(shape));
        let nodes = reason::node_names(&self.capacity, &told.nodes);
        text.push_str(&format!("; next for {nodes}"));
        if !told.waits_for.is_empty() {
            text.push_str(&format!(" once {} ended", reason::jobs(&told.waits_for)));
        }
        if let Some(start_ms) = told.start_ms {
            let wait_ms = start_ms.saturating_sub(self.view.now_ms);
            text.push_str(&format!(", in {}", reason::about(wait_ms)));
        }
        text
    }

    /// Why a shape does not fit, told once per round and shape.
    fn why_blocked(&mut self, shape: ShapeId) -> WaitReason {
        if let Some(reason) = &self.memos[shape.0 as usize].reason {
            return reason.clone();
        }
        let reason = self.tell_blocked(shape);
        self.memos[shape.0 as usize].reason = Some(reason.clone());
        reason
    }

    fn tell_blocked(&mut self, shape: ShapeId) -> WaitReason {
        if !self.fits_when_empty(shape) {
            let text = format!("needs {}", reason::requests(self.shapes.get(shape).groups));
            let text =
                format!("{text}; the nodes in service could not run it even if they were empty");
            return WaitReason::new(WaitCode::ReqNodeNotAvail, text);
        }
        let request = self.shapes.get(shape);
        let classes: Vec<u32> = request.classes().collect();
        let head = self
            .promises
            .iter()
            .find(|promise| promise.concerns(&self.capacity, &classes));
        if let Some(head) = head
            && place(
                &self.capacity,
                request,
                &request.least(),
                Leeway::ALL,
                &mut self.checks,
            )
            .is_some()
        {
            let mut text = format!(
                "what it needs is kept for job {} ahead of it",
                head.told.job
            );
            if let Some(start_ms) = head.told.start_ms {
                let wait_ms = start_ms.saturating_sub(self.view.now_ms);
                text.push_str(&format!(
                    ", expected to start in {}",
                    reason::about(wait_ms)
                ));
            }
            return WaitReason::new(WaitCode::Priority, text);
        }
        WaitReason::new(
            WaitCode::Resources,
            reason::does_not_fit(&self.capacity, request),
        )
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

fn last_end(job: &Job) -> &'static str {
    use berth_types::AttemptEnd::{Failed, NodeLost, NotStarted};
    match job.past.last().map(|past| &past.end) {
        Some(Failed { .. }) => "a failure",
        Some(NodeLost { .. }) => "the loss of a node",
        Some(NotStarted { .. }) => "a node that could not start it",
        _ => "its last attempt",
    }
}
