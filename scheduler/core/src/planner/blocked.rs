//! Jobs that do not fit: rejected, promised a place, or left to wait, each with its one reason.

use berth_types::Epoch;

use super::capacity::Leeway;
use super::place::place;
use super::promise::{self, Promise};
use super::reason::{self, WaitCode, WaitReason};
use super::release::{self, Release, Trust};
use super::round::Round;
use super::shape::ShapeId;
use super::{HeadReservation, MAX_PROMISES, MAX_WAITING};
use crate::policy::Backfill;
use crate::state::Job;

/// Most shapes whose reason to wait is looked into in one round: a look costs as much as a placement on the empty
/// cluster. [`why`](super::why()) looks into any job.
const MAX_TOLD: usize = 64;

impl<'a> Round<'a> {
    /// A job that does not fit: rejected, promised a place, or left to wait.
    pub(super) fn on_blocked(&mut self, job: &'a Job, shape: ShapeId, backfill: Backfill) {
        if self.is_for_now_only(job) {
            let reason = self.why_blocked(shape);
            self.turn_away(job, reason);
            return;
        }
        match backfill {
            Backfill::BehindReservation if !self.limits.explain => self.defer(job, shape),
            Backfill::BehindReservation => {
                if let Some(reason) = self.try_promise(job, shape) {
                    self.wait(job.id, reason);
                    return;
                }
            }
            Backfill::Strict => self.stopped |= self.fits_when_empty(shape),
            Backfill::Greedy => {}
        }
        if self.limits.explain && self.plan.waiting.len() < MAX_WAITING {
            let reason = self.why_blocked(shape);
            self.wait(job.id, reason);
        }
    }

    /// Whether this job is promised a place matters only if another one fits later in this round. Nothing starts until
    /// then, so the promise will be the same.
    fn defer(&mut self, job: &'a Job, shape: ShapeId) {
        let memo = &mut self.memos[shape.0 as usize];
        if !memo.deferred {
            memo.deferred = true;
            self.deferred.push((job, shape));
        }
    }

    /// Makes the promises that were put off, in their order.
    pub(super) fn promise_deferred(&mut self) {
        for (job, shape) in std::mem::take(&mut self.deferred) {
            self.try_promise(job, shape);
        }
    }

    fn is_for_now_only(&self, job: &Job) -> bool {
        job.spec.start_now && job.epoch == Epoch(0)
    }

    /// Lets a job wait, or rejects it if it did not want to.
    pub(super) fn turn_away(&mut self, job: &Job, reason: WaitReason) {
        if self.is_for_now_only(job) {
            self.decided.insert(job.id);
            self.plan.rejects.push((job.id, reason.text.to_string()));
        } else {
            self.wait(job.id, reason);
        }
    }

    fn fits_when_empty(&mut self, shape: ShapeId) -> bool {
        if let Some(known) = self.memos[shape.0 as usize].fits_when_empty {
            return known;
        }
        let emptied = match &mut self.emptied {
            Some(emptied) => emptied,
            None => (self.emptied).insert(self.stock.take_emptied(&self.capacity)),
        };
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

    fn promise_text(&self, shape: ShapeId, told: &HeadReservation) -> String {
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
        if !self.limits.explain {
            return WaitReason::new(WaitCode::Resources, "does not fit into what is free");
        }
        if let Some(reason) = &self.memos[shape.0 as usize].reason {
            return reason.clone();
        }
        let reason = if self.told < MAX_TOLD {
            self.told += 1;
            self.tell_blocked(shape)
        } else {
            WaitReason::new(WaitCode::Resources, "does not fit into what is free")
        };
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
