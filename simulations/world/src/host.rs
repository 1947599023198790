//! A master's host: its disk, and the replica while its process runs.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::policy::Policy;
use berth_core::replica::{Bootstrap, Replica, ReplicaConfig};
use berth_types::MasterId;
use berth_types::api::MasterInfo;

use crate::disk::Disk;

/// A cluster that masters belong to: the real one, or an impostor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Realm {
    /// The cluster under test.
    Real,
    /// An empty master of another cluster.
    Impostor,
}

/// How a process is about to die: at the worst moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doom {
    /// With a part of the effects of its next step carried out.
    MidStep,
    /// While its next batch is being written.
    MidFlush,
}

/// A call that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The client.
    pub(crate) client: usize,
    /// Its call.
    pub(crate) call: u64,
}

/// One host.
pub(crate) struct Host {
    /// Its number; part of its address.
    pub(crate) number: usize,
    /// Its master's id.
    pub(crate) id: MasterId,
    /// Which cluster it belongs to.
    pub(crate) realm: Realm,
    /// Its disk.
    pub(crate) disk: Disk,
    /// The master, while it runs.
    pub(crate) replica: Option<Replica>,
    /// Counts starts; what was meant for an earlier one is void.
    pub(crate) boot: u64,
    /// How its process is about to die, if it is, and how long it stays dead.
    pub(crate) doom: Option<(Doom, u64)>,
    /// How far its clock is ahead.
    pub(crate) skew_ms: u64,
    /// Decides in its rounds.
    pub(crate) policy: Box<dyn Policy>,
    /// How a new cluster begins; `None` for a master that joins.
    pub(crate) bootstrap: Option<Bootstrap>,
    /// Where the other masters are, as far as it knows.
    pub(crate) peers: BTreeMap<MasterId, MasterInfo>,
    /// Where masters said that they are that the directory does not have: a master that lags behind a change of members
    /// must be able to answer a new leader.
    pub(crate) heard: BTreeMap<MasterId, MasterInfo>,
    /// Open agent streams.
    pub(crate) sessions: BTreeSet<u64>,
    /// Open calls by request id.
    pub(crate) calls: BTreeMap<u64, Caller>,
    /// Number of the next request.
    pub(crate) next_request: u64,
    /// The term in which it says that it leads and serves, if it does.
    pub(crate) leads: Option<u64>,
    /// True once it has been taken out of the cluster.
    pub(crate) removed: bool,
    /// Digests of the log entries written since the start, by index.
    pub(crate) log: BTreeMap<u64, u64>,
    /// Applied as of the last step.
    pub(crate) applied: u64,
    /// History that it still has to fetch from others, up to this sequence number.
    pub(crate) history_gap: Option<u64>,
}

impl Host {
    /// Address of host `number`.
    pub(crate) fn address(number: usize) -> MasterInfo {
        MasterInfo {
            address: format!("master-{number}:7000"),
        }
    }

    /// The host behind an address.
    pub(crate) fn at_address(info: &MasterInfo) -> Option<usize> {
        let name = info.address.split(':').next()?;
        name.strip_prefix("master-")?.parse().ok()
    }

    /// True if its process runs.
    pub(crate) fn is_up(&self) -> bool {
        self.replica.is_some()
    }

    /// Settings of its next start.
    pub(crate) fn config(&self, base: &ReplicaConfig, seed: u64, proposer: u64) -> ReplicaConfig {
        ReplicaConfig {
            id: self.id,
            seed,
            proposer,
            bootstrap: self.bootstrap.clone(),
            ..base.clone()
        }
    }
}
