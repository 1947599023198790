//! Output of tasks: read by the node's agent, relayed by the leader, passed on by other masters.

use berth_proto::v1::master_message::Kind;
use berth_proto::{convert, to_status, v1};
use berth_types::api::{ApiError, ErrorKind, Request as Call, Response as Answer};
use berth_types::{Epoch, JobId, Rank, TaskKey};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tonic::{Request, Status};

use super::access::caller;
use super::{Answers, jobs_at, passed_on};
use crate::sessions::{Sessions, ToAgent, WeakOutbox};
use crate::shared::Shared;

/// Data that may be on its way from the agent to a reader.
const WINDOW_BYTES: u64 = 256 * 1024;
/// Credit is given back in steps, not for every chunk.
const CREDIT_STEP_BYTES: u64 = WINDOW_BYTES / 4;

pub(super) async fn logs(
    shared: &Shared,
    request: Request<v1::LogsRequest>,
) -> Result<Answers<v1::LogChunk>, Status> {
    let call = Call::try_from(request.get_ref())?;
    let caller = caller(&request);
    let job = JobId(request.get_ref().job);
    shared
        .check_owner(caller.as_deref(), job, "read its output")
        .await?;
    if let Some(leader) = shared.pass_on_to(&request)? {
        let stream = jobs_at(shared, &leader)?
            .logs(passed_on(request.into_inner()))
            .await?;
        return Ok(Box::pin(stream.into_inner()));
    }
    let (epoch, node, source) = match shared.call(call).await {
        Ok(Answer::Logs {
            node,
            node_name,
            epoch,
            live,
        }) => {
            let source = v1::LogSource {
                attempt: epoch.0,
                node: node.0,
                node_name: node_name.clone(),
                live,
            };
            (epoch, node_name, source)
        }
        Ok(Answer::Error(error)) | Err(error) => return Err(to_status(&error)),
        Ok(_) => return Err(Status::internal("the answer does not belong to the call")),
    };
    let relay = Relay::open(shared, &node, &request.into_inner(), epoch)?;
    let first = v1::LogChunk {
        source: Some(source),
        ..v1::LogChunk::default()
    };
    let rest = stream::unfold(Some(relay), |relay| async {
        let mut relay = relay?;
        match relay.next().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(relay))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(Box::pin(stream::iter([Ok(first)]).chain(rest)))
}

fn node_unreachable(node: &str, message: String) -> Status {
    let hint = format!(
        "look at `berth nodes`; the output is on {node} and can be read once its agent is back"
    );
    to_status(&ApiError::new(
        ErrorKind::Unavailable,
        "NODE_UNREACHABLE",
        message,
        hint,
    ))
}

/// One reader of one task's output.
struct Relay {
    sessions: Sessions,
    node: String,
    request: u64,
    outbox: WeakOutbox,
    data: mpsc::UnboundedReceiver<v1::LogData>,
    /// What the agent may still send, and what the reader has taken since credit was last given.
    credit_bytes: u64,
    taken_bytes: u64,
    done: bool,
}

impl Relay {
    fn open(
        shared: &Shared,
        node: &str,
        request: &v1::LogsRequest,
        epoch: Epoch,
    ) -> Result<Self, Status> {
        let stream = convert::log_stream(request.stream)?;
        let id = shared.sessions.next_id();
        let (outbox, data) = shared
            .sessions
            .open_log(node, id)
            .ok_or_else(|| node_unreachable(node, format!("node {node} is not connected")))?;
        let key = TaskKey {
            job: JobId(request.job),
            epoch,
            rank: Rank(request.rank),
        };
        let read = v1::ReadLog {
            request_id: id,
            key: Some((&key).into()),
            stream: stream.into(),
            follow: request.follow,
            tail_bytes: request.tail_bytes,
            offset: request.offset,
            credit_bytes: WINDOW_BYTES,
        };
        let relay = Self {
            sessions: shared.sessions.clone(),
            node: node.to_owned(),
            request: id,
            outbox,
            data,
            credit_bytes: WINDOW_BYTES,
            taken_bytes: 0,
            done: false,
        };
        if relay.tell(Kind::ReadLog(read)) {
            return Ok(relay);
        }
        let message = format!("node {node} does not keep up");
        Err(node_unreachable(node, message))
    }

    async fn next(&mut self) -> Result<Option<v1::LogChunk>, Status> {
        if self.done {
            return Ok(None);
        }
        let Some(data) = self.data.recv().await else {
            let message = format!("the connection to node {} is gone", self.node);
            return Err(node_unreachable(&self.node, message));
        };
        if !data.error.is_empty() {
            let hint =
                "the files are kept in the agent's data directory until the job is forgotten";
            let error = ApiError::new(ErrorKind::NotFound, "LOG_UNREADABLE", data.error, hint);
            return Err(to_status(&error));
        }
        let bytes = data.data.len() as u64;
        if bytes > self.credit_bytes {
            return Err(Status::internal(
                "the agent sent more than it was allowed to",
            ));
        }
        self.credit_bytes -= bytes;
        self.taken_bytes += bytes;
        self.done = data.eof;
        if !self.done && self.taken_bytes >= CREDIT_STEP_BYTES {
            self.give_credit().await?;
        }
        if self.done && bytes == 0 {
            return Ok(None);
        }
        Ok(Some(v1::LogChunk {
            stream: data.stream,
            offset: data.offset,
            data: data.data,
            source: None,
        }))
    }

    async fn give_credit(&mut self) -> Result<(), Status> {
        let bytes = std::mem::take(&mut self.taken_bytes);
        self.credit_bytes += bytes;
        let request_id = self.request;
        let credit = Kind::LogCredit(v1::LogCredit { request_id, bytes });
        let outbox = self.outbox.upgrade();
        let sent = match &outbox {
            Some(outbox) => outbox.send(ToAgent::Log(credit)).await.is_ok(),
            None => false,
        };
        sent.then_some(()).ok_or_else(|| {
            let message = format!("the connection to node {} is gone", self.node);
            node_unreachable(&self.node, message)
        })
    }

    /// Says it to the agent, if there is room at once.
    fn tell(&self, kind: Kind) -> bool {
        let outbox = self.outbox.upgrade();
        outbox.is_some_and(|outbox| outbox.try_send(ToAgent::Log(kind)).is_ok())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.sessions.close_log(&self.node, self.request);
        if !self.done {
            let request_id = self.request;
            // An agent that does not hear it runs out of credit.
            self.tell(Kind::CloseLog(v1::CloseLog { request_id }));
        }
    }
}
