//! Certificates carry numbers that were given, each once; tokens count within their bounds.

use std::collections::BTreeSet;

use super::Report;
use crate::apply::{MAX_CERTIFICATES, MAX_REVOCATIONS, MAX_TOKENS};
use crate::state::State;

pub(super) fn check(state: &State, report: &mut Report) {
    let records = &state.certificates;
    let sizes = (
        records.newest.len(),
        records.tokens.len(),
        records.revoked.len(),
    );
    let bounded =
        sizes.0 <= MAX_CERTIFICATES && sizes.1 <= MAX_TOKENS && sizes.2 <= MAX_REVOCATIONS;
    report.expect(bounded, "CERTIFICATES_TOO_MANY", || {
        format!(
            "{} certificates, {} tokens, {} revocations",
            sizes.0, sizes.1, sizes.2
        )
    });
    let mut seen = BTreeSet::new();
    for (identity, certificate) in &records.newest {
        let serial = certificate.serial;
        let given = serial > 0 && serial <= records.issued && seen.insert(serial);
        report.expect(given, "CERTIFICATE_SERIAL", || {
            format!("certificate {serial} of {identity} was not given, or twice")
        });
        report.expect(identity.fault().is_none(), "CERTIFICATE_NAME", || {
            format!("a certificate for {identity:?}")
        });
    }
    for (id, token) in &records.tokens {
        report.expect((1..=token.uses).contains(&token.used), "TOKEN_USES", || {
            format!(
                "token {id:x} was used {} times of {}",
                token.used, token.uses
            )
        });
    }
    for (identity, revocation) in &records.revoked {
        report.expect(revocation.through <= records.issued, "REVOCATION", || {
            format!(
                "certificates of {identity} up to {} are revoked",
                revocation.through
            )
        });
    }
}
