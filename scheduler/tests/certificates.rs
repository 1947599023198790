//! Joining, owning, renewing and revoking, over real connections.
#![allow(clippy::unwrap_used)] // a test

mod support;

use berth_proto::v1;
use berth_proto::v1::agents_client::AgentsClient;
use berth_proto::v1::cluster_client::ClusterClient;
use berth_proto::v1::jobs_client::JobsClient;
use berth_proto::v1::security_client::SecurityClient;
use berth_tls::{Dialler, Names, TlsError, lifetime_ms, now_ms};
use berth_types::Role;
use berth_types::api::ErrorKind;
use support::tls::{Secured, dialler};
use support::{error, job, ok, spec, submission, submit, within};
use tonic::transport::Channel;

async fn create(
    security: &mut SecurityClient<Channel>,
    role: Role,
    name: &str,
    uses: u32,
) -> String {
    let request = v1::CreateTokenRequest {
        role: v1::Role::from(role).into(),
        name: name.to_owned(),
        lifetime_ms: 0,
        uses,
    };
    ok(security.create_token(request)).await.token
}

fn reason(error: TlsError) -> String {
    match error {
        TlsError::Call(error) => error.reason,
        other => panic!("{other:?}"),
    }
}

/// Joins at a master.
async fn join(
    cluster: &Secured,
    at: usize,
    token: &str,
    name: &str,
    as_: &str,
) -> Result<Dialler, TlsError> {
    let place = cluster.place(as_);
    berth_tls::join(&cluster.masters[at].address, token, name, &place).await?;
    Ok(dialler(&place))
}

