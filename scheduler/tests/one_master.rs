//! One master over real gRPC: the life of a job, and what it refuses.

mod support;

use std::time::Duration;

use berth_proto::v1;
use berth_raft_store::Backend;
use berth_scheduler::restore::{Restore, RestoreError, restore};
use berth_types::api::{ErrorKind, JobView};
use berth_types::{JobSpec, JobState, MasterId, Outcome};
use support::agent::{FakeAgent, node};
use support::{DEADLINE, Running, configs, error, free_ports, key, spec, submission};
use tonic::transport::Channel;

async fn one_master() -> (tempfile::TempDir, Running) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = configs(dir.path(), &free_ports(1)).remove(0);
    let master = Running::start(&config).await;
    // Answered once it leads; an agent that knocks before that is sent away.
    master
        .cluster()
        .status(v1::StatusRequest {})
        .await
        .expect("it leads");
    (dir, master)
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("it must not take that long")
}

async fn job(jobs: &mut v1::jobs_client::JobsClient<Channel>, id: u64) -> JobView {
    let job = jobs
        .get(v1::GetJobRequest { job: id })
        .await
        .expect("it exists")
        .into_inner();
    JobView::try_from(job).expect("well formed")
}

/// Polls until the job is over.
async fn finished(jobs: &mut v1::jobs_client::JobsClient<Channel>, id: u64) -> JobView {
    loop {
        let view = job(jobs, id).await;
        if view.state.is_final() {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_submitted_runs_and_is_remembered() {
    within(async {
        let (_dir, master) = one_master().await;
        let mut jobs = master.jobs();
        let mut agent = FakeAgent::connect(master.channel(), &node("n1", 2))
            .await
            .expect("registered");
        agent.output = b"hello\n".to_vec();
        let agent = tokio::spawn(agent.obey());

        let first = jobs
            .submit(submission(1, &spec("first", 1000)))
            .await
            .expect("accepted")
            .into_inner();
        assert!(!first.duplicate);
        let view = finished(&mut jobs, first.job).await;
        assert_eq!(
            (view.state, view.outcome),
            (JobState::Completed, Some(Outcome::Completed))
        );
        assert_eq!(*view.spec, spec("first", 1000));

        let mut output = Vec::new();
        let request = v1::LogsRequest {
            job: first.job,
            ..v1::LogsRequest::default()
        };
        let mut logs = jobs
            .logs(request)
            .await
            .expect("the node has them")
            .into_inner();
        while let Some(chunk) = logs.message().await.expect("no failure") {
            output.extend_from_slice(&chunk.data);
        }
        assert_eq!(output, b"hello\n");

        let watch = v1::WatchRequest {
            from_seq: 1,
            job: Some(first.job),
        };
        let mut events = jobs.watch(watch).await.expect("watching").into_inner();
        let mut seqs = Vec::new();
        while seqs.len() < 3 {
            let event = events.message().await.expect("no failure").expect("no end");
            assert_eq!(event.job, Some(first.job));
            seqs.push(event.seq);
        }
        assert!(seqs.is_sorted());
        // And what happens from now on arrives, too.
        let mut news = jobs
            .watch(v1::WatchRequest::default())
            .await
            .expect("watching")
            .into_inner();
        let second = jobs
            .submit(submission(2, &spec("second", 0)))
            .await
            .expect("accepted")
            .into_inner();
        let event = news.message().await.expect("no failure").expect("no end");
        assert_eq!(event.job, Some(second.job));

        agent.abort();
        drop((logs, events, news, jobs));
        master.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_wait_are_listed_explained_and_cancelled() {
    within(async {
        let (_dir, master) = one_master().await;
        let mut jobs = master.jobs();
        let agent = FakeAgent::connect(master.channel(), &node("n1", 1))
            .await
            .expect("registered");
        let mut ids = Vec::new();
        for (n, name) in ["a", "b", "c"].iter().enumerate() {
            let request = submission(n as u64, &spec(name, 1000));
            ids.push(
                jobs.submit(request)
                    .await
                    .expect("accepted")
                    .into_inner()
                    .job,
            );
        }
        let page = v1::ListJobsRequest {
            page_size: 2,
            ..v1::ListJobsRequest::default()
        };
        let page = jobs.list(page).await.expect("listed").into_inner();
        assert_eq!(
            page.jobs.iter().map(|j| j.id).collect::<Vec<_>>(),
            [ids[2], ids[1]]
        );
        let next = v1::ListJobsRequest {
            page_token: page.next_page_token,
            ..v1::ListJobsRequest::default()
        };
        let page = jobs.list(next).await.expect("listed").into_inner();
        assert_eq!(page.jobs.iter().map(|j| j.id).collect::<Vec<_>>(), [ids[0]]);
        assert_eq!(page.next_page_token, None);

        let why = jobs
            .why(v1::WhyRequest { job: ids[2] })
            .await
            .expect("explained")
            .into_inner();
        assert!(!why.reason.is_empty() && !why.text.is_empty(), "{why:?}");

        let cancel = v1::CancelJobRequest {
            job: ids[2],
            user: "ada".into(),
        };
        jobs.cancel(cancel.clone()).await.expect("cancelled");
        let view = finished(&mut jobs, ids[2]).await;
        assert_eq!(view.state, JobState::Cancelled);
        let again = jobs
            .cancel(cancel)
            .await
            .expect("nothing to do")
            .into_inner();
        assert!(!again.text.is_empty());

        let nodes = master
            .nodes()
            .list(v1::ListNodesRequest {})
            .await
            .expect("listed")
            .into_inner();
        assert_eq!(nodes.nodes.len(), 1);
        let status = master
            .cluster()
            .status(v1::StatusRequest {})
            .await
            .expect("a status")
            .into_inner();
        assert_eq!((status.nodes_ready, status.alarm.as_str()), (1, ""));
        drop((agent, jobs));
        master.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_survives_a_restart() {
    within(async {
        let dir = tempfile::tempdir().expect("a directory");
        let config = configs(dir.path(), &free_ports(1)).remove(0);
        let master = Running::start(&config).await;
        let request = submission(1, &spec("kept", 1000));
        let first = master
            .jobs()
            .submit(request.clone())
            .await
            .expect("accepted")
            .into_inner();
        master.stop().await;

        let master = Running::start(&config).await;
        let mut jobs = master.jobs();
        assert_eq!(job(&mut jobs, first.job).await.spec.name, "kept");
        let again = jobs
            .submit(request)
            .await
            .expect("the same submission")
            .into_inner();
        assert_eq!((again.job, again.duplicate), (first.job, true));
        drop(jobs);
        master.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_calls_are_refused_and_change_nothing() {
    within(async {
        let (_dir, master) = one_master().await;
        let mut jobs = master.jobs();
        let sound = spec("sound", 0);
        let accepted = jobs
            .submit(submission(1, &sound))
            .await
            .expect("accepted")
            .into_inner();

        // Submissions: what is wrong, the reason, and the field that is named.
        let other_payload = v1::SubmitRequest::new(key(0), &sound);
        jobs.submit(other_payload.clone()).await.expect("accepted");
        let reused = v1::SubmitRequest {
            spec: Some((&spec("other", 0)).into()),
            ..other_payload
        };
        let no_name = JobSpec {
            name: String::new(),
            ..sound.clone()
        };
        let mut fraction = sound.clone();
        fraction.groups[0].resources.milligpu = 1500;
        let mut no_command = sound.clone();
        no_command.groups[0].command.clear();
        let long = JobSpec {
            queue: "q".repeat(129),
            ..sound.clone()
        };
        let huge = JobSpec {
            labels: [("k".into(), "v".repeat(25 * 1024))].into(),
            ..sound.clone()
        };
        let rows = [
            (
                v1::SubmitRequest {
                    key: "7".into(),
                    ..submission(2, &sound)
                },
                "MALFORMED_REQUEST",
                "key",
            ),
            (
                v1::SubmitRequest {
                    spec: None,
                    ..submission(2, &sound)
                },
                "MALFORMED_REQUEST",
                "spec",
            ),
            (
                submission(2, &JobSpec::default()),
                "INVALID_JOB",
                "spec.groups",
            ),
            (submission(2, &no_name), "INVALID_JOB", "spec.name"),
            (
                submission(2, &fraction),
                "INVALID_JOB",
                "spec.groups[0].resources.gpus",
            ),
            (
                submission(2, &no_command),
                "INVALID_JOB",
                "spec.groups[0].command",
            ),
            (submission(2, &long), "INVALID_JOB", "spec.queue"),
            (submission(2, &huge), "INVALID_JOB", "spec.env"),
        ];
        for (request, reason, field) in rows {
            let refused = error(jobs.submit(request).await);
            assert_eq!(
                (refused.kind, refused.reason.as_str()),
                (ErrorKind::InvalidArgument, reason),
                "{refused:?}"
            );
            assert!(
                refused.fields.iter().any(|(f, ..)| f == field),
                "{field} in {refused:?}"
            );
            assert!(!refused.hint.is_empty());
        }
        assert_eq!(
            error(jobs.submit(reused).await).kind,
            ErrorKind::AlreadyExists
        );
        let env = [("BLOB".to_owned(), "x".repeat(2 << 20))].into();
        let oversized = submission(
            3,
            &JobSpec {
                env,
                ..sound.clone()
            },
        );
        assert_eq!(
            error(jobs.submit(oversized).await).reason,
            "MESSAGE_TOO_LARGE"
        );

        // Things that do not exist.
        let mut nodes = master.nodes();
        let name = || "nowhere".to_owned();
        let kinds = [
            error(jobs.get(v1::GetJobRequest { job: 999 }).await),
            error(
                jobs.cancel(v1::CancelJobRequest {
                    job: 0,
                    user: String::new(),
                })
                .await,
            ),
            error(jobs.why(v1::WhyRequest { job: u64::MAX }).await),
            error(
                jobs.logs(v1::LogsRequest {
                    job: 999,
                    ..Default::default()
                })
                .await,
            ),
            error(nodes.get(v1::GetNodeRequest { name: name() }).await),
            error(
                nodes
                    .drain(v1::DrainRequest {
                        name: name(),
                        ..Default::default()
                    })
                    .await,
            ),
            error(nodes.fence(v1::FenceRequest { name: name() }).await),
        ];
        for refused in kinds {
            assert_eq!(refused.kind, ErrorKind::NotFound, "{refused:?}");
        }
        let unnamed = error(
            nodes
                .undrain(v1::UndrainRequest {
                    name: String::new(),
                })
                .await,
        );
        assert_eq!(unnamed.fields[0].0, "name");

        let all = v1::ListJobsRequest {
            finished: true,
            ..Default::default()
        };
        let left = jobs.list(all).await.expect("listed").into_inner().jobs;
        assert_eq!(left.len(), 2, "only what was accepted is there");
        assert!(left.iter().any(|j| j.id == accepted.job));
        drop((jobs, nodes));
        master.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_becomes_a_new_cluster() {
    within(async {
        let (dir, master) = one_master().await;
        let mut jobs = master.jobs();
        let agent = FakeAgent::connect(master.channel(), &node("n1", 2))
            .await
            .expect("registered");
        let agent = tokio::spawn(agent.obey());
        let done = jobs
            .submit(submission(1, &spec("done", 1000)))
            .await
            .expect("accepted")
            .into_inner()
            .job;
        finished(&mut jobs, done).await;
        agent.abort();
        for n in 10..110 {
            jobs.submit(submission(n, &spec("waits", 2000)))
                .await
                .expect("accepted");
        }
        let mut chunks = master
            .cluster()
            .snapshot(v1::SnapshotRequest {})
            .await
            .expect("a copy")
            .into_inner();
        let (mut data, mut total) = (Vec::new(), 0);
        while let Some(chunk) = chunks.message().await.expect("no failure") {
            assert!(chunk.index > 0);
            total = chunk.total_bytes;
            data.extend_from_slice(&chunk.data);
        }
        assert_eq!(data.len() as u64, total);
        drop((jobs, chunks));
        master.stop().await;

        let port = free_ports(1)[0];
        let backup = dir.path().join("backup");
        std::fs::write(&backup, &data).expect("written");
        let mut config = configs(dir.path(), &[port]).remove(0);
        config.id = MasterId(7);
        config.data_dir = dir.path().join("restored");
        config.masters[0].0 = MasterId(7);
        let plan = Restore {
            backup,
            data_dir: config.data_dir.clone(),
            id: MasterId(7),
            masters: config.masters.clone(),
            backend: Backend::Sled,
        };
        let restored = restore(&plan).expect("restored");
        assert_eq!((restored.jobs, restored.finished), (100, 1));
        assert!(matches!(restore(&plan), Err(RestoreError::NotEmpty { .. })));

        let master = Running::start(&config).await;
        let mut jobs = master.jobs();
        assert_eq!(job(&mut jobs, done).await.state, JobState::Completed);
        let status = master
            .cluster()
            .status(v1::StatusRequest {})
            .await
            .expect("a status")
            .into_inner();
        assert_eq!(
            (
                status.masters.len(),
                status.masters[0].id,
                status.alarm.as_str()
            ),
            (1, 7, "")
        );
        jobs.submit(submission(200, &spec("new", 1000)))
            .await
            .expect("accepted");
        drop(jobs);
        master.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_backup_makes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let backup = dir.path().join("backup");
    std::fs::write(&backup, b"brthbkp1 but no more").expect("written");
    let plan = Restore {
        backup,
        data_dir: dir.path().join("m1"),
        id: MasterId(1),
        masters: configs(dir.path(), &free_ports(1)).remove(0).masters,
        backend: Backend::Redb,
    };
    assert!(matches!(restore(&plan), Err(RestoreError::Store(_))));
    assert!(!plan.data_dir.exists() && !dir.path().join("m1.restoring").exists());
    let not_listed = Restore {
        id: MasterId(2),
        ..plan
    };
    assert!(matches!(
        restore(&not_listed),
        Err(RestoreError::Masters(_))
    ));
}
