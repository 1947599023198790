//! The swarm: what one seed draws. Each seed switches some faults on and others off, at its own rates, because a mix of
//! everything hides what a few things do together.

use std::fmt;

use crate::dice::Dice;
use crate::disk::DiskSpeed;
use crate::network::NetworkRates;

/// A kind of injected fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A master's process dies and starts again later.
    MasterCrash,
    /// The leader's process dies and starts again later.
    LeaderCrash,
    /// A leader hands over, and its process ends and starts again soon after.
    MasterUpgrade,
    /// A disk reports that a write failed.
    DiskError,
    /// Every flush of one disk is slow for a while.
    DiskCrawl,
    /// An agent's process dies; keeper and tasks live on.
    AgentCrash,
    /// A keeper dies, and its tasks with it.
    KeeperLoss,
    /// An agent is started anew with fewer GPUs, and later with all of them.
    GpuLoss,
    /// A machine loses power: agent, keeper and tasks are gone; its disk may be, too.
    MachineLoss,
    /// One master is cut off from everybody, both ways.
    MasterIsolated,
    /// A link between two masters works one way only.
    OneWayCut,
    /// The masters fall into two halves.
    MastersSplit,
    /// A machine is cut off from all masters.
    MachineIsolated,
    /// A machine is cut off from some masters, one way or both.
    MachineCutPartly,
    /// An agent's connection breaks.
    StreamReset,
    /// Many messages are lost for a while.
    Storm,
    /// A node is drained, and put back later.
    Drain,
    /// A master is replaced by a new one under a new id.
    MasterReplaced,
    /// Agents meet an empty master of another cluster.
    Impostor,
    /// An operator says that a dead machine is dead.
    OperatorFence,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [FaultKind; 20] = [
        FaultKind::MasterCrash,
        FaultKind::LeaderCrash,
        FaultKind::MasterUpgrade,
        FaultKind::DiskError,
        FaultKind::DiskCrawl,
        FaultKind::AgentCrash,
        FaultKind::KeeperLoss,
        FaultKind::GpuLoss,
        FaultKind::MachineLoss,
        FaultKind::MasterIsolated,
        FaultKind::OneWayCut,
        FaultKind::MastersSplit,
        FaultKind::MachineIsolated,
        FaultKind::MachineCutPartly,
        FaultKind::StreamReset,
        FaultKind::Storm,
        FaultKind::Drain,
        FaultKind::MasterReplaced,
        FaultKind::Impostor,
        FaultKind::OperatorFence,
    ];

    /// Stable name, for tables and scripts.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::MasterCrash => "master_crash",
            FaultKind::LeaderCrash => "leader_crash",
            FaultKind::MasterUpgrade => "master_upgrade",
            FaultKind::DiskError => "disk_error",
            FaultKind::DiskCrawl => "disk_crawl",
            FaultKind::AgentCrash => "agent_crash",
            FaultKind::KeeperLoss => "keeper_loss",
            FaultKind::GpuLoss => "gpu_loss",
            FaultKind::MachineLoss => "machine_loss",
            FaultKind::MasterIsolated => "master_isolated",
            FaultKind::OneWayCut => "one_way_cut",
            FaultKind::MastersSplit => "masters_split",
            FaultKind::MachineIsolated => "machine_isolated",
            FaultKind::MachineCutPartly => "machine_cut_partly",
            FaultKind::StreamReset => "stream_reset",
            FaultKind::Storm => "storm",
            FaultKind::Drain => "drain",
            FaultKind::MasterReplaced => "master_replaced",
            FaultKind::Impostor => "impostor",
            FaultKind::OperatorFence => "operator_fence",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the policy is like.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRates {
    /// Longest time it takes.
    pub latency_max_ms: u64,
    /// Rounds, in thousandths, without an answer.
    pub late_per_mille: u32,
    /// Rounds, in thousandths, with nonsense for an answer.
    pub garbage_per_mille: u32,
}

/// How long things take on one machine: longest times, in milliseconds; what is drawn lies below.
#[derive(Clone, Copy, Debug)]
pub struct LocalDelays {
    /// Shortest and longest preparation of a task.
    pub prepare_ms: (u64, u64),
    /// From agent to keeper.
    pub order_ms: u64,
    /// From keeper to agent.
    pub answer_ms: u64,
}

impl Default for LocalDelays {
    fn default() -> Self {
        Self {
            prepare_ms: (1, 20),
            order_ms: 3,
            answer_ms: 3,
        }
    }
}

