//! Roles, identities and certificates.

use berth_types::api::{Request, Response};
use berth_types::{ApiError, CertificateView, Identity, Role};

use super::response::unexpected;
use super::{DecodeError, list, wire};
use crate::v1;

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => v1::Role::Admin,
            Role::Submitter => v1::Role::Submitter,
            Role::Viewer => v1::Role::Viewer,
            Role::Node => v1::Role::Node,
            Role::Master => v1::Role::Master,
        }
    }
}

/// A role from its number.
///
/// # Errors
/// If it is none.
pub fn role(number: i32) -> Result<Role, DecodeError> {
    match v1::Role::try_from(number) {
        Ok(v1::Role::Admin) => Ok(Role::Admin),
        Ok(v1::Role::Submitter) => Ok(Role::Submitter),
        Ok(v1::Role::Viewer) => Ok(Role::Viewer),
        Ok(v1::Role::Node) => Ok(Role::Node),
        Ok(v1::Role::Master) => Ok(Role::Master),
        Ok(v1::Role::Unspecified) => Err(DecodeError::new(
            "role",
            "missing",
            "one of admin, submitter, viewer, node, master",
        )),
        Err(_) => Err(DecodeError::unknown("role", number)),
    }
}

/// An identity from its parts.
///
/// # Errors
/// If the role is none, or the name cannot stand in a certificate.
pub fn identity(number: i32, name: String) -> Result<Identity, DecodeError> {
    Identity::new(role(number)?, name)
        .map_err(|what| DecodeError::new("name", what, "choose another name"))
}

impl TryFrom<v1::ListCertificatesRequest> for Request {
    type Error = DecodeError;

    fn try_from(_: v1::ListCertificatesRequest) -> Result<Self, DecodeError> {
        Ok(Request::ListCertificates)
    }
}

impl TryFrom<v1::RevokeRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::RevokeRequest) -> Result<Self, DecodeError> {
        Ok(Request::RevokeCertificates {
            identity: identity(r.role, r.name)?,
        })
    }
}

impl From<&CertificateView> for v1::Certificate {
    fn from(c: &CertificateView) -> Self {
        Self {
            role: v1::Role::from(c.identity.role).into(),
            name: c.identity.name.clone(),
            serial: c.serial,
            issued_ms: c.issued_ms,
            expires_ms: c.expires_ms,
            revoked: c.revoked,
        }
    }
}

impl TryFrom<v1::Certificate> for CertificateView {
    type Error = DecodeError;

    fn try_from(c: v1::Certificate) -> Result<Self, DecodeError> {
        Ok(Self {
            identity: identity(c.role, c.name)?,
            serial: c.serial,
            issued_ms: c.issued_ms,
            expires_ms: c.expires_ms,
            revoked: c.revoked,
        })
    }
}

impl TryFrom<v1::ListCertificatesResponse> for Vec<CertificateView> {
    type Error = DecodeError;

    fn try_from(r: v1::ListCertificatesResponse) -> Result<Self, DecodeError> {
        list(r.certificates, "certificates")
    }
}

impl TryFrom<Response> for v1::ListCertificatesResponse {
    type Error = ApiError;

    fn try_from(response: Response) -> Result<Self, ApiError> {
        match response {
            Response::Certificates(certificates) => Ok(Self {
                certificates: wire(&certificates),
            }),
            other => Err(unexpected(other)),
        }
    }
}
