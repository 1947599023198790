//! Which file of a local cluster lies where, and `cluster.toml`, which says what the cluster consists of.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// What a local cluster consists of; `cluster.toml` in its directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    /// Its masters.
    #[serde(default)]
    pub(crate) masters: Vec<MasterEntry>,
    /// Its agents.
    #[serde(default)]
    pub(crate) agents: Vec<AgentEntry>,
}

/// A master of a local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MasterEntry {
    /// Its id.
    pub(crate) id: u64,
    /// `host:port`.
    pub(crate) address: String,
}

/// An agent of a local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentEntry {
    /// Its node's name.
    pub(crate) name: String,
}

/// The files of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its directory.
    pub(crate) dir: PathBuf,
}

impl Place {
    /// Its configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// Where it keeps what it must not forget.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What it says.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Its pid and start time.
    pub(crate) fn pid(&self) -> PathBuf {
        self.dir.join("pid")
    }
}

/// Where a cluster's own file lies.
fn cluster_file(dir: &Path) -> PathBuf {
    dir.join("cluster.toml")
}

/// The files of a master.
pub(crate) fn master(dir: &Path, id: u64) -> Place {
    Place {
        dir: dir.join(format!("master-{id}")),
    }
}

/// The files of an agent.
pub(crate) fn agent(dir: &Path, name: &str) -> Place {
    Place {
        dir: dir.join(format!("agent-{name}")),
    }
}

impl Cluster {
    /// True if `dir` holds a cluster.
    pub(crate) fn exists(dir: &Path) -> bool {
        cluster_file(dir).exists()
    }

    /// Reads what the cluster in `dir` consists of.
    pub(crate) fn load(dir: &Path) -> Result<Self, Failure> {
        let path = cluster_file(dir);
        let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Failure::local(
                format!("there is no cluster in {}", dir.display()),
                format!("start one with `berth up --dir {}`", dir.display()),
            ),
            _ => Failure::file(&path, e),
        })?;
        toml::from_str(&text).map_err(|e| Failure::local(format!("{}: {e}", path.display()), ""))
    }

    /// Writes it, so that a reader sees the old or the new file and never half of one.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), Failure> {
        let text = toml::to_string(self).map_err(|e| Failure::local(e.to_string(), ""))?;
        let path = cluster_file(dir);
        let half = path.with_extension("toml.new");
        std::fs::write(&half, text).map_err(|e| Failure::file(&half, e))?;
        std::fs::rename(&half, &path).map_err(|e| Failure::file(&path, e))
    }

    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            masters: vec![MasterEntry {
                id: 1,
                address: "127.0.0.1:7001".into(),
            }],
            agents: vec![AgentEntry { name: "n1".into() }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Cluster::exists(dir.path()));
        Cluster::example().save(dir.path()).unwrap();
        assert_eq!(Cluster::load(dir.path()).unwrap(), Cluster::example());
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 1, "no half-written file is left");
    }
}
