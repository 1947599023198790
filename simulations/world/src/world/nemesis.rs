//! Faults: what strikes, for how long, and the operator's part in it.

use std::sync::Arc;

use berth_core::replica::{Bootstrap, Input};
use berth_types::api::{ErrorKind, Response};

use super::setup::master_id;
use super::{Event, Relief, World};
use crate::chronicle::Actor;
use crate::client::Operation;
use crate::host::{Doom, Host, Realm};
use crate::network::Place;
use crate::options::FaultKind;
use crate::report::Violation;

/// The operator removes the old master by hand if the leader has not done so by then.
const REMOVE_AFTER_MS: u64 = 4_000;

/// A master that is being replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replacing {
    /// Host of the one that goes.
    pub(crate) old: usize,
    /// Host of the one that comes.
    pub(crate) new: usize,
    /// Since when the new one votes beside the old one.
    pub(crate) votes_since_ms: Option<u64>,
}

impl World<'_> {
    pub(crate) fn on_strike(&mut self, kind: FaultKind, pace_ms: u64) {
        if self.healing.is_some() {
            return;
        }
        let next = self.fates.fault.between(1, 2 * pace_ms);
        self.calendar.after(next, Event::Strike { kind, pace_ms });
        if self.strike(kind) {
            *self.faults.entry(kind).or_default() += 1;
            self.say(Actor::World, "fault", [0; 4], kind.name());
        }
    }

    /// Hosts of the real cluster that are part of it.
    fn members(&self) -> Vec<usize> {
        let real = |h: &&Host| h.realm == Realm::Real && !h.removed;
        self.hosts.iter().filter(real).map(|h| h.number).collect()
    }

    fn strike(&mut self, kind: FaultKind) -> bool {
        let members = self.members();
        let host = self.fates.fault.pick(&members);
        let machine = self.fates.fault.index(self.machines.len());
        let long = self.fates.fault.between(200, 12_000);
        match (kind, host) {
            (FaultKind::MasterCrash, Some(host)) => self.strike_master(host, long),
            (FaultKind::LeaderCrash, _) => {
                let leader = members.into_iter().find(|h| self.hosts[*h].leads.is_some());
                leader.is_some_and(|host| self.strike_master(host, long))
            }
            (FaultKind::MasterUpgrade, Some(host)) => self.upgrade_master(host),
            (FaultKind::KeeperLoss, _) => self.lose_keeper(machine),
            (FaultKind::GpuLoss, _) => {
                let lost = 1 + self.fates.fault.index(2);
                self.change_gpus(machine, lost) && self.relieve(long, Relief::GpusReturn(machine))
            }
            (FaultKind::DiskError, Some(host)) => {
                let reason = "injected".to_owned();
                self.step_master(host, Input::PersistFailed(reason));
                true
            }
            (FaultKind::DiskCrawl, Some(host)) => {
                self.hosts[host].disk.crawling = true;
                self.relieve(long, Relief::DiskRecovers(host))
            }
            (FaultKind::AgentCrash, _) => {
                self.crash_agent(machine);
                let pause = self.fates.fault.between(50, 15_000);
                self.calendar.after(pause, Event::AgentStarts(machine));
                true
            }
            (FaultKind::MachineLoss, _) => {
                self.lose_machine(machine);
                let pause = self.fates.fault.between(1_000, 30_000);
                self.calendar.after(pause, Event::MachineStarts(machine));
                true
            }
            (FaultKind::MasterIsolated, Some(host)) => {
                self.isolate_master(host);
                self.relieve(long, Relief::MendMaster(host))
            }
            (FaultKind::OneWayCut, Some(host)) => self.cut_one_way(host, &members, long),
            (FaultKind::MastersSplit, Some(host)) => self.split_masters(host, &members, long),
            (FaultKind::MachineIsolated, _) => {
                for host in members {
                    self.cut_both(Place::Machine(machine), Place::Master(host));
                }
                let long = self.fates.fault.between(500, 25_000);
                self.relieve(long, Relief::MendMachine(machine))
            }
            (FaultKind::MachineCutPartly, _) => self.cut_partly(machine, &members, long),
            (FaultKind::StreamReset, _) => self.reset_stream(machine),
            (FaultKind::Storm, _) => {
                let loss = self.fates.fault.between(100, 600);
                self.network.storm_per_mille = u32::try_from(loss).unwrap_or(0);
                self.relieve(long, Relief::Calm)
            }
            (FaultKind::Drain, _) => self.strike_drain(machine, long),
            (FaultKind::MasterReplaced, Some(host)) => self.replace_master(host),
            (FaultKind::Impostor, _) => self.add_impostor(long),
            (FaultKind::OperatorFence, _) => self.fence_dead_machine(),
            (_, None) => false,
        }
    }

    fn cut_one_way(&mut self, host: usize, members: &[usize], long: u64) -> bool {
        let others: Vec<usize> = members.iter().copied().filter(|h| *h != host).collect();
        let Some(other) = self.fates.fault.pick(&others) else {
            return false;
        };
        self.network.cut(Place::Master(host), Place::Master(other));
        self.relieve(long, Relief::MendMaster(host))
    }

    fn reset_stream(&mut self, machine: usize) -> bool {
        let Some(session) = self.machines[machine].session else {
            return false;
        };
        for agent in [true, false] {
            let delay = self.network.delay(&mut self.fates.network);
            let event = Event::EndNotices { session, agent };
            self.calendar.after(delay, event);
        }
        true
    }

    fn relieve(&mut self, delay_ms: u64, relief: Relief) -> bool {
        self.calendar.after(delay_ms, Event::Relief(relief));
        true
    }

    /// A master dies now, or at the next bad moment.
    fn strike_master(&mut self, host: usize, pause_ms: u64) -> bool {
        if !self.hosts[host].is_up() {
            return false;
        }
        let doom = match self.fates.fault.between(0, 2) {
            0 => Some(Doom::MidStep),
            1 => Some(Doom::MidFlush),
            _ => None,
        };
        match doom {
            Some(doom) => self.hosts[host].doom = Some((doom, pause_ms)),
            None => self.on_master_dies(self.boot_of(host), pause_ms),
        }
        true
    }

    /// A planned stop: the leader hands over first.
    fn upgrade_master(&mut self, number: usize) -> bool {
        let host = self.boot_of(number);
        let Some(replica) = self.hosts[number].replica.as_mut() else {
            return false;
        };
        let mut effects = Vec::new();
        replica.step_aside(&mut effects);
        self.carry_out(number, effects);
        let delay = self.fates.fault.between(100, 2_000);
        let pause_ms = self.fates.fault.between(200, 3_000);
        self.calendar
            .after(delay, Event::MasterDies { host, pause_ms });
        true
    }

    /// The agent comes back with another number of GPUs.
    pub(crate) fn change_gpus(&mut self, number: usize, lost: usize) -> bool {
        let machine = &mut self.machines[number];
        let mut spec = (*machine.full_spec).clone();
        let left = spec.gpus.len().saturating_sub(lost);
        if lost > 0 && (spec.gpus.is_empty() || machine.spec.gpus.len() != spec.gpus.len()) {
            return false;
        }
        spec.gpus.truncate(left);
        machine.spec = Arc::new(spec);
        self.crash_agent(number);
        let pause = self.fates.fault.between(50, 1_500);
        self.calendar.after(pause, Event::AgentStarts(number));
        true
    }

    fn cut_both(&mut self, one: Place, other: Place) {
        self.network.cut(one, other);
        self.network.cut(other, one);
    }

    fn isolate_master(&mut self, host: usize) {
        let here = Place::Master(host);
        for other in 0..self.hosts.len() {
            self.cut_both(here, Place::Master(other));
        }
        for machine in 0..self.machines.len() {
            self.cut_both(here, Place::Machine(machine));
        }
        // Clients still reach it, now and then: it must not serve them stale answers.
        if self.fates.fault.chance(500) {
            for client in 0..self.clients.len() {
                self.cut_both(here, Place::Client(client));
            }
        }
    }

    fn split_masters(&mut self, host: usize, members: &[usize], long: u64) -> bool {
        let mut others: Vec<usize> = members.iter().copied().filter(|h| *h != host).collect();
        self.fates.fault.shuffle(&mut others);
        let half = others.len() / 2;
        let mut here = vec![host];
        here.extend(others.iter().take(half));
        for one in &here {
            for other in others.iter().skip(half) {
                self.cut_both(Place::Master(*one), Place::Master(*other));
            }
            self.relieve(long, Relief::MendMaster(*one));
        }
        true
    }

    fn cut_partly(&mut self, machine: usize, members: &[usize], long: u64) -> bool {
        let here = Place::Machine(machine);
        for host in members {
            match self.fates.fault.between(0, 3) {
                0 => self.cut_both(here, Place::Master(*host)),
                1 => self.network.cut(here, Place::Master(*host)),
                2 => self.network.cut(Place::Master(*host), here),
                _ => {}
            }
        }
        self.relieve(long, Relief::MendMachine(machine))
    }

    fn strike_drain(&mut self, machine: usize, long: u64) -> bool {
        let name = self.machines[machine].spec.name.clone();
        if self.newest.1.node_named(&name).is_none() || self.drained.contains(&name) {
            return false;
        }
        self.drained.insert(name.clone());
        let evict = self.fates.fault.chance(500);
        self.operate(Operation::Drain {
            name,
            drain: true,
            evict,
        });
        self.relieve(long, Relief::Undrain(machine))
    }

    /// Queues an operator's change.
    pub(crate) fn operate(&mut self, operation: Operation) {
        let operator = self.operator();
        self.clients[operator].operations.push_back(operation);
    }

    fn replace_master(&mut self, old: usize) -> bool {
        let serving = self.newest.1.cluster_id != 0;
        if self.replacing.is_some() || !serving {
            return false;
        }
        if !self.newest.1.masters.contains_key(&self.hosts[old].id) {
            return false;
        }
        let new = self.add_host(Realm::Real, None);
        let peers = self.newest.1.masters.iter();
        self.hosts[new].peers = peers.map(|(id, info)| (*id, info.clone())).collect();
        self.replacing = Some(Replacing {
            old,
            new,
            votes_since_ms: None,
        });
        self.note(
            Actor::World,
            "host {} replaces host {}",
            [new as u64, old as u64, 0, 0],
        );
        if self.fates.fault.chance(400) && self.members_are_settled(old) {
            // Its disk is gone for good: that is why it is replaced.
            self.crash_master(old);
            self.hosts[old].removed = true;
        }
        self.calendar.after(100, Event::MasterStarts(new));
        self.operate(Operation::Add {
            id: master_id(new),
            info: Host::address(new),
            replaces: master_id(old),
        });
        true
    }

    /// True if every master but `old` knows from its own disk that the newest change of members is committed: before
    /// that, whoever destroys one for good may take the majority away.
    fn members_are_settled(&self, old: usize) -> bool {
        let settled = |host: usize| self.hosts[host].disk.durable_commit() >= self.members_changed;
        self.members()
            .into_iter()
            .filter(|host| *host != old && self.replacing.is_none_or(|r| r.new != *host))
            .all(settled)
    }

    fn add_impostor(&mut self, long: u64) -> bool {
        let served = self.machines.iter().filter(|m| m.fence.cluster_id != 0);
        let victims: Vec<usize> = served.map(|m| m.number).collect();
        if victims.is_empty()
            || self
                .hosts
                .iter()
                .any(|h| h.realm == Realm::Impostor && !h.removed)
        {
            return false;
        }
        let number = self.hosts.len();
        let bootstrap = Bootstrap {
            cluster_id: self.options.seed.wrapping_add(77) | 1 << 63,
            masters: vec![(master_id(number), Host::address(number))],
        };
        let host = self.add_host(Realm::Impostor, Some(bootstrap));
        self.calendar.after(1, Event::MasterStarts(host));
        for victim in victims {
            let machine = &mut self.machines[victim];
            machine.configured.push(host);
            machine.look_up_masters();
            if let Some(session) = self.machines[victim].session.filter(|_| victim % 2 == 0) {
                self.on_end_notices(session, true);
                self.machines[victim].sent_on(host, Some(host));
            }
        }
        self.relieve(long, Relief::ImpostorLeaves(host))
    }

    fn fence_dead_machine(&mut self) -> bool {
        let lost = |name: &str| self.newest.1.node_named(name).is_some_and(|n| n.lost);
        let dead = self
            .machines
            .iter()
            .find(|m| !m.power && lost(&m.spec.name));
        let Some(dead) = dead else { return false };
        let (name, machine) = (dead.spec.name.clone(), dead.number);
        self.operate(Operation::Fence { name, machine });
        true
    }

    pub(crate) fn on_relief(&mut self, relief: Relief) {
        match relief {
            Relief::MendMaster(host) => self.network.mend(Place::Master(host)),
            Relief::MendMachine(machine) => self.network.mend(Place::Machine(machine)),
            Relief::Calm => self.network.storm_per_mille = 0,
            Relief::DiskRecovers(host) => self.hosts[host].disk.crawling = false,
            Relief::GpusReturn(machine) => {
                self.change_gpus(machine, 0);
            }
            Relief::Undrain(machine) => {
                let name = self.machines[machine].spec.name.clone();
                if self.drained.remove(&name) {
                    self.operate(Operation::Drain {
                        name,
                        drain: false,
                        evict: false,
                    });
                }
            }
            Relief::ImpostorLeaves(host) => {
                self.crash_master(host);
                self.hosts[host].removed = true;
                for machine in &mut self.machines {
                    machine.configured.retain(|known| *known != host);
                    machine.look_up_masters();
                }
            }
        }
    }

    /// An operator's change was answered.
    pub(crate) fn on_operated(
        &mut self,
        operation: Operation,
        answer: &Response,
    ) -> Result<(), Violation> {
        let operator = Actor::Client(self.operator());
        let done = matches!(answer, Response::Done(_));
        let reason = match answer {
            Response::Error(error) => error.reason.as_str(),
            _ => "",
        };
        self.say(
            operator,
            "is answered",
            [0; 4],
            &format!("{operation:?}: {answer:?}"),
        );
        let kept = match &operation {
            Operation::Add { .. } => done,
            Operation::Remove { .. } => done || reason == "NO_SUCH_MASTER",
            Operation::Why { .. } => match answer {
                Response::Why(why) => !why.reason.is_empty() && !why.text.is_empty(),
                Response::Error(error) => error.kind != ErrorKind::Internal,
                _ => false,
            },
            // The node may have come back in the meantime.
            Operation::Fence { .. } => done || !reason.is_empty(),
            Operation::Drain { .. } | Operation::Cancel { .. } => done,
        };
        Violation::unless(kept, "calls get the answer that they deserve", || {
            format!("{operation:?} was answered {answer:?}")
        })
    }

    /// The operator watches a replacement: the leader removes the old master once the new one votes; after a failover
    /// just then, the operator does.
    pub(crate) fn watch_replacement(&mut self) {
        let (now, Some(mut replacing)) = (self.now(), self.replacing) else {
            return;
        };
        let serves = |h: &&Host| h.realm == Realm::Real && h.leads.is_some();
        let leader = self.hosts.iter().find(serves);
        let Some(status) = leader.and_then(|h| h.replica.as_ref()).map(|r| r.status()) else {
            return;
        };
        let voters = &status.membership.voters;
        let (old, new) = (master_id(replacing.old), master_id(replacing.new));
        if !voters.contains(&new.0) {
            return;
        }
        if !status.membership.contains(old.0) {
            self.crash_master(replacing.old);
            self.hosts[replacing.old].removed = true;
            self.replacing = None;
            self.members_changed = self.newest.0;
            return;
        }
        let since = *replacing.votes_since_ms.get_or_insert(now);
        if since + REMOVE_AFTER_MS <= now {
            self.operate(Operation::Remove { id: old });
            replacing.votes_since_ms = Some(now);
        }
        self.replacing = Some(replacing);
    }
}
