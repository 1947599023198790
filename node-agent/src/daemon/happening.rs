//! What the event loop hears from everything that runs beside it.

use berth_agent_core::Input;
use berth_proto::v1;
use berth_types::TaskKey;
use tokio::sync::{mpsc, oneshot};

use crate::daemon::metrics::Snapshot;
use crate::daemon::task_socket::{Claim, Outbox};
use crate::gpu::watch::News;
use crate::keeper::client::{ClientError, KeeperClient};

/// Something happened.
#[derive(Debug)]
pub(super) enum Happening {
    /// A fact for the core as it is.
    Fact(Input),
    /// A keeper answered, or none could be had.
    Keeper(Box<Result<KeeperClient, ClientError>>),
    /// A stream to a master can be used: the first message on it is the registration.
    Connected {
        /// Never reused.
        session: u64,
        /// The master's address.
        address: String,
        /// Messages to it.
        outbox: mpsc::Sender<v1::AgentMessage>,
        /// Dropped to give the stream up.
        close: oneshot::Sender<()>,
    },
    /// A master said something.
    Said {
        /// On which stream.
        session: u64,
        /// What.
        message: v1::MasterMessage,
    },
    /// A stream is gone.
    Gone {
        /// Which.
        session: u64,
    },
    /// Something was heard of the GPUs.
    Gpus(News),
    /// A process that outlived its task was killed.
    LeftoverEnded {
        /// Its id.
        pid: u32,
        /// When it started.
        start_ticks: u64,
    },
    /// Somebody wants to know how things are.
    Scrape(oneshot::Sender<Snapshot>),
    /// A task connected and says who it is.
    Hello {
        /// Who.
        claim: Claim,
        /// Lines for it.
        outbox: Outbox,
        /// Which task it is, or why none.
        answer: oneshot::Sender<Result<TaskKey, String>>,
    },
}

/// The way to the event loop. Unbounded, because everything that writes to it is bounded by itself: one preparation
/// per task, one message at a time per task's connection and per stream.
#[derive(Clone, Debug)]
pub(super) struct Happenings(mpsc::UnboundedSender<Happening>);

impl Happenings {
    /// A way and its end.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Happening>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Tells the loop; lost if it has ended.
    pub(super) fn send(&self, happening: Happening) {
        let _ = self.0.send(happening);
    }

    /// Asks the loop which task speaks.
    ///
    /// # Errors
    /// Why none does, for the task to read.
    pub(super) async fn ask_task(&self, claim: Claim, outbox: Outbox) -> Result<TaskKey, String> {
        let (answer, answered) = oneshot::channel();
        self.send(Happening::Hello {
            claim,
            outbox,
            answer,
        });
        answered
            .await
            .unwrap_or_else(|_| Err("the agent ends".into()))
    }
}
