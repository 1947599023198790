//! The two daemons' configuration files and command lines, as far as a local cluster needs them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::layout::{MasterEntry, Place};
use super::process::find_program;
use crate::failure::Failure;

/// The master's program.
pub(crate) const SCHEDULER: &str = "berth-scheduler";
/// The agent's program.
pub(crate) const AGENT: &str = "berth-agent";
/// Ports that each agent of a local cluster leases to gangs.
const PORTS_PER_AGENT: u16 = 200;
/// Gang ports start here, below the range that the kernel hands out by itself.
const FIRST_PORT: u16 = 20_000;
/// Clusters on one machine start in one of so many places, so that two seldom collide.
const PORT_PLACES: u16 = 10;

/// The installed daemons.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// `berth-scheduler`.
    pub(crate) scheduler: PathBuf,
    /// `berth-agent`.
    pub(crate) agent: PathBuf,
}

impl Programs {
    /// Finds them beside `berth` or in `PATH`.
    pub(crate) fn find() -> Result<Self, Failure> {
        Ok(Self {
            scheduler: find_program(SCHEDULER)?,
            agent: find_program(AGENT)?,
        })
    }
}

/// What the masters of a local cluster have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct MasterSettings {
    /// Policy that plans; the master's default if `None`.
    pub(crate) policy: Option<String>,
    /// Storage; the master's default if `None`.
    pub(crate) storage: Option<String>,
}

/// How a master comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Birth {
    /// As one of the first masters of a cluster.
    First,
    /// It waits to be added to a running cluster.
    Joins,
}

/// Writes a master's configuration. `masters` are the cluster's: with [`Birth::First`] its own among them.
pub(crate) fn write_master(
    place: &Place,
    own: &MasterEntry,
    birth: Birth,
    masters: &[MasterEntry],
    settings: &MasterSettings,
) -> Result<(), Failure> {
    let mut config = json!({
        "id": own.id,
        "data_dir": text(&place.data())?,
        "listen": own.address,
        "join": birth == Birth::Joins,
        "masters": masters
            .iter()
            .map(|m| json!({ "id": m.id, "address": m.address }))
            .collect::<Vec<_>>(),
    });
    if let Some(policy) = &settings.policy {
        config["policy"] = policy.as_str().into();
    }
    if let Some(storage) = &settings.storage {
        config["storage"] = storage.as_str().into();
    }
    write(place, &config)
}

/// What an agent of a local cluster offers.
#[derive(Clone, Debug)]
pub(crate) struct AgentSettings {
    /// GPUs to declare.
    pub(crate) gpus: u32,
    /// Their model.
    pub(crate) gpu_model: String,
    /// Their memory, with its unit.
    pub(crate) gpu_memory: String,
    /// CPUs to offer; all of the machine's if `None`.
    pub(crate) cpus: Option<String>,
    /// Memory to offer, with its unit; the machine's if `None`.
    pub(crate) memory: Option<String>,
}

/// Writes the configuration of the agent with this number, from 0.
pub(crate) fn write_agent(
    place: &Place,
    name: &str,
    number: u16,
    masters: &[String],
    settings: &AgentSettings,
) -> Result<(), Failure> {
    let first = first_port(number);
    let mut config = json!({
        "name": name,
        "data_dir": text(&place.data())?,
        "masters": masters,
        "address": "127.0.0.1",
        "ports": format!("{first}-{}", first + PORTS_PER_AGENT - 1),
        // They would all want the same port of this host.
        "metrics": "off",
    });
    if settings.gpus > 0 {
        config["gpus"] = json!([{
            "model": settings.gpu_model,
            "memory": settings.gpu_memory,
            "count": settings.gpus,
        }]);
    }
    if let Some(cpus) = &settings.cpus {
        let number = cpus.parse::<f64>().map_err(|_| {
            Failure::usage(format!("`{cpus}` is no number of CPUs"), "such as 8 or 0.5")
        })?;
        config["cpus"] = json!(number);
    }
    if let Some(memory) = &settings.memory {
        config["memory"] = memory.as_str().into();
    }
    write(place, &config)
}

/// Each agent has ports of its own, since all of them share the host.
fn first_port(number: u16) -> u16 {
    let places = u32::from(PORT_PLACES);
    let place = u16::try_from(std::process::id() % places).unwrap_or(0);
    let span = (32_768 - FIRST_PORT) / PORT_PLACES;
    FIRST_PORT + place * span + (number * PORTS_PER_AGENT) % span
}

/// The command line that runs a daemon with the configuration in `place`.
pub(crate) fn run_args(place: &Place) -> Result<Vec<String>, Failure> {
    Ok(vec!["--config".into(), text(&place.config())?])
}

/// The command line that ends the keeper of an agent, and the tasks that it holds.
pub(crate) fn keeper_stop_args(place: &Place) -> Result<Vec<String>, Failure> {
    Ok(vec![
        "keeper-stop".into(),
        "--dir".into(),
        text(&place.data())?,
    ])
}

fn write(place: &Place, config: &Value) -> Result<(), Failure> {
    std::fs::create_dir_all(&place.dir).map_err(|e| Failure::file(&place.dir, e))?;
    let text = toml::to_string(config).map_err(|e| Failure::local(e.to_string(), ""))?;
    std::fs::write(place.config(), text).map_err(|e| Failure::file(place.config(), e))
}

fn text(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Failure::usage(
            format!("{} is not UTF-8", path.display()),
            "use another directory",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_of_one_cluster_share_no_port() {
        let mut ranges: Vec<u16> = (0..6).map(first_port).collect();
        ranges.dedup();
        assert_eq!(ranges.len(), 6);
        for pair in ranges.windows(2) {
            assert!(pair[1] >= pair[0] + PORTS_PER_AGENT, "{ranges:?}");
        }
        assert!(ranges[5] + PORTS_PER_AGENT <= 32_768);
    }

    #[test]
    fn a_joining_master_knows_the_others_and_does_not_begin_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            dir: dir.path().join("m"),
        };
        let entry = |id: u64| MasterEntry {
            id,
            address: format!("127.0.0.1:700{id}"),
        };
        let settings = MasterSettings::default();
        for (birth, joins) in [(Birth::First, false), (Birth::Joins, true)] {
            write_master(&place, &entry(4), birth, &[entry(1)], &settings).unwrap();
            let text = std::fs::read_to_string(place.config()).unwrap();
            let config: Value = toml::from_str(&text).unwrap();
            assert_eq!(config["join"], joins);
            assert_eq!(config["masters"][0]["address"], "127.0.0.1:7001");
        }
    }
}
