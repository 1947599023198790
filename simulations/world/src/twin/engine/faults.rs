//! Nodes come, die and return; GPUs slow down; neighbours get in each other's way.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::command::Command;
use berth_types::{JobId, MILLI, NodeId};

use super::pools::Power;
use super::{Event, Run, TwinError, job_id};
use crate::twin::behaviour::Stop;
use crate::twin::faults::NodeFate;
use crate::twin::lane::{self, EXIT_STOPPED};

/// Fault events in a row while no job started or ended, after which the run is over: who still waits, waits for nothing.
const MAX_IDLE_FAULTS: u32 = 1_000;

/// Something that happens to a machine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mishap {
    /// It is in service (again).
    Boots { node: usize, life: u32 },
    /// It dies.
    Dies { node: usize, life: u32 },
    /// One of its GPUs gets slow.
    Slows { node: usize, gpu: u16, for_ms: u64 },
    /// And fast again.
    Recovers { node: usize, gpu: u16 },
    /// One of its GPUs breaks.
    Breaks { node: usize, gpu: u16, for_ms: u64 },
    /// And is mended.
    Mended { node: usize, gpu: u16 },
}

/// What is wrong at the moment.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// By index in the cluster.
    fates: Vec<NodeFate>,
    /// Registrations so far, which is a node's incarnation.
    incarnations: Vec<u64>,
    /// Speed that is left, for those that are slow.
    slow: BTreeMap<(NodeId, u16), f64>,
    /// Jobs whose speed has to be looked at.
    disturbed: BTreeSet<usize>,
    /// True if speeds are looked at at all.
    disturbs: bool,
    /// Since a job started or ended.
    pub(super) idle_faults: u32,
}

impl Trouble {
    /// True if nothing but trouble is going on.
    pub(super) fn is_all_there_is(&self) -> bool {
        self.idle_faults > MAX_IDLE_FAULTS
    }
}

