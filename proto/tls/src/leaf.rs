//! What a certificate of the cluster says.

use berth_types::{Identity, Role};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::TlsError;

/// A certificate's subject, number and time. Says nothing about who signed it: the handshake has checked that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Who.
    pub identity: Identity,
    /// The number that the log gave to it; 0 if it was issued beside the log.
    pub serial: u64,
    /// Good from then on.
    pub from_ms: u64,
    /// Good until then.
    pub until_ms: u64,
}

/// Bytes in front of the log's number, drawn at random: a cluster restored from a backup gives numbers anew.
pub(crate) const SERIAL_PREFIX: usize = 8;

impl Leaf {
    /// Reads a certificate.
    ///
    /// # Errors
    /// If it is none of a cluster's.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let fault = |what: &str| TlsError::Certificate(format!("the certificate {what}"));
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| fault("cannot be read"))?;
        if !rest.is_empty() {
            return Err(fault("is followed by something else"));
        }
        let subject = certificate.subject();
        let organisation = first(subject.iter_organization());
        let name = first(subject.iter_common_name());
        let (Some(role), Some(name)) = (organisation, name) else {
            return Err(fault("names no role and no name"));
        };
        let role: Role = role.parse().map_err(|why: String| fault(&why))?;
        let identity = Identity::new(role, name).map_err(|why| fault(&why))?;
        let raw = certificate.raw_serial();
        let counter = raw.get(raw.len().saturating_sub(8)..).unwrap_or_default();
        let serial = counter.iter().fold(0u64, |n, b| (n << 8) | u64::from(*b));
        let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
        let validity = certificate.validity();
        Ok(Self {
            identity,
            serial,
            from_ms: ms(validity.not_before.timestamp()),
            until_ms: ms(validity.not_after.timestamp()),
        })
    }

    /// When a new one is due: at two thirds of its life.
    pub fn renew_at_ms(&self) -> u64 {
        let life = self.until_ms.saturating_sub(self.from_ms);
        self.from_ms.saturating_add(life / 3 * 2)
    }
}

/// The value of an attribute that is there once.
fn first<'a>(
    mut attributes: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Option<String> {
    let value = attributes.next()?.as_str().ok()?.to_owned();
    attributes.next().is_none().then_some(value)
}
