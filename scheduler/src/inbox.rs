//! The way into the event loop: one bounded queue for everything.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use berth_core::Input;
use berth_types::api::{ApiError, ErrorKind, Request, Response};
use berth_types::{AgentReport, MasterId, NodeSpec};
use tokio::sync::oneshot;

use crate::sessions::Outbox;

/// Messages that may wait. A drained batch is at most as long; a fuller queue would only add latency.
const CAPACITY: usize = 8_192;
/// Pause before another try where waiting is better than losing.
const RETRY: Duration = Duration::from_millis(1);

/// What the event loop hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// A fact for the replica.
    Input(Input),
    /// A client's call. Whoever waits may have gone by the time there is an answer.
    Call {
        request: Request,
        reply: oneshot::Sender<Response>,
    },
    /// An agent connected.
    AgentConnected {
        session: u64,
        outbox: Outbox,
        hello: Box<Hello>,
    },
    /// Another master said where it listens.
    PeerListens { from: MasterId, address: String },
    /// Hand over leadership, then stop.
    Stop,
}

/// What an agent says first.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) spec: Arc<NodeSpec>,
    pub(crate) incarnation: u64,
    pub(crate) cluster_id: u64,
    pub(crate) inventory: AgentReport,
}

/// The sending end. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inbox(SyncSender<Message>);

/// A queue and its end for the event loop.
pub(crate) fn inbox() -> (Inbox, Receiver<Message>) {
    let (sender, receiver) = sync_channel(CAPACITY);
    (Inbox(sender), receiver)
}

fn stopping() -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        "STOPPING",
        "this master is stopping",
        "try another master; a submission with the same key is never counted twice",
    )
}

impl Inbox {
    /// Hands in a call and returns where its answer will arrive.
    pub(crate) fn call(&self, request: Request) -> Result<oneshot::Receiver<Response>, ApiError> {
        let (reply, answer) = oneshot::channel();
        match self.0.try_send(Message::Call { request, reply }) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(ApiError::new(
                ErrorKind::ResourceExhausted,
                "OVERLOADED",
                "this master has more to do than it can",
                "slow down and try again with the same key",
            )),
            Err(TrySendError::Disconnected(_)) => Err(stopping()),
        }
    }

    /// Hands in what must not be lost; waits while the queue is full. False once the event loop has ended.
    pub(crate) async fn send(&self, message: Message) -> bool {
        let mut message = message;
        loop {
            match self.0.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Disconnected(_)) => return false,
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The same for threads that may block.
    pub(crate) fn send_blocking(&self, message: Message) -> bool {
        self.0.send(message).is_ok()
    }

    /// Hands in what may be lost. False if it was.
    pub(crate) fn offer(&self, message: Message) -> bool {
        self.0.try_send(message).is_ok()
    }
}
