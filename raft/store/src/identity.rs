//! `berth.format`: whose store this is, and in which format. Written last when a store is made, so that its presence
//! means: there was a complete store here.

use std::path::{Path, PathBuf};

use berth_raft::PeerId;

use crate::options::{Backend, StoreOptions};
use crate::{StoreError, file};

/// Name of the marker.
pub(crate) const FILE: &str = "berth.format";

/// Version of everything in the directory.
const FORMAT_VERSION: u32 = 1;

/// What the marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) member: PeerId,
    pub(crate) cluster: Option<String>,
    pub(crate) backend: Backend,
}

impl Identity {
    pub(crate) fn of(options: &StoreOptions, backend: Backend) -> Identity {
        Identity {
            member: options.member,
            cluster: options.cluster.clone(),
            backend,
        }
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// Writes the marker, durably.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let body = self.body();
        let sum = format!("crc32 {:08x}\n", crc32fast::hash(body.as_bytes()));
        file::write_atomically(&Identity::path(dir), &[body.as_bytes(), sum.as_bytes()])
    }

    fn body(&self) -> String {
        let cluster = self.cluster.as_deref().unwrap_or("-");
        format!(
            "berth-raft-store {FORMAT_VERSION}\nmember {}\ncluster {cluster}\nbackend {}\n",
            self.member,
            self.backend.name()
        )
    }

    /// Reads the marker and compares it with what the caller expects; `None` if there is no store.
    pub(crate) fn check(&self, dir: &Path) -> Result<Option<Identity>, StoreError> {
        let path = Identity::path(dir);
        let Some(bytes) = file::read_if_exists(&path)? else {
            return Ok(None);
        };
        let damaged = |what: &str| StoreError::corrupt(what, &path, self.member);
        let text = String::from_utf8(bytes).map_err(|_| damaged("the format file is no text"))?;
        let (body, sum) = text.split_at(text.rfind("crc32 ").unwrap_or(0));
        if sum != format!("crc32 {:08x}\n", crc32fast::hash(body.as_bytes())) {
            return Err(damaged("the format file is torn or empty"));
        }
        let field = |name: &str| {
            body.lines()
                .find_map(|l| l.strip_prefix(name))
                .map(str::trim)
        };
        let differs = |what: String| StoreError::Mismatch {
            what,
            path: dir.to_owned(),
        };
        match field("berth-raft-store ") {
            Some(v) if v == FORMAT_VERSION.to_string() => {}
            v => {
                return Err(differs(format!(
                    "format {} instead of {FORMAT_VERSION}",
                    v.unwrap_or("?")
                )));
            }
        }
        let member = field("member ")
            .and_then(|m| m.parse().ok())
            .ok_or_else(|| damaged("no member id"))?;
        let backend = field("backend ")
            .and_then(|b| b.parse().ok())
            .ok_or_else(|| damaged("no backend"))?;
        let cluster = field("cluster ").filter(|c| *c != "-").map(str::to_owned);
        let found = Identity {
            member,
            cluster,
            backend,
        };
        match self.difference(&found) {
            Some(what) => Err(differs(what)),
            None => Ok(Some(found)),
        }
    }

    /// In which way a store is not the one that the caller expects.
    fn difference(&self, found: &Identity) -> Option<String> {
        if found.member != self.member {
            return Some(format!(
                "it is member {}, not {}",
                found.member, self.member
            ));
        }
        if found.backend != self.backend {
            return Some(format!(
                "it was made by {}, not {}",
                found.backend.name(),
                self.backend.name()
            ));
        }
        match (&found.cluster, &self.cluster) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                Some(format!("it is of cluster {theirs}, not {ours}"))
            }
            (Some(_) | None, Some(_) | None) => None,
        }
    }
}