fn security(cluster: &Secured, dialler: &Dialler) -> SecurityClient<Channel> {
    SecurityClient::new(cluster.channel(dialler, 0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in_whom_it_names_as_often_as_it_may() {
    let cluster = within(Secured::start(1)).await;
    let admin = cluster.issue(Role::Admin, "root");
    let mut security = security(&cluster, &admin);
    let token = create(&mut security, Role::Node, "gpu-*", 2).await;
    let one = within(join(&cluster, 0, &token, "gpu-1", "gpu-1"))
        .await
        .unwrap();
    assert_eq!(
        one.leaf().map(|l| l.identity.to_string()),
        Some("node gpu-1".into())
    );
    let taken = within(join(&cluster, 0, &token, "gpu-1", "thief")).await;
    assert_eq!(reason(taken.unwrap_err()), "IDENTITY_TAKEN");
    within(join(&cluster, 0, &token, "gpu-2", "gpu-2"))
        .await
        .unwrap();
    let third = within(join(&cluster, 0, &token, "gpu-3", "gpu-3")).await;
    assert_eq!(reason(third.unwrap_err()), "TOKEN_USED");
    let other_name = within(join(&cluster, 0, &token, "cpu-1", "cpu-1")).await;
    assert!(
        matches!(other_name, Err(TlsError::Token(_))),
        "{other_name:?}"
    );

    let late = cluster
        .authority
        .token(Role::Node, Names::Exactly("x".into()), 1, now_ms() - 1);
    let late = within(join(&cluster, 0, &late.unwrap(), "", "x")).await;
    assert_eq!(reason(late.unwrap_err()), "TOKEN_INVALID");
    // A token of another cluster trusts another authority, so nothing is said to this one.
    let other = berth_tls::Authority::generate(now_ms()).unwrap();
    let foreign = other.token(Role::Node, Names::Exactly("x".into()), 1, now_ms() + 60_000);
    let foreign = within(join(&cluster, 0, &foreign.unwrap(), "", "x")).await;
    assert!(
        matches!(foreign, Err(TlsError::Connect { .. })),
        "{foreign:?}"
    );

    let listed = ok(security.list_certificates(v1::ListCertificatesRequest {})).await;
    let names: Vec<&str> = listed
        .certificates
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(names, ["gpu-1", "gpu-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_its_submitter_s() {
    let cluster = within(Secured::start(1)).await;
    let jobs = |name| JobsClient::new(cluster.channel(&cluster.issue(Role::Submitter, name), 0));
    let (mut ada, mut bob) = (jobs("ada"), jobs("bob"));
    let mut claimed = spec("mine", 0);
    claimed.user = "bob".into();
    let id = within(submit(&mut ada, 1, &claimed)).await;
    assert_eq!(job(&mut bob, id).await.spec.user, "ada");
    let cancel = |user: &str| v1::CancelJobRequest {
        job: id,
        user: user.to_owned(),
    };
    let refused = error(within(bob.cancel(cancel("ada"))).await);
    assert_eq!(
        (refused.kind, refused.reason.as_str()),
        (ErrorKind::PermissionDenied, "NOT_OWNER")
    );
    assert_eq!(
        refused.message,
        format!("job {id} is ada's: bob may not cancel it")
    );
    assert_eq!(refused.hint, "ask ada or an admin");
    let logs = v1::LogsRequest {
        job: id,
        ..Default::default()
    };
    assert_eq!(error(within(bob.logs(logs)).await).reason, "NOT_OWNER");
    // Hers: it has not started, so there is nothing to read yet.
    assert_eq!(error(within(ada.logs(logs)).await).reason, "NOT_STARTED");
    within(ok(ada.cancel(cancel("ada")))).await;
    let id = within(submit(&mut ada, 2, &spec("again", 0))).await;
    let mut admin = JobsClient::new(cluster.channel(&cluster.issue(Role::Admin, "root"), 0));
    let cancel = v1::CancelJobRequest {
        job: id,
        user: String::new(),
    };
    within(ok(admin.cancel(cancel))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_for_itself_alone() {
    let cluster = within(Secured::start(1)).await;
    let channel = cluster.channel(&cluster.issue(Role::Node, "n1"), 0);
    let hello = |name: &str| {
        let spec = berth_types::NodeSpec {
            name: name.to_owned(),
            ..support::agent::node("n1", 0)
        };
        let register = v1::Register {
            spec: Some((&spec).into()),
            incarnation: 1,
            ..Default::default()
        };
        let kind = Some(v1::agent_message::Kind::Register(register));
        futures_util::stream::iter([v1::AgentMessage { kind }])
    };
    let mut agent = AgentsClient::new(channel);
    let refused = error(within(agent.session(hello("n2"))).await);
    assert_eq!(
        (refused.kind, refused.reason.as_str()),
        (ErrorKind::PermissionDenied, "NAME")
    );
    within(agent.session(hello("n1")))
        .await
        .expect("its own name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_open_connections_at_every_master() {
    let cluster = within(Secured::start(3)).await;
    let admin = cluster.issue(Role::Admin, "root");
    let mut security = security(&cluster, &admin);
    let token = create(&mut security, Role::Viewer, "vic", 1).await;
    let vic = within(join(&cluster, 1, &token, "", "vic")).await.unwrap();
    let mut watches = Vec::new();
    for master in 0..3 {
        let mut jobs = JobsClient::new(cluster.channel(&vic, master));
        watches.push(within(ok(jobs.watch(v1::WatchRequest::default()))).await);
    }
    let request = v1::RevokeRequest {
        role: v1::Role::Viewer.into(),
        name: "vic".into(),
    };
    within(ok(security.revoke(request.clone()))).await;
    for (master, watch) in watches.iter_mut().enumerate() {
        // Behind what it still has to tell.
        within(async { while let Ok(Some(_)) = watch.message().await {} }).await;
        let mut client = ClusterClient::new(cluster.channel(&vic, master));
        let refused = error(within(client.status(v1::StatusRequest {})).await);
        assert_eq!(
            (refused.kind, refused.reason.as_str()),
            (ErrorKind::Unauthenticated, "CERTIFICATE_REVOKED")
        );
    }
    let renewal = berth_tls::renew(&vic, &cluster.masters[0].address).await;
    assert_eq!(reason(renewal.unwrap_err()), "CERTIFICATE_REVOKED");
    // A new token lets the same name in again, also while a master is away.
    let mut cluster = cluster;
    within(cluster.masters.remove(2).stop()).await;
    let vic = within(async {
        loop {
            // One whose answer was lost on the way is used up.
            let names = Names::Exactly("vic".into());
            let until_ms = now_ms() + 60_000;
            let token = cluster
                .authority
                .token(Role::Viewer, names, 1, until_ms)
                .unwrap();
            match join(&cluster, 0, &token, "", "vic").await {
                Ok(vic) => break vic,
                // The cluster may be choosing another leader.
                Err(TlsError::Call(e)) if e.kind == ErrorKind::Unavailable => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    })
    .await;
    let mut client = ClusterClient::new(cluster.channel(&vic, 1));
    within(ok(client.status(v1::StatusRequest {}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_in_time_and_what_is_open_stays() {
    let cluster = within(Secured::start(1)).await;
    let life = lifetime_ms(Role::Viewer);
    let address = cluster.masters[0].address.clone();
    let young = cluster.issue_at(Role::Viewer, "young", now_ms() - life / 2, life);
    assert!(
        !within(berth_tls::renew_if_due(&young, &address))
            .await
            .unwrap()
    );
    let old = cluster.issue_at(Role::Viewer, "old", now_ms() - life / 3 * 2, life);
    let before = old.leaf().unwrap();
    let mut jobs = JobsClient::new(cluster.channel(&old, 0));
    let mut watch = within(ok(jobs.watch(v1::WatchRequest::default()))).await;
    assert!(
        within(berth_tls::renew_if_due(&old, &address))
            .await
            .unwrap()
    );
    let after = old.leaf().unwrap();
    assert_eq!(after.identity, before.identity);
    assert!(after.serial > before.serial && after.until_ms > before.until_ms);
    // The stream from before still hears what happens.
    let mut admin = JobsClient::new(cluster.channel(&cluster.issue(Role::Admin, "root"), 0));
    within(submit(&mut admin, 1, &spec("news", 0))).await;
    assert!(within(watch.message()).await.expect("no failure").is_some());
    let mut again = JobsClient::new(cluster.channel(&old, 0));
    within(ok(again.list(v1::ListJobsRequest::default()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_ended_ends_its_connections() {
    let cluster = within(Secured::start(1)).await;
    let brief = cluster.issue_at(Role::Viewer, "brief", now_ms(), 3_000);
    let mut jobs = JobsClient::new(cluster.channel(&brief, 0));
    let mut watch = within(ok(jobs.watch(v1::WatchRequest::default()))).await;
    within(watch.message())
        .await
        .expect_err("the connection ends");
    let refused = error(within(jobs.list(v1::ListJobsRequest::default())).await);
    // Told so in the same second, and not let in at all from the next one on.
    let known = [ErrorKind::Unauthenticated, ErrorKind::Unavailable];
    assert!(known.contains(&refused.kind), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_no_tls_or_is_of_another_cluster_gets_nothing() {
    let cluster = within(Secured::start(1)).await;
    let address = &cluster.masters[0].address;
    // No answer of a master's: the connection breaks, which tonic calls one or the other.
    let nobody = [ErrorKind::Unavailable, ErrorKind::Internal];
    let mut plain = ClusterClient::new(berth_proto::connect(address).unwrap());
    let refused = error(within(plain.status(v1::StatusRequest {})).await);
    assert!(nobody.contains(&refused.kind), "{refused:?}");
    let other = within(Secured::start(1)).await;
    let stranger = other.issue(Role::Admin, "root");
    let mut client = ClusterClient::new(cluster.channel(&stranger, 0));
    let refused = error(within(client.status(v1::StatusRequest {})).await);
    assert!(nobody.contains(&refused.kind), "{refused:?}");
    // A node's certificate is of the cluster, but it cannot pass for a master.
    let request = submission(1, &spec("x", 0));
    let node = cluster.issue(Role::Node, "n1");
    let mut jobs = JobsClient::new(cluster.channel(&node, 0));
    assert_eq!(error(within(jobs.submit(request)).await).reason, "ROLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_an_authority_says_how_to_get_one() {
    let (_dir, master) = within(support::one_master()).await;
    let mut security = SecurityClient::new(master.channel());
    let refused = error(within(security.list_certificates(v1::ListCertificatesRequest {})).await);
    assert_eq!(
        (refused.kind, refused.reason.as_str()),
        (ErrorKind::FailedPrecondition, "NO_AUTHORITY")
    );
    assert!(refused.hint.contains("berth init"));
}
