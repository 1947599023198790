//! `berth.v1.Nodes`.

use berth_proto::v1;
use tonic::{Request, Response, Status};

use crate::shared::Shared;

pub(super) struct Nodes(pub(super) Shared);

#[tonic::async_trait]
impl v1::nodes_server::Nodes for Nodes {
    async fn list(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        self.0.serve(request.into_inner()).await
    }

    async fn get(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        self.0.serve(request.into_inner()).await
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.0.serve(request.into_inner()).await
    }

    async fn undrain(
        &self,
        request: Request<v1::UndrainRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.0.serve(request.into_inner()).await
    }

    async fn fence(
        &self,
        request: Request<v1::FenceRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.0.serve(request.into_inner()).await
    }

    async fn quarantine(
        &self,
        request: Request<v1::QuarantineRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.0.serve(request.into_inner()).await
    }

    async fn r#return(
        &self,
        request: Request<v1::ReturnRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.0.serve(request.into_inner()).await
    }
}
