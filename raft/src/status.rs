//! How a replica is doing.

use crate::{Membership, PeerId};

/// A member's part in the group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// How a leader sends the log to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressKind {
    /// One message at a time, until it is known where the peer's log ends.
    Probe,
    /// Pipelined.
    Replicate,
    /// Waits for a snapshot to arrive.
    Snapshot,
}

/// What a leader knows about a peer. Followers know nothing and list none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerProgress {
    /// The peer.
    pub id: PeerId,
    /// The peer's log is durable and equal up to here.
    pub matched: u64,
    /// How the log is sent to it.
    pub state: ProgressKind,
    /// It was heard from within the last election timeout.
    pub recent_active: bool,
    /// Entries between the leader's last index and `matched`.
    pub lag: u64,
}

/// How a replica is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: PeerId,
    /// Its part.
    pub role: Role,
    /// Newest term seen.
    pub term: u64,
    /// The leader of that term, where known.
    pub leader: Option<PeerId>,
    /// Highest index known to be committed.
    pub commit: u64,
    /// Highest index reported by `on_applied`.
    pub applied: u64,
    /// Last index of the log.
    pub last_index: u64,
    /// First index that is still in the log.
    pub first_index: u64,
    /// Members, as far as this member has applied the log.
    pub membership: Membership,
    /// At a leader, the other members by id.
    pub peers: Vec<PeerProgress>,
    /// This member leads and has committed an entry of its own term.
    pub ready_to_lead: bool,
    /// Where leadership is being transferred to.
    pub transferring_to: Option<PeerId>,
    /// Why the replica has stopped for good, if it has.
    pub failed: Option<String>,
}

/// Size of the log in memory; tells when to take a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSize {
    /// Entries in memory.
    pub entries: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Entries since the newest snapshot.
    pub entries_since_snapshot: u64,
    /// Their payload bytes.
    pub bytes_since_snapshot: u64,
}
