//! Settings of a replica. Times are milliseconds.

use berth_types::MasterId;
use berth_types::api::MasterInfo;

use crate::planner::PlanLimits;

/// Settings of a replica. [`Default`] is what a daemon uses on a LAN.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This master.
    pub id: MasterId,
    /// Seed of everything random here.
    pub seed: u64,
    /// Drawn at each start of the process, so that entries of an earlier start are not taken for this one's.
    pub proposer: u64,
    /// The first masters of a new cluster; `None` for a master that joins an existing one.
    pub bootstrap: Option<Bootstrap>,
    /// How often [`Input::Tick`](crate::Input::Tick) is due.
    pub tick_ms: u64,
    /// Ticks without a leader before a follower stands; the timeout lies between this and twice this.
    pub election_ticks: u32,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// A node that was silent for this long is lost.
    pub node_timeout_ms: u64,
    /// How long an agent may go without a leader before it stops `fence` tasks.
    pub lease_ms: u64,
    /// Added to the lease before a `fence` job is started elsewhere: a stepping-down leader and slow clocks.
    pub fence_margin_ms: u64,
    /// A round is due at least this often while jobs wait.
    pub round_tick_ms: u64,
    /// Progress of all jobs goes into the log this often, as one entry.
    pub progress_every_ms: u64,
    /// A call that could not be answered by then fails as unavailable.
    pub call_timeout_ms: u64,
    /// A call that a follower passed on is passed on again after this.
    pub forward_retry_ms: u64,
    /// Applied entries between snapshots.
    pub snapshot_entries: u64,
    /// Log bytes between snapshots.
    pub snapshot_bytes: u64,
    /// Entries kept behind a snapshot for followers that lag.
    pub keep_entries: u64,
    /// Size that a batch of commands may reach in one entry; well under what the log store likes as one value.
    pub max_entry_bytes: usize,
    /// Batches of proposals in flight; while so many are, commands gather for the next.
    pub max_batches_in_flight: usize,
    /// Calls that may wait here before new ones are refused.
    pub max_waiting_calls: usize,
    /// Invariants are checked every so many applied entries; 0 is never.
    pub check_every: u64,
    /// Name of the policy that the shell asks; shown in the status.
    pub policy: String,
    /// Bounds of one planning round.
    pub plan_limits: PlanLimits,
}

/// How a new cluster begins.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Proposed as the cluster's id by whoever leads first.
    pub cluster_id: u64,
    /// The first masters, this one among them.
    pub masters: Vec<(MasterId, MasterInfo)>,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            id: MasterId(0),
            seed: 0,
            proposer: 0,
            bootstrap: None,
            tick_ms: 20,
            election_ticks: 14,
            heartbeat_ticks: 3,
            node_timeout_ms: 4_000,
            lease_ms: 8_000,
            fence_margin_ms: 3_000,
            round_tick_ms: 500,
            progress_every_ms: 5_000,
            call_timeout_ms: 8_000,
            forward_retry_ms: 1_000,
            snapshot_entries: 20_000,
            snapshot_bytes: 32 << 20,
            keep_entries: 4_000,
            max_entry_bytes: 32 << 10,
            max_batches_in_flight: 2,
            max_waiting_calls: 20_000,
            check_every: 0,
            policy: String::new(),
            plan_limits: PlanLimits::default(),
        }
    }
}
