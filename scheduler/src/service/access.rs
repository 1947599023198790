//! Who may call what. One row per call; a call without a row is refused, and a test holds that there is none.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use berth_proto::to_status;
use berth_tls::{Acceptor, Leaf, Peer, now_ms};
use berth_types::Role;
use berth_types::api::{ApiError, ErrorKind};
use tonic::service::Routes;

/// What a call asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: joining.
    Anyone,
    /// A certificate of any role.
    Certified,
    /// One of these roles.
    Roles(&'static [Role]),
}

const ADMIN: Access = Access::Roles(&[Role::Admin]);
/// Masters pass these on as they are; the first one has looked at who calls.
const ADMIN_AND_MASTER: Access = Access::Roles(&[Role::Admin, Role::Master]);
const SUBMITTER: Access = Access::Roles(&[Role::Admin, Role::Submitter]);
const VIEWER: Access = Access::Roles(&[Role::Admin, Role::Submitter, Role::Viewer]);
const MASTER: Access = Access::Roles(&[Role::Master]);

/// Every call, by its path.
pub(crate) const ACCESS: &[(&str, Access)] = &[
    ("/berth.v1.Jobs/Submit", SUBMITTER),
    ("/berth.v1.Jobs/Get", VIEWER),
    ("/berth.v1.Jobs/List", VIEWER),
    // Submitters: their own jobs, which the call itself checks.
    ("/berth.v1.Jobs/Cancel", SUBMITTER),
    ("/berth.v1.Jobs/Why", VIEWER),
    ("/berth.v1.Jobs/Watch", VIEWER),
    // Submitters: their own jobs. What a job prints may be secret, so viewers do not see it.
    (
        "/berth.v1.Jobs/Logs",
        Access::Roles(&[Role::Admin, Role::Submitter, Role::Master]),
    ),
    ("/berth.v1.Nodes/List", VIEWER),
    ("/berth.v1.Nodes/Get", VIEWER),
    ("/berth.v1.Nodes/Drain", ADMIN),
    ("/berth.v1.Nodes/Undrain", ADMIN),
    ("/berth.v1.Nodes/Fence", ADMIN),
    ("/berth.v1.Nodes/Quarantine", ADMIN),
    ("/berth.v1.Nodes/Return", ADMIN),
    ("/berth.v1.Cluster/Status", VIEWER),
    ("/berth.v1.Cluster/Members", VIEWER),
    ("/berth.v1.Cluster/AddMaster", ADMIN),
    ("/berth.v1.Cluster/RemoveMaster", ADMIN),
    ("/berth.v1.Cluster/Snapshot", ADMIN_AND_MASTER),
    ("/berth.v1.Cluster/Events", VIEWER),
    // A node speaks for itself alone, which the call itself checks.
    ("/berth.v1.Agents/Session", Access::Roles(&[Role::Node])),
    // A master speaks for itself alone, which the call itself checks.
    ("/berth.v1.Peers/Stream", MASTER),
    ("/berth.v1.Peers/SnapshotInstall", MASTER),
    ("/berth.v1.Peers/FetchHistory", MASTER),
    ("/berth.v1.Security/Join", Access::Anyone),
    // Masters sign their own.
    (
        "/berth.v1.Security/Renew",
        Access::Roles(&[Role::Admin, Role::Submitter, Role::Viewer, Role::Node]),
    ),
    ("/berth.v1.Security/CreateToken", ADMIN),
    ("/berth.v1.Security/ListCertificates", ADMIN),
    ("/berth.v1.Security/Revoke", ADMIN),
    ("/grpc.health.v1.Health/Check", Access::Certified),
    ("/grpc.health.v1.Health/Watch", Access::Certified),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Access::Certified,
    ),
];

/// Lets through what [`ACCESS`] allows.
pub(crate) fn guarded(routes: Routes, acceptor: Arc<Acceptor>) -> Routes {
    let guard = move |request: Request, next: Next| {
        let path = request.uri().path();
        let refused = match request.extensions().get::<Peer>() {
            Some(Peer::Certified(leaf)) if acceptor.is_revoked(leaf) => Err(revoked(leaf)),
            Some(Peer::Certified(leaf)) if leaf.until_ms <= now_ms() => Err(ended(leaf)),
            Some(Peer::Certified(leaf)) => check(path, Some(leaf)),
            _ => check(path, None),
        };
        async move {
            match refused {
                Ok(()) => next.run(request).await,
                Err(error) => to_status(&error).into_http(),
            }
        }
    };
    Routes::from(routes.into_axum_router().layer(from_fn(guard)))
}

