//! Joining: a connection to a master of which only the authority's fingerprint is known, from the token.

use std::path::Path;
use std::sync::Arc;

use berth_proto::v1;
use berth_proto::v1::security_client::SecurityClient;
use berth_types::Identity;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};

use tonic::transport::Channel;

use crate::authority::MASTER_NAME;
use crate::dial::{connect_with, finish, provider, roots};
use crate::error::root;
use crate::renew::{Request, authorities};
use crate::token::fingerprint;
use crate::{Claims, TlsError, files};

/// What a join has brought.
#[derive(Debug)]
pub struct Joined {
    /// Who joined.
    pub identity: Identity,
    /// When the certificate ends.
    pub expires_ms: u64,
    /// Where masters listen.
    pub masters: Vec<String>,
}

/// Joins at the master at `address`, under `name` or the only one that the token lets in, and writes what came into
/// `dir`: for a master the authority and its key, for all others `ca.pem` and `identity.pem`.
///
/// # Errors
/// If the token is none, the master is not of the cluster that made it, or refuses, or the files cannot be written.
pub async fn join(address: &str, token: &str, name: &str, dir: &Path) -> Result<Joined, TlsError> {
    let claims = Claims::read(token)?;
    let identity = claims.identity(name)?;
    files::make_dir(dir)?;
    let channel = anonymous(address, claims.authority).await?;
    let request = Request::new()?;
    let call = v1::JoinRequest {
        token: token.trim().to_owned(),
        name: identity.name.clone(),
        signing_request: request.der.clone().into(),
    };
    let answer = SecurityClient::new(channel).join(call).await?.into_inner();
    let known = authorities(&answer);
    if known.first().map(|c| fingerprint(c)) != Some(claims.authority) {
        let what = "the master answers with another authority than the token's";
        return Err(TlsError::Certificate(what.to_owned()));
    }
    if identity.role == berth_types::Role::Master {
        files::save_master(dir, &known, &answer.authority_key)?;
    } else {
        request.save(dir, &answer, &identity)?;
    }
    Ok(Joined {
        identity,
        expires_ms: answer.expires_ms,
        masters: answer.masters,
    })
}

/// A connection without a certificate to a master of the authority with this fingerprint. Good for joining only.
///
/// # Errors
/// If nobody is there, or somebody else.
pub async fn anonymous(address: &str, authority: [u8; 32]) -> Result<Channel, TlsError> {
    let no_connection = |e: tonic::transport::Error| TlsError::Connect {
        address: address.to_owned(),
        why: root(&e),
    };
    let endpoint = berth_proto::channel::endpoint(address).map_err(no_connection)?;
    let channel = connect_with(endpoint, pinned(authority)?).await;
    channel.map_err(no_connection)
}

fn pinned(authority: [u8; 32]) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { authority }))
        .with_no_client_auth();
    Ok(finish(config))
}

/// Trusts the one authority with this fingerprint, which the master sends along, and checks all else as ever.
#[derive(Debug)]
struct Pinned {
    authority: [u8; 32],
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let known = |c: &&CertificateDer<'_>| fingerprint(c) == self.authority;
        let Some(authority) = intermediates.iter().find(known) else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let unknown = |_| rustls::Error::from(CertificateError::UnknownIssuer);
        let roots = roots(&[authority.clone().into_owned()]).map_err(|e| unknown(e.to_string()))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| unknown(e.to_string()))?;
        let name = ServerName::try_from(MASTER_NAME).map_err(|e| unknown(e.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, &known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
