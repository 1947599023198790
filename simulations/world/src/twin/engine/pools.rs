//! Pools grow and shrink as plans say: nodes are asked for, denied or granted, boot, and are given back when idle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_core::command::Command;
use berth_core::policy::Pool;
use berth_types::{NodeId, NodeSpec};

use super::faults::Mishap;
use super::{Event, Run, TwinError};
use crate::dice::Dice;
use crate::twin::Cluster;
use crate::twin::faults::pool_dice;
use crate::twin::lane;
use crate::twin::outcome::NodeUse;

/// Milliseconds of an hour.
const HOUR_MS: f64 = 3_600_000.0;

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    /// Not asked for, or given back.
    Off,
    /// Granted; it boots.
    Coming,
    /// In service.
    On,
    /// Dead; it will be repaired.
    Broken,
}

/// A pool of the run.
#[derive(Debug)]
struct Stand {
    /// Indexes of its nodes, ascending.
    members: Vec<usize>,
    template: Arc<NodeSpec>,
    target: Option<u32>,
    denied_until_ms: u64,
    dice: Dice,
    /// Nodes that are not off.
    held: u32,
    usage: NodeUse,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Pools {
    stands: Vec<Stand>,
    /// Nodes of no pool.
    others: NodeUse,
    /// By node: its pool.
    pool_of: Vec<Option<usize>>,
    power: Vec<Power>,
    /// By node: counts up with everything that makes what was to happen to it void.
    lives: Vec<u32>,
    /// Up to when the time that nodes were held is counted.
    counted_ms: Option<u64>,
    /// True if there is a pool whose size can change.
    pub(super) is_elastic: bool,
    /// What policies are shown, until something changes.
    shown: Option<Arc<[Pool]>>,
}

impl Pools {
    pub(super) fn new(cluster: &Cluster, seed: u64) -> Self {
        let all = cluster.nodes.len() + cluster.later.len();
        let pool_of: Vec<_> = cluster.all_nodes().map(|n| cluster.pool_of(n)).collect();
        let stands = cluster.pools.iter().enumerate().map(|(pool, rules)| {
            let members: Vec<usize> = (0..all).filter(|&n| pool_of[n] == Some(pool)).collect();
            let first = members.first().and_then(|&index| cluster.node(index));
            let mut template = (*lane::offer(&first.cloned().unwrap_or_default())).clone();
            template.name.clear();
            Stand {
                members,
                template: Arc::new(template),
                target: None,
                denied_until_ms: 0,
                dice: pool_dice(seed, pool),
                held: 0,
                usage: NodeUse {
                    pool: rules.name.clone(),
                    ..NodeUse::default()
                },
            }
        });
        let mut pools = Self {
            stands: stands.collect(),
            others: NodeUse::default(),
            power: vec![Power::Off; all],
            lives: vec![0; all],
            counted_ms: None,
            is_elastic: false,
            shown: None,
            pool_of,
        };
        for (stand, rules) in pools.stands.iter().zip(&cluster.pools) {
            pools.is_elastic |= stand.members.len() > rules.min_nodes as usize;
        }
        pools
    }

    pub(super) fn set(&mut self, node: usize, power: Power) {
        let was_held = self.power[node] != Power::Off;
        let is_held = power != Power::Off;
        self.power[node] = power;
        self.shown = None;
        let Some(stand) = self.pool_of[node].map(|pool| &mut self.stands[pool]) else {
            self.others.most += u32::from(is_held && !was_held);
            return;
        };
        stand.held = stand.held + u32::from(is_held) - u32::from(was_held);
        stand.usage.most = stand.usage.most.max(stand.held);
    }

    /// What is to happen to a node from now on carries this; what was to happen before is void.
    pub(super) fn new_life(&mut self, node: usize) -> u32 {
        self.lives[node] = self.lives[node].wrapping_add(1);
        self.lives[node]
    }

    /// True if that has not become void.
    pub(super) fn is_live(&self, node: usize, life: u32) -> bool {
        self.lives[node] == life
    }

    pub(super) fn life(&self, node: usize) -> u32 {
        self.lives[node]
    }

    /// Time passes.
    pub(super) fn on_time(&mut self, now_ms: u64) {
        let passed_ms = now_ms - self.counted_ms.replace(now_ms).unwrap_or(now_ms);
        for stand in &mut self.stands {
            stand.usage.held_ms += u64::from(stand.held) * passed_ms;
        }
        self.others.held_ms += u64::from(self.others.most) * passed_ms;
    }

    /// What was held until now.
    pub(super) fn usage(&self, cluster: &Cluster) -> Vec<NodeUse> {
        let pools = self.stands.iter().zip(&cluster.pools);
        let pools = pools.map(|(stand, rules)| NodeUse {
            cost: stand.usage.held_ms as f64 / HOUR_MS * rules.price_per_hour,
            ..stand.usage.clone()
        });
        let others = (self.others.most > 0).then(|| self.others.clone());
        pools.chain(others).collect()
    }

