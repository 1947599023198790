//! A gRPC client of the whole cluster: tries every master in turn, and repeats with the same key until a deadline.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use berth_proto::v1::cluster_client::ClusterClient;
use berth_proto::v1::jobs_client::JobsClient;
use berth_proto::v1::nodes_client::NodesClient;
use berth_proto::{connect, v1};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::wait;

/// How long one try may take.
pub const TRY: Duration = Duration::from_secs(2);
/// How long a call is repeated before it counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Channels to all masters.
#[derive(Debug)]
pub struct Client {
    channels: Vec<Channel>,
    /// Which master answered last.
    good: AtomicUsize,
}

impl Client {
    /// A client of the masters at these addresses. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If one is no `host:port`.
    pub fn new(addresses: &[String]) -> anyhow::Result<Self> {
        let channels: Result<Vec<Channel>, _> = addresses.iter().map(|a| connect(a)).collect();
        Ok(Self {
            channels: channels.context("a master's address is wrong")?,
            good: AtomicUsize::new(0),
        })
    }

    /// A channel to the master at this place of the list, for a call that must not go elsewhere.
    pub fn channel(&self, at: usize) -> Channel {
        self.channels[at % self.channels.len()].clone()
    }

    /// Repeats a call, at one master after the other, while it fails for a cause that passes.
    ///
    /// # Errors
    /// The answer of a master that will not change, or that of the last try after [`PATIENCE`].
    pub async fn call<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let until = Instant::now() + PATIENCE;
        let mut at = self.good.load(Ordering::Relaxed);
        loop {
            let answer = tokio::time::timeout(TRY, call(self.channel(at))).await;
            let failed = match answer {
                Ok(Ok(answer)) => {
                    self.good.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(status)) if !passes(&status) => return Err(status),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            if Instant::now() >= until {
                return Err(failed);
            }
            at += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Submits a job and returns its id. Repeats with the same key, so that it is submitted once.
    ///
    /// # Errors
    /// If it is refused, or nobody answers within [`PATIENCE`].
    pub async fn submit(&self, spec: &v1::JobSpec) -> anyhow::Result<u64> {
        self.submit_with(&key(), spec).await
    }

    /// The same, with a key that may have been used before.
    ///
    /// # Errors
    /// If it is refused, or nobody answers within [`PATIENCE`].
    pub async fn submit_with(&self, key: &str, spec: &v1::JobSpec) -> anyhow::Result<u64> {
        let request = v1::SubmitRequest {
            key: key.to_owned(),
            spec: Some(spec.clone()),
        };
        let answer = self
            .call(|channel| {
                let request = request.clone();
                async move { JobsClient::new(channel).submit(request).await }
            })
            .await;
        Ok(explained(answer)?.into_inner().job)
    }

    /// One job.
    ///
    /// # Errors
    /// If it does not exist or nobody answers.
    pub async fn job(&self, job: u64) -> anyhow::Result<v1::Job> {
        let answer = self
            .call(|channel| async move {
                let request = v1::GetJobRequest { job };
                JobsClient::new(channel).get(request).await
            })
            .await;
        Ok(explained(answer)?.into_inner())
    }

    /// Every job, all pages.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn jobs(&self, finished: bool) -> anyhow::Result<Vec<v1::Job>> {
        let mut jobs = Vec::new();
        let mut request = v1::ListJobsRequest {
            finished,
            page_size: 1000,
            ..Default::default()
        };
        loop {
            let answer = self
                .call(|channel| {
                    let request = request.clone();
                    async move { JobsClient::new(channel).list(request).await }
                })
                .await;
            let page = explained(answer)?.into_inner();
            jobs.extend(page.jobs);
            match page.next_page_token {
                Some(token) => request.page_token = Some(token),
                None => return Ok(jobs),
            }
        }
    }

    /// Has a node, or one of its GPUs, tested and used again.
    ///
    /// # Errors
    /// If there is none of that name or nobody answers.
    pub async fn put_back(&self, name: &str, gpu: Option<String>) -> anyhow::Result<String> {
        let request = v1::ReturnRequest {
            name: name.to_owned(),
            gpu,
        };
        let answer = self
            .call(|channel| {
                let request = request.clone();
                async move { NodesClient::new(channel).r#return(request).await }
            })
            .await;
        Ok(explained(answer)?.into_inner().text)
    }

    /// Cancels a job.
    ///
    /// # Errors
    /// If it does not exist or nobody answers.
    pub async fn cancel(&self, job: u64) -> anyhow::Result<String> {
        let request = v1::CancelJobRequest {
            job,
            user: "tests".into(),
        };
        let answer = self
            .call(|channel| {
                let request = request.clone();
                async move { JobsClient::new(channel).cancel(request).await }
            })
            .await;
        Ok(explained(answer)?.into_inner().text)
    }

    /// Waits until `seen` says so about a job, and tells how long it took.
    ///
    /// # Errors
    /// After `deadline`, with the job's last state.
    pub async fn wait(
        &self,
        job: u64,
        what: &str,
        deadline: Duration,
        seen: impl Fn(&v1::Job) -> bool,
    ) -> anyhow::Result<(v1::Job, Duration)> {
        wait::until(&format!("job {job} {what}"), deadline, async || {
            let view = self.job(job).await.map_err(|error| format!("{error:#}"))?;
            if seen(&view) {
                Ok(view)
            } else {
                Err(summary(&view))
            }
        })
        .await
    }

    /// Waits until a job is in this state.
    ///
    /// # Errors
    /// After `deadline`, with the job's last state.
    pub async fn wait_state(
        &self,
        job: u64,
        state: v1::JobState,
        deadline: Duration,
    ) -> anyhow::Result<(v1::Job, Duration)> {
        let what = format!("is {}", state.as_str_name());
        self.wait(job, &what, deadline, |view| view.state() == state)
            .await
    }

    /// The cluster at a glance.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn status(&self) -> anyhow::Result<v1::StatusResponse> {
        let answer = self
            .call(|channel| async move {
                ClusterClient::new(channel)
                    .status(v1::StatusRequest {})
                    .await
            })
            .await;
        Ok(explained(answer)?.into_inner())
    }

    /// The leader's id.
    ///
    /// # Errors
    /// If there is none within [`PATIENCE`].
    pub async fn leader(&self) -> anyhow::Result<u64> {
        let (leader, _) = wait::until("a leader", PATIENCE, async || {
            let status = self.status().await.map_err(|error| format!("{error:#}"))?;
            let leader = status.masters.iter().find(|master| master.leader);
            leader.map(|m| m.id).ok_or_else(|| "none".to_owned())
        })
        .await?;
        Ok(leader)
    }

    /// All nodes.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn nodes(&self) -> anyhow::Result<Vec<v1::Node>> {
        let answer = self
            .call(|channel| async move {
                NodesClient::new(channel)
                    .list(v1::ListNodesRequest {})
                    .await
            })
            .await;
        Ok(explained(answer)?.into_inner().nodes)
    }

