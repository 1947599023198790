//! The cluster's certificate authority: a self-signed certificate and its key, which every master holds.

use std::path::Path;

use berth_types::{Identity, Role};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::OffsetDateTime;

use crate::leaf::SERIAL_PREFIX;
use crate::{TlsError, files};

/// What a master's certificate is checked for.
pub(crate) const MASTER_NAME: &str = "master.berth";
/// How long the authority is good: ten years. Replacing it takes every certificate along.
const AUTHORITY_MS: u64 = 10 * 365 * 24 * 3_600_000;
/// Certificates are good a little before they are issued, for clocks that are behind.
const SKEW_MS: u64 = 300_000;

/// The certificate authority: what signs certificates and seals join tokens.
pub struct Authority {
    /// The one that signs, then others that are trusted too.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) seal: ring::hmac::Key,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate with its own key.
#[derive(Debug)]
pub struct Signed {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn generate(now_ms: u64) -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = params("Berth", "cluster authority", now_ms, AUTHORITY_MS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial(0)?);
        let certificate = params.self_signed(&key)?.der().clone();
        Self::new(vec![certificate], key)
    }

    pub(crate) fn new(
        certificates: Vec<CertificateDer<'static>>,
        key: KeyPair,
    ) -> Result<Self, TlsError> {
        let Some(first) = certificates.first() else {
            return Err(TlsError::Certificate("there is no authority".to_owned()));
        };
        // A key of its own for tokens, which only a holder of the authority's key can derive.
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.serialized_der());
        let derived = ring::hmac::sign(&secret, b"berth join token 1");
        Ok(Self {
            seal: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, derived.as_ref()),
            issuer: Issuer::from_ca_cert_der(first, key)?,
            certificates,
        })
    }

    /// Reads `ca.pem` and `ca-key.pem`.
    ///
    /// # Errors
    /// If they are not there, do not belong together, or others may read the key.
    pub fn load(dir: &Path) -> Result<Self, TlsError> {
        let certificates = files::read_authorities(dir)?;
        let path = dir.join(files::AUTHORITY_KEY);
        let text = files::read_secret(&path)?;
        let hint = "copy ca.pem and ca-key.pem from another master, or `berth join` as a master";
        let content = |what: &str| TlsError::Content {
            path: path.clone(),
            what: what.to_owned(),
            hint,
        };
        let key = KeyPair::from_pem(&text).map_err(|_| content("holds no private key"))?;
        let first = &certificates[0];
        let (_, parsed) = x509_parser::parse_x509_certificate(first)
            .map_err(|_| content("ca.pem beside it holds no certificate"))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(content("is not the key of ca.pem beside it"));
        }
        Self::new(certificates, key)
    }

    /// Writes `ca.pem` and `ca-key.pem` into a directory, which is made if need be. Replaces nothing.
    ///
    /// # Errors
    /// If one is there already, or cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), TlsError> {
        files::make_dir(dir)?;
        let key = self.issuer.key().serialize_pem();
        files::write_new(&dir.join(files::AUTHORITY_KEY), &key, 0o600)?;
        let certificates = files::certificates_pem(&self.certificates);
        files::write_new(&dir.join(files::AUTHORITY), &certificates, 0o644)
    }

    /// The authority's key, PKCS #8: for a master that joins.
    pub fn key_der(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }

    /// What its certificates are, DER, the one that signs first.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(AsRef::as_ref)
    }

    /// Signs the key of a request for an identity; all else that the request says is ignored.
    ///
    /// # Errors
    /// If it is no request, or not signed with its own key.
    pub fn sign_request(
        &self,
        request: &[u8],
        identity: &Identity,
        number: u64,
        now_ms: u64,
        until_ms: u64,
    ) -> Result<CertificateDer<'static>, TlsError> {
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request)
            .map_err(|e| TlsError::Certificate(format!("the signing request: {e}")))?;
        self.sign(&request.public_key, identity, number, now_ms, until_ms)
    }

    /// A certificate beside the log, with a key of its own: a master's own, or the first admin's.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn issue(
        &self,
        identity: &Identity,
        now_ms: u64,
        life_ms: u64,
    ) -> Result<Signed, TlsError> {
        let key = KeyPair::generate()?;
        let until = now_ms.saturating_add(life_ms);
        let certificate = self.sign(&key, identity, 0, now_ms, until)?;
        Ok(Signed { certificate, key })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        number: u64,
        now_ms: u64,
        until_ms: u64,
    ) -> Result<CertificateDer<'static>, TlsError> {
        let from_ms = now_ms.saturating_sub(SKEW_MS);
        let life = until_ms.saturating_sub(now_ms);
        let mut params = params(
            identity.role.as_str(),
            &identity.name,
            from_ms,
            life + SKEW_MS,
        )?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if identity.role == Role::Master {
            params.subject_alt_names = vec![rcgen::SanType::DnsName(MASTER_NAME.try_into()?)];
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.serial_number = Some(serial(number)?);
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

fn params(
    role: &str,
    name: &str,
    from_ms: u64,
    life_ms: u64,
) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, role);
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.not_before = point(from_ms)?;
    params.not_after = point(from_ms.saturating_add(life_ms))?;
    Ok(params)
}

fn point(ms: u64) -> Result<OffsetDateTime, TlsError> {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| TlsError::Certificate(format!("{ms} ms is no time for a certificate")))
}

/// Random bytes, then the log's number.
fn serial(number: u64) -> Result<SerialNumber, TlsError> {
    let mut bytes = [0; SERIAL_PREFIX + 8];
    SystemRandom::new()
        .fill(&mut bytes[..SERIAL_PREFIX])
        .map_err(|_| TlsError::Random)?;
    // Positive, and of a fixed length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    bytes[SERIAL_PREFIX..].copy_from_slice(&number.to_be_bytes());
    Ok(SerialNumber::from_slice(&bytes))
}
