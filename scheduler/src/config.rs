//! The configuration file of a master: TOML, unknown keys refused, every fault reported at once.

mod section;

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_core::replica::{Bootstrap, ReplicaConfig};
use berth_proto::channel;
use berth_types::api::MasterInfo;
use berth_types::{Fault, MasterId};
use thiserror::Error;

use section::Section;

/// Policies that can be named.
pub const POLICIES: &[&str] = &berth_policy::NAMES;
/// Storage backends that can be named.
pub const STORAGES: [&str; 2] = ["sled", "redb"];
/// Most masters in a cluster: more would only slow every write down.
pub const MAX_MASTERS: usize = 7;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Durations that an operator may change. The defaults are for a LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Length of the clock's tick, in which the others are counted.
    pub tick: Duration,
    /// Without a leader for this long (up to twice, at random), a master stands for election.
    pub election: Duration,
    /// Between a leader's heartbeats.
    pub heartbeat: Duration,
    /// A node that was silent for this long is lost.
    pub node: Duration,
    /// An agent without a leader for this long stops `fence` tasks.
    pub lease: Duration,
    /// Added to the lease before a `fence` job starts elsewhere.
    pub fence_margin: Duration,
    /// While jobs wait, a planning round is due at least this often.
    pub round: Duration,
    /// A policy that has not answered by then is passed over for this round.
    pub policy: Duration,
    /// A call that could not be answered by then fails as unavailable.
    pub call: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let core = ReplicaConfig::default();
        let ticks = |n: u32| Duration::from_millis(core.tick_ms * u64::from(n));
        Self {
            tick: Duration::from_millis(core.tick_ms),
            election: ticks(core.election_ticks),
            heartbeat: ticks(core.heartbeat_ticks),
            node: Duration::from_millis(core.node_timeout_ms),
            lease: Duration::from_millis(core.lease_ms),
            fence_margin: Duration::from_millis(core.fence_margin_ms),
            round: Duration::from_millis(core.round_tick_ms),
            policy: Duration::from_secs(1),
            call: Duration::from_millis(core.call_timeout_ms),
        }
    }
}

/// A master's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This master; never reused for another one.
    pub id: MasterId,
    /// Where its log and history lie.
    pub data_dir: PathBuf,
    /// Where it listens. Loopback only, unless there is a `tls_dir`.
    pub listen: SocketAddr,
    /// Where the cluster's authority lies (`ca.pem` and `ca-key.pem`): every connection is authenticated and encrypted.
    pub tls_dir: Option<PathBuf>,
    /// The first masters of the cluster, by id; with `join`, some that run. Used until the log says where masters listen.
    pub masters: Vec<(MasterId, MasterInfo)>,
    /// Wait to be added to a running cluster (`berth masters add`) instead of starting a new one.
    pub join: bool,
    /// Which policy plans.
    pub policy: String,
    /// Which storage backend.
    pub storage: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Durations.
    pub timeouts: Timeouts,
    /// Applied log entries between snapshots.
    pub snapshot_entries: u64,
    /// The invariants of the state are re-derived every so many log entries; 0 is never.
    pub check_every: u64,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML.
    #[error("{path} is not valid TOML: {message}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// It says something wrong.
    #[error("{path} has {}", Faults(faults))]
    Faults {
        /// Which.
        path: PathBuf,
        /// Everything that is wrong.
        faults: Vec<Fault>,
    },
}

struct Faults<'a>(&'a [Fault]);

