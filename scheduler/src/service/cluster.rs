//! `berth.v1.Cluster`.

use berth_proto::v1::cluster_client::ClusterClient;
use berth_proto::{CHUNK_BYTES, to_status, v1};
use berth_types::api::{ApiError, ErrorKind, Request as Call, Response as Answer};
use bytes::Bytes;
use tonic::{Request, Response, Status};

use super::{Answers, no_leader, passed_on};
use crate::shared::Shared;

pub(super) struct Cluster(pub(super) Shared);

#[tonic::async_trait]
impl v1::cluster_server::Cluster for Cluster {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        self.0.serve(request.into_inner()).await
    }

    async fn members(
        &self,
        request: Request<v1::MembersRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        self.0.serve(request.into_inner()).await
    }

    async fn add_master(
        &self,
        request: Request<v1::AddMasterRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.0.serve(request.into_inner()).await
    }

    async fn remove_master(
        &self,
        request: Request<v1::RemoveMasterRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.0.serve(request.into_inner()).await
    }

    type SnapshotStream = Answers<v1::SnapshotChunk>;

    /// Too large to travel as a forwarded call, so the stream itself is passed on.
    async fn snapshot(
        &self,
        request: Request<v1::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        if let Some(leader) = self.0.pass_on_to(&request)? {
            let channel = berth_proto::connect(&leader.address).map_err(|_| no_leader())?;
            let mut client = ClusterClient::new(channel).max_decoding_message_size(2 * CHUNK_BYTES);
            let stream = client.snapshot(passed_on(v1::SnapshotRequest {})).await?;
            return Ok(Response::new(Box::pin(stream.into_inner())));
        }
        match self.0.call(Call::Snapshot).await {
            Ok(Answer::Snapshot { index, data }) => Ok(Response::new(Box::pin(
                tokio_stream::iter(chunks(index, data.into())),
            ))),
            Ok(Answer::Error(error)) | Err(error) => Err(to_status(&error)),
            Ok(_) => Err(to_status(&ApiError::new(
                ErrorKind::Internal,
                "UNEXPECTED_ANSWER",
                "the answer does not belong to the call",
                "look into the master's log",
            ))),
        }
    }

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<v1::EventsResponse>, Status> {
        self.0.serve(request.into_inner()).await
    }
}

fn chunks(
    index: u64,
    mut data: Bytes,
) -> impl Iterator<Item = Result<v1::SnapshotChunk, Status>> + Send {
    let total_bytes = data.len() as u64;
    let mut first = true;
    std::iter::from_fn(move || {
        let n = data.len().min(CHUNK_BYTES);
        let due = std::mem::take(&mut first) || n > 0;
        due.then(|| {
            Ok(v1::SnapshotChunk {
                index,
                total_bytes,
                data: data.split_to(n),
            })
        })
    })
}
