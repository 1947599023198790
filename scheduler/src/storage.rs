//! The storage thread: everything that waits becomes durable with one flush.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use berth_core::Input;
use berth_raft::Persist;
use berth_raft_store::LogStore;
use tracing::error;

use crate::inbox::{Inbox, Message};

/// Starts the thread. It ends when the sender is dropped, after all that was sent is durable.
pub(crate) fn start(
    mut store: Box<dyn LogStore>,
    inbox: Inbox,
) -> std::io::Result<(Sender<Persist>, JoinHandle<()>)> {
    // Unbounded, because the event loop must never block on what blocks on it. The replica bounds what is in flight.
    let (sender, batches) = channel::<Persist>();
    let thread = std::thread::Builder::new()
        .name("berth-storage".into())
        .spawn(move || run(store.as_mut(), &batches, &inbox))?;
    Ok((sender, thread))
}

fn run(store: &mut dyn LogStore, batches: &Receiver<Persist>, inbox: &Inbox) {
    let mut group = Vec::new();
    while let Ok(first) = batches.recv() {
        group.clear();
        group.push(first);
        group.extend(batches.try_iter());
        let last = group.last().map_or(0, |p| p.number);
        let input = match store.persist(&group) {
            Ok(()) => Input::Persisted(last),
            Err(failure) => {
                error!(error = %chain(&failure), "cannot make the log durable");
                Input::PersistFailed(chain(&failure))
            }
        };
        let failed = matches!(input, Input::PersistFailed(_));
        if !inbox.send_blocking(Message::Input(input)) || failed {
            // Whatever a failed disk has kept, this process writes nothing more to it.
            return;
        }
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
