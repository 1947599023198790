//! The gRPC services: decode, ask the replica, encode.

pub(crate) mod access;
mod agents;
mod backup;
mod cluster;
mod jobs;
mod logs;
mod nodes;
mod peers;
mod security;
mod watch;

use std::pin::Pin;

use berth_proto::v1::agents_server::AgentsServer;
use berth_proto::v1::cluster_server::ClusterServer;
use berth_proto::v1::jobs_client::JobsClient;
use berth_proto::v1::jobs_server::JobsServer;
use berth_proto::v1::nodes_server::NodesServer;
use berth_proto::v1::peers_server::PeersServer;
use berth_proto::v1::security_server::SecurityServer;
use berth_proto::{DecodeError, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, to_status};
use berth_tls::Leaf;
use berth_types::api::{ApiError, ErrorKind, MasterInfo, Request, Response as Answer};
use berth_types::{JobId, Role};
use futures_util::Stream;
use tonic::service::Routes;
use tonic::{Response, Status};

use crate::shared::Shared;

/// Largest message from somebody without a certificate.
const MAX_JOIN_BYTES: usize = 16 * 1024;

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Marks a call that another master passed on as it is, so that it is not passed on for ever.
const PASSED_ON: &str = "berth-passed-on";

/// All services of `berth.v1`.
pub(crate) fn routes(shared: &Shared) -> Routes {
    let agents = AgentsServer::new(agents::Agents(shared.clone()));
    let cluster = ClusterServer::new(cluster::Cluster(shared.clone()));
    let jobs = JobsServer::new(jobs::Jobs(shared.clone()));
    let nodes = NodesServer::new(nodes::Nodes(shared.clone()));
    let peers = PeersServer::new(peers::Peers(shared.clone()));
    let security = SecurityServer::new(security::Security(shared.clone()));
    // An agent's inventory grows with its tasks, and a frame holds many messages.
    Routes::new(jobs.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(nodes.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(cluster.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(agents.max_decoding_message_size(MAX_ANSWER_BYTES))
        .add_service(peers.max_decoding_message_size(MAX_ANSWER_BYTES))
        .add_service(security.max_decoding_message_size(MAX_JOIN_BYTES))
}

impl Shared {
    /// Decodes a call, asks the replica, and encodes its answer.
    async fn serve<W, A>(&self, wire: W) -> Result<Response<A>, Status>
    where
        Request: TryFrom<W, Error = DecodeError>,
        A: TryFrom<berth_types::Response, Error = ApiError>,
    {
        let request = Request::try_from(wire)?;
        let response = self.call(request).await.map_err(|e| to_status(&e))?;
        A::try_from(response)
            .map(Response::new)
            .map_err(|e| to_status(&e))
    }

    /// Refuses a submitter that means somebody else's job.
    async fn check_owner(
        &self,
        caller: Option<&Leaf>,
        job: JobId,
        verb: &str,
    ) -> Result<(), Status> {
        let Some(leaf) = caller.filter(|leaf| leaf.identity.role == Role::Submitter) else {
            return Ok(());
        };
        let name = &leaf.identity.name;
        match self.call(Request::GetJob { job }).await {
            Ok(Answer::Job(view)) if view.spec.user == *name => Ok(()),
            Ok(Answer::Job(view)) => {
                let owner = &view.spec.user;
                let message = format!("job {job} is {owner}'s: {name} may not {verb}");
                let hint = format!("ask {owner} or an admin");
                Err(to_status(&access::denied("NOT_OWNER", message, hint)))
            }
            Ok(Answer::Error(error)) | Err(error) => Err(to_status(&error)),
            Ok(_) => Err(Status::internal("the answer does not belong to the call")),
        }
    }

    /// Where the leader listens, if it is another master.
    fn leader_elsewhere(&self) -> Option<MasterInfo> {
        let leader = self.leader.borrow();
        let (_, info) = leader.known.as_ref().filter(|(id, _)| *id != self.id)?;
        (!info.address.is_empty()).then(|| info.clone())
    }

    /// Where a call that only the leader can answer is to be passed on to; `None` if it is to be answered here.
    fn pass_on_to<T>(&self, request: &tonic::Request<T>) -> Result<Option<MasterInfo>, Status> {
        if self.leader.borrow().is_self {
            return Ok(None);
        }
        match self.leader_elsewhere() {
            Some(info) if request.metadata().get(PASSED_ON).is_none() => Ok(Some(info)),
            _ => Err(no_leader()),
        }
    }
}

fn no_leader() -> Status {
    to_status(&ApiError::new(
        ErrorKind::Unavailable,
        "NO_LEADER",
        "no leader is known here at the moment",
        "try again in a second",
    ))
}

/// `message`, marked as passed on.
fn passed_on<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let mark = tonic::metadata::MetadataValue::from_static("1");
    request.metadata_mut().insert(PASSED_ON, mark);
    request
}

fn jobs_at(
    shared: &Shared,
    leader: &MasterInfo,
) -> Result<JobsClient<tonic::transport::Channel>, Status> {
    let channel = shared.dialler.lazy(&leader.address);
    let channel = channel.map_err(|_| no_leader())?;
    Ok(JobsClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
}
