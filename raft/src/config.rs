//! Settings of a replica.

use crate::{PeerId, RaftError};

/// Settings of a replica. Times are in ticks; the shell decides how long a tick is (20 ms by default).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This member. Never 0.
    pub id: PeerId,
    /// Seed of the jitter in election timeouts.
    pub seed: u64,
    /// A follower that hears nothing for this long may be voted away from its leader. Timeouts lie in
    /// `[election_ticks, 2 * election_ticks)`.
    pub election_ticks: u32,
    /// A leader shows itself this often. Less than `election_ticks`.
    pub heartbeat_ticks: u32,
    /// A snapshot that a peer neither acknowledged nor reported as failed for this long counts as failed.
    pub snapshot_timeout_ticks: u32,
    /// Append messages in flight to one peer.
    pub max_inflight_msgs: usize,
    /// Payload of one append message, unless a single entry is larger.
    pub max_size_per_msg: u64,
    /// Payload of entries that one [`crate::Ready`] hands out for applying, unless a single entry is larger.
    pub max_committed_bytes_per_ready: u64,
    /// Proposals are refused as busy while more than this is proposed and not committed.
    pub max_uncommitted_bytes: u64,
    /// Reads waiting for confirmation before `read_index` says busy.
    pub max_pending_reads: usize,
    /// Compaction keeps at most this much of the log that the newest snapshot already covers.
    pub tail_max_bytes: u64,
    /// Sends followers a message of its own for every advance of the commit index. Without it they learn of a commit
    /// from the next append or heartbeat, which halves the messages.
    pub broadcast_commits: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            id: 0,
            seed: 0,
            election_ticks: 10,
            heartbeat_ticks: 2,
            snapshot_timeout_ticks: 1_500,
            max_inflight_msgs: 256,
            max_size_per_msg: 1 << 20,
            max_committed_bytes_per_ready: 4 << 20,
            max_uncommitted_bytes: 64 << 20,
            max_pending_reads: 1_024,
            tail_max_bytes: 64 << 20,
            broadcast_commits: false,
        }
    }
}

impl Config {
    /// Checks what raft-rs does not check itself.
    pub(crate) fn validate(&self) -> Result<(), RaftError> {
        let bad = |what: &str| Err(RaftError::Config(what.to_owned()));
        if self.id == 0 {
            return bad("a member id is never 0");
        }
        if self.heartbeat_ticks == 0 || self.election_ticks <= self.heartbeat_ticks {
            return bad(
                "election_ticks must be greater than heartbeat_ticks, and both greater than 0",
            );
        }
        if self.max_inflight_msgs == 0
            || self.max_pending_reads == 0
            || self.snapshot_timeout_ticks == 0
        {
            return bad(
                "max_inflight_msgs, max_pending_reads and snapshot_timeout_ticks must be greater than 0",
            );
        }
        if self.max_uncommitted_bytes < self.max_size_per_msg {
            return bad("max_uncommitted_bytes must not be less than max_size_per_msg");
        }
        Ok(())
    }

    pub(crate) fn to_eraft(&self, applied: u64) -> raft::Config {
        let election_tick = self.election_ticks as usize;
        raft::Config {
            id: self.id,
            election_tick,
            heartbeat_tick: self.heartbeat_ticks as usize,
            applied,
            max_size_per_msg: self.max_size_per_msg,
            max_inflight_msgs: self.max_inflight_msgs,
            check_quorum: true,
            pre_vote: true,
            min_election_tick: election_tick,
            max_election_tick: 2 * election_tick,
            read_only_option: raft::ReadOnlyOption::Safe,
            skip_bcast_commit: !self.broadcast_commits,
            batch_append: true,
            priority: 0,
            max_uncommitted_size: self.max_uncommitted_bytes,
            max_committed_size_per_ready: self.max_committed_bytes_per_ready,
        }
    }
}
