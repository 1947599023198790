//! Taking up a cluster that is already at work: what runs is put where it runs, then planning begins.

use std::collections::BTreeSet;

use berth_core::command::Command;
use berth_core::planner;
use berth_core::policy::{Action, Backfill, Proposal, ProposedBundle, View};
use berth_types::NodeId;
use berth_types::api::Drain;

use super::{Run, TwinError, job_id};
use crate::twin::setting::Outset;

impl<'a> Run<'a> {
    /// The outset that is still to come.
    pub(super) fn outset(&self) -> Option<&'a Outset> {
        self.setting.outset.as_ref().filter(|_| !self.is_taken_up)
    }

    /// Places what runs, takes nodes out of service, and lets planning begin.
    pub(super) fn take_up(&mut self, outset: &Outset, now_ms: u64) -> Result<(), TwinError> {
        self.is_taken_up = true;
        let bundles = outset.placed.iter().map(|(index, slots)| ProposedBundle {
            actions: vec![Action::Start {
                job: job_id(*index),
                workers: None,
                slots: Some(slots.clone()),
            }],
            score: 0.0,
            reason: "it runs there".to_owned(),
        });
        let proposal = Proposal {
            bundles: bundles.collect(),
            backfill: Backfill::Greedy,
            ..Proposal::default()
        };
        let view = View {
            round: 0,
            seed: self.setting.seed,
            now_ms,
            state: self.lane.state.clone(),
            insights: self.insights.clone(),
            pools: self.pools.shown(&self.setting.cluster),
            telemetry: Default::default(),
        };
        let limits = planner::PlanLimits {
            max_starts: usize::MAX,
            ..self.setting.limits.clone()
        };
        let plan = planner::plan(&view, &proposal, &limits);
        drop(view);
        self.carry_out(plan, now_ms)?;
        let state = &self.lane.state;
        let drained = outset
            .drained
            .iter()
            .filter_map(|name| state.node_named(name));
        let drained: BTreeSet<NodeId> = drained.map(|node| node.id).collect();
        let commands: Vec<Command> = (drained.iter())
            .map(|&node| Command::SetDrain {
                node,
                drain: Some(Drain {
                    reason: "out of service from here on".to_owned(),
                    evict: false,
                }),
            })
            .collect();
        if !commands.is_empty() {
            let applied = self.lane.commit(now_ms, commands)?;
            self.follow(&applied, now_ms, None)?;
            self.meter.look(&self.lane.state, &drained);
        }
        self.want_round(now_ms);
        Ok(())
    }
}
