//! What masters say to each other.

use berth_types::api::{Request, Response};
use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// A message between masters.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    /// Raft's own.
    Raft(berth_raft::Message),
    /// A follower passes on a client's call.
    Forward {
        /// Chosen by the follower.
        id: u64,
        /// The call.
        request: Request,
    },
    /// The leader's answer to a passed-on call.
    Answer {
        /// The follower's id.
        id: u64,
        /// The answer.
        response: Response,
    },
}

/// Bytes from a peer that are no message.
#[derive(Debug, Error)]
pub enum PeerDecodeError {
    /// Nothing, or an unknown kind.
    #[error("unknown kind of peer message")]
    Kind,
    /// A damaged Raft message.
    #[error("damaged raft message: {0}")]
    Raft(String),
    /// A damaged call or answer.
    #[error("damaged call")]
    Call(#[from] postcard::Error),
}

const RAFT: u8 = 1;
const FORWARD: u8 = 2;
const ANSWER: u8 = 3;

impl PeerMessage {
    /// The message as bytes: a kind, then its payload.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            PeerMessage::Raft(message) => {
                out.put_u8(RAFT);
                out.put(message.encode());
            }
            PeerMessage::Forward { id, request } => {
                out.put_u8(FORWARD);
                put(&mut out, &(id, request));
            }
            PeerMessage::Answer { id, response } => {
                out.put_u8(ANSWER);
                put(&mut out, &(id, response));
            }
        }
        out.freeze()
    }

    /// Reads bytes from a peer. Never panics.
    pub fn decode(mut bytes: Bytes) -> Result<Self, PeerDecodeError> {
        if bytes.is_empty() {
            return Err(PeerDecodeError::Kind);
        }
        let payload = bytes.split_off(1);
        match bytes[0] {
            RAFT => {
                let message = berth_raft::Message::decode(payload)
                    .map_err(|e| PeerDecodeError::Raft(e.to_string()))?;
                Ok(PeerMessage::Raft(message))
            }
            FORWARD => {
                let (id, request) = postcard::from_bytes(&payload)?;
                Ok(PeerMessage::Forward { id, request })
            }
            ANSWER => {
                let (id, response) = postcard::from_bytes(&payload)?;
                Ok(PeerMessage::Answer { id, response })
            }
            _ => Err(PeerDecodeError::Kind),
        }
    }
}

fn put<T: serde::Serialize>(out: &mut BytesMut, value: &T) {
    let bytes = postcard::to_stdvec(value).expect("plain data serialises");
    out.put_slice(&bytes);
}
