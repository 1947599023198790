//! What agent and keeper say to each other: frames of a little-endian `u32` length and a postcard body.
//!
//! A keeper outlives upgrades of the agent, so both enums are append-only and fields of a variant never change; the
//! task's memo is opaque to the keeper.

use berth_types::{Isolation, TaskExit, TaskKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cgroup::Limits;

/// What this binary speaks. 2: limits and isolation.
pub const PROTOCOL_VERSION: u32 = 2;
/// The oldest keeper that an agent can work with: one that was started before an upgrade and still has tasks.
pub const OLDEST_VERSION: u32 = 1;
/// Largest frame: an answer to `List` with many tasks.
pub const MAX_FRAME_BYTES: usize = 64 << 20;
/// Longest reason that is recorded.
pub const MAX_REASON_BYTES: usize = 400;

/// To the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First of a connection.
    Hello {
        /// [`PROTOCOL_VERSION`] of the agent.
        version: u32,
    },
    /// Send the state of every task, and from now on every change.
    List,
    /// Start a task, unless it is known already.
    Spawn(Box<SpawnRequest>),
    /// Signal a task's process group, if it lives.
    Signal {
        /// Which task.
        key: TaskKey,
        /// SIGKILL if true, SIGTERM if not.
        kill: bool,
        /// The node stops it by itself, for its lease: its end is not the job's doing.
        by_node: bool,
    },
    /// Record the end of a task that has no process, unless it is known already.
    Record {
        /// Which task.
        key: TaskKey,
        /// How it ended.
        exit: ExitRecord,
    },
    /// Drop the records of ended tasks.
    Forget {
        /// Which.
        keys: Vec<TaskKey>,
    },
    /// Kill the tasks with `fence` unless this comes again in time.
    Lease {
        /// From now.
        ms: u64,
    },
    /// End all tasks, then the keeper.
    Shutdown {
        /// Time between TERM and KILL.
        grace_ms: u64,
    },
    /// As `Spawn`, within limits where the keeper can enforce them. Since version 2.
    SpawnWithin {
        /// How to start it.
        spawn: Box<SpawnRequest>,
        /// Its bounds.
        limits: Limits,
    },
}

/// How to start a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnRequest {
    /// Which task.
    pub key: TaskKey,
    /// Absolute path of the program.
    pub program: String,
    /// Arguments, the first being the name that the program is called by.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub work_dir: String,
    /// The task's directory: made if missing; its log files are opened there.
    pub task_dir: String,
    /// Kill it when the lease is over.
    pub fence: bool,
    /// For the agent, as it is.
    pub memo: Vec<u8>,
}

/// From the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Answer to `Hello`.
    Hello {
        /// [`PROTOCOL_VERSION`] of the keeper.
        version: u32,
        /// Drawn at its start.
        incarnation: u64,
        /// Its process id.
        pid: u32,
    },
    /// Answer to `List`.
    State {
        /// Every task and record.
        tasks: Vec<Kept>,
    },
    /// A task has a process.
    Spawned {
        /// Which task.
        key: TaskKey,
        /// Its process id, also of its group.
        pid: u32,
        /// When.
        at_ms: u64,
    },
    /// A task is over and its record durable.
    Exited {
        /// Which task.
        key: TaskKey,
        /// How it ended.
        exit: ExitRecord,
    },
    /// All tasks are gone; the keeper ends now.
    Stopped,
    /// With the answer to the `Hello` of an agent that speaks version 2.
    Isolation {
        /// How tasks are isolated.
        isolation: Isolation,
        /// The group that has the tasks' groups, as `/proc/PID/cgroup` says it; empty if there is none.
        group: String,
    },
}

/// One task of the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Which task.
    pub key: TaskKey,
    /// As it came with `Spawn`.
    pub memo: Vec<u8>,
    /// Its process and when that started, unless it is over.
    pub running: Option<(u32, u64)>,
    /// How it ended, if it did.
    pub exit: Option<ExitRecord>,
}

