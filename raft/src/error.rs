//! What can go wrong.

use crate::PeerId;

/// Why the replica did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The settings contradict each other.
    #[error("invalid raft configuration: {0}")]
    Config(String),
    /// What was read from the disk does not belong together.
    #[error("the recovered log cannot be used: {0}")]
    Recovered(String),
    /// Bytes that are no peer message.
    #[error("malformed peer message")]
    Decode(#[from] prost::DecodeError),
    /// A peer sent something that makes no sense; nothing changed.
    #[error("message from member {from} refused: {reason}")]
    Refused {
        /// The sender, as it names itself.
        from: PeerId,
        /// What is wrong with the message.
        reason: &'static str,
    },
    /// The leader holds an acknowledgement for entries that this member no longer has. It must not vote again.
    #[error(
        "this member lost acknowledged entries: leader {leader} knows it to hold index {acknowledged}, \
         but its log ends at {last_index}"
    )]
    LostLog {
        /// Who says so.
        leader: PeerId,
        /// Highest index that this member had acknowledged.
        acknowledged: u64,
        /// Where its log ends now.
        last_index: u64,
    },
    /// `persisted` named a batch that was never handed out.
    #[error("batch {0} was never handed out")]
    UnknownBatch(u64),
    /// The replica has stopped for good; it refuses everything from now on.
    #[error("the replica has stopped: {0}")]
    Fatal(String),
}

/// Why a proposal or a read was not taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader takes proposals.
    #[error("this member is not the leader")]
    NotLeader {
        /// The leader, where one is known.
        leader: Option<PeerId>,
    },
    /// Too much is under way, leadership is being transferred, or another membership change is pending. Try again.
    #[error("the leader is busy")]
    Busy,
    /// The leader has not committed an entry of its own term yet. Try again.
    #[error("the leader has not taken over yet")]
    NotReady,
    /// The change makes no sense for the present membership.
    #[error("{0}")]
    Invalid(String),
    /// The replica has stopped for good.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
}
