//! Join tokens: short-lived words that let somebody in, under a name.
//!
//! A token is claims and a seal (HMAC-SHA-256 under a key derived from the authority's), so any master can check one
//! without having heard of it. It carries the authority's fingerprint: who joins knows whom to trust before it says
//! anything. How often it was used is counted in the log.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_types::{Identity, JoinToken, Role};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::{Authority, TlsError};

/// Longest life of a token: a week.
pub const MAX_TOKEN_MS: u64 = 7 * 24 * 3_600_000;
/// Most who may join with one token.
pub const MAX_USES: u32 = 10_000;
/// Tells a token from other secrets, and its format from later ones.
const PREFIX: &str = "berth1.";
const SEAL: usize = 32;
/// Longest text that is looked at.
const MOST_BYTES: usize = 1_024;

/// Which names a token lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Names {
    /// This one, also in the place of who holds it.
    Exactly(String),
    /// Every one that starts so and that nobody holds.
    Starting(String),
}

impl Names {
    /// From a name, or the start of one and `*`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(role: Role, text: &str) -> Result<Self, String> {
        let Some(start) = text.strip_suffix('*') else {
            return Identity::new(role, text).map(|i| Names::Exactly(i.name));
        };
        if role != Role::Node {
            return Err(format!(
                "`{text}`: only nodes join under a pattern; name exactly one {role}"
            ));
        }
        // A name that it could let in.
        Identity::new(role, format!("{start}x")).map(|_| Names::Starting(start.to_owned()))
    }

    /// The name, if there is only one.
    pub fn only(&self) -> Option<&str> {
        match self {
            Names::Exactly(name) => Some(name),
            Names::Starting(_) => None,
        }
    }

    fn lets_in(&self, name: &str) -> bool {
        match self {
            Names::Exactly(only) => name == only,
            Names::Starting(start) => name.starts_with(start.as_str()),
        }
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Drawn at random.
    pub id: u64,
    /// What joins.
    pub role: Role,
    /// Under which names.
    pub names: Names,
    /// How often.
    pub uses: u32,
    /// Until when.
    pub expires_ms: u64,
    /// SHA-256 of the authority's certificate.
    pub authority: [u8; 32],
}

impl Claims {
    /// Reads a token without its seal, as who joins does.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(token: &str) -> Result<Self, TlsError> {
        split(token).map(|(claims, _, _)| claims)
    }

    /// Who joins with it under `name`; an empty one is the only one that it lets in.
    ///
    /// # Errors
    /// If it lets in nobody of that name.
    pub fn identity(&self, name: &str) -> Result<Identity, TlsError> {
        let name = match (name, self.names.only()) {
            ("", Some(only)) => only,
            ("", None) => return Err(TlsError::Token("is for several names: say which one")),
            (name, _) => name,
        };
        if !self.names.lets_in(name) {
            return Err(TlsError::Token("is for another name"));
        }
        Identity::new(self.role, name).map_err(TlsError::Certificate)
    }

    /// What the log keeps of it.
    pub fn record(&self) -> JoinToken {
        JoinToken {
            id: self.id,
            uses: self.uses,
            expires_ms: self.expires_ms,
            exact: self.names.only().is_some(),
        }
    }
}

impl Authority {
    /// SHA-256 of its certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificates[0])
    }

    /// A new token, and when it ends.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn token(
        &self,
        role: Role,
        names: Names,
        uses: u32,
        expires_ms: u64,
    ) -> Result<String, TlsError> {
        let mut id = [0; 8];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| TlsError::Random)?;
        let claims = Claims {
            id: u64::from_le_bytes(id),
            role,
            names,
            uses,
            expires_ms,
            authority: self.fingerprint(),
        };
        let mut bytes = postcard::to_stdvec(&claims).expect("plain data in memory serialises");
        let seal = ring::hmac::sign(&self.seal, &bytes);
        bytes.extend_from_slice(seal.as_ref());
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Checks a token's seal and time. How often it was used is for the log to say.
    ///
    /// # Errors
    /// If it is none, was made by somebody else, or is over.
    pub fn check(&self, token: &str, now_ms: u64) -> Result<Claims, TlsError> {
        let (claims, said, seal) = split(token)?;
        ring::hmac::verify(&self.seal, &said, &seal)
            .map_err(|_| TlsError::Token("was not made by this cluster"))?;
        if claims.expires_ms <= now_ms {
            return Err(TlsError::Token("has expired"));
        }
        Ok(claims)
    }
}

/// Claims, what they were read from, and the seal.
fn split(token: &str) -> Result<(Claims, Vec<u8>, Vec<u8>), TlsError> {
    let token = token.trim();
    let none = TlsError::Token("is none: it starts with `berth1.` and is one line");
    if token.len() > MOST_BYTES {
        return Err(none);
    }
    let Some(body) = token.strip_prefix(PREFIX) else {
        return Err(none);
    };
    let cut = TlsError::Token("is damaged: copy the whole line");
    let Ok(mut said) = URL_SAFE_NO_PAD.decode(body) else {
        return Err(cut);
    };
    let Some(at) = said.len().checked_sub(SEAL) else {
        return Err(cut);
    };
    let seal = said.split_off(at);
    match postcard::take_from_bytes::<Claims>(&said) {
        Ok((claims, [])) => Ok((claims, said, seal)),
        _ => Err(cut),
    }
}

pub(crate) fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn a_token_is_good_for_whom_it_names_at_the_cluster_that_made_it() {
        let (own, other) = (
            Authority::generate(NOW).unwrap(),
            Authority::generate(NOW).unwrap(),
        );
        let names = Names::parse(Role::Node, "gpu-*").unwrap();
        let token = own.token(Role::Node, names, 3, NOW + 1_000).unwrap();
        let claims = own.check(&token, NOW).unwrap();
        assert_eq!(claims, Claims::read(&format!(" {token}\n")).unwrap());
        assert_eq!(claims.authority, own.fingerprint());
        assert_eq!(claims.identity("gpu-7").unwrap().name, "gpu-7");
        for wrong in ["", "cpu-7", "gpu-/"] {
            assert!(claims.identity(wrong).is_err(), "{wrong}");
        }
        assert!(!claims.record().exact);
        assert!(own.check(&token, NOW + 1_000).is_err(), "it is over");
        assert!(other.check(&token, NOW).is_err(), "another cluster's");
    }

    #[test]
    fn only_nodes_come_under_a_pattern() {
        assert!(Names::parse(Role::Node, "*").is_ok());
        for (role, text) in [
            (Role::Admin, "*"),
            (Role::Submitter, "a*"),
            (Role::Node, "a*b"),
            (Role::Node, ""),
        ] {
            assert!(Names::parse(role, text).is_err(), "{role} {text}");
        }
    }

    proptest! {
        /// Nothing that was changed is taken for a token, and nothing panics.
        #[test]
        fn a_changed_token_is_none(at in 0usize..300, to in "[ -~]") {
            let own = Authority::generate(NOW).unwrap();
            let names = Names::Exactly("ada".to_owned());
            let token = own.token(Role::Admin, names, 1, NOW + 1_000).unwrap();
            let at = at % token.len();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed.trim() != token);
            // The last digit of base64 has bits that say nothing; the decoder refuses them.
            prop_assert!(own.check(&changed, NOW).is_err());
        }

        #[test]
        fn arbitrary_text_is_none(text in ".{0,200}") {
            let _ = Claims::read(&text);
            let _ = Claims::read(&format!("{PREFIX}{text}"));
        }
    }
}
