//! Calls to whichever master answers.
//!
//! Every call here may be repeated: reads change nothing, a submission carries its key, and the others say what is to
//! hold afterwards. So a call that got no answer is simply made again, at the next master.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::time::{Duration, Instant};

use berth_proto::v1;
use berth_proto::v1::cluster_client::ClusterClient;
use berth_proto::v1::jobs_client::JobsClient;
use berth_proto::v1::nodes_client::NodesClient;
use berth_proto::v1::security_client::SecurityClient;
use berth_proto::{MAX_ANSWER_BYTES, channel, from_status};
use berth_tls::Dialler;
use berth_types::{
    CertificateView, ErrorKind, Event, Identity, JobFilter, JobId, JobSpec, JobView, MasterView,
    NodeView, StatusView, WhyView,
};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::failure::Failure;

/// How long one master may take before the next is asked.
const ONE_TRY: Duration = Duration::from_secs(6);
/// How long a cluster of which no process answers at all is taken for one that is just starting.
const NOBODY_THERE: Duration = Duration::from_secs(3);
/// First and longest pause after all masters were tried in vain.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));

/// A client of one cluster. For one thread.
pub(crate) struct Client {
    addresses: Vec<String>,
    dialler: Dialler,
    channels: RefCell<Vec<Option<Channel>>>,
    /// The master that answered last.
    current: Cell<usize>,
    patience: Duration,
}

impl Client {
    /// A client that dials on first use. A call gives up after `patience`.
    pub(crate) fn new(addresses: Vec<String>, patience: Duration) -> Self {
        Self {
            channels: RefCell::new(vec![None; addresses.len()]),
            addresses,
            dialler: Dialler::plain(),
            current: Cell::new(0),
            patience,
        }
    }

    /// The same with a certificate.
    pub(crate) fn with(mut self, dialler: Dialler) -> Self {
        self.dialler = dialler;
        self
    }

    /// A master on another host, if there is one.
    pub(crate) fn elsewhere(&self) -> Option<&str> {
        let other = self.addresses.iter().find(|a| !channel::is_loopback(a));
        other.map(String::as_str)
    }

    fn channel(&self, index: usize) -> Result<Channel, Failure> {
        let mut channels = self.channels.borrow_mut();
        if let Some(channel) = &channels[index] {
            return Ok(channel.clone());
        }
        let address = &self.addresses[index];
        let channel = self.dialler.lazy(address).map_err(|e| {
            Failure::usage(format!("`{address}` is no address: {e}"), "give host:port")
        })?;
        channels[index] = Some(channel.clone());
        Ok(channel)
    }

