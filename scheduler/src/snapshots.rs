//! The snapshot thread: encodes a shared copy of the state while the event loop goes on.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use berth_core::{Input, State, codec};
use tracing::info;

use crate::history::{Task, Tasks};
use crate::inbox::{Inbox, Message};

/// A state and the log index that it stands at.
pub(crate) type Copy = (u64, Box<State>);

/// Starts the thread. It ends when the sender is dropped.
pub(crate) fn start(
    history: Tasks,
    inbox: Inbox,
) -> std::io::Result<(Sender<Copy>, JoinHandle<()>)> {
    let (sender, copies) = channel::<Copy>();
    let thread = std::thread::Builder::new()
        .name("berth-snapshot".into())
        .spawn(move || {
            while let Ok((index, state)) = copies.recv() {
                let started = Instant::now();
                let data = codec::encode_state(&state);
                drop(state);
                info!(
                    index,
                    bytes = data.len(),
                    took_ms = started.elapsed().as_millis(),
                    "took a snapshot"
                );
                // A snapshot lets the log go, so the jobs that finished before it must be in the history first.
                let (done, kept) = channel();
                let _ = history.send(Task::Barrier(done));
                let _ = kept.recv();
                if !inbox.send_blocking(Message::Input(Input::SnapshotTaken { index, data })) {
                    return;
                }
            }
        })?;
    Ok((sender, thread))
}
