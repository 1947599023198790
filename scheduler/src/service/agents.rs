//! `berth.v1.Agents`: one stream per agent.

use std::sync::Arc;
use std::time::Duration;

use berth_core::Input;
use berth_proto::v1::agent_message::Kind;
use berth_proto::{DecodeError, to_status, v1};
use berth_types::api::{ApiError, ErrorKind};
use berth_types::{AgentReport, NodeSpec};
use futures_util::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::Answers;
use super::access::{caller, speaks_for};
use crate::inbox::{Hello, Message};
use crate::sessions::outbox;
use crate::shared::Shared;

/// An agent that has not said who it is by then is cut off.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Agents(pub(super) Shared);

#[tonic::async_trait]
impl v1::agents_server::Agents for Agents {
    type SessionStream = Answers<v1::MasterMessage>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = caller(&request);
        let mut messages = request.into_inner();
        let first = tokio::time::timeout(REGISTER_TIMEOUT, messages.message()).await;
        let first =
            first.map_err(|_| refuse("NOT_REGISTERED", "the agent did not register in time"))??;
        let Some(Kind::Register(register)) = first.and_then(|m| m.kind) else {
            return Err(refuse(
                "NOT_REGISTERED",
                "the agent's first message is no registration",
            ));
        };
        let hello = hello(register)?;
        let node = hello.spec.name.clone();
        speaks_for(caller.as_deref(), &node).map_err(|e| to_status(&e))?;
        let session = self.0.sessions.next_id();
        let (sender, outgoing) = outbox();
        self.0.sessions.add(&node, session, sender.downgrade());
        let connected = Message::AgentConnected {
            session,
            outbox: sender,
            hello: Box::new(hello),
        };
        if !self.0.inbox.send(connected).await {
            self.0.sessions.remove(&node, session);
            return Err(Status::unavailable("this master is stopping"));
        }
        info!(node, session, "an agent connected");
        let reader = Reader {
            shared: self.0.clone(),
            node,
            session,
        };
        tokio::spawn(reader.run(messages));
        let outgoing = ReceiverStream::new(outgoing).map(|m| Ok(v1::MasterMessage::from(m)));
        Ok(Response::new(Box::pin(outgoing)))
    }
}

fn refuse(reason: &str, message: &str) -> Status {
    let hint = "agent and master may be of different versions";
    to_status(&ApiError::new(
        ErrorKind::InvalidArgument,
        reason,
        message,
        hint,
    ))
}

fn hello(register: v1::Register) -> Result<Hello, DecodeError> {
    let spec = register
        .spec
        .ok_or_else(|| DecodeError::new("spec", "missing", "say what the node offers"))?;
    let spec = NodeSpec::try_from(spec)?;
    let inventory = register.inventory.unwrap_or_default();
    Ok(Hello {
        spec: Arc::new(spec),
        incarnation: register.incarnation,
        cluster_id: register.cluster_id,
        inventory: AgentReport::try_from(inventory)?,
    })
}

/// Reads what one agent says until its stream ends.
struct Reader {
    shared: Shared,
    node: String,
    session: u64,
}

impl Reader {
    async fn run(self, mut messages: Streaming<v1::AgentMessage>) {
        let why = loop {
            let kind = match messages.message().await {
                Ok(Some(message)) => message.kind,
                Ok(None) => break "the agent closed it".to_owned(),
                Err(status) => break status.message().to_owned(),
            };
            match kind {
                Some(Kind::Report(report)) => match AgentReport::try_from(report) {
                    Ok(report) => {
                        let session = self.session;
                        if !self
                            .shared
                            .inbox
                            .send(Message::Input(Input::AgentReport { session, report }))
                            .await
                        {
                            break "this master stops".to_owned();
                        }
                    }
                    Err(error) => break format!("malformed report: {error}"),
                },
                Some(Kind::Log(data)) => {
                    self.shared
                        .sessions
                        .on_log_data(&self.node, self.session, data)
                }
                Some(Kind::Register(_)) => break "it registered twice".to_owned(),
                // A kind that this master does not know yet.
                None => warn!(node = self.node, "an agent said something unknown"),
            }
        };
        info!(
            node = self.node,
            session = self.session,
            why,
            "an agent's stream ended"
        );
        self.shared.sessions.remove(&self.node, self.session);
        let session = self.session;
        self.shared
            .inbox
            .send(Message::Input(Input::AgentGone { session }))
            .await;
    }
}
