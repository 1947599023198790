//! `berth.v1.Peers`: what other masters say to this one.

use berth_core::Input;
use berth_core::replica::PeerMessage;
use berth_proto::{CHUNK_BYTES, to_status, v1};
use berth_tls::Leaf;
use berth_types::MasterId;
use berth_types::api::{ApiError, ErrorKind};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

use super::Answers;
use super::access::caller;
use crate::inbox::Message;
use crate::shared::Shared;

/// Largest message in chunks: a snapshot of a state far beyond the design point.
const MAX_LARGE_BYTES: u64 = 1 << 30;
/// Most history records in one answer.
const MAX_RECORDS: usize = 1_000;

pub(super) struct Peers(pub(super) Shared);

#[tonic::async_trait]
impl v1::peers_server::Peers for Peers {
    type StreamStream = Answers<v1::PeerAck>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::PeerFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let shared = self.0.clone();
        let caller = caller(&request);
        // The answer yields nothing but its end: reading is driven by the connection itself, without a task.
        let answers = stream::once(async move {
            let failure = read(&shared, caller.as_deref(), request.into_inner()).await;
            Err(failure)
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn snapshot_install(
        &self,
        request: Request<Streaming<v1::SnapshotInstallChunk>>,
    ) -> Result<Response<v1::PeerAck>, Status> {
        let caller = caller(&request);
        let mut chunks = request.into_inner();
        let mut data = BytesMut::new();
        let mut about = None;
        let mut told = String::new();
        while let Some(chunk) = chunks.message().await? {
            let from = self
                .0
                .check_peer(caller.as_deref(), chunk.from, chunk.to, chunk.cluster_id)
                .map_err(|e| to_status(&e))?;
            hear_address(&self.0, from, chunk.address, &mut told).await?;
            if chunk.total_bytes > MAX_LARGE_BYTES
                || data.len() as u64 + chunk.data.len() as u64 > chunk.total_bytes
            {
                return Err(too_large(chunk.total_bytes));
            }
            data.extend_from_slice(&chunk.data);
            about = Some((from, chunk.total_bytes));
        }
        let Some((from, _)) = about.filter(|(_, total)| *total == data.len() as u64) else {
            return Err(Status::invalid_argument("the message is incomplete"));
        };
        deliver(&self.0, from, data.freeze()).await?;
        Ok(Response::new(v1::PeerAck {}))
    }

    async fn fetch_history(
        &self,
        request: Request<v1::FetchHistoryRequest>,
    ) -> Result<Response<v1::FetchHistoryResponse>, Status> {
        let request = request.into_inner();
        let Some(store) = self.0.history.upgrade() else {
            return Err(Status::unavailable("this master is stopping"));
        };
        let limit = (request.limit as usize).clamp(1, MAX_RECORDS);
        let read =
            tokio::task::spawn_blocking(move || store.scan(request.from_seq, limit, false)).await;
        let found = read
            .map_err(|e| Status::internal(e.to_string()))?
            .map_err(|e| Status::internal(crate::storage::chain(&e)))?;
        let mut bytes = 0;
        let records = found
            .into_iter()
            .take_while(|(_, _, data)| {
                let first = bytes == 0;
                bytes += data.len();
                first || bytes <= CHUNK_BYTES
            })
            .map(|(seq, job, data)| v1::HistoryRecord { seq, job, data })
            .collect();
        Ok(Response::new(v1::FetchHistoryResponse { records }))
    }
}

fn too_large(bytes: u64) -> Status {
    let message = format!("a message of {bytes} bytes");
    let hint = format!("at most {MAX_LARGE_BYTES}");
    to_status(&ApiError::new(
        ErrorKind::ResourceExhausted,
        "MESSAGE_TOO_LARGE",
        message,
        hint,
    ))
}

/// Reads frames until the stream ends; says why.
async fn read(
    shared: &Shared,
    caller: Option<&Leaf>,
    mut frames: Streaming<v1::PeerFrame>,
) -> Status {
    let mut told = String::new();
    loop {
        let frame = match frames.message().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Status::unavailable("the stream has ended"),
            Err(status) => return status,
        };
        let from = match shared.check_peer(caller, frame.from, frame.to, frame.cluster_id) {
            Ok(from) => from,
            Err(error) => return to_status(&error),
        };
        if let Err(status) = hear_address(shared, from, frame.address, &mut told).await {
            return status;
        }
        for message in frame.messages {
            if let Err(status) = deliver(shared, from, message).await {
                return status;
            }
        }
    }
}

/// Tells the event loop where `from` listens, unless this stream has said so already. Goes before the messages that come
/// with it, so that they can be answered.
async fn hear_address(
    shared: &Shared,
    from: MasterId,
    address: String,
    told: &mut String,
) -> Result<(), Status> {
    if address == *told {
        return Ok(());
    }
    told.clone_from(&address);
    let message = Message::PeerListens { from, address };
    if shared.inbox.send(message).await {
        Ok(())
    } else {
        Err(Status::unavailable("this master is stopping"))
    }
}

async fn deliver(shared: &Shared, from: MasterId, message: Bytes) -> Result<(), Status> {
    let message = match PeerMessage::decode(message) {
        Ok(message) => message,
        Err(error) => {
            warn!(master = %from, %error, "a master said something that cannot be read");
            return Err(Status::invalid_argument(error.to_string()));
        }
    };
    if shared
        .inbox
        .send(Message::Input(Input::Peer { from, message }))
        .await
    {
        Ok(())
    } else {
        Err(Status::unavailable("this master is stopping"))
    }
}
