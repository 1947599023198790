//! Connected agents: the way out to each, and which one serves a node's logs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_proto::v1;
use berth_types::Directive;
use berth_types::api::MasterInfo;
use tokio::sync::mpsc;

/// Messages that may wait for one agent. An agent that lets more pile up is cut off; it reconnects and hears it all anew.
const OUTBOX: usize = 256;

/// To an agent. Converted to the wire by the stream, not by the event loop.
#[derive(Debug)]
pub(crate) enum ToAgent {
    Directive(Directive),
    Redirect {
        reason: String,
        leader: Option<MasterInfo>,
    },
    Log(v1::master_message::Kind),
}

impl From<ToAgent> for v1::MasterMessage {
    fn from(message: ToAgent) -> Self {
        use v1::master_message::Kind;
        let kind = match message {
            ToAgent::Directive(directive) => Kind::Directive((&directive).into()),
            ToAgent::Redirect { reason, leader } => Kind::Redirect(v1::Redirect {
                leader_address: leader.map(|info| info.address).unwrap_or_default(),
                reason,
            }),
            ToAgent::Log(kind) => kind,
        };
        Self { kind: Some(kind) }
    }
}

/// The way out to one agent.
pub(crate) type Outbox = mpsc::Sender<ToAgent>;

/// A way out that does not keep the agent's stream open: only the event loop does, and the stream ends when it lets go.
pub(crate) type WeakOutbox = mpsc::WeakSender<ToAgent>;

/// An outbox and what the agent's stream reads.
pub(crate) fn outbox() -> (Outbox, mpsc::Receiver<ToAgent>) {
    mpsc::channel(OUTBOX)
}

/// Data that an agent sent for a log request.
pub(crate) type LogSink = mpsc::UnboundedSender<v1::LogData>;

#[derive(Debug)]
struct Agent {
    session: u64,
    outbox: WeakOutbox,
    /// Open log requests. Unbounded queues: the agent may send only what it was given credit for.
    logs: BTreeMap<u64, LogSink>,
}

#[derive(Debug, Default)]
struct Table {
    agents: BTreeMap<String, Agent>,
    last_id: u64,
}

/// Agents by node name, for log requests. Not on the way of anything that must be fast.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions(Arc<Mutex<Table>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change is complete in itself, so a panicking holder leaves a usable table.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that was not given before: a session's or a log request's.
    pub(crate) fn next_id(&self) -> u64 {
        let mut table = self.lock();
        table.last_id += 1;
        table.last_id
    }

    /// A node's newest session.
    pub(crate) fn add(&self, node: &str, session: u64, outbox: WeakOutbox) {
        let logs = BTreeMap::new();
        let agent = Agent {
            session,
            outbox,
            logs,
        };
        self.lock().agents.insert(node.to_owned(), agent);
    }

    /// The session is over; its log requests end.
    pub(crate) fn remove(&self, node: &str, session: u64) {
        let mut table = self.lock();
        if table.agents.get(node).is_some_and(|a| a.session == session) {
            table.agents.remove(node);
        }
    }

    /// Opens a log request at a node; `None` if its agent is not connected here.
    pub(crate) fn open_log(
        &self,
        node: &str,
        request: u64,
    ) -> Option<(WeakOutbox, mpsc::UnboundedReceiver<v1::LogData>)> {
        let mut table = self.lock();
        let agent = table.agents.get_mut(node)?;
        let (sink, data) = mpsc::unbounded_channel();
        agent.logs.insert(request, sink);
        Some((agent.outbox.clone(), data))
    }

    /// The reader of a log request is gone.
    pub(crate) fn close_log(&self, node: &str, request: u64) {
        if let Some(agent) = self.lock().agents.get_mut(node) {
            agent.logs.remove(&request);
        }
    }

    /// Data has arrived for a log request.
    pub(crate) fn on_log_data(&self, node: &str, session: u64, data: v1::LogData) {
        let mut table = self.lock();
        let Some(agent) = table.agents.get_mut(node).filter(|a| a.session == session) else {
            return;
        };
        let (request, eof) = (data.request_id, data.eof);
        let gone = agent
            .logs
            .get(&request)
            .is_none_or(|sink| sink.send(data).is_err());
        if gone || eof {
            agent.logs.remove(&request);
        }
    }
}
