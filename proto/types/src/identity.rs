//! Who takes part in a cluster whose connections are authenticated: a role and a name, as a certificate states them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name in a certificate, in bytes: the upper bound of a common name (RFC 5280, appendix A.1).
pub const MAX_IDENTITY_NAME: usize = 64;

/// What a certificate allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Everything that people do.
    Admin,
    /// Submits jobs, sees the queue, and handles its own jobs.
    Submitter,
    /// Sees the queue and the nodes.
    Viewer,
    /// One node's agent.
    Node,
    /// A master. Holds the authority's key.
    Master,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 5] = [
        Role::Admin,
        Role::Submitter,
        Role::Viewer,
        Role::Node,
        Role::Master,
    ];

    /// As certificates and people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Submitter => "submitter",
            Role::Viewer => "viewer",
            Role::Node => "node",
            Role::Master => "master",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| {
            format!("`{text}` is no role; one of admin, submitter, viewer, node, master")
        })
    }
}

/// A role and a name: the subject of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// What it may do.
    pub role: Role,
    /// Who it is: a person, a node's name, a master's id.
    pub name: String,
}

impl Identity {
    /// An identity, if the name can be one.
    ///
    /// # Errors
    /// What is wrong with the name, and what would be right.
    pub fn new(role: Role, name: impl Into<String>) -> Result<Self, String> {
        let identity = Self {
            role,
            name: name.into(),
        };
        match identity.fault() {
            None => Ok(identity),
            Some(fault) => Err(fault),
        }
    }

    /// What is wrong with the name, if anything is.
    pub fn fault(&self) -> Option<String> {
        let name = &self.name;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
        if name.is_empty() || name.len() > MAX_IDENTITY_NAME || !name.chars().all(allowed) {
            return Some(format!(
                "`{name}` cannot stand in a certificate: 1 to {MAX_IDENTITY_NAME} letters, digits, `-`, `_`, `.` and `@`"
            ));
        }
        let is_id = || !name.starts_with('0') && name.parse::<u64>().is_ok();
        if self.role == Role::Master && !is_id() {
            return Some(format!("`{name}` is no master: give its id, such as 4"));
        }
        None
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

/// Where a certificate's right to be issued comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grant {
    /// A join token, whose seal the master that took the call has checked.
    Token(JoinToken),
    /// A certificate that is still good, proven by the connection that asks.
    Renewal {
        /// Its number.
        serial: u64,
    },
}

/// What the log keeps of a join token, so that it counts only as often as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Drawn at random when it was made.
    pub id: u64,
    /// How many may join with it.
    pub uses: u32,
    /// When it ends.
    pub expires_ms: u64,
    /// It names one identity, and may replace that one's certificate; one for a pattern of names may not.
    pub exact: bool,
}

/// A certificate on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateView {
    /// Who.
    pub identity: Identity,
    /// The newest one's number; 0 for one that was issued beside the log (`berth init`).
    pub serial: u64,
    /// When it was issued.
    pub issued_ms: u64,
    /// When it ends.
    pub expires_ms: u64,
    /// No longer good.
    pub revoked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_certificate_can_carry() {
        for (role, name) in [
            (Role::Node, "gpu-01.rack_2"),
            (Role::Submitter, "ada@example.org"),
            (Role::Master, "12"),
        ] {
            assert_eq!(Identity::new(role, name).map(|i| i.name), Ok(name.into()));
        }
        let long = "n".repeat(MAX_IDENTITY_NAME + 1);
        for (role, name) in [
            (Role::Node, ""),
            (Role::Node, long.as_str()),
            (Role::Admin, "a b"),
            (Role::Admin, "a/b"),
            (Role::Admin, "ü"),
            (Role::Node, "gpu-*"),
            (Role::Master, "one"),
            (Role::Master, "0"),
            (Role::Master, "01"),
            (Role::Master, "-1"),
        ] {
            assert!(Identity::new(role, name).is_err(), "{role} {name}");
        }
    }

    #[test]
    fn roles_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
