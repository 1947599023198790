//! Every call with every role. The calls come from the descriptors, so one without a row here fails.
#![allow(clippy::unwrap_used)] // a test

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use berth_proto::from_status;
use berth_types::Role;
use berth_types::api::ErrorKind;
use futures_util::stream;
use prost::Message;
use prost_types::FileDescriptorSet;
use support::tls::Secured;
use support::within;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// Who may: `a`dmin, `s`ubmitter, `v`iewer, `n`ode, `m`aster, and `-` for who has no certificate.
const MAY: &[(&str, &str)] = &[
    ("/berth.v1.Jobs/Submit", "as"),
    ("/berth.v1.Jobs/Get", "asv"),
    ("/berth.v1.Jobs/List", "asv"),
    ("/berth.v1.Jobs/Cancel", "as"),
    ("/berth.v1.Jobs/Why", "asv"),
    ("/berth.v1.Jobs/Watch", "asv"),
    ("/berth.v1.Jobs/Logs", "asm"),
    ("/berth.v1.Nodes/List", "asv"),
    ("/berth.v1.Nodes/Get", "asv"),
    ("/berth.v1.Nodes/Drain", "a"),
    ("/berth.v1.Nodes/Undrain", "a"),
    ("/berth.v1.Nodes/Fence", "a"),
    ("/berth.v1.Nodes/Quarantine", "a"),
    ("/berth.v1.Nodes/Return", "a"),
    ("/berth.v1.Cluster/Status", "asv"),
    ("/berth.v1.Cluster/Members", "asv"),
    ("/berth.v1.Cluster/AddMaster", "a"),
    ("/berth.v1.Cluster/RemoveMaster", "a"),
    ("/berth.v1.Cluster/Snapshot", "am"),
    ("/berth.v1.Cluster/Events", "asv"),
    ("/berth.v1.Agents/Session", "n"),
    ("/berth.v1.Peers/Stream", "m"),
    ("/berth.v1.Peers/SnapshotInstall", "m"),
    ("/berth.v1.Peers/FetchHistory", "m"),
    ("/berth.v1.Security/Join", "asvnm-"),
    ("/berth.v1.Security/Renew", "asvn"),
    ("/berth.v1.Security/CreateToken", "a"),
    ("/berth.v1.Security/ListCertificates", "a"),
    ("/berth.v1.Security/Revoke", "a"),
    ("/grpc.health.v1.Health/Check", "asvnm"),
    ("/grpc.health.v1.Health/Watch", "asvnm"),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "asvnm",
    ),
];

/// Every call that a master serves.
fn calls() -> BTreeSet<String> {
    let sets = [
        berth_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ];
    let mut calls = BTreeSet::new();
    for set in sets {
        for file in FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                let methods = service.method.iter();
                calls.extend(methods.map(|m| format!("/{service_name}/{}", m.name())));
            }
        }
    }
    calls
}

/// True if the call gets past the guard. Its message is empty, so nothing comes of it.
async fn is_let_in(channel: &Channel, path: &str) -> bool {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("a connection");
    let path: PathAndQuery = path.parse().unwrap();
    // On the wire, a call with one message is a stream of one.
    let request = tonic::Request::new(stream::iter([()]));
    let codec = ProstCodec::<(), ()>::default();
    let answer = async {
        let mut answers = client.streaming(request, path, codec).await?.into_inner();
        answers.message().await.map(drop)
    };
    // What listens for ever has been let in.
    let answer = tokio::time::timeout(Duration::from_millis(300), answer).await;
    match answer {
        Ok(Err(status)) => {
            let error = from_status(&status);
            let refused = matches!(error.reason.as_str(), "ROLE" | "NO_CERTIFICATE");
            let kind = match error.reason.as_str() {
                "ROLE" => Some(ErrorKind::PermissionDenied),
                "NO_CERTIFICATE" => Some(ErrorKind::Unauthenticated),
                _ => None,
            };
            assert!(kind.is_none_or(|kind| kind == error.kind), "{error:?}");
            assert!(!refused || !error.hint.is_empty(), "{error:?}");
            !refused
        }
        Ok(Ok(())) | Err(_) => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_for_whom_the_table_says() {
    let rows: BTreeSet<String> = MAY.iter().map(|(call, _)| (*call).to_owned()).collect();
    assert_eq!(
        rows,
        calls(),
        "each call has a row here, and each row a call"
    );
    let cluster = within(Secured::start(1)).await;
    let mut callers: Vec<(char, Channel)> = Vec::new();
    for (letter, role, name) in [
        ('a', Role::Admin, "ada"),
        ('s', Role::Submitter, "sue"),
        ('v', Role::Viewer, "vic"),
        ('n', Role::Node, "n1"),
        ('m', Role::Master, "9"),
    ] {
        let dialler = cluster.issue(role, name);
        callers.push((letter, cluster.channel(&dialler, 0)));
    }
    let address = &cluster.masters[0].address;
    let bare = berth_tls::anonymous(address, cluster.authority.fingerprint()).await;
    callers.push(('-', bare.expect("a connection")));
    for (path, may) in MAY {
        for (letter, channel) in &callers {
            let let_in = within(is_let_in(channel, path)).await;
            assert_eq!(let_in, may.contains(*letter), "{letter} calls {path}");
        }
    }
}
