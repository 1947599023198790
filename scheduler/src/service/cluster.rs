//! `berth.v1.Cluster`.

use berth_proto::v1::cluster_client::ClusterClient;
use berth_proto::{CHUNK_BYTES, channel, to_status, v1};
use berth_types::{ApiError, Fault};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Answers, backup, no_leader, passed_on};
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
        let address = &request.get_ref().address;
        if !self.0.dialler.is_tls() && !channel::is_loopback(address) {
            let what = format!("`{address}` is not a loopback address");
            let fault = Fault::new("address", what, channel::NEEDS_TLS);
            return Err(to_status(&ApiError::faults(
                "MALFORMED_REQUEST",
                vec![fault],
            )));
        }
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
            let channel = self.0.dialler.lazy(&leader.address);
            let channel = channel.map_err(|_| no_leader())?;
            let mut client = ClusterClient::new(channel).max_decoding_message_size(2 * CHUNK_BYTES);
            let stream = client.snapshot(passed_on(v1::SnapshotRequest {})).await?;
            return Ok(Response::new(Box::pin(stream.into_inner())));
        }
        let chunks = backup::backup(&self.0).await.map_err(|e| to_status(&e))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(chunks))))
    }

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<v1::EventsResponse>, Status> {
        self.0.serve(request.into_inner()).await
    }
}
