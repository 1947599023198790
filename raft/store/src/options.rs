//! Settings of a store.

use berth_raft::PeerId;

/// Which storage engine keeps the tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// sled 0.34, the default.
    #[default]
    Sled,
    /// redb 4, the way out.
    Redb,
}

impl Backend {
    /// The name used in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Sled => "sled",
            Backend::Redb => "redb",
        }
    }
}

impl std::str::FromStr for Backend {
    type Err = String;

    fn from_str(s: &str) -> Result<Backend, String> {
        match s {
            "sled" => Ok(Backend::Sled),
            "redb" => Ok(Backend::Redb),
            other => Err(format!(
                "unknown storage `{other}`; there are sled and redb"
            )),
        }
    }
}

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The member that the directory belongs to; written at creation and compared ever after.
    pub member: PeerId,
    /// The cluster, where it is known; compared when both the directory and the caller know it.
    pub cluster: Option<String>,
    /// Memory of the engine's page cache.
    pub cache_bytes: u64,
    /// Size of each of the two journals. A journal is written over again once the engine has flushed what it holds.
    pub journal_bytes: u64,
}

impl StoreOptions {
    /// Default settings for a member.
    pub fn new(member: PeerId) -> StoreOptions {
        StoreOptions {
            member,
            cluster: None,
            cache_bytes: 16 << 20,
            journal_bytes: 8 << 20,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), crate::StoreError> {
        let bad = |what: &str| Err(crate::StoreError::Invalid(what.to_owned()));
        if self.member == 0 {
            return bad("a member id is never 0");
        }
        if self.journal_bytes < 4096 {
            return bad("a journal is never smaller than 4096 bytes");
        }
        if self
            .cluster
            .as_ref()
            .is_some_and(|c| c.is_empty() || c.contains('\n'))
        {
            return bad("a cluster id is one line of text");
        }
        Ok(())
    }
}
