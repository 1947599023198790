//! What is malformed, too large, negative, unknown or impossible: a clear error that names the field, and nothing changed.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use berth_proto::v1::cluster_client::ClusterClient;
use berth_proto::v1::jobs_client::JobsClient;
use berth_proto::v1::nodes_client::NodesClient;
use berth_proto::{from_status, v1};
use berth_tests::{Cluster, Plan, client, spec};
use berth_types::api::{ApiError, ErrorKind};
use tonic::Status;

/// Name of the row, what is wrong with the job, class of the error, and the field that the error names.
type Row = (
    &'static str,
    fn(&mut v1::SubmitRequest),
    ErrorKind,
    &'static str,
);

fn job(request: &mut v1::SubmitRequest) -> &mut v1::JobSpec {
    request.spec.as_mut().unwrap()
}

fn group(request: &mut v1::SubmitRequest) -> &mut v1::GroupSpec {
    &mut job(request).groups[0]
}

fn resources(request: &mut v1::SubmitRequest) -> &mut v1::Resources {
    group(request).resources.get_or_insert_default()
}

const SUBMISSIONS: &[Row] = &[
    (
        "no key",
        |r| r.key.clear(),
        ErrorKind::InvalidArgument,
        "key",
    ),
    (
        "no UUID",
        |r| r.key = "mine".into(),
        ErrorKind::InvalidArgument,
        "key",
    ),
    (
        "a UUID of version 4",
        |r| r.key = "7c9e6679-7425-40de-944b-e07fc1f90ae7".into(),
        ErrorKind::InvalidArgument,
        "key",
    ),
    (
        "no job",
        |r| r.spec = None,
        ErrorKind::InvalidArgument,
        "spec",
    ),
    (
        "no name",
        |r| job(r).name.clear(),
        ErrorKind::InvalidArgument,
        "name",
    ),
    (
        "a name of 300 bytes",
        |r| job(r).name = "n".repeat(300),
        ErrorKind::InvalidArgument,
        "name",
    ),
    (
        "a name with a control character",
        |r| job(r).name = "a\u{1b}[2J".into(),
        ErrorKind::InvalidArgument,
        "name",
    ),
    (
        "no group",
        |r| job(r).groups.clear(),
        ErrorKind::InvalidArgument,
        "groups",
    ),
    (
        "a thousand groups",
        |r| {
            let one = group(r).clone();
            job(r).groups = vec![one; 1000];
        },
        ErrorKind::InvalidArgument,
        "groups",
    ),
    (
        "no command",
        |r| group(r).command.clear(),
        ErrorKind::InvalidArgument,
        "groups[0].command",
    ),
    (
        "a command with a NUL",
        |r| group(r).command = vec!["a\0b".into()],
        ErrorKind::InvalidArgument,
        "groups[0].command",
    ),
    (
        "no workers",
        |r| group(r).min_workers = 0,
        ErrorKind::InvalidArgument,
        "groups[0].min_workers",
    ),
    (
        "most below least",
        |r| {
            group(r).min_workers = 4;
            group(r).max_workers = Some(3);
        },
        ErrorKind::InvalidArgument,
        "groups[0].max_workers",
    ),
    (
        "four billion workers",
        |r| group(r).min_workers = u32::MAX,
        ErrorKind::InvalidArgument,
        "groups",
    ),
    (
        "one and a half GPUs",
        |r| resources(r).milligpu = 1500,
        ErrorKind::InvalidArgument,
        "groups[0].resources",
    ),
    (
        "a GPU model without GPUs",
        |r| resources(r).gpu_types = vec!["a100".into()],
        ErrorKind::InvalidArgument,
        "groups[0].resources",
    ),
    (
        "more GPUs than any node has",
        |r| resources(r).milligpu = 3_000,
        ErrorKind::InvalidArgument,
        "groups[0].resources.gpus",
    ),
    (
        "more memory than any node has",
        |r| resources(r).mem_bytes = u64::MAX,
        ErrorKind::InvalidArgument,
        "groups[0].resources.mem",
    ),
    (
        "more CPUs than any node has",
        |r| resources(r).millicpu = u32::MAX,
        ErrorKind::InvalidArgument,
        "groups[0].resources.cpu",
    ),
    (
        "a GPU model that no node has",
        |r| {
            resources(r).milligpu = 1_000;
            resources(r).gpu_types = vec!["tpu".into()];
        },
        ErrorKind::InvalidArgument,
        "groups[0].resources.gpu",
    ),
    (
        "labels that no node has",
        |r| drop(group(r).node_labels.insert("zone".into(), "nowhere".into())),
        ErrorKind::InvalidArgument,
        "groups[0].node_labels",
    ),
    (
        "a gang larger than the cluster",
        |r| {
            resources(r).milligpu = 1_000;
            group(r).min_workers = 5;
        },
        ErrorKind::InvalidArgument,
        "groups[0].min_workers",
    ),
    (
        "a directory that is not absolute",
        |r| job(r).work_dir = "here".into(),
        ErrorKind::InvalidArgument,
        "work_dir",
    ),
    (
        "an environment variable without a name",
        |r| drop(job(r).env.insert(String::new(), "x".into())),
        ErrorKind::InvalidArgument,
        "env",
    ),
    (
        "an environment of 100 KiB",
        |r| drop(job(r).env.insert("LARGE".into(), "x".repeat(100 << 10))),
        ErrorKind::InvalidArgument,
        "env",
    ),
    (
        "no checkpoint kept",
        |r| job(r).checkpoint.get_or_insert_default().keep = Some(0),
        ErrorKind::InvalidArgument,
        "checkpoint.keep",
    ),
    (
        "a lost-node rule that is not known",
        |r| job(r).restart.get_or_insert_default().on_lost_node = 99,
        ErrorKind::InvalidArgument,
        "restart.on_lost_node",
    ),
];

