//! Who was given a certificate, which join tokens were used, and whose certificates are no longer good.
//!
//! Certificates are numbered by the log. A revocation voids all numbers of an identity up to the newest one at that
//! time, so the list has one entry per identity and a later join is good again. Everything here ends with the
//! certificates that it is about, and is dropped then.

use std::sync::Arc;

use berth_types::{CertificateView, Identity};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::persistent;

/// The record of certificates, join tokens and revocations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Certificates {
    /// Numbers given so far. Number 0 is for certificates that were issued beside the log.
    pub issued: u64,
    /// The newest certificate of each identity.
    #[serde(with = "persistent::map")]
    pub newest: OrdMap<Arc<Identity>, Certificate>,
    /// Join tokens that were used, by id.
    #[serde(with = "persistent::map")]
    pub tokens: OrdMap<u64, TokenUse>,
    /// Whose certificates are void.
    #[serde(with = "persistent::map")]
    pub revoked: OrdMap<Arc<Identity>, Revocation>,
    /// When what has expired was last dropped.
    pub pruned_ms: u64,
}

/// A certificate on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its number.
    pub serial: u64,
    /// When it was issued.
    pub issued_ms: u64,
    /// When it ends.
    pub expires_ms: u64,
}

/// A join token that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// How often.
    pub used: u32,
    /// How often it may be.
    pub uses: u32,
    /// When it ends.
    pub expires_ms: u64,
}

/// Certificates of an identity that are void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// All numbers up to this one.
    pub through: u64,
    /// None of them is good after this anyway.
    pub until_ms: u64,
}

impl Certificates {
    /// True if this certificate is void.
    pub fn is_revoked(&self, identity: &Identity, serial: u64) -> bool {
        let revoked = self.revoked.get(identity);
        revoked.is_some_and(|r| serial <= r.through)
    }

    /// Certificates that have not expired, and revocations of identities that have none on record.
    pub fn views(&self, now_ms: u64) -> Vec<CertificateView> {
        let newest = self.newest.iter().filter(|(_, c)| c.expires_ms > now_ms);
        let mut views: Vec<CertificateView> = newest
            .map(|(identity, c)| CertificateView {
                identity: Identity::clone(identity),
                serial: c.serial,
                issued_ms: c.issued_ms,
                expires_ms: c.expires_ms,
                revoked: self.is_revoked(identity, c.serial),
            })
            .collect();
        let unknown = |identity: &Arc<Identity>| !self.newest.contains_key(identity);
        let beside = self.revoked.iter();
        views.extend(
            beside
                .filter(|(identity, r)| unknown(identity) && r.until_ms > now_ms)
                .map(|(identity, r)| CertificateView {
                    identity: Identity::clone(identity),
                    serial: 0,
                    issued_ms: 0,
                    expires_ms: r.until_ms,
                    revoked: true,
                }),
        );
        views.sort_by(|a, b| a.identity.cmp(&b.identity));
        views
    }
}
