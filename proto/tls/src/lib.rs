//! Who is who in a cluster: its certificate authority, certificates that carry a role and a name, join tokens, and the
//! mutual TLS that every connection speaks once there is an authority.
//!
//! Owns: how keys and certificates are made, kept on disk, reloaded and renewed; how masters accept connections
//! ([`Acceptor`]) and how everybody dials them ([`Dialler`]). Must not know: what a role may do, and where the record of
//! certificates is kept.
//!
//! ```text
//! berth init ---> Authority (ca.pem, ca-key.pem, on masters)
//!                    | seals                    | signs
//!                    v                          v
//!                 JoinToken --Security.Join--> identity.pem (certificate and key, on agents and with people)
//!                                               `--Security.Renew, at two thirds of its life--> a new one
//! ```
//!
//! A certificate names a role as its organisation and a name as its common name. A master's says `master.berth` besides,
//! and that is what a client checks: whoever has a master's certificate may speak for the cluster, at any address.
//!
//! Start reading at [`Authority`], then [`Dialler`].

mod accept;
mod authority;
mod dial;
mod error;
mod files;
mod leaf;
mod pin;
mod renew;
mod token;

pub use accept::{Acceptor, Connection, Incoming, Peer, incoming};
pub use authority::{Authority, Signed};
pub use dial::Dialler;
pub use error::TlsError;
pub use files::{AUTHORITY, AUTHORITY_KEY, IDENTITY, now_ms, save_identity, save_master};
pub use leaf::Leaf;
pub use pin::{Joined, anonymous, join};
pub use renew::{keep_fresh, renew, renew_if_due};
pub use token::{Claims, MAX_TOKEN_MS, MAX_USES, Names};

/// How long a person's certificate is good: 30 days.
pub const PERSON_MS: u64 = 30 * 24 * 3_600_000;
/// How long a node's or a master's certificate is good: a week.
pub const DAEMON_MS: u64 = 7 * 24 * 3_600_000;

/// How long a certificate of this role is good, in milliseconds.
pub const fn lifetime_ms(role: berth_types::Role) -> u64 {
    use berth_types::Role;
    match role {
        Role::Admin | Role::Submitter | Role::Viewer => PERSON_MS,
        Role::Node | Role::Master => DAEMON_MS,
    }
}