/// How a task ended, in the keeper's own append-only form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code, 128+n for signal n, -1 if it could not start or was lost.
    pub code: i32,
    /// When, by the node's clock.
    pub at_ms: u64,
    /// In words.
    pub reason: String,
    /// The node is to blame.
    pub node_fault: bool,
}

impl From<TaskExit> for ExitRecord {
    fn from(exit: TaskExit) -> Self {
        let mut reason = exit.reason;
        truncate(&mut reason, MAX_REASON_BYTES);
        Self {
            code: exit.code,
            at_ms: exit.at_ms,
            reason,
            node_fault: exit.node_fault,
        }
    }
}

impl From<ExitRecord> for TaskExit {
    fn from(exit: ExitRecord) -> Self {
        Self {
            code: exit.code,
            at_ms: exit.at_ms,
            reason: exit.reason,
            node_fault: exit.node_fault,
        }
    }
}

/// Why a byte stream is not one of frames.
#[derive(Debug, Error)]
pub enum FrameError {
    /// A length beyond [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is too large")]
    TooLarge(usize),
    /// A body that is no message.
    #[error("a frame cannot be read")]
    Body(#[from] postcard::Error),
}

/// Appends one framed message.
///
/// # Errors
/// If the message cannot be encoded or is too large.
pub fn encode(message: &impl Serialize, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend([0; 4]);
    let body = postcard::serialize_with_flavor(message, Tail(out))?;
    debug_assert!(body >= start + 4, "the body lies behind its length");
    let length = out.len() - start - 4;
    if length > MAX_FRAME_BYTES {
        out.truncate(start);
        return Err(FrameError::TooLarge(length));
    }
    let length = u32::try_from(length).expect("bounded above");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Takes one message off the front of `buffer` from `*at` on, if a whole one is there.
///
/// # Errors
/// If the bytes are no frame; the connection is then of no use any more.
pub fn decode<T: for<'a> Deserialize<'a>>(
    buffer: &[u8],
    at: &mut usize,
) -> Result<Option<T>, FrameError> {
    let Some(length) = buffer.get(*at..*at + 4) else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge(length));
    }
    let Some(body) = buffer.get(*at + 4..*at + 4 + length) else {
        return Ok(None);
    };
    let message = postcard::from_bytes(body)?;
    *at += 4 + length;
    Ok(Some(message))
}

/// Appends to a borrowed vector, so that several messages share one buffer and one write.
struct Tail<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Tail<'_> {
    type Output = usize;

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<usize> {
        Ok(self.0.len())
    }
}

/// Cuts a text to at most `most` bytes at a character's end.
pub fn truncate(text: &mut String, most: usize) {
    if text.len() > most {
        let cut = (0..=most).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_whole_and_only_whole() {
        let messages = [
            Request::Hello { version: 1 },
            Request::Lease { ms: 300 },
            Request::Forget { keys: Vec::new() },
        ];
        let mut bytes = Vec::new();
        for message in &messages {
            encode(message, &mut bytes).unwrap();
        }
        for cut in 0..=bytes.len() {
            let (mut at, mut seen) = (0, Vec::new());
            while let Some(message) = decode::<Request>(&bytes[..cut], &mut at).unwrap() {
                seen.push(message);
            }
            assert_eq!(seen, messages[..seen.len()]);
            assert_eq!(seen.len() == 3, cut == bytes.len());
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let huge = u32::MAX.to_le_bytes();
        assert!(matches!(
            decode::<Request>(&huge, &mut 0),
            Err(FrameError::TooLarge(_))
        ));
        let unknown = [1, 0, 0, 0, 99];
        assert!(matches!(
            decode::<Request>(&unknown, &mut 0),
            Err(FrameError::Body(_))
        ));
    }

    #[test]
    fn cuts_text_at_characters() {
        let mut text = "aäö".to_owned();
        truncate(&mut text, 2);
        assert_eq!(text, "a");
    }
}
