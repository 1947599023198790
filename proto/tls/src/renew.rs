//! New certificates before the old ones end, over a connection that the old one still opens.

use std::path::Path;
use std::time::Duration;

use berth_proto::v1;
use berth_proto::v1::security_client::SecurityClient;
use berth_types::Identity;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use tokio::time::{sleep, timeout};

use crate::error::root;
use crate::{Dialler, Leaf, TlsError, files, now_ms};

/// How long one master may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest pause before the clock is looked at again, since a machine may sleep; and after a try in vain.
const PAUSE_MS: u64 = 60_000;
/// Shortest pause.
const SHORT_MS: u64 = 200;

/// A new key, and the request for a certificate for it. The key never leaves this machine.
pub(crate) struct Request {
    key: KeyPair,
    pub(crate) der: Vec<u8>,
}

impl Request {
    pub(crate) fn new() -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?;
        let der = request.der().to_vec();
        Ok(Self { key, der })
    }

    /// Writes what came back, if it is for this key and this identity.
    pub(crate) fn save(
        &self,
        dir: &Path,
        answer: &v1::Credentials,
        identity: &Identity,
    ) -> Result<(), TlsError> {
        let certificate = CertificateDer::from(answer.certificate.to_vec());
        let wrong = |what: &str| Err(TlsError::Certificate(format!("the new certificate {what}")));
        if Leaf::read(&certificate)?.identity != *identity {
            return wrong("is for somebody else");
        }
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|e| TlsError::Certificate(e.to_string()))?;
        if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&self.key) {
            return wrong("is for another key");
        }
        files::save(dir, &authorities(answer), &certificate, &self.key)
    }
}

pub(crate) fn authorities(answer: &v1::Credentials) -> Vec<CertificateDer<'static>> {
    let der = answer.authorities.iter();
    der.map(|c| CertificateDer::from(c.to_vec())).collect()
}

/// Renews the dialler's certificate at the master at `address` if two thirds of its life are over. True if there is a new
/// one; connections that are made from then on use it.
///
/// # Errors
/// If the master refuses or cannot be reached.
pub async fn renew_if_due(dialler: &Dialler, address: &str) -> Result<bool, TlsError> {
    if dialler
        .leaf()
        .is_none_or(|leaf| leaf.renew_at_ms() > now_ms())
    {
        return Ok(false);
    }
    renew(dialler, address).await?;
    Ok(true)
}

/// Renews the dialler's certificate now.
///
/// # Errors
/// As [`renew_if_due`].
pub async fn renew(dialler: &Dialler, address: &str) -> Result<(), TlsError> {
    let (Some(dir), Some(leaf)) = (dialler.dir(), dialler.leaf()) else {
        return Ok(());
    };
    let no_connection = |why: String| TlsError::Connect {
        address: address.to_owned(),
        why,
    };
    let connect = dialler.connect(address, ANSWER).await;
    let channel = connect.map_err(|e| no_connection(root(&e)))?;
    let request = Request::new()?;
    let call = v1::RenewRequest {
        signing_request: request.der.clone().into(),
    };
    let mut client = SecurityClient::new(channel);
    let answer = timeout(ANSWER, client.renew(call)).await;
    let answer = answer.map_err(|_| no_connection("no answer in time".to_owned()))??;
    request.save(dir, &answer.into_inner(), &leaf.identity)
}

/// Renews the dialler's certificate for ever, at one of the masters that `masters` names. Ends at once without TLS.
pub async fn keep_fresh(dialler: Dialler, masters: impl Fn() -> Vec<String>) {
    let mut turn = 0;
    while let Some(leaf) = dialler.leaf() {
        let (due, now) = (leaf.renew_at_ms(), now_ms());
        if due > now {
            let pause = (due - now).clamp(SHORT_MS, PAUSE_MS);
            sleep(Duration::from_millis(pause)).await;
            continue;
        }
        let masters = masters();
        let address = masters.get(turn % masters.len().max(1));
        let address = address.map(String::as_str).unwrap_or_default();
        match renew_if_due(&dialler, address).await {
            Ok(_) => {
                let until_ms = dialler.leaf().map(|leaf| leaf.until_ms);
                tracing::info!(?until_ms, "there is a new certificate");
            }
            Err(error) => {
                let left_ms = leaf.until_ms.saturating_sub(now);
                tracing::warn!(left_ms, %error, "the certificate could not be renewed");
                turn += 1;
                let pause = (left_ms / 20).clamp(SHORT_MS, PAUSE_MS);
                sleep(Duration::from_millis(pause)).await;
            }
        }
    }
}
