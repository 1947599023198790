//! One master over real gRPC: the life of a job.

mod support;

use berth_proto::v1;
use berth_types::{JobState, Outcome};
use support::agent::{FakeAgent, node};
use support::{
    Running, configs, finished, free_ports, job, ok, one_master, output, spec, submission, submit,
    within,
};

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

        let answer = ok(jobs.submit(submission(1, &spec("first", 1000)))).await;
        assert!(!answer.duplicate);
        let view = finished(&mut jobs, answer.job).await;
        let ended = (view.state, view.outcome);
        assert_eq!(ended, (JobState::Completed, Some(Outcome::Completed)));
        assert_eq!(*view.spec, spec("first", 1000));
        assert_eq!(output(&mut jobs, answer.job).await, b"hello\n");
        agent.abort();
        drop(jobs);
        master.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_replayed_and_then_live() {
    within(async {
        let (_dir, master) = one_master().await;
        let mut jobs = master.jobs();
        let first = submit(&mut jobs, 1, &spec("first", 0)).await;
        let mut news = ok(jobs.watch(v1::WatchRequest::default())).await;
        let second = submit(&mut jobs, 2, &spec("second", 0)).await;
        let event = news.message().await.expect("no failure").expect("no end");
        assert_eq!(event.job, Some(second), "only what is new");

        let (from_seq, job) = (1, Some(first));
        let mut events = ok(jobs.watch(v1::WatchRequest { from_seq, job })).await;
        let cancel = v1::CancelJobRequest {
            job: first,
            user: "ada".into(),
        };
        ok(jobs.cancel(cancel)).await;
        let mut kinds = Vec::new();
        while kinds.last().is_none_or(|k| k != "job.cancelled") {
            let event = events.message().await.expect("no failure").expect("no end");
            assert_eq!(event.job, Some(first), "only this job's");
            kinds.push(event.kind);
        }
        assert_eq!(kinds[0], "job.submitted");
        drop((events, news, jobs));
        master.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_wait_are_listed_explained_and_cancelled() {
    within(async {
        let (_dir, master) = one_master().await;
        let mut jobs = master.jobs();
        let mut ids = Vec::new();
        for (n, name) in (0..).zip(["a", "b", "c"]) {
            ids.push(submit(&mut jobs, n, &spec(name, 1000)).await);
        }
        let mut request = v1::ListJobsRequest {
            page_size: 2,
            ..Default::default()
        };
        let page = ok(jobs.list(request.clone())).await;
        let listed =
            |page: &v1::ListJobsResponse| page.jobs.iter().map(|j| j.id).collect::<Vec<_>>();
        assert_eq!(listed(&page), [ids[2], ids[1]]);
        request.page_token = page.next_page_token;
        let page = ok(jobs.list(request)).await;
        assert_eq!((listed(&page), page.next_page_token), (vec![ids[0]], None));

        let why = ok(jobs.why(v1::WhyRequest { job: ids[2] })).await;
        assert!(!why.reason.is_empty() && !why.text.is_empty(), "{why:?}");

        let cancel = v1::CancelJobRequest {
            job: ids[2],
            user: "ada".into(),
        };
        ok(jobs.cancel(cancel.clone())).await;
        let view = finished(&mut jobs, ids[2]).await;
        assert_eq!(view.state, JobState::Cancelled);
        let again = ok(jobs.cancel(cancel)).await;
        assert!(
            !again.text.is_empty(),
            "it says that there was nothing to do"
        );
        drop(jobs);
        master.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_listed_and_drained() {
    within(async {
        let (_dir, master) = one_master().await;
        let agent = FakeAgent::connect(master.channel(), &node("n1", 1))
            .await
            .expect("registered");
        let agent = tokio::spawn(agent.obey());
        let mut nodes = master.nodes();
        while ok(nodes.list(v1::ListNodesRequest {}))
            .await
            .nodes
            .is_empty()
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let drain = v1::DrainRequest {
            name: "n1".into(),
            reason: "new kernel".into(),
            evict: false,
        };
        ok(nodes.drain(drain)).await;
        let name = || "n1".to_owned();
        let view = ok(nodes.get(v1::GetNodeRequest { name: name() })).await;
        assert_eq!(view.state(), v1::NodeState::Draining);
        assert!(view.reason.contains("new kernel"), "{}", view.reason);
        ok(nodes.undrain(v1::UndrainRequest { name: name() })).await;
        let status = ok(master.cluster().status(v1::StatusRequest {})).await;
        assert_eq!((status.nodes_ready, status.alarm.as_str()), (1, ""));
        agent.abort();
        drop(nodes);
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
        let first = ok(master.jobs().submit(request.clone())).await;
        master.stop().await;

        let master = Running::start(&config).await;
        let mut jobs = master.jobs();
        assert_eq!(job(&mut jobs, first.job).await.spec.name, "kept");
        let again = ok(jobs.submit(request)).await;
        assert_eq!((again.job, again.duplicate), (first.job, true));
        drop(jobs);
        master.stop().await;
    })
    .await;
}