/// Everything that one seed decides before the first event.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Masters: 1, 3 or 5.
    pub masters: usize,
    /// Machines with an agent.
    pub machines: usize,
    /// Clients.
    pub clients: usize,
    /// Jobs submitted in all.
    pub jobs: usize,
    /// How long faults are injected.
    pub safety_ms: u64,
    /// Length of a Raft tick.
    pub tick_ms: u64,
    /// Log entries after which a replica takes a snapshot.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot.
    pub keep_entries: u64,
    /// Masters exchange encoded bytes instead of values.
    pub encode_peers: bool,
    /// The network.
    pub network: NetworkRates,
    /// The disks.
    pub disk: DiskSpeed,
    /// Inside machines.
    pub local: LocalDelays,
    /// The policy.
    pub policy: PolicyRates,
    /// Which of the policies offered plans.
    pub policy_choice: u64,
    /// Faults that are on, each with the mean time between two.
    pub faults: Vec<(FaultKind, u64)>,
    /// Furthest that clocks of masters and machines are apart.
    pub skew_ms: u64,
    /// Spawns, in thousandths, that fail for a cause that is the node's.
    pub spawn_fault_per_mille: u32,
}

impl Options {
    /// What `seed` draws.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        let masters = dice.pick(&[1, 3, 3, 3, 5]).unwrap_or(3);
        let calm = dice.chance(100);
        Self {
            seed,
            masters,
            machines: range(&mut dice, 1, 6),
            clients: range(&mut dice, 1, 4),
            jobs: range(&mut dice, 5, 40),
            safety_ms: dice.between(30_000, 90_000),
            tick_ms: dice.pick(&[20, 50, 50, 50]).unwrap_or(50),
            snapshot_entries: dice.pick(&[20, 60, 200, 5_000]).unwrap_or(200),
            keep_entries: dice.pick(&[0, 5, 50, 500]).unwrap_or(50),
            encode_peers: dice.chance(300),
            network: network(&mut dice, calm),
            disk: disk(&mut dice, calm),
            local: LocalDelays::default(),
            policy: policy(&mut dice, calm),
            policy_choice: dice.bits(),
            faults: if calm {
                Vec::new()
            } else {
                faults(&mut dice, masters)
            },
            skew_ms: dice.pick(&[0, 0, 200, 3_000]).unwrap_or(0),
            spawn_fault_per_mille: dice.pick(&[0, 0, 10, 50]).unwrap_or(0),
        }
    }
}

fn range(dice: &mut Dice, low: u64, high: u64) -> usize {
    usize::try_from(dice.between(low, high)).expect("small numbers fit")
}

fn network(dice: &mut Dice, calm: bool) -> NetworkRates {
    let on = |dice: &mut Dice, most: u64| {
        if calm || dice.chance(400) {
            0
        } else {
            u32::try_from(dice.between(1, most)).expect("thousandths fit")
        }
    };
    NetworkRates {
        delay_min_ms: dice.between(0, 2),
        delay_max_ms: dice.pick(&[2, 5, 20, 60]).unwrap_or(5),
        loss_per_mille: on(dice, 100),
        duplicate_per_mille: on(dice, 50),
        late_per_mille: on(dice, 100),
        late_ms: dice.pick(&[10, 100, 1_000]).unwrap_or(100),
    }
}

fn disk(dice: &mut Dice, calm: bool) -> DiskSpeed {
    DiskSpeed {
        flush_min_ms: 0,
        flush_max_ms: dice.pick(&[1, 3, 10, 30]).unwrap_or(3),
        slow_per_mille: if calm || dice.chance(500) {
            0
        } else {
            u32::try_from(dice.between(1, 50)).expect("thousandths fit")
        },
        slow_ms: dice.pick(&[100, 500, 2_000]).unwrap_or(500),
    }
}

fn policy(dice: &mut Dice, calm: bool) -> PolicyRates {
    PolicyRates {
        latency_max_ms: dice.pick(&[0, 5, 50, 500]).unwrap_or(5),
        late_per_mille: if calm {
            0
        } else {
            dice.pick(&[0, 0, 50, 200]).unwrap_or(0)
        },
        garbage_per_mille: if calm {
            0
        } else {
            dice.pick(&[0, 0, 50, 200]).unwrap_or(0)
        },
    }
}

fn faults(dice: &mut Dice, masters: usize) -> Vec<(FaultKind, u64)> {
    let lonely = [
        FaultKind::OneWayCut,
        FaultKind::MastersSplit,
        FaultKind::MasterReplaced,
    ];
    let mut chosen = Vec::new();
    for kind in FaultKind::ALL {
        if masters == 1 && lonely.contains(&kind) {
            continue;
        }
        if dice.chance(350) {
            let pace = dice
                .pick(&[3_000, 8_000, 15_000, 30_000])
                .unwrap_or(15_000u64);
            chosen.push((kind, pace));
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{FaultKind, Options};

    #[test]
    fn the_swarm_covers_every_fault_and_size() {
        let drawn: Vec<Options> = (0..200).map(Options::draw).collect();
        let sizes: BTreeSet<usize> = drawn.iter().map(|o| o.masters).collect();
        assert_eq!(sizes, BTreeSet::from([1, 3, 5]));
        for kind in FaultKind::ALL {
            let on = drawn
                .iter()
                .filter(|o| o.faults.iter().any(|(k, _)| *k == kind))
                .count();
            assert!(on > 10 && on < 190, "{kind} is on in {on} of 200 seeds");
        }
        let again = Options::draw(7);
        assert_eq!(format!("{:?}", again), format!("{:?}", drawn[7]));
    }
}
