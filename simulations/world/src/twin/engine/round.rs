//! Planning rounds, and what a plan sets in motion.

use berth_core::command::Command;
use berth_core::planner::Plan;
use berth_core::policy::{Policy, Proposal, View};

use super::instant::running;
use super::{Run, TwinError};
use crate::twin::setting::Rounds;

/// Rounds at one instant of which each evicted something, before the next one has to wait for an event: two jobs that
/// evict each other must not stop time.
const MAX_EVICTING: u32 = 64;
/// Fixed rounds in a row in which nothing changed and nothing is to come, after which the run is over.
const MAX_FRUITLESS: u32 = 1_000;

impl Run<'_> {
    /// The rounds of one instant.
    pub(super) fn rounds(&mut self, now_ms: u64, policy: &mut dyn Policy) -> Result<(), TwinError> {
        self.round_ms = None;
        let mut evicting = 0;
        loop {
            if !self.has_work() {
                break;
            }
            let ask = evicting < MAX_EVICTING;
            let mut plan = self.plan(now_ms, ask.then_some(&mut *policy));
            let (evictions, cut) = (plan.stats.evictions, plan.stats.cut);
            let wake_ms = plan.wake_ms;
            let targets = std::mem::take(&mut plan.pools);
            let mut changed = self.carry_out(plan, now_ms)?;
            changed |= self.resize_pools(&targets, now_ms)?;
            if changed {
                self.fruitless = 0;
            }
            self.check(now_ms)?;
            if let Rounds::Every { .. } = self.setting.rounds {
                if evictions > 0 {
                    // The policy has had its say: what it reserved starts, nothing else.
                    let plan = self.plan(now_ms, None);
                    self.carry_out(plan, now_ms)?;
                    self.check(now_ms)?;
                }
                break;
            }
            if evictions > 0 {
                evicting += 1;
            } else if !cut || !ask {
                self.wake_at(wake_ms);
                break;
            }
        }
        self.next_fixed_round(now_ms);
        Ok(())
    }

    fn has_work(&self) -> bool {
        let state = &self.lane.state;
        match self.setting.rounds {
            // An idle cluster may have to shrink.
            Rounds::OnEvent { .. } => {
                self.pools.is_elastic || !state.pending.is_empty() || !state.reservations.is_empty()
            }
            Rounds::Every { .. } => !state.jobs.is_empty(),
        }
    }

    /// A round is due then. Not if that happens again and again, nothing comes of it, and nothing else is to come.
    pub(super) fn wake_at(&mut self, wake_ms: Option<u64>) {
        if let Some(wake_ms) = wake_ms {
            let comes = self.arrived < self.entries.len() || self.calendar.next_ms().is_some();
            self.fruitless = if comes { 0 } else { self.fruitless + 1 };
            if self.fruitless > MAX_FRUITLESS {
                return;
            }
            let round_ms = self.round_ms.get_or_insert(wake_ms);
            *round_ms = wake_ms.min(*round_ms);
        }
    }

    /// While there are unfinished jobs, and something can still happen to them.
    fn next_fixed_round(&mut self, now_ms: u64) {
        let Rounds::Every { ms } = self.setting.rounds else {
            return;
        };
        if self.lane.state.jobs.is_empty() {
            return;
        }
        let comes = self.arrived < self.entries.len() || self.calendar.next_ms().is_some();
        let is_due = |&index: &usize| {
            let behaviour = self.entries[index].behaviour.as_ref();
            behaviour.is_some_and(|b| b.due_ms().is_some())
        };
        if !comes && !self.placed.iter().any(is_due) {
            if self.lane.state.pending.is_empty() {
                return;
            }
            self.fruitless += 1;
            if self.fruitless > MAX_FRUITLESS {
                return;
            }
        }
        self.round_ms = Some(now_ms.saturating_add(ms));
    }

    /// A plan for this moment: with the policy's proposal, or with nothing but what is reserved.
    fn plan(&mut self, now_ms: u64, policy: Option<&mut (dyn Policy + '_)>) -> Plan {
        self.outcome.rounds += 1;
        let round = self.outcome.rounds;
        let view = View {
            round,
            seed: self.setting.seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            now_ms,
            state: self.lane.state.clone(),
            insights: self.insights.clone(),
            pools: self.pools.shown(&self.setting.cluster),
            telemetry: self.ailing.telemetry.clone(),
        };
        let limits = &self.setting.limits;
        match policy {
            Some(policy) => {
                self.outcome.decisions += 1;
                self.planner.decide(policy, &view, limits)
            }
            None => self.planner.plan(&view, &Proposal::default(), limits),
        }
    }

    /// True if it changed anything.
    pub(super) fn carry_out(&mut self, plan: Plan, now_ms: u64) -> Result<bool, TwinError> {
        if plan.bundles.is_empty() && plan.rejects.is_empty() {
            return Ok(false);
        }
        let mut commands: Vec<Command> = (plan.rejects.into_iter())
            .map(|(job, reason)| Command::RejectJob { job, reason })
            .collect();
        let rejects = commands.len();
        if !plan.bundles.is_empty() {
            commands.push(self.lane.apply_plan(plan.bundles.clone()));
        }
        let applied = self.lane.commit(now_ms, commands)?;
        self.follow(&applied, now_ms, None)?;
        let mut commands = Vec::with_capacity(plan.bundles.len() + rejects);
        for bundle in &plan.bundles {
            for eviction in &bundle.evictions {
                self.vacate(eviction.job, now_ms, &mut commands)?;
            }
            if !bundle.evictions.is_empty() {
                continue;
            }
            for start in &bundle.starts {
                let groups = self.lane.state.job(start.job).map(|job| &job.spec.groups);
                let groups = groups.map_or(&[][..], Vec::as_slice);
                let held = self.machines.held(groups, &start.placements);
                self.lane.report(start.job, &running(now_ms), &mut commands);
                self.enter(start.job, &held, now_ms)?;
            }
        }
        if !commands.is_empty() {
            let applied = self.lane.commit(now_ms, commands)?;
            self.follow(&applied, now_ms, None)?;
        }
        self.settle_speeds(now_ms)?;
        Ok(true)
    }
}
