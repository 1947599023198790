//! Certificates are numbered here and signed outside: a join token counts as often as it may because the log counts it,
//! and a revocation is known to every master because the log has it.

use std::sync::Arc;

use berth_types::{Grant, Identity, JoinToken, Role};
use imbl::OrdMap;

use super::transition::Transition;
use super::{CommandResult, Rejection};
use crate::state::{Certificate, Revocation, TokenUse};

/// Longest life of a certificate: 30 days.
pub const MAX_LIFETIME_MS: u64 = 30 * 24 * 3_600_000;
/// Shortest life: a minute.
const MIN_LIFETIME_MS: u64 = 60_000;
/// How long a revocation is kept: no certificate lives longer, with a day for clocks that differ.
pub const REVOKED_FOR_MS: u64 = MAX_LIFETIME_MS + 24 * 3_600_000;
/// Most identities with a certificate: every node and as many people.
pub const MAX_CERTIFICATES: usize = 200_000;
/// Most join tokens that are in use at once.
pub const MAX_TOKENS: usize = 10_000;
/// Most identities on the list of revocations; each master keeps them at hand.
pub const MAX_REVOCATIONS: usize = 100_000;
/// What has expired is dropped so often at most, since it takes a look at every record.
const PRUNE_EVERY_MS: u64 = 3_600_000;

impl Transition<'_> {
    pub(super) fn issue_certificate(
        &mut self,
        identity: &Identity,
        lifetime_ms: u64,
        grant: &Grant,
    ) -> Result<CommandResult, Rejection> {
        if let Some(fault) = identity.fault() {
            return Err(Rejection::BadIdentity(fault));
        }
        let now = self.now();
        let records = &self.state.certificates;
        if !records.newest.contains_key(identity)
            && is_full(&records.newest, MAX_CERTIFICATES, |c| c.expires_ms > now)
        {
            let full = Rejection::TooManyIdentities(MAX_CERTIFICATES, "certificates");
            return Err(full);
        }
        let token = match grant {
            Grant::Token(token) => Some((token.id, self.token_use(identity, token)?)),
            Grant::Renewal { serial } if records.is_revoked(identity, *serial) => {
                return Err(Rejection::CertificateRevoked(identity.clone()));
            }
            Grant::Renewal { .. } => None,
        };
        self.prune_certificates();
        let records = &mut self.state.certificates;
        if let Some((id, used)) = token {
            records.tokens.insert(id, used);
        }
        records.issued = records.issued.saturating_add(1);
        let certificate = Certificate {
            serial: records.issued,
            issued_ms: now,
            expires_ms: now.saturating_add(lifetime_ms.clamp(MIN_LIFETIME_MS, MAX_LIFETIME_MS)),
        };
        records
            .newest
            .insert(Arc::new(identity.clone()), certificate);
        let how = match grant {
            Grant::Token(_) => "joins",
            Grant::Renewal { .. } => "renews its certificate",
        };
        let text = format!("{identity} {how}: certificate {}", certificate.serial);
        self.event("certificate.issued", None, None, text);
        Ok(CommandResult::CertificateIssued {
            serial: certificate.serial,
            issued_ms: certificate.issued_ms,
            expires_ms: certificate.expires_ms,
        })
    }

    /// The token's record with one more use, or why there is none left.
    fn token_use(&self, identity: &Identity, token: &JoinToken) -> Result<TokenUse, Rejection> {
        let now = self.now();
        if token.expires_ms <= now {
            return Err(Rejection::TokenExpired);
        }
        let records = &self.state.certificates;
        // The first use has said how many there are.
        let known = records.tokens.get(&token.id).copied().unwrap_or(TokenUse {
            used: 0,
            uses: token.uses,
            expires_ms: token.expires_ms,
        });
        if known.used >= known.uses {
            return Err(Rejection::TokenUsed);
        }
        let held = records.newest.get(identity);
        let good = |c: &Certificate| c.expires_ms > now && !records.is_revoked(identity, c.serial);
        if !token.exact && held.is_some_and(good) {
            return Err(Rejection::IdentityTaken(identity.clone()));
        }
        if known.used == 0 && is_full(&records.tokens, MAX_TOKENS, |t| t.expires_ms > now) {
            return Err(Rejection::TooManyIdentities(MAX_TOKENS, "tokens in use"));
        }
        Ok(TokenUse {
            used: known.used + 1,
            expires_ms: known.expires_ms.max(token.expires_ms),
            ..known
        })
    }

    pub(super) fn revoke_certificates(&mut self, identity: &Identity) -> Result<(), Rejection> {
        if let Some(fault) = identity.fault() {
            return Err(Rejection::BadIdentity(fault));
        }
        if identity.role == Role::Master {
            return Err(Rejection::MasterIrrevocable);
        }
        let now = self.now();
        let records = &self.state.certificates;
        if !records.revoked.contains_key(identity)
            && is_full(&records.revoked, MAX_REVOCATIONS, |r| r.until_ms > now)
        {
            return Err(Rejection::TooManyIdentities(MAX_REVOCATIONS, "revocations"));
        }
        self.prune_certificates();
        let until_ms = now.saturating_add(REVOKED_FOR_MS);
        let records = &mut self.state.certificates;
        let through = records.issued;
        let revocation = Revocation { through, until_ms };
        records
            .revoked
            .insert(Arc::new(identity.clone()), revocation);
        let text = format!("every certificate of {identity} so far is revoked");
        self.event("certificate.revoked", None, None, text);
        Ok(())
    }

    /// Drops what is about certificates and tokens that no longer count by their own time.
    fn prune_certificates(&mut self) {
        let now = self.now();
        let records = &mut self.state.certificates;
        let full = records.newest.len() >= MAX_CERTIFICATES
            || records.tokens.len() >= MAX_TOKENS
            || records.revoked.len() >= MAX_REVOCATIONS;
        if !full && now < records.pruned_ms.saturating_add(PRUNE_EVERY_MS) {
            return;
        }
        records.pruned_ms = now;
        drop_where(&mut records.newest, |c| c.expires_ms <= now);
        drop_where(&mut records.tokens, |t| t.expires_ms <= now);
        drop_where(&mut records.revoked, |r| r.until_ms <= now);
    }
}

/// There is room for no other one, not even after those that are over are dropped.
fn is_full<K: Ord, V>(map: &OrdMap<K, V>, most: usize, counts: impl Fn(&V) -> bool) -> bool {
    map.len() >= most && map.values().filter(|value| counts(value)).count() >= most
}

fn drop_where<K: Ord + Clone, V: Clone>(map: &mut OrdMap<K, V>, over: impl Fn(&V) -> bool) {
    let gone: Vec<K> = map
        .iter()
        .filter(|(_, value)| over(value))
        .map(|(key, _)| key.clone())
        .collect();
    for key in gone {
        map.remove(&key);
    }
}
