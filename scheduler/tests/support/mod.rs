//! Masters within the test's process, reached over real gRPC.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its part

pub mod agent;
pub mod tls;

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use berth_proto::v1::cluster_client::ClusterClient;
use berth_proto::v1::jobs_client::JobsClient;
use berth_proto::v1::nodes_client::NodesClient;
use berth_proto::{from_status, v1};
use berth_scheduler::{Config, Master, RunError};
use berth_types::api::{ApiError, JobView};
use berth_types::{GroupSpec, JobSpec, Resources};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Nothing here takes this long; a test that does has found something.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A master that runs until it is stopped.
pub struct Running {
    pub address: String,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub async fn start(config: &Config) -> Running {
        // `BERTH_LOG=info cargo nextest run --no-capture` shows what the masters say.
        let filter = tracing_subscriber::EnvFilter::from_env("BERTH_LOG");
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .try_init();
        let master = Master::start(config).await.expect("the master starts");
        let address = master.address().to_string();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(master.run_until(async {
            let _ = stopped.await;
        }));
        Running {
            address,
            stop,
            ended,
        }
    }

    /// Stops it in good order.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.ended.await.expect("no panic").expect("a clean end");
    }

    pub fn channel(&self) -> Channel {
        berth_proto::connect(&self.address).expect("an address")
    }

    pub fn jobs(&self) -> JobsClient<Channel> {
        JobsClient::new(self.channel()).max_encoding_message_size(64 << 20)
    }

    pub fn nodes(&self) -> NodesClient<Channel> {
        NodesClient::new(self.channel())
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel())
    }
}

/// Ports that were free a moment ago.
pub fn free_ports(n: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..n)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    listeners
        .iter()
        .map(|l| l.local_addr().expect("bound").port())
        .collect()
}

/// Configurations of a new cluster, one per port.
pub fn configs(dir: &Path, ports: &[u16]) -> Vec<Config> {
    let masters: String = (1..)
        .zip(ports)
        .map(|(id, port)| format!("[[masters]]\nid = {id}\naddress = '127.0.0.1:{port}'\n"))
        .collect();
    let config = |(id, port): (usize, &u16)| {
        let data_dir = dir.join(format!("m{id}"));
        let text = format!(
            "id = {id}\ndata_dir = '{}'\nlisten = '127.0.0.1:{port}'\ncheck_every = 1\n{masters}",
            data_dir.display()
        );
        Config::parse(&text, Path::new("test.toml")).expect("a sound configuration")
    };
    (1..).zip(ports).map(config).collect()
}

/// One worker that needs some GPU.
pub fn spec(name: &str, milligpu: u32) -> JobSpec {
    JobSpec {
        name: name.into(),
        user: "ada".into(),
        groups: vec![GroupSpec {
            name: "workers".into(),
            command: vec!["true".into()],
            min_workers: 1,
            max_workers: 1,
            gang: true,
            resources: Resources {
                milligpu,
                ..Resources::default()
            },
            node_labels: Default::default(),
        }],
        ..JobSpec::default()
    }
}

/// A UUIDv7 of now, told apart by `n`.
pub fn key(n: u64) -> u128 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    (now.as_millis() << 80) | (0x7 << 76) | (0b10 << 62) | u128::from(n)
}

pub fn submission(n: u64, spec: &JobSpec) -> v1::SubmitRequest {
    v1::SubmitRequest::new(key(n), spec)
}

/// The error of a call that must fail.
pub fn error<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> ApiError {
    from_status(&result.expect_err("the call must fail"))
}

/// The answer of a call that must succeed.
pub async fn ok<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> T {
    call.await.expect("the call succeeds").into_inner()
}

/// `work`, which must end in time.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("it must not take that long")
}

/// A cluster of one that leads.
pub async fn one_master() -> (tempfile::TempDir, Running) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = configs(dir.path(), &free_ports(1)).remove(0);
    let master = Running::start(&config).await;
    // Answered once it leads; an agent that knocks before that is sent away.
    ok(master.cluster().status(v1::StatusRequest {})).await;
    (dir, master)
}

/// Submits under key `n`; the job's id.
pub async fn submit(jobs: &mut JobsClient<Channel>, n: u64, spec: &JobSpec) -> u64 {
    ok(jobs.submit(submission(n, spec))).await.job
}

pub async fn job(jobs: &mut JobsClient<Channel>, id: u64) -> JobView {
    let job = ok(jobs.get(v1::GetJobRequest { job: id })).await;
    JobView::try_from(job).expect("well formed")
}

/// Polls until the job is over.
pub async fn finished(jobs: &mut JobsClient<Channel>, id: u64) -> JobView {
    loop {
        let view = job(jobs, id).await;
        if view.state.is_final() {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All output of rank 0.
pub async fn output(jobs: &mut JobsClient<Channel>, job: u64) -> Vec<u8> {
    let request = v1::LogsRequest {
        job,
        ..Default::default()
    };
    let mut chunks = ok(jobs.logs(request)).await;
    let mut output = Vec::new();
    while let Some(chunk) = chunks.message().await.expect("no failure") {
        output.extend_from_slice(&chunk.data);
    }
    output
}