    /// Makes a call at one master after the other until one answers.
    async fn call<T, F>(&self, mut make: impl FnMut(Channel) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let start = Instant::now();
        let mut pause = PAUSE.0;
        // A master that says that it cannot answer now is a sign of life.
        let mut alive = false;
        loop {
            let mut last = String::new();
            let mut refusal = None;
            for _ in 0..self.addresses.len() {
                let channel = self.channel(self.current.get())?;
                match tokio::time::timeout(ONE_TRY, make(channel)).await {
                    Ok(Ok(answer)) => return Ok(answer.into_inner()),
                    Ok(Err(status)) => {
                        let error = from_status(&status);
                        if error.kind != ErrorKind::Unavailable {
                            return Err(error.into());
                        }
                        last = error.message.clone();
                        if !status.details().is_empty() {
                            alive = true;
                            refusal = Some(error);
                        }
                    }
                    Err(_) => {
                        alive = true;
                        last = format!("no answer within {} s", ONE_TRY.as_secs());
                    }
                }
                self.current
                    .set((self.current.get() + 1) % self.addresses.len());
            }
            let limit = if alive {
                self.patience
            } else {
                self.patience.min(NOBODY_THERE)
            };
            if start.elapsed() + pause > limit {
                let addresses = self.addresses.clone();
                return Err(refusal.map_or(Failure::Unreachable { addresses, last }, Failure::from));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Submits a job under a key; repeating it makes no second job. Returns its id, and whether it was there already.
    pub(crate) async fn submit(
        &self,
        key: uuid::Uuid,
        spec: &JobSpec,
    ) -> Result<(JobId, bool), Failure> {
        let request = v1::SubmitRequest::new(key.as_u128(), spec);
        let answer = self.call(|c| {
            let request = request.clone();
            async move { jobs(c).submit(request).await }
        });
        let answer = answer.await?;
        Ok((JobId(answer.job), answer.duplicate))
    }

    /// One job.
    pub(crate) async fn job(&self, id: JobId) -> Result<JobView, Failure> {
        let call = self.call(|c| async move { jobs(c).get(v1::GetJobRequest { job: id.0 }).await });
        Ok(JobView::try_from(call.await?)?)
    }

    /// A page of jobs, and the token of the next one.
    pub(crate) async fn list(
        &self,
        filter: &JobFilter,
    ) -> Result<(Vec<JobView>, Option<u64>), Failure> {
        let request = v1::ListJobsRequest::from(filter);
        let answer = self.call(|c| {
            let request = request.clone();
            async move { jobs(c).list(request).await }
        });
        let answer = answer.await?;
        let views = answer.jobs.into_iter().map(JobView::try_from);
        Ok((views.collect::<Result<_, _>>()?, answer.next_page_token))
    }

    /// Cancels a job; returns a sentence for people.
    pub(crate) async fn cancel(&self, id: JobId, user: &str) -> Result<String, Failure> {
        let request = v1::CancelJobRequest {
            job: id.0,
            user: user.to_owned(),
        };
        let call = self.call(|c| {
            let request = request.clone();
            async move { jobs(c).cancel(request).await }
        });
        Ok(call.await?.text)
    }

    /// Why a job waits.
    pub(crate) async fn why(&self, id: JobId) -> Result<WhyView, Failure> {
        let call = self.call(|c| async move { jobs(c).why(v1::WhyRequest { job: id.0 }).await });
        Ok(WhyView::try_from(call.await?)?)
    }

    /// Events from a sequence number on (0: from now on), then as they happen.
    pub(crate) async fn watch(
        &self,
        from_seq: u64,
        job: Option<JobId>,
    ) -> Result<Streaming<v1::Event>, Failure> {
        let request = v1::WatchRequest {
            from_seq,
            job: job.map(|j| j.0),
        };
        self.call(|c| async move { jobs(c).watch(request).await })
            .await
    }

    /// Output of a task.
    pub(crate) async fn logs(
        &self,
        request: &v1::LogsRequest,
    ) -> Result<Streaming<v1::LogChunk>, Failure> {
        let call = self.call(|c| {
            let request = *request;
            async move { jobs(c).logs(request).await }
        });
        call.await
    }

    /// All nodes.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeView>, Failure> {
        let call = self.call(|c| async move { nodes(c).list(v1::ListNodesRequest {}).await });
        let views = call.await?.nodes.into_iter().map(NodeView::try_from);
        let mut nodes: Vec<NodeView> = views.collect::<Result<_, _>>()?;
        nodes.sort_by(|a, b| natural(&a.spec.name).cmp(&natural(&b.spec.name)));
        Ok(nodes)
    }

    /// Takes a node out of service.
    pub(crate) async fn drain(
        &self,
        name: &str,
        reason: &str,
        evict: bool,
    ) -> Result<String, Failure> {
        let request = v1::DrainRequest {
            name: name.to_owned(),
            reason: reason.to_owned(),
            evict,
        };
        let call = self.call(|c| {
            let request = request.clone();
            async move { nodes(c).drain(request).await }
        });
        Ok(call.await?.text)
    }

    /// Puts a node back into service.
    pub(crate) async fn undrain(&self, name: &str) -> Result<String, Failure> {
        let request = v1::UndrainRequest {
            name: name.to_owned(),
        };
        let call = self.call(|c| {
            let request = request.clone();
            async move { nodes(c).undrain(request).await }
        });
        Ok(call.await?.text)
    }

    /// Says that a lost node is not running anything.
    pub(crate) async fn fence(&self, name: &str) -> Result<String, Failure> {
        let request = v1::FenceRequest {
            name: name.to_owned(),
        };
        let call = self.call(|c| {
            let request = request.clone();
            async move { nodes(c).fence(request).await }
        });
        Ok(call.await?.text)
    }

    /// Takes a node, or one of its GPUs, out of service.
    pub(crate) async fn quarantine(
        &self,
        name: &str,
        gpu: Option<String>,
        reason: &str,
    ) -> Result<String, Failure> {
        let request = v1::QuarantineRequest {
            name: name.to_owned(),
            gpu,
            reason: reason.to_owned(),
        };
        let call = self.call(|c| {
            let request = request.clone();
            async move { nodes(c).quarantine(request).await }
        });
        Ok(call.await?.text)
    }

    /// Has a node, or one of its GPUs, tested and used again.
    pub(crate) async fn put_back(
        &self,
        name: &str,
        gpu: Option<String>,
    ) -> Result<String, Failure> {
        let request = v1::ReturnRequest {
            name: name.to_owned(),
            gpu,
        };
        let call = self.call(|c| {
            let request = request.clone();
            async move { nodes(c).r#return(request).await }
        });
        Ok(call.await?.text)
    }

    /// The cluster at a glance.
    pub(crate) async fn status(&self) -> Result<StatusView, Failure> {
        let call = self.call(|c| async move { cluster(c).status(v1::StatusRequest {}).await });
        Ok(StatusView::try_from(call.await?)?)
    }

    /// All masters.
    pub(crate) async fn masters(&self) -> Result<Vec<MasterView>, Failure> {
        let call = self.call(|c| async move { cluster(c).members(v1::MembersRequest {}).await });
        let views = call.await?.masters.into_iter().map(MasterView::try_from);
        Ok(views.collect::<Result<_, _>>()?)
    }

    /// Lets a master join.
    pub(crate) async fn add_master(
        &self,
        id: u64,
        address: &str,
        replaces: Option<u64>,
    ) -> Result<String, Failure> {
        let request = v1::AddMasterRequest {
            id,
            address: address.to_owned(),
            replaces,
        };
        let call = self.call(|c| {
            let request = request.clone();
            async move { cluster(c).add_master(request).await }
        });
        Ok(call.await?.text)
    }

    /// Removes a master.
    pub(crate) async fn remove_master(&self, id: u64) -> Result<String, Failure> {
        let request = v1::RemoveMasterRequest { id };
        let call = self.call(|c| async move { cluster(c).remove_master(request).await });
        Ok(call.await?.text)
    }

    /// Makes a join token.
    pub(crate) async fn create_token(
        &self,
        request: v1::CreateTokenRequest,
    ) -> Result<v1::CreateTokenResponse, Failure> {
        self.call(|c| {
            let request = request.clone();
            async move { SecurityClient::new(c).create_token(request).await }
        })
        .await
    }

    /// Certificates on record.
    pub(crate) async fn certificates(&self) -> Result<Vec<CertificateView>, Failure> {
        let request = v1::ListCertificatesRequest {};
        let call = self.call(|c| async move {
            let client = SecurityClient::new(c).max_decoding_message_size(MAX_ANSWER_BYTES);
            { client }.list_certificates(request).await
        });
        Ok(Vec::try_from(call.await?)?)
    }

    /// Voids every certificate of somebody.
    pub(crate) async fn revoke(&self, identity: &Identity) -> Result<String, Failure> {
        let request = v1::RevokeRequest {
            role: v1::Role::from(identity.role).into(),
            name: identity.name.clone(),
        };
        let call = self.call(|c| {
            let request = request.clone();
            async move { SecurityClient::new(c).revoke(request).await }
        });
        Ok(call.await?.text)
    }

    /// The replicated state, in chunks.
    pub(crate) async fn snapshot(&self) -> Result<Streaming<v1::SnapshotChunk>, Failure> {
        self.call(|c| async move { cluster(c).snapshot(v1::SnapshotRequest {}).await })
            .await
    }

    /// A page of events, and the number to ask for next.
    pub(crate) async fn events(
        &self,
        since_seq: u64,
        limit: u32,
    ) -> Result<(Vec<Event>, u64), Failure> {
        let request = v1::EventsRequest { since_seq, limit };
        let answer = self
            .call(|c| async move { cluster(c).events(request).await })
            .await?;
        let events = answer.events.into_iter().map(Event::try_from);
        Ok((events.collect::<Result<_, _>>()?, answer.next_seq))
    }
}

/// Orders `n2` before `n10`.
fn natural(name: &str) -> (&str, u64, &str) {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (prefix, name[prefix.len()..].parse().unwrap_or(0), name)
}

fn jobs(channel: Channel) -> JobsClient<Channel> {
    JobsClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

fn nodes(channel: Channel) -> NodesClient<Channel> {
    NodesClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}