impl Run<'_> {
    /// Registers what is there at time 0 and puts everyone's fate into the calendar.
    pub(super) fn power_on(&mut self) -> Result<(), TwinError> {
        let setting = self.setting;
        self.trouble.disturbs = setting.faults.disturb();
        for (index, node) in setting.cluster.all_nodes().enumerate() {
            let mut fate = NodeFate::new(setting.faults.of(&node.name), setting.seed, index);
            let is_cold = fate.faults.cold;
            let boots_ms = if is_cold { fate.boots_in_ms(0) } else { 0 };
            self.trouble.fates.push(fate);
            self.trouble.incarnations.push(0);
            if index >= setting.cluster.nodes.len() {
                continue;
            }
            if is_cold {
                self.pools.set(index, Power::Coming);
                let life = self.pools.life(index);
                let boots = Event::Mishap(Mishap::Boots { node: index, life });
                self.calendar.at(boots_ms, boots);
            } else {
                self.boot(index, 0)?;
            }
        }
        Ok(())
    }

    pub(super) fn on_mishap(&mut self, mishap: Mishap, now_ms: u64) -> Result<(), TwinError> {
        self.trouble.idle_faults += 1;
        match mishap {
            // It was given back meanwhile.
            Mishap::Boots { node, life } | Mishap::Dies { node, life }
                if !self.pools.is_live(node, life) =>
            {
                Ok(())
            }
            Mishap::Boots { node, .. } => {
                self.boot(node, now_ms)?;
                self.want_round(now_ms);
                Ok(())
            }
            Mishap::Dies { node, .. } => self.die(node, now_ms),
            Mishap::Slows { node, gpu, for_ms } => {
                let per_mille = self.trouble.fates[node].faults.degraded_per_mille;
                self.set_gpu_speed(node, gpu, f64::from(per_mille) / 1_000.0, now_ms)?;
                let recovers = Event::Mishap(Mishap::Recovers { node, gpu });
                self.calendar.at(now_ms.saturating_add(for_ms), recovers);
                self.next_slow_down(node, now_ms.saturating_add(for_ms));
                Ok(())
            }
            Mishap::Recovers { node, gpu } => self.set_gpu_speed(node, gpu, 1.0, now_ms),
            Mishap::Breaks { node, gpu, for_ms } => {
                let mended_ms = now_ms.saturating_add(for_ms);
                let mended = Event::Mishap(Mishap::Mended { node, gpu });
                self.calendar.at(mended_ms, mended);
                self.next_break(node, mended_ms);
                match self.machines.id(node) {
                    Some(node) => self.break_gpu(node, gpu, now_ms),
                    None => Ok(()),
                }
            }
            Mishap::Mended { node, gpu } => {
                if let Some(node) = self.machines.id(node) {
                    self.mend_gpu(node, gpu);
                }
                Ok(())
            }
        }
    }

    fn boot(&mut self, index: usize, now_ms: u64) -> Result<(), TwinError> {
        self.trouble.incarnations[index] += 1;
        let incarnation = self.trouble.incarnations[index];
        let cluster = &self.setting.cluster;
        let touched =
            self.machines
                .register(cluster, index, incarnation, now_ms, &mut self.lane)?;
        self.meter.look(&self.lane.state, &touched);
        self.pools.set(index, Power::On);
        if let Some(in_ms) = self.trouble.fates[index].fails_in_ms() {
            let life = self.pools.life(index);
            let dies = Event::Mishap(Mishap::Dies { node: index, life });
            self.calendar.at(now_ms.saturating_add(in_ms), dies);
        }
        if incarnation == 1 {
            self.next_slow_down(index, now_ms);
            self.next_break(index, now_ms);
        }
        Ok(())
    }

    fn next_slow_down(&mut self, node: usize, from_ms: u64) {
        let gpus = (self.setting.cluster.node(node)).map_or(0, |node| node.gpus.len());
        if let Some((in_ms, gpu, for_ms)) = self.trouble.fates[node].degrades(gpus) {
            let gpu = u16::try_from(gpu).unwrap_or(u16::MAX);
            let slows = Event::Mishap(Mishap::Slows { node, gpu, for_ms });
            self.calendar.at(from_ms.saturating_add(in_ms), slows);
        }
    }

    fn next_break(&mut self, node: usize, from_ms: u64) {
        let gpus = (self.setting.cluster.node(node)).map_or(0, |node| node.gpus.len());
        if let Some((in_ms, gpu, for_ms)) = self.trouble.fates[node].breaks(gpus) {
            let gpu = u16::try_from(gpu).unwrap_or(u16::MAX);
            let breaks = Event::Mishap(Mishap::Breaks { node, gpu, for_ms });
            self.calendar.at(from_ms.saturating_add(in_ms), breaks);
        }
    }

    /// A machine loses power, and everything that ran on it is gone without notice. Whoever has a part of a gang there
    /// loses the rest at the same instant; a job that is no gang does, too.
    fn die(&mut self, index: usize, now_ms: u64) -> Result<(), TwinError> {
        let fate = &mut self.trouble.fates[index];
        let repair_ms = fate.repair_ms();
        let boots_ms = now_ms.saturating_add(fate.boots_in_ms(repair_ms));
        self.pools.set(index, Power::Broken);
        let life = self.pools.life(index);
        let boots = Event::Mishap(Mishap::Boots { node: index, life });
        self.calendar.at(boots_ms, boots);
        let Some(node) = self.machines.id(index) else {
            return Ok(());
        };
        for job in self.jobs_on(node) {
            let behaviour = &mut self.entries[job].behaviour;
            if let Some(ended) = behaviour.as_mut().and_then(|b| b.advance(now_ms)) {
                self.end(job, ended, now_ms)?;
            }
        }
        let hit = self.jobs_on(node);
        for &job in &hit {
            self.leave(job, now_ms, now_ms, Stop::NodeLost)?;
        }
        let lost = vec![
            Command::MarkNodeLost {
                node,
                reason: "power failure".to_owned(),
            },
            Command::FenceNode {
                node,
                by_operator: true,
            },
        ];
        let applied = self.lane.commit(now_ms, lost)?;
        self.follow(&applied, now_ms, None)?;
        let mut rest = Vec::new();
        for &job in &hit {
            let said = lane::exit(EXIT_STOPPED, now_ms);
            self.lane.report(job_id(job), &said, &mut rest);
        }
        if !rest.is_empty() {
            let applied = self.lane.commit(now_ms, rest)?;
            self.follow(&applied, now_ms, None)?;
        }
        for job in hit {
            self.publish(job);
        }
        self.want_round(now_ms);
        Ok(())
    }

    pub(super) fn jobs_on(&self, node: NodeId) -> Vec<usize> {
        let node = self.lane.state.nodes.get(&node);
        let jobs = node.iter().flat_map(|node| node.jobs.keys());
        jobs.map(|job| lane::index_of(*job)).collect()
    }

    fn set_gpu_speed(
        &mut self,
        index: usize,
        gpu: u16,
        share: f64,
        now_ms: u64,
    ) -> Result<(), TwinError> {
        let Some(node) = self.machines.id(index) else {
            return Ok(());
        };
        if share == 1.0 {
            self.trouble.slow.remove(&(node, gpu));
        } else {
            self.trouble.slow.insert((node, gpu), share);
        }
        let jobs = self.jobs_on(node);
        self.trouble.disturbed.extend(jobs);
        self.read_speed(node, gpu, share, now_ms)
    }

    /// Who shares these nodes may be faster or slower now.
    pub(super) fn disturb(&mut self, nodes: &BTreeSet<NodeId>) {
        if !self.trouble.disturbs || self.setting.faults.interference.is_off() {
            return;
        }
        for &node in nodes {
            let jobs = self.jobs_on(node);
            self.trouble.disturbed.extend(jobs);
        }
    }

    /// An attempt begins: how fast it is.
    pub(super) fn note_start(&mut self, index: usize) {
        self.trouble.idle_faults = 0;
        if self.trouble.disturbs {
            self.trouble.disturbed.insert(index);
        }
    }

    /// Jobs whose surroundings changed go on at their new speed.
    pub(super) fn settle_speeds(&mut self, now_ms: u64) -> Result<(), TwinError> {
        while let Some(index) = self.trouble.disturbed.pop_first() {
            let share = self.share(index);
            let entry = &mut self.entries[index];
            let (Some(attempt), Some(behaviour)) = (&mut entry.attempt, &mut entry.behaviour)
            else {
                continue;
            };
            if attempt.share == share {
                continue;
            }
            attempt.share = share;
            if let Some(ended) = behaviour.advance(now_ms) {
                self.end(index, ended, now_ms)?;
                continue;
            }
            behaviour.on_speed(share, now_ms);
            entry.version += 1;
            self.publish(index);
            self.schedule(index, now_ms)?;
        }
        Ok(())
    }

    /// The share of their speed that a job's GPUs run at.
    fn share(&self, index: usize) -> f64 {
        let faults = &self.setting.faults;
        let starts = self.entries[index].starts;
        let mut share = faults.straggle(self.setting.seed, index, starts);
        let job = self.lane.state.job(job_id(index));
        let Some(job) = job else { return share };
        // With the model of the GPU that they share, of several the first.
        let mut neighbours: BTreeMap<JobId, &str> = BTreeMap::new();
        for task in job.attempt.iter().flat_map(|attempt| &attempt.tasks) {
            let node = task.placement.node;
            for held in &task.placement.gpus {
                if let Some(left) = self.trouble.slow.get(&(node, held.gpu)) {
                    share = share.min(*left);
                }
                if held.milligpu < MILLI && !faults.interference.is_off() {
                    let model = self.machines.model(node, held.gpu);
                    let model = model.map_or("", |(model, _)| model);
                    for other in self.others_on(node, held.gpu, job.id) {
                        neighbours.entry(other).or_insert(model);
                    }
                }
            }
        }
        let family = family(&job.spec);
        for (id, gpu_model) in neighbours {
            let Some(neighbour) = self.lane.state.job(id) else {
                continue;
            };
            let neighbour = self::family(&neighbour.spec);
            share *= (faults.interference).share(gpu_model, family, neighbour);
        }
        share
    }

    fn others_on(&self, node: NodeId, gpu: u16, except: JobId) -> Vec<JobId> {
        let record = self.lane.state.nodes.get(&node);
        let jobs = record.iter().flat_map(|record| record.jobs.keys().copied());
        let uses = |job: &JobId| {
            let job = self.lane.state.job(*job);
            let tasks = job.iter().flat_map(|job| job.attempt.iter());
            tasks.flat_map(|attempt| &attempt.tasks).any(|task| {
                task.placement.node == node && task.placement.gpus.iter().any(|s| s.gpu == gpu)
            })
        };
        jobs.filter(|job| *job != except && uses(job)).collect()
    }
}

fn family(spec: &berth_types::JobSpec) -> &str {
    spec.labels.get("family").unwrap_or(&spec.name)
}
