//! Bytes of the log, of snapshots and of the history: a version, then postcard.
//!
//! What was written once must read the same for ever, so the lists of [`Command`] and of everything inside are
//! append-only, and golden bytes hold them. An entry that this binary does not know ([`CodecError::UnknownCommand`],
//! [`CodecError::Version`]) stops a replica from applying: skipping what a newer leader wrote would tear the masters
//! apart.
//!
//! Decoding never panics and never allocates more than a small multiple of what it was given.

use std::sync::Arc;

use berth_types::NodeId;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::command::{Command, LogEntry, ProposalTag};
use crate::health::NodeHealth;
use crate::state::{Certificates, FinishedJob, State};

/// Format of log entries written now.
pub const ENTRY_VERSION: u8 = 1;
/// Format of states written now. 1 was without certificates, 2 without health.
pub const STATE_VERSION: u8 = 3;
/// The format before health was kept; still read.
const STATE_WITHOUT_HEALTH: u8 = 2;
/// The format before certificates were kept; still read.
const STATE_WITHOUT_CERTIFICATES: u8 = 1;
/// Format of finished jobs written now.
pub const FINISHED_VERSION: u8 = 1;
/// Largest entry that is read. One that is longer stops every master for good, so whoever proposes stays below it.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;
/// Most commands in one entry.
pub const MAX_COMMANDS: usize = 65_536;
/// Commands known to this binary; their numbers in the log are below.
const COMMANDS: u32 = 21;

