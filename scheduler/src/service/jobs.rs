//! `berth.v1.Jobs`.

use std::sync::Arc;

use berth_proto::{to_status, v1};
use berth_types::api::Request as Call;
use berth_types::{ApiError, JobId};
use tonic::{Request, Response, Status};

use super::access::caller;
use super::{Answers, logs, watch};
use crate::shared::Shared;

pub(super) struct Jobs(pub(super) Shared);

#[tonic::async_trait]
impl v1::jobs_server::Jobs for Jobs {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let caller = caller(&request);
        let mut call = Call::try_from(request.into_inner())?;
        if let (Call::Submit { spec, .. }, Some(leaf)) = (&mut call, caller) {
            // Whoever a certificate names, and not whoever the job says.
            Arc::make_mut(spec).user.clone_from(&leaf.identity.name);
        }
        // Checked here, on the caller's thread, so that the event loop hears of sound jobs only.
        if let Call::Submit { spec, .. } = &call {
            let mut faults = spec.faults();
            if !faults.is_empty() {
                faults
                    .iter_mut()
                    .for_each(|f| f.field = format!("spec.{}", f.field));
                return Err(to_status(&ApiError::faults("INVALID_JOB", faults)));
            }
        }
        let answer = self.0.call(call).await.map_err(|e| to_status(&e))?;
        let answer = v1::SubmitResponse::try_from(answer).map_err(|e| to_status(&e))?;
        Ok(Response::new(answer))
    }

    async fn get(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        self.0.serve(request.into_inner()).await
    }

    async fn list(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        self.0.serve(request.into_inner()).await
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        let caller = caller(&request);
        let mut request = request.into_inner();
        let job = JobId(request.job);
        self.0
            .check_owner(caller.as_deref(), job, "cancel it")
            .await?;
        if let Some(leaf) = caller {
            request.user.clone_from(&leaf.identity.name);
        }
        self.0.serve(request).await
    }

    async fn why(
        &self,
        request: Request<v1::WhyRequest>,
    ) -> Result<Response<v1::WhyResponse>, Status> {
        self.0.serve(request.into_inner()).await
    }

    type WatchStream = Answers<v1::Event>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(watch::watch(
            self.0.clone(),
            request.into_inner(),
        )))
    }

    type LogsStream = Answers<v1::LogChunk>;

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        logs::logs(&self.0, request).await.map(Response::new)
    }
}
