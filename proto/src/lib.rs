//! The wire: `berth.v1` messages and stubs, and the only conversions between them and the vocabulary.
//!
//! Owns the protos (`proto/berth/v1`), what is compiled from them ([`v1`]), [`convert`] (decoding answers every
//! malformed message with a [`DecodeError`] that names the field), how errors travel ([`status`]), and how clients,
//! agents and masters dial ([`channel`]).
//!
//! Must not know: what anything means to a scheduler.
//!
//! Start reading at `proto/berth/v1/jobs.proto`, then [`convert`].

pub mod channel;
pub mod convert;
pub mod status;

/// Messages, clients and servers of `berth.v1`, as compiled from the protos. Documented there.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("berth.v1");
}

/// Encoded descriptors of every file, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// Largest message that a master accepts from clients and agents.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Largest message that a client, an agent or another master accepts from a master: a page of 1,000 large jobs.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Largest chunk of a stream that carries something larger (a snapshot, a backup).
pub const CHUNK_BYTES: usize = 1 << 20;

pub use channel::connect;
pub use convert::DecodeError;
pub use status::{from_status, to_status};
