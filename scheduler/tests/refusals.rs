//! What a master refuses over real gRPC: the reason and the field are named, and nothing changes.

mod support;

use berth_proto::v1;
use berth_types::JobSpec;
use berth_types::api::ErrorKind;
use support::{Running, error, key, ok, one_master, spec, submission, submit, within};

type Row = (v1::SubmitRequest, &'static str, &'static str);

/// Submissions that are wrong, with the reason and the field to be named.
fn rows() -> Vec<Row> {
    let sound = spec("sound", 0);
    let with = |change: &dyn Fn(&mut JobSpec)| {
        let mut spec = sound.clone();
        change(&mut spec);
        submission(2, &spec)
    };
    let invalid = |change: &dyn Fn(&mut JobSpec), field| (with(change), "INVALID_JOB", field);
    let bad_key = v1::SubmitRequest {
        key: "7".into(),
        ..submission(2, &sound)
    };
    let no_spec = v1::SubmitRequest {
        spec: None,
        ..submission(2, &sound)
    };
    let large = "v".repeat(25 * 1024);
    vec![
        (bad_key, "MALFORMED_REQUEST", "key"),
        (no_spec, "MALFORMED_REQUEST", "spec"),
        invalid(&|s| *s = JobSpec::default(), "spec.groups"),
        invalid(&|s| s.name.clear(), "spec.name"),
        invalid(&|s| s.queue = "q".repeat(129), "spec.queue"),
        invalid(&|s| s.user = "a/b".into(), "spec.user"),
        invalid(&|s| s.work_dir = "here".into(), "spec.work_dir"),
        invalid(&|s| s.checkpoint.keep = 0, "spec.checkpoint.keep"),
        invalid(
            &|s| s.labels = [("k".into(), large.clone())].into(),
            "spec.env",
        ),
        invalid(&|s| s.groups[0].command.clear(), "spec.groups[0].command"),
        invalid(
            &|s| s.groups[0].min_workers = 0,
            "spec.groups[0].min_workers",
        ),
        invalid(&|s| s.groups[0].max_workers = u32::MAX, "spec.groups"),
        invalid(
            &|s| s.groups[0].resources.milligpu = 1500,
            "spec.groups[0].resources.gpus",
        ),
    ]
}

/// All jobs there are.
async fn count(master: &Running) -> usize {
    let all = v1::ListJobsRequest {
        finished: true,
        ..Default::default()
    };
    ok(master.jobs().list(all)).await.jobs.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_submissions_are_told_what_is_wrong() {
    within(async {
        let (_dir, master) = one_master().await;
        let mut jobs = master.jobs();
        for (request, reason, field) in rows() {
            let refused = error(jobs.submit(request).await);
            let class = (refused.kind, refused.reason.as_str());
            assert_eq!(class, (ErrorKind::InvalidArgument, reason), "{refused:?}");
            let named = refused.fields.iter().any(|(f, ..)| f == field);
            assert!(named && !refused.hint.is_empty(), "{field} in {refused:?}");
        }
        let mut oversized = spec("sound", 0);
        oversized.env = [("BLOB".to_owned(), "x".repeat(2 << 20))].into();
        let refused = error(jobs.submit(submission(3, &oversized)).await);
        assert_eq!(refused.reason, "MESSAGE_TOO_LARGE");
        assert_eq!(count(&master).await, 0);
        drop(jobs);
        master.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_belongs_to_one_job() {
    within(async {
        let (_dir, master) = one_master().await;
        let mut jobs = master.jobs();
        let key = key(1);
        let first = v1::SubmitRequest::new(key, &spec("first", 0));
        let other = v1::SubmitRequest::new(key, &spec("other", 0));
        let accepted = ok(jobs.submit(first.clone())).await;
        assert_eq!(
            error(jobs.submit(other).await).kind,
            ErrorKind::AlreadyExists
        );
        let again = ok(jobs.submit(first)).await;
        assert_eq!((again.job, again.duplicate), (accepted.job, true));
        assert_eq!(count(&master).await, 1);
        drop(jobs);
        master.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_exist_is_not_found() {
    within(async {
        let (_dir, master) = one_master().await;
        let (mut jobs, mut nodes) = (master.jobs(), master.nodes());
        let there = submit(&mut jobs, 1, &spec("there", 0)).await;
        let early = v1::LogsRequest {
            job: there,
            ..Default::default()
        };
        assert_eq!(error(jobs.logs(early).await).reason, "NOT_STARTED");
        let (job, user) = (0, String::new());
        let name = || "nowhere".to_owned();
        let drain = v1::DrainRequest {
            name: name(),
            ..Default::default()
        };
        let logs = v1::LogsRequest {
            job: 999,
            ..Default::default()
        };
        let refusals = [
            error(jobs.get(v1::GetJobRequest { job: 999 }).await),
            error(jobs.cancel(v1::CancelJobRequest { job, user }).await),
            error(jobs.why(v1::WhyRequest { job: u64::MAX }).await),
            error(jobs.logs(logs).await),
            error(nodes.get(v1::GetNodeRequest { name: name() }).await),
            error(nodes.drain(drain).await),
            error(nodes.fence(v1::FenceRequest { name: name() }).await),
        ];
        for refused in refusals {
            assert_eq!(refused.kind, ErrorKind::NotFound, "{refused:?}");
            assert!(!refused.hint.is_empty(), "{refused:?}");
        }
        let name = String::new();
        let unnamed = error(nodes.undrain(v1::UndrainRequest { name }).await);
        assert_eq!(unnamed.fields[0].0, "name");
        drop((jobs, nodes));
        master.stop().await;
    })
    .await;
}
