//! Peer messages on the wire.
//!
//! A copy of raft-rs' `eraftpb` in prost, wire-compatible, so that protobuf 2 (whose parser can be driven into a stack
//! overflow by nested unknown groups, RUSTSEC-2024-0437) never sees bytes from the network.

use bytes::Bytes;
use prost::Message as _;

use crate::{PeerId, RaftError};

/// A message between two members. Opaque but for its addresses; encode it, send it, decode it, `step` it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(enumeration = "MessageKind", tag = "1")]
    pub(crate) msg_type: i32,
    /// Receiver.
    #[prost(uint64, tag = "2")]
    pub to: PeerId,
    /// Sender.
    #[prost(uint64, tag = "3")]
    pub from: PeerId,
    #[prost(uint64, tag = "4")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) log_term: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) index: u64,
    #[prost(message, repeated, tag = "7")]
    pub(crate) entries: Vec<WireEntry>,
    #[prost(uint64, tag = "8")]
    pub(crate) commit: u64,
    #[prost(message, optional, tag = "9")]
    pub(crate) snapshot: Option<WireSnapshot>,
    #[prost(bool, tag = "10")]
    pub(crate) reject: bool,
    #[prost(uint64, tag = "11")]
    pub(crate) reject_hint: u64,
    #[prost(bytes = "bytes", tag = "12")]
    pub(crate) context: Bytes,
    #[prost(uint64, tag = "13")]
    pub(crate) request_snapshot: u64,
    #[prost(uint64, tag = "15")]
    pub(crate) commit_term: u64,
    #[prost(int64, tag = "16")]
    pub(crate) priority: i64,
}

/// What a message is for. The numbers are those of `eraftpb`; local and forwarded kinds are absent because they never
/// travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
pub enum MessageKind {
    /// 0 is a local event in `eraftpb`; a message without a kind is refused.
    Unspecified = 0,
    /// Leader to follower: entries.
    Append = 3,
    /// Follower to leader: how far its log agrees and is durable.
    AppendResponse = 4,
    /// Asks for a vote.
    RequestVote = 5,
    /// Gives or denies a vote.
    RequestVoteResponse = 6,
    /// Leader to follower: the whole state.
    Snapshot = 7,
    /// Leader to follower: I am here.
    Heartbeat = 8,
    /// Follower to leader: I heard.
    HeartbeatResponse = 9,
    /// Leader to follower: take over now.
    TimeoutNow = 14,
    /// Asks whether a vote would be given.
    RequestPreVote = 17,
    /// Says whether a vote would be given.
    RequestPreVoteResponse = 18,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireEntry {
    #[prost(int32, tag = "1")]
    pub(crate) entry_type: i32,
    #[prost(uint64, tag = "2")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) index: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) data: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) context: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireSnapshot {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(crate) metadata: Option<WireSnapshotMetadata>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireSnapshotMetadata {
    #[prost(message, optional, tag = "1")]
    pub(crate) conf_state: Option<WireConfState>,
    #[prost(uint64, tag = "2")]
    pub(crate) index: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) term: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireConfState {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) learners: Vec<u64>,
    /// Joint consensus is never used; a peer that claims it is refused.
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) voters_outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) learners_next: Vec<u64>,
}

impl Message {
    /// The wire form.
    pub fn encode(&self) -> Bytes {
        Bytes::from(self.encode_to_vec())
    }

    /// Reads the wire form. Payloads are slices of `bytes`, not copies.
    ///
    /// # Errors
    /// [`RaftError::Decode`] for bytes that are no message. What the message says is checked by `step`.
    pub fn decode(bytes: Bytes) -> Result<Message, RaftError> {
        Ok(<Message as prost::Message>::decode(bytes)?)
    }

    /// Bytes of the wire form.
    pub fn encoded_len(&self) -> usize {
        <Message as prost::Message>::encoded_len(self)
    }

    /// What the message is for; `Unspecified` for kinds that this version does not know.
    pub fn kind(&self) -> MessageKind {
        MessageKind::try_from(self.msg_type).unwrap_or(MessageKind::Unspecified)
    }

    /// The sender's term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Payload of the snapshot inside, if it is one. Large: send it in chunks (see `take_snapshot_data`), then answer
    /// with `report_snapshot`.
    pub fn snapshot_data(&self) -> Option<&Bytes> {
        self.snapshot.as_ref().map(|s| &s.data)
    }

    /// Takes the payload out, so that the rest of the message is small and both can travel separately.
    pub fn take_snapshot_data(&mut self) -> Option<Bytes> {
        self.snapshot.as_mut().map(|s| std::mem::take(&mut s.data))
    }

    /// Puts a payload back that travelled separately. Does nothing to a message that carries no snapshot.
    pub fn put_snapshot_data(&mut self, data: Bytes) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.data = data;
        }
    }
}
