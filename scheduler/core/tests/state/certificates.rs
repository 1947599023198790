//! Certificates: numbered once, tokens count, revocations void what was and not what comes.

use berth_core::Command;
use berth_core::State;
use berth_core::apply::{CommandResult, MAX_LIFETIME_MS, REVOKED_FOR_MS, Rejection, apply};
use berth_types::{Grant, Identity, JoinToken, Role};

use crate::make;

const HOUR: u64 = 3_600_000;
const START: u64 = 1_700_000_000_000;

struct Records {
    state: State,
    now: u64,
}

impl Records {
    fn new() -> Self {
        Self {
            state: State::new(),
            now: START,
        }
    }

    fn carry_out(&mut self, command: Command) -> CommandResult {
        let entry = make::entry(self.now, vec![command]);
        let mut applied = apply(&mut self.state, 1, &entry);
        assert_eq!(self.state.check(), Ok(()));
        applied.results.remove(0)
    }

    /// The number, or why not.
    fn issue(&mut self, identity: &Identity, grant: Grant) -> Result<u64, Rejection> {
        let command = Command::IssueCertificate {
            identity: identity.clone(),
            lifetime_ms: u64::MAX,
            grant,
        };
        match self.carry_out(command) {
            CommandResult::CertificateIssued {
                serial, expires_ms, ..
            } => {
                assert_eq!(expires_ms, self.now + MAX_LIFETIME_MS);
                Ok(serial)
            }
            CommandResult::Rejected(rejection) => Err(rejection),
            other => panic!("{other:?}"),
        }
    }

    fn revoke(&mut self, identity: &Identity) -> CommandResult {
        self.carry_out(Command::RevokeCertificates {
            identity: identity.clone(),
        })
    }

    fn is_revoked(&self, identity: &Identity, serial: u64) -> bool {
        self.state.certificates.is_revoked(identity, serial)
    }
}

fn node(name: &str) -> Identity {
    Identity::new(Role::Node, name).expect("a name")
}

fn token(id: u64, uses: u32, exact: bool) -> Grant {
    Grant::Token(JoinToken {
        id,
        uses,
        expires_ms: START + HOUR,
        exact,
    })
}

#[test]
fn a_token_counts_as_often_as_it_may_and_no_longer_than_it_lasts() {
    let mut records = Records::new();
    assert_eq!(records.issue(&node("a"), token(7, 2, false)), Ok(1));
    assert_eq!(records.issue(&node("b"), token(7, 2, false)), Ok(2));
    // Whatever a copy of it claims.
    for claimed in [2, 9] {
        let again = records.issue(&node("c"), token(7, claimed, false));
        assert_eq!(again, Err(Rejection::TokenUsed));
    }
    assert_eq!(
        records.issue(&node("c"), token(8, 0, false)),
        Err(Rejection::TokenUsed)
    );
    records.now += HOUR;
    assert_eq!(
        records.issue(&node("c"), token(9, 1, false)),
        Err(Rejection::TokenExpired)
    );
    assert_eq!(records.state.certificates.issued, 2);
}

#[test]
fn a_token_for_many_names_takes_nobody_s_place() {
    let mut records = Records::new();
    let a = node("a");
    assert_eq!(records.issue(&a, token(1, 9, false)), Ok(1));
    assert_eq!(
        records.issue(&a, token(1, 9, false)),
        Err(Rejection::IdentityTaken(a.clone()))
    );
    let used = records.state.certificates.tokens[&1].used;
    assert_eq!(used, 1, "a refused join uses nothing up");
    assert_eq!(records.issue(&a, token(2, 1, true)), Ok(2));
    records.revoke(&a);
    assert_eq!(records.issue(&a, token(1, 9, false)), Ok(3));
}

#[test]
fn a_revocation_voids_what_was_and_not_what_comes() {
    let mut records = Records::new();
    let (a, b) = (node("a"), node("b"));
    assert_eq!(records.issue(&a, token(1, 1, true)), Ok(1));
    assert_eq!(records.issue(&b, token(2, 1, true)), Ok(2));
    assert_eq!(records.revoke(&a), CommandResult::Done);
    assert!(records.is_revoked(&a, 0) && records.is_revoked(&a, 1));
    assert!(!records.is_revoked(&b, 2));
    assert_eq!(
        records.issue(&a, Grant::Renewal { serial: 1 }),
        Err(Rejection::CertificateRevoked(a.clone()))
    );
    assert_eq!(records.issue(&b, Grant::Renewal { serial: 2 }), Ok(3));
    assert_eq!(records.issue(&a, token(3, 1, true)), Ok(4));
    assert!(records.is_revoked(&a, 1) && !records.is_revoked(&a, 4));
    assert_eq!(records.issue(&a, Grant::Renewal { serial: 4 }), Ok(5));
}

#[test]
fn the_record_ends_with_what_it_is_about() {
    let mut records = Records::new();
    let (a, b, c) = (node("a"), node("b"), node("c"));
    records.issue(&a, token(1, 1, true)).unwrap();
    records.revoke(&b);
    records.now += MAX_LIFETIME_MS;
    let late = Grant::Renewal { serial: 0 };
    records.issue(&c, late).unwrap();
    let left = &records.state.certificates;
    assert_eq!(
        (left.newest.len(), left.tokens.len(), left.revoked.len()),
        (1, 0, 1)
    );
    records.now += REVOKED_FOR_MS - MAX_LIFETIME_MS;
    records.issue(&c, late).unwrap();
    assert!(records.state.certificates.revoked.is_empty());
}

#[test]
fn what_can_be_nobody_is_refused() {
    let mut records = Records::new();
    let odd = Identity {
        role: Role::Node,
        name: "a/b".into(),
    };
    let refused = records.issue(&odd, token(1, 1, true));
    assert!(matches!(refused, Err(Rejection::BadIdentity(_))));
    let master = Identity::new(Role::Master, "1").unwrap();
    assert_eq!(
        records.revoke(&master),
        CommandResult::Rejected(Rejection::MasterIrrevocable)
    );
    assert_eq!(records.state.certificates, Default::default());
}