    /// What policies are shown.
    pub(super) fn shown(&mut self, cluster: &Cluster) -> Arc<[Pool]> {
        if !self.is_elastic {
            return Arc::default();
        }
        let shown = self.shown.get_or_insert_with(|| {
            let pools = self.stands.iter().zip(&cluster.pools);
            let pools = pools.map(|(stand, rules)| {
                let in_state = |power| {
                    let members = stand.members.iter();
                    members.filter(|&&node| self.power[node] == power).count() as u32
                };
                Pool {
                    name: rules.name.clone(),
                    node: Arc::clone(&stand.template),
                    nodes: in_state(Power::On) + in_state(Power::Broken),
                    coming: in_state(Power::Coming),
                    min_nodes: rules.min_nodes.min(stand.members.len() as u32),
                    max_nodes: stand.members.len() as u32,
                    boot_ms: rules.boot_ms,
                    price_per_hour: rules.price_per_hour,
                    denied_until_ms: stand.denied_until_ms,
                }
            });
            pools.collect()
        });
        Arc::clone(shown)
    }
}

impl Run<'_> {
    /// Sets targets, and does what can be done about those that are not met. True if anything changed.
    pub(super) fn resize_pools(
        &mut self,
        targets: &BTreeMap<String, u32>,
        now_ms: u64,
    ) -> Result<bool, TwinError> {
        if !self.pools.is_elastic {
            return Ok(false);
        }
        for stand in &mut self.pools.stands {
            if let Some(&target) = targets.get(&stand.usage.pool) {
                stand.target = Some(target);
            }
        }
        let mut changed = false;
        for pool in 0..self.pools.stands.len() {
            let stand = &self.pools.stands[pool];
            let Some(target) = stand.target else { continue };
            if stand.held < target {
                changed |= self.grow(pool, target, now_ms);
            } else if stand.held > target {
                changed |= self.shrink(pool, stand.held - target, now_ms)?;
            }
        }
        Ok(changed)
    }

    /// Asks for what is missing, until a request is denied.
    fn grow(&mut self, pool: usize, target: u32, now_ms: u64) -> bool {
        let setting = self.setting;
        let rules = &setting.cluster.pools[pool];
        let mut changed = false;
        while self.pools.stands[pool].held < target {
            let stand = &mut self.pools.stands[pool];
            if now_ms < stand.denied_until_ms {
                let at_ms = stand.denied_until_ms;
                self.wake_at(Some(at_ms));
                break;
            }
            let is_denied = rules.quota_nodes.is_some_and(|quota| stand.held >= quota)
                || stand.dice.chance(rules.denied_per_mille);
            if is_denied {
                stand.usage.denied += 1;
                stand.denied_until_ms = now_ms.saturating_add(rules.retry_ms.max(1));
                self.pools.shown = None;
                continue;
            }
            let mut members = self.pools.stands[pool].members.iter().copied();
            let Some(node) = members.find(|&node| self.pools.power[node] == Power::Off) else {
                break;
            };
            self.pools.stands[pool].usage.granted += 1;
            self.pools.set(node, Power::Coming);
            let life = self.pools.new_life(node);
            let boots = Event::Mishap(Mishap::Boots { node, life });
            let boots_ms = now_ms.saturating_add(rules.boot_ms);
            self.calendar.at(boots_ms, boots);
            changed = true;
        }
        changed
    }

    /// Gives nodes back: those on their way first, then dead ones, then idle ones, the last of the pool first. What runs
    /// a task, or is kept for one, stays.
    fn shrink(&mut self, pool: usize, most: u32, now_ms: u64) -> Result<bool, TwinError> {
        let kept: BTreeSet<NodeId> = (self.lane.state.reservations.values())
            .flat_map(|reservation| reservation.placements.iter().map(|p| p.node))
            .collect();
        let is_idle = |node: usize| {
            let id = self.machines.id(node).filter(|id| !kept.contains(id));
            let record = id.and_then(|id| self.lane.state.nodes.get(&id));
            record.is_some_and(|record| record.jobs.is_empty())
        };
        let (members, power_of) = (&self.pools.stands[pool].members, &self.pools.power);
        let of = |power: Power| {
            let members = members.iter().rev().copied();
            members.filter(move |&node| power_of[node] == power)
        };
        let spare = (of(Power::Coming).chain(of(Power::Broken)))
            .chain(of(Power::On).filter(|&node| is_idle(node)));
        let spare: Vec<usize> = spare.take(most as usize).collect();
        for &node in &spare {
            let was_on = self.pools.power[node] == Power::On;
            self.pools.set(node, Power::Off);
            self.pools.new_life(node);
            if let Some(node) = self.machines.id(node).filter(|_| was_on) {
                let gone = vec![
                    Command::MarkNodeLost {
                        node,
                        reason: "its pool got smaller".to_owned(),
                    },
                    Command::FenceNode {
                        node,
                        by_operator: true,
                    },
                ];
                let applied = self.lane.commit(now_ms, gone)?;
                self.follow(&applied, now_ms, None)?;
            }
        }
        Ok(!spare.is_empty())
    }
}