/// Bytes that are not what they should be.
#[derive(Debug, Error)]
pub enum CodecError {
    /// Nothing at all.
    #[error("{0} without content")]
    Empty(&'static str),
    /// Longer than anything written.
    #[error("entry of {0} bytes, more than {MAX_ENTRY_BYTES}")]
    TooLong(usize),
    /// More commands than any leader puts into an entry.
    #[error("entry of {0} commands, more than {MAX_COMMANDS}")]
    TooManyCommands(u32),
    /// Written by a newer binary.
    #[error("{what} in format {found}; this binary reads {known}: upgrade it")]
    Version {
        /// Of what.
        what: &'static str,
        /// Found.
        found: u8,
        /// Known.
        known: u8,
    },
    /// A command of a newer binary.
    #[error("command {0} is unknown to this binary: upgrade it")]
    UnknownCommand(u32),
    /// Damaged.
    #[error("{what} is damaged")]
    Damaged {
        /// Of what.
        what: &'static str,
        /// How.
        #[source]
        source: postcard::Error,
    },
    /// More bytes than content.
    #[error("{what} is followed by {bytes} unexpected bytes")]
    Trailing {
        /// Of what.
        what: &'static str,
        /// How many.
        bytes: usize,
    },
}

/// A log entry as bytes.
pub fn encode_entry(entry: &LogEntry) -> Bytes {
    encode(ENTRY_VERSION, entry)
}

/// Bytes that a command takes in an entry.
pub fn command_bytes(command: &Command) -> usize {
    postcard::serialize_with_flavor(command, postcard::ser_flavors::Size::default())
        .expect("plain data serialises")
}

/// Reads a log entry.
pub fn decode_entry(bytes: &[u8]) -> Result<LogEntry, CodecError> {
    const WHAT: &str = "log entry";
    if bytes.len() > MAX_ENTRY_BYTES {
        return Err(CodecError::TooLong(bytes.len()));
    }
    let body = body(bytes, WHAT, ENTRY_VERSION)?;
    let (head, mut rest) = take::<(ProposalTag, u64, u32)>(body, WHAT)?;
    let (tag, stamp_ms, count) = head;
    if usize::try_from(count).map_or(true, |count| count > MAX_COMMANDS) {
        return Err(CodecError::TooManyCommands(count));
    }
    // No command takes less than two bytes, so a count beyond what is left is a lie that costs nothing.
    let capacity = usize::try_from(count).unwrap_or(0).min(rest.len() / 2);
    let mut commands = Vec::with_capacity(capacity);
    for _ in 0..count {
        let (number, _) = take::<u32>(rest, WHAT)?;
        if number >= COMMANDS {
            return Err(CodecError::UnknownCommand(number));
        }
        let (command, after) = take::<Command>(rest, WHAT)?;
        commands.push(command);
        rest = after;
    }
    finish(rest, WHAT)?;
    Ok(LogEntry {
        tag,
        stamp_ms,
        commands,
    })
}

/// The state as bytes, without what [`State::rebuild_derived`] builds.
pub fn encode_state(state: &State) -> Bytes {
    let health: Vec<(&NodeId, &NodeHealth)> =
        state.health.iter().map(|(id, h)| (id, &**h)).collect();
    encode(STATE_VERSION, &(state, health))
}

/// Reads a state and builds its derived parts.
pub fn decode_state(bytes: &[u8]) -> Result<State, CodecError> {
    const WHAT: &str = "state";
    let mut state = match bytes.split_first() {
        Some((&STATE_WITHOUT_CERTIFICATES, before)) => {
            // What was added since stands behind it, empty.
            let mut grown = vec![STATE_WITHOUT_HEALTH];
            grown.extend_from_slice(before);
            let grown = postcard::to_extend(&Certificates::default(), grown);
            let grown = grown.expect("plain data in memory serialises");
            decode(&grown, WHAT, STATE_WITHOUT_HEALTH)?
        }
        Some((&STATE_WITHOUT_HEALTH, _)) => decode(bytes, WHAT, STATE_WITHOUT_HEALTH)?,
        _ => {
            let (mut state, health): (State, Vec<(NodeId, NodeHealth)>) =
                decode(bytes, WHAT, STATE_VERSION)?;
            let health = health.into_iter().map(|(id, h)| (id, Arc::new(h)));
            state.health = health.collect();
            state
        }
    };
    state.rebuild_derived();
    Ok(state)
}

/// A finished job as bytes.
pub fn encode_finished(job: &FinishedJob) -> Bytes {
    encode(FINISHED_VERSION, job)
}

/// Reads a finished job.
pub fn decode_finished(bytes: &[u8]) -> Result<FinishedJob, CodecError> {
    decode(bytes, "finished job", FINISHED_VERSION)
}

/// First 16 bytes of the SHA-256 of a spec's encoding: tells whether a repeated key carries the same payload.
pub fn spec_hash(spec: &berth_types::JobSpec) -> u128 {
    let bytes = postcard::to_stdvec(spec).expect("plain data in memory serialises");
    let digest = Sha256::digest(&bytes);
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(first)
}

impl State {
    /// SHA-256 of the encoded state: equal on all masters that applied the same log.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(encode_state(self)).into()
    }
}

fn encode<T: serde::Serialize>(version: u8, value: &T) -> Bytes {
    let bytes = postcard::to_extend(value, vec![version]);
    bytes.expect("plain data in memory serialises").into()
}

fn decode<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
    version: u8,
) -> Result<T, CodecError> {
    let (value, rest) = take(body(bytes, what, version)?, what)?;
    finish(rest, what)?;
    Ok(value)
}

fn body<'a>(bytes: &'a [u8], what: &'static str, known: u8) -> Result<&'a [u8], CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty(what)),
        Some((found, body)) if *found == known => Ok(body),
        Some((found, _)) => Err(CodecError::Version {
            what,
            found: *found,
            known,
        }),
    }
}

fn take<'a, T: serde::de::Deserialize<'a>>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<(T, &'a [u8]), CodecError> {
    postcard::take_from_bytes(bytes).map_err(|source| CodecError::Damaged { what, source })
}

fn finish(rest: &[u8], what: &'static str) -> Result<(), CodecError> {
    match rest.len() {
        0 => Ok(()),
        bytes => Err(CodecError::Trailing { what, bytes }),
    }
}
