//! `berth.v1.Security`: joining, and what admins do about certificates.

use std::sync::Arc;

use berth_proto::{convert, to_status, v1};
use berth_tls::{Acceptor, MAX_TOKEN_MS, MAX_USES, Names, TlsError, lifetime_ms, now_ms};
use berth_types::api::{ApiError, ErrorKind, Request as Call, Response as Answer};
use berth_types::{Grant, Identity, Role};
use tonic::{Request, Response, Status};
use tracing::info;

use super::access::caller;
use crate::shared::Shared;

/// Life of a token if nothing is said: an hour.
const TOKEN_MS: u64 = 3_600_000;

pub(super) struct Security(pub(super) Shared);

impl Security {
    fn acceptor(&self) -> Result<&Arc<Acceptor>, Status> {
        self.0.acceptor.as_ref().ok_or_else(|| {
            to_status(&ApiError::new(
                ErrorKind::FailedPrecondition,
                "NO_AUTHORITY",
                "this cluster has no certificate authority",
                "make one with `berth init`, and set `tls_dir` in the files of its masters",
            ))
        })
    }

    /// Numbers a certificate in the log, then signs it.
    async fn issue(
        &self,
        identity: Identity,
        request: &[u8],
        grant: Grant,
    ) -> Result<Response<v1::Credentials>, Status> {
        let acceptor = self.acceptor()?;
        let authority = acceptor.authority();
        // Before a use of the token is spent on it.
        let now = now_ms();
        let tried = authority.sign_request(request, &identity, 0, now, now + 1_000);
        tried.map_err(|e| refuse("BAD_SIGNING_REQUEST", &e))?;
        let call = Call::IssueCertificate {
            identity: identity.clone(),
            lifetime_ms: lifetime_ms(identity.role),
            grant,
        };
        let (serial, issued_ms, expires_ms) = match self.0.call(call).await {
            Ok(Answer::CertificateIssued {
                serial,
                issued_ms,
                expires_ms,
            }) => (serial, issued_ms, expires_ms),
            Ok(Answer::Error(error)) | Err(error) => return Err(to_status(&error)),
            Ok(_) => return Err(Status::internal("the answer does not belong to the call")),
        };
        let signed = authority.sign_request(request, &identity, serial, issued_ms, expires_ms);
        let certificate = signed.map_err(|e| refuse("BAD_SIGNING_REQUEST", &e))?;
        info!(%identity, serial, "issued a certificate");
        let authorities = authority.certificates();
        let masters = self.0.masters.borrow();
        Ok(Response::new(v1::Credentials {
            role: v1::Role::from(identity.role).into(),
            name: identity.name,
            certificate: certificate.to_vec().into(),
            authorities: authorities.map(|c| c.to_vec().into()).collect(),
            expires_ms,
            authority_key: match identity.role {
                Role::Master => authority.key_der().into(),
                Role::Admin | Role::Submitter | Role::Viewer | Role::Node => Default::default(),
            },
            masters: masters.iter().map(|(_, m)| m.address.clone()).collect(),
        }))
    }
}

fn refuse(reason: &str, error: &TlsError) -> Status {
    let hint = "client and master may be of different versions";
    let (kind, message) = (ErrorKind::InvalidArgument, error.to_string());
    to_status(&ApiError::new(kind, reason, message, hint))
}

fn bad_token(error: &TlsError) -> Status {
    let hint = "ask an admin for a new one: `berth token create`";
    let (kind, message) = (ErrorKind::Unauthenticated, error.to_string());
    to_status(&ApiError::new(kind, "TOKEN_INVALID", message, hint))
}

fn out_of_range(field: &str, what: String, hint: String) -> Status {
    to_status(&ApiError::faults(
        "MALFORMED_REQUEST",
        vec![berth_types::Fault::new(field, what, hint)],
    ))
}

#[tonic::async_trait]
impl v1::security_server::Security for Security {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::Credentials>, Status> {
        let request = request.into_inner();
        let authority = self.acceptor()?.authority();
        let claims = authority.check(&request.token, now_ms());
        let claims = claims.map_err(|e| bad_token(&e))?;
        let identity = claims.identity(&request.name).map_err(|e| bad_token(&e))?;
        let grant = Grant::Token(claims.record());
        self.issue(identity, &request.signing_request, grant).await
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::Credentials>, Status> {
        self.acceptor()?;
        let Some(leaf) = caller(&request) else {
            return Err(Status::unauthenticated("there is no certificate to renew"));
        };
        let grant = Grant::Renewal {
            serial: leaf.serial,
        };
        let request = request.into_inner().signing_request;
        self.issue(leaf.identity.clone(), &request, grant).await
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let authority = self.acceptor()?.authority();
        let request = request.into_inner();
        let role = convert::role(request.role)?;
        let names = Names::parse(role, &request.name)
            .map_err(|what| out_of_range("name", what, "choose another name".to_owned()))?;
        let lifetime_ms = match request.lifetime_ms {
            0 => TOKEN_MS,
            ms if ms > MAX_TOKEN_MS => {
                let hint = "at most a week: a token is for now, a certificate renews itself";
                return Err(out_of_range("lifetime_ms", format!("{ms} ms"), hint.into()));
            }
            ms => ms,
        };
        let uses = request.uses.max(1);
        if uses > MAX_USES || (uses > 1 && names.only().is_some()) {
            let hint = format!("at most {MAX_USES}, and 1 for exactly one name");
            return Err(out_of_range("uses", format!("{uses} uses"), hint));
        }
        let expires_ms = now_ms().saturating_add(lifetime_ms);
        let token = authority.token(role, names, uses, expires_ms);
        let token = token.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(v1::CreateTokenResponse { token, expires_ms }))
    }

    async fn list_certificates(
        &self,
        request: Request<v1::ListCertificatesRequest>,
    ) -> Result<Response<v1::ListCertificatesResponse>, Status> {
        self.acceptor()?;
        self.0.serve(request.into_inner()).await
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        self.acceptor()?;
        self.0.serve(request.into_inner()).await
    }
}