type Guarded = Result<(), ApiError>;

fn check(path: &str, leaf: Option<&Leaf>) -> Guarded {
    let row = ACCESS.iter().find(|(call, _)| *call == path);
    let access = row.map(|(_, access)| *access);
    match (access, leaf) {
        (Some(Access::Anyone), _) | (Some(Access::Certified), Some(_)) => Ok(()),
        (Some(Access::Roles(roles)), Some(leaf)) if roles.contains(&leaf.identity.role) => Ok(()),
        (_, None) => Err(ApiError::new(
            ErrorKind::Unauthenticated,
            "NO_CERTIFICATE",
            "this cluster asks for a certificate and there was none",
            "join with `berth join --token TOKEN`, then name its directory with --tls-dir or BERTH_TLS_DIR; an admin makes the token",
        )),
        (access, Some(leaf)) => {
            let call = path.trim_start_matches('/');
            let who = match access {
                Some(Access::Roles(roles)) => {
                    let roles: Vec<&str> = roles.iter().map(|r| r.as_str()).collect();
                    roles.join(", ")
                }
                _ => "nobody".to_owned(),
            };
            let message = format!("{} may not call {call}", leaf.identity);
            let hint = format!("it is for: {who}");
            Err(denied("ROLE", message, hint))
        }
    }
}

fn revoked(leaf: &Leaf) -> ApiError {
    ApiError::new(
        ErrorKind::Unauthenticated,
        "CERTIFICATE_REVOKED",
        format!("the certificate of {} is revoked", leaf.identity),
        "join again with a new token from an admin",
    )
}

fn ended(leaf: &Leaf) -> ApiError {
    ApiError::new(
        ErrorKind::Unauthenticated,
        "CERTIFICATE_EXPIRED",
        format!("the certificate of {} has ended", leaf.identity),
        "join again with a new token from an admin",
    )
}

/// An error for who may not do this.
pub(crate) fn denied(
    reason: &str,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> ApiError {
    ApiError::new(ErrorKind::PermissionDenied, reason, message, hint)
}

/// The certificate on the connection of a request; none without TLS.
pub(crate) fn caller<T>(request: &tonic::Request<T>) -> Option<Arc<Leaf>> {
    match request.extensions().get::<Peer>() {
        Some(Peer::Certified(leaf)) => Some(Arc::clone(leaf)),
        Some(Peer::Local | Peer::Anonymous) | None => None,
    }
}

/// Refuses a node or a master that says that it is another one.
pub(crate) fn speaks_for(leaf: Option<&Leaf>, name: &str) -> Guarded {
    match leaf {
        Some(leaf) if leaf.identity.name != name => {
            let message = format!("{} may not speak for `{name}`", leaf.identity);
            let hint = "give it the name in its certificate, or a certificate for its name";
            Err(denied("NAME", message, hint))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Every call that a master serves, from the descriptors of its services.
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
                    for method in &service.method {
                        calls.insert(format!(
                            "/{}.{}/{}",
                            file.package(),
                            service.name(),
                            method.name()
                        ));
                    }
                }
            }
        }
        calls
    }

    #[test]
    fn every_call_has_one_row_and_every_row_a_call() {
        let rows: BTreeSet<String> = ACCESS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(rows.len(), ACCESS.len(), "a call has two rows");
        assert_eq!(rows, calls());
    }

    #[test]
    fn what_has_no_row_is_refused() {
        let leaf = Leaf {
            identity: berth_types::Identity::new(Role::Admin, "ada").unwrap(),
            serial: 1,
            from_ms: 0,
            until_ms: u64::MAX,
        };
        let refused = check("/berth.v1.Jobs/Frobnicate", Some(&leaf)).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::PermissionDenied);
    }
}