impl fmt::Display for Faults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(f, "{n} fault{}", if n == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is no TOML, or has faults; all of them are in the error.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Reads the text of a file called `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let table = text
            .parse()
            .map_err(|e: toml::de::Error| ConfigError::Syntax {
                path: path.to_owned(),
                message: e.to_string().trim_end().to_owned(),
            })?;
        let mut faults = Vec::new();
        let config = read(table, &mut faults);
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(ConfigError::Faults {
                path: path.to_owned(),
                faults,
            }),
        }
    }

    /// The settings of its replica.
    pub fn replica(&self, proposer: u64, cluster_id: u64) -> ReplicaConfig {
        let ticks = |d: Duration| {
            let n = d.as_millis() / self.timeouts.tick.as_millis().max(1);
            u32::try_from(n).unwrap_or(u32::MAX).max(1)
        };
        let t = &self.timeouts;
        ReplicaConfig {
            id: self.id,
            seed: proposer,
            proposer,
            bootstrap: (!self.join).then(|| Bootstrap {
                cluster_id,
                masters: self.masters.clone(),
            }),
            tick_ms: ms(t.tick),
            election_ticks: ticks(t.election),
            heartbeat_ticks: ticks(t.heartbeat),
            node_timeout_ms: ms(t.node),
            lease_ms: ms(t.lease),
            fence_margin_ms: ms(t.fence_margin),
            round_tick_ms: ms(t.round),
            call_timeout_ms: ms(t.call),
            snapshot_entries: self.snapshot_entries,
            check_every: self.check_every,
            policy: self.policy.clone(),
            ..ReplicaConfig::default()
        }
    }
}

fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// `None` only together with a fault.
fn read(table: toml::Table, faults: &mut Vec<Fault>) -> Option<Config> {
    let mut top = Section::new("", table);
    let id = top.required("id", Section::integer);
    let data_dir = top.required("data_dir", Section::text);
    let listen = top.required("listen", Section::text);
    let tls_dir = top.text("tls_dir").map(PathBuf::from);
    let tls = tls_dir.is_some();
    let join = top.boolean("join").unwrap_or(false);
    let policy = top.text("policy").and_then(|name| {
        let sound = berth_policy::by_name(&name).map(|_| name);
        let told = sound.map_err(|error| (error.to_string(), "see docs/policies".to_owned()));
        top.checked("policy", told)
    });
    let policy = policy.unwrap_or(POLICIES[0].to_owned());
    let storage = top
        .choice("storage", &STORAGES)
        .unwrap_or(STORAGES[0].to_owned());
    let log_format = match top.choice("log_format", &["text", "json"]).as_deref() {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Text,
    };
    let default = ReplicaConfig::default();
    let snapshot_entries = top
        .integer("snapshot_entries")
        .unwrap_or(default.snapshot_entries);
    if snapshot_entries == 0 {
        top.fault("snapshot_entries", "0 entries", "at least 1");
    }
    let check_every = top.integer("check_every").unwrap_or(default.check_every);
    let timeouts = read_timeouts(top.section("timeouts"), faults);
    let masters = read_masters(top.sections("masters"), tls, faults);
    if id == Some(0) {
        top.fault("id", "0 is no master", "ids count from 1");
    }
    let listen = listen.and_then(|text| top.checked("listen", own_address(&text, tls)));
    top.finish(faults);
    let config = Config {
        id: MasterId(id?),
        data_dir: data_dir?.into(),
        listen: listen?,
        tls_dir,
        masters,
        join,
        policy,
        storage,
        log_format,
        timeouts,
        snapshot_entries,
        check_every,
    };
    check_masters(&config, faults);
    Some(config)
}

fn read_timeouts(mut section: Section, faults: &mut Vec<Fault>) -> Timeouts {
    let default = Timeouts::default();
    let mut get = |key: &'static str, default: Duration| section.duration(key).unwrap_or(default);
    let timeouts = Timeouts {
        tick: get("tick", default.tick),
        election: get("election", default.election),
        heartbeat: get("heartbeat", default.heartbeat),
        node: get("node", default.node),
        lease: get("lease", default.lease),
        fence_margin: get("fence_margin", default.fence_margin),
        round: get("round", default.round),
        policy: get("policy", default.policy),
        call: get("call", default.call),
    };
    if timeouts.heartbeat < timeouts.tick {
        section.fault("heartbeat", "shorter than a tick", "at least `tick`");
    }
    if timeouts.election < timeouts.heartbeat * 3 {
        section.fault(
            "election",
            "shorter than three heartbeats",
            "raise it, or lower `heartbeat`",
        );
    }
    section.finish(faults);
    timeouts
}

fn read_masters(
    sections: Vec<Section>,
    tls: bool,
    faults: &mut Vec<Fault>,
) -> Vec<(MasterId, MasterInfo)> {
    let mut masters: Vec<(MasterId, MasterInfo)> = Vec::new();
    for mut section in sections {
        let id = section.required("id", Section::integer);
        let address = section.required("address", Section::text);
        if id == Some(0) {
            section.fault("id", "0 is no master", "ids count from 1");
        }
        if let Some(id) = id
            && masters.iter().any(|(other, _)| other.0 == id)
        {
            section.fault("id", "listed twice", "each master has an id of its own");
        }
        let address = address.and_then(|text| {
            let checked = master_address(&text, tls).map(|()| text);
            section.checked("address", checked)
        });
        section.finish(faults);
        if let (Some(id), Some(address)) = (id, address) {
            masters.push((MasterId(id), MasterInfo { address }));
        }
    }
    masters.sort_by_key(|(id, _)| *id);
    masters
}

fn check_masters(config: &Config, faults: &mut Vec<Fault>) {
    let mut fault = |what: String, hint: &str| faults.push(Fault::new("masters", what, hint));
    let own = config.masters.iter().find(|(id, _)| *id == config.id);
    if config.join {
        if config.masters.iter().all(|(id, _)| *id == config.id) {
            fault(
                "no other master".to_owned(),
                "list the masters that run, so that this one can answer them",
            );
        }
        return;
    }
    let n = config.masters.len();
    if n.is_multiple_of(2) || n > MAX_MASTERS {
        fault(
            format!("{n} masters"),
            "list 1, 3 or 5 of them; an even number tolerates no more failures",
        );
    }
    match own {
        None => fault(
            format!("master {} is not among them", config.id),
            "list it, or set `join = true` to be added to a running cluster",
        ),
        Some((_, info))
            if !info
                .address
                .ends_with(&format!(":{}", config.listen.port())) =>
        {
            fault(
                format!("master {} is said to listen at {}", config.id, info.address),
                "give it the port of `listen`",
            )
        }
        Some(_) => {}
    }
}

const EXAMPLE: &str = "give host:port, such as 127.0.0.1:7101";

/// Where to listen: on this host alone without TLS.
fn own_address(text: &str, tls: bool) -> Result<SocketAddr, (String, String)> {
    let mut addresses = text
        .to_socket_addrs()
        .map_err(|e| (format!("`{text}` is no address: {e}"), EXAMPLE.to_owned()))?;
    let address = addresses
        .next()
        .ok_or((format!("`{text}` names no address"), EXAMPLE.to_owned()))?;
    if tls || address.ip().is_loopback() {
        return Ok(address);
    }
    Err(not_loopback(text))
}

/// Where a master listens: on this host without TLS. Need not be known to this host's name service now.
pub(crate) fn master_address(text: &str, tls: bool) -> Result<(), (String, String)> {
    if !channel::is_address(text) {
        return Err((format!("`{text}` is no address"), EXAMPLE.to_owned()));
    }
    if tls || channel::is_loopback(text) {
        return Ok(());
    }
    Err(not_loopback(text))
}

fn not_loopback(text: &str) -> (String, String) {
    let what = format!("`{text}` is not a loopback address");
    (what, channel::NEEDS_TLS.to_owned())
}

#[cfg(test)]
mod tests;