    /// One node.
    ///
    /// # Errors
    /// If it does not exist or nobody answers.
    pub async fn node(&self, name: &str) -> anyhow::Result<v1::Node> {
        let request = v1::GetNodeRequest { name: name.into() };
        let answer = self
            .call(|channel| {
                let request = request.clone();
                async move { NodesClient::new(channel).get(request).await }
            })
            .await;
        Ok(explained(answer)?.into_inner())
    }

    /// Says that a lost node certainly runs nothing.
    ///
    /// # Errors
    /// If it is not lost, or nobody answers.
    pub async fn fence(&self, name: &str) -> anyhow::Result<String> {
        let request = v1::FenceRequest { name: name.into() };
        let answer = self
            .call(|channel| {
                let request = request.clone();
                async move { NodesClient::new(channel).fence(request).await }
            })
            .await;
        Ok(explained(answer)?.into_inner().text)
    }

    /// Waits until a node is in this state and connected or not, and tells how long it took.
    ///
    /// # Errors
    /// After `deadline`, with the node's last state.
    pub async fn wait_node(
        &self,
        name: &str,
        state: v1::NodeState,
        connected: bool,
        deadline: Duration,
    ) -> anyhow::Result<(v1::Node, Duration)> {
        let what = format!("node {name} is {}", state.as_str_name());
        wait::until(&what, deadline, async || {
            let node = self
                .node(name)
                .await
                .map_err(|error| format!("{error:#}"))?;
            if node.state() == state && node.connected == connected {
                Ok(node)
            } else {
                let state = node.state().as_str_name();
                Err(format!("{state}, connected: {}", node.connected))
            }
        })
        .await
    }

    /// Every event so far that is still kept, oldest first.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn events(&self) -> anyhow::Result<Vec<v1::Event>> {
        let mut events = Vec::new();
        let mut next = 0;
        loop {
            let (page, after) = self.events_from(next).await?;
            if page.is_empty() {
                return Ok(events);
            }
            events.extend(page);
            next = after;
        }
    }

    /// A page of events from this sequence number on, and where the next one starts.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn events_from(&self, since_seq: u64) -> anyhow::Result<(Vec<v1::Event>, u64)> {
        let request = v1::EventsRequest {
            since_seq,
            limit: 1000,
        };
        let answer = self
            .call(|channel| async move { ClusterClient::new(channel).events(request).await })
            .await;
        let page = explained(answer)?.into_inner();
        Ok((page.events, page.next_seq))
    }
}

/// One try of a submission at one master, with a deadline of its own: what the measurements use.
///
/// # Errors
/// Whatever the master answers, or that it did not within `deadline`.
pub async fn submit_once(
    channel: Channel,
    key: &str,
    spec: &v1::JobSpec,
    deadline: Duration,
) -> Result<v1::SubmitResponse, Status> {
    let mut request = Request::new(v1::SubmitRequest {
        key: key.to_owned(),
        spec: Some(spec.clone()),
    });
    request.set_timeout(deadline);
    let answer = tokio::time::timeout(deadline, JobsClient::new(channel).submit(request)).await;
    match answer {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// A fresh idempotency key.
pub fn key() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// One line about a job, for messages.
pub fn summary(job: &v1::Job) -> String {
    let epoch = job.attempt.as_ref().map_or(0, |attempt| attempt.epoch);
    let ends: Vec<String> = job
        .past
        .iter()
        .filter_map(|past| past.end.as_ref()?.kind.as_ref())
        .map(|end| format!("{end:?}"))
        .collect();
    format!(
        "{} (attempt {epoch}, before it {ends:?}, {} restarts) {} {}",
        job.state().as_str_name(),
        job.restarts,
        job.reason,
        job.reason_text
    )
}

/// True for a failure that another try may mend.
fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::Unknown
    )
}

fn explained<T>(answer: Result<T, Status>) -> anyhow::Result<T> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(status) => {
            let error = berth_proto::from_status(&status);
            bail!("{}: {} (hint: {})", error.reason, error.message, error.hint)
        }
    }
}