async fn cluster() -> Cluster {
    let plan = Plan {
        masters: 1,
        agents: 2,
        ..Plan::default()
    };
    Cluster::start(plan).await.unwrap()
}

fn error<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>) -> ApiError {
    let status = answer.expect_err(what);
    let error = from_status(&status);
    assert!(
        !error.reason.is_empty() && !error.hint.is_empty(),
        "{what}: {error:?}"
    );
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submissions() {
    let cluster = cluster().await;
    let client = cluster.client().unwrap();
    let mut jobs = JobsClient::new(client.channel(0));
    let events = client.events().await.unwrap().len();
    for (what, spoil, kind, field) in SUBMISSIONS {
        let mut request = v1::SubmitRequest {
            key: client::key(),
            spec: Some(spec::shell("good", "true")),
        };
        spoil(&mut request);
        let error = error(what, jobs.submit(request).await);
        assert_eq!(error.kind, *kind, "{what}: {error:?}");
        assert!(
            error.fields.iter().any(|(name, _, _)| name.contains(field)),
            "{what}: `{field}` is not named in {error:?}"
        );
    }
    // Every fault at once.
    let mut request = v1::SubmitRequest {
        key: client::key(),
        spec: Some(spec::shell("", "true")),
    };
    job(&mut request).work_dir = "here".into();
    group(&mut request).min_workers = 0;
    let error = error("three faults", jobs.submit(request).await);
    assert_eq!(error.fields.len(), 3, "{error:?}");

    assert!(
        client.jobs(true).await.unwrap().is_empty(),
        "a refused submission made a job"
    );
    assert_eq!(
        client.events().await.unwrap().len(),
        events,
        "something happened"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_for_one_job() {
    let cluster = cluster().await;
    let client = cluster.client().unwrap();
    let mut jobs = JobsClient::new(client.channel(0));
    let key = client::key();
    let submit = |name: &str| v1::SubmitRequest {
        key: key.clone(),
        spec: Some(spec::shell(name, "true")),
    };
    let first = jobs.submit(submit("one")).await.unwrap().into_inner();
    let again = jobs.submit(submit("one")).await.unwrap().into_inner();
    assert_eq!((again.job, again.duplicate), (first.job, true));
    let other = error("another job", jobs.submit(submit("two")).await);
    assert_eq!(other.kind, ErrorKind::AlreadyExists, "{other:?}");
    assert_eq!(client.jobs(true).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_over_the_limit() {
    let cluster = cluster().await;
    let client = cluster.client().unwrap();
    let mut jobs = JobsClient::new(client.channel(0));
    let mut large = spec::shell("large", "true");
    large.env.insert("LARGE".into(), "x".repeat(2 << 20));
    let request = v1::SubmitRequest {
        key: client::key(),
        spec: Some(large),
    };
    let error = error("2 MiB", jobs.submit(request).await);
    assert_eq!(error.reason, "MESSAGE_TOO_LARGE", "{error:?}");
    assert!(client.jobs(true).await.unwrap().is_empty());
    // The connection is still good.
    client.submit(&spec::shell("small", "true")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_exist() {
    let cluster = cluster().await;
    let client = cluster.client().unwrap();
    let mut jobs = JobsClient::new(client.channel(0));
    let mut nodes = NodesClient::new(client.channel(0));
    let mut masters = ClusterClient::new(client.channel(0));
    let before = client.status().await.unwrap();
    let job = u64::MAX;
    let user = "tests".to_owned();
    let name = "n9".to_owned();
    let logs = v1::LogsRequest {
        job,
        ..Default::default()
    };
    let drain = v1::DrainRequest {
        name: name.clone(),
        ..Default::default()
    };
    let errors = [
        error("get", jobs.get(v1::GetJobRequest { job }).await),
        error(
            "cancel",
            jobs.cancel(v1::CancelJobRequest { job, user }).await,
        ),
        error("why", jobs.why(v1::WhyRequest { job }).await),
        error("logs", first(jobs.logs(logs).await).await),
        error(
            "node",
            nodes.get(v1::GetNodeRequest { name: name.clone() }).await,
        ),
        error("drain", nodes.drain(drain).await),
        error(
            "undrain",
            nodes
                .undrain(v1::UndrainRequest { name: name.clone() })
                .await,
        ),
        error("fence", nodes.fence(v1::FenceRequest { name }).await),
        error(
            "master",
            masters
                .remove_master(v1::RemoveMasterRequest { id: 9 })
                .await,
        ),
    ];
    for error in &errors {
        assert_eq!(error.kind, ErrorKind::NotFound, "{error:?}");
    }
    let after = client.status().await.unwrap();
    assert_eq!(members(&before), members(&after));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_and_addresses_that_cannot_be() {
    let cluster = cluster().await;
    let client = cluster.client().unwrap();
    let mut jobs = JobsClient::new(client.channel(0));
    let mut masters = ClusterClient::new(client.channel(0));
    let before = client.status().await.unwrap();
    let zero = error("job 0", jobs.get(v1::GetJobRequest { job: 0 }).await);
    assert!(
        matches!(zero.kind, ErrorKind::NotFound | ErrorKind::InvalidArgument),
        "{zero:?}"
    );
    for (id, address, field) in [(0, "127.0.0.1:1", "id"), (9, "nowhere", "address")] {
        let add = v1::AddMasterRequest {
            id,
            address: address.into(),
            replaces: None,
        };
        let add = error(field, masters.add_master(add).await);
        assert_eq!(add.fields[0].0, field, "{add:?}");
    }
    let after = client.status().await.unwrap();
    assert_eq!(members(&before), members(&after));
}

fn members(status: &v1::StatusResponse) -> (u64, Vec<u64>) {
    (status.term, status.masters.iter().map(|m| m.id).collect())
}

/// The first message of a stream, or why there is none.
async fn first(
    answer: Result<tonic::Response<tonic::Streaming<v1::LogChunk>>, Status>,
) -> Result<Option<v1::LogChunk>, Status> {
    answer?.into_inner().message().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_on_the_port_of_a_master() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let cluster = cluster().await;
    let client = cluster.client().unwrap();
    let address = &cluster.addresses()[0];
    let noise: &[&[u8]] = &[
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 4096],
        // The preface of HTTP/2, and then a frame that says it is 16 MiB long.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x00",
    ];
    for bytes in noise {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
    }
    client.submit(&spec::shell("after", "true")).await.unwrap();
}
