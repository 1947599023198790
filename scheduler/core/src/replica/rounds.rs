//! When the leader plans, and what it does with a plan.
//!
//! ```text
//! idle --something changed--> asked (policy thread) --plan--> proposed --all its entries applied--> idle
//! ```
//! One round at a time: what happens meanwhile shares the next one. A round that took long is followed by a pause in
//! proportion, so that planning never takes more than a part of the machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_types::JobId;

use super::proposals::bundle_size;
use super::{Effect, Replica};
use crate::command::Command;
use crate::insight::Insights;
use crate::planner::{Plan, WaitReason};
use crate::policy::View;

/// Pause after a round, in multiples of its duration.
const PAUSE_FACTOR: u64 = 3;
/// Jobs that arrive while nothing fits share a round this often, so that a flood of submissions is not planned one by
/// one.
const ARRIVALS_PAUSE_MS: u64 = 20;
/// A policy that has not answered by then never will.
const ANSWER_TIMEOUT_MS: u64 = 10_000;
/// Bytes of bundles in one entry.
const MAX_PLAN_BYTES: usize = 32 << 10;

#[derive(Default)]
pub(super) struct Rounds {
    /// Something changed since the last view was taken.
    wanted: bool,
    /// Part of what changed may have made room.
    room: bool,
    asked: Option<(u64, u64)>,
    /// Commands of the plan that are not applied yet.
    in_flight: usize,
    next_ms: u64,
    /// Mere arrivals do not start a round before this.
    arrivals_ms: u64,
    last_round_ms: u64,
    pub(super) count: u64,
    pub(super) last_took_ms: u64,
    plan: u64,
    /// Why jobs wait, as of the last round.
    pub(super) waiting: BTreeMap<JobId, WaitReason>,
}

impl Rounds {
    /// Something changed that may have made room.
    pub(super) fn want(&mut self) {
        self.wanted = true;
        self.room = true;
    }

    /// A job arrived.
    pub(super) fn want_for_arrival(&mut self) {
        self.wanted = true;
    }

    fn is_idle(&self) -> bool {
        self.asked.is_none() && self.in_flight == 0
    }

    /// A command of the plan was applied.
    pub(super) fn on_plan_applied(&mut self, rejected: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if rejected {
            self.want();
        }
    }
}

impl Replica {
    /// Starts a round if one is due. True if the policy was asked.
    pub(super) fn start_round(&mut self, out: &mut Vec<Effect>) -> bool {
        let now_ms = self.now_ms;
        let Some(lead) = self.lead.as_mut() else {
            return false;
        };
        let rounds = &mut lead.rounds;
        if rounds
            .asked
            .is_some_and(|(_, at)| at + ANSWER_TIMEOUT_MS <= now_ms)
        {
            rounds.asked = None;
        }
        let overdue = rounds.last_round_ms + self.config.round_tick_ms <= now_ms;
        let wanted = rounds.room || (rounds.wanted && rounds.arrivals_ms <= now_ms);
        let due = rounds.is_idle() && (wanted || overdue) && rounds.next_ms <= now_ms;
        let evicting = || {
            self.state
                .nodes
                .values()
                .any(|n| n.drain.as_ref().is_some_and(|d| d.evict) && !n.jobs.is_empty())
        };
        let work =
            || !self.state.pending.is_empty() || !self.state.reservations.is_empty() || evicting();
        if !due || self.alarm.is_some() || self.state.alarm.is_some() {
            return false;
        }
        rounds.wanted = false;
        rounds.room = false;
        rounds.last_round_ms = now_ms;
        if !work() {
            rounds.waiting.clear();
            return false;
        }
        rounds.count += 1;
        let round = rounds.count;
        rounds.asked = Some((round, now_ms));
        let now_ms = now_ms.max(self.state.time_ms);
        let seed = self.config.seed ^ self.raft.term().rotate_left(32) ^ round;
        let view = Box::new(View {
            round,
            seed,
            now_ms,
            state: self.state.clone(),
            insights: Insights::new(),
            pools: Arc::default(),
            telemetry: lead.agents.telemetry().clone(),
        });
        out.push(Effect::AskPolicy { round, view });
        true
    }

    pub(super) fn on_policy_answer(&mut self, round: u64, plan: Option<Box<Plan>>) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let rounds = &mut lead.rounds;
        let Some((_, asked_ms)) = rounds.asked.take_if(|(asked, _)| *asked == round) else {
            return;
        };
        let took = self.now_ms.saturating_sub(asked_ms);
        rounds.last_took_ms = took;
        rounds.next_ms = self.now_ms + took * PAUSE_FACTOR;
        let Some(plan) = plan else { return };
        rounds.waiting = plan.waiting;
        for (job, reason) in plan.rejects {
            self.proposals
                .push(Command::RejectJob { job, reason }, None);
        }
        if plan.bundles.is_empty() {
            rounds.arrivals_ms = self.now_ms + ARRIVALS_PAUSE_MS;
            return;
        }
        rounds.plan += 1;
        let (plan_id, mut part, mut bytes) = (rounds.plan, Vec::new(), 0);
        for bundle in plan.bundles {
            let size = bundle_size(&bundle);
            if !part.is_empty() && bytes + size > MAX_PLAN_BYTES {
                let bundles = std::mem::take(&mut part);
                self.proposals.push(
                    Command::ApplyPlan {
                        plan: plan_id,
                        bundles,
                    },
                    None,
                );
                rounds.in_flight += 1;
                bytes = 0;
            }
            bytes += size;
            part.push(bundle);
        }
        self.proposals.push(
            Command::ApplyPlan {
                plan: plan_id,
                bundles: part,
            },
            None,
        );
        rounds.in_flight += 1;
    }
}
