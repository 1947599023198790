//! The agent's configuration: one TOML file. Unknown keys are faults with the nearest name, and every fault of a file
//! is told at once.
//!
//! ```toml
//! name = "gpu-01"                      # default: the host's name
//! masters = ["127.0.0.1:7401"]         # required: any of them will do to begin with
//! data_dir = "/var/lib/berth-agent"    # required
//! tls_dir = "/etc/berth/tls"           # this node's certificate, from `berth join`; without it all stays on loopback
//! address = "127.0.0.1"                # where other nodes reach this node's tasks
//! rack = ""
//! ports = "20000-20999"                # leased to gangs for their rendezvous
//! cpus = 8                             # default: all of the host's
//! memory = "64GiB"                     # default: all of the host's
//! heartbeat = "1s"                     # longest silence towards the leader
//! lease = "8s"                         # for `fence` jobs, until a leader names one
//! silence = "2500ms"                   # a master that is silent for so long is given up
//! keep_tasks = 2000                    # directories of forgotten tasks that are kept for their logs, at most
//! keep_for = "7d"                      # and for how long
//! metrics = "127.0.0.1:9400"           # /metrics and /healthz; "off" for none
//! gpus = "auto"                        # those that NVIDIA's driver lists; default: none
//!
//! [labels]
//! zone = "a"
//!
//! [telemetry]                          # of GPUs that a driver lists
//! interval = "1s"                      # time between two readings
//! deadline = "5s"                      # a call to the driver that takes longer hangs
//! library = "/usr/lib/libnvidia-ml.so.1"  # default: where the system finds it
//!
//! [isolation]                          # of tasks
//! cgroup = "auto"                      # what the service manager gave; "off"; or a group such as "/sys/fs/cgroup/berth"
//! pids = 32768                         # processes and threads of one task; 0 for no limit
//!
//! [hooks]                              # programs of the operator; default: none
//! prolog = "/etc/berth/prolog"         # before the first task of an attempt on this node
//! epilog = "/etc/berth/epilog"         # after the last one
//! timeout = "5m"                       # longest time of either
//! health_check = "/etc/berth/health"   # while it fails, the node takes no new work
//! health_check_interval = "1m"         # pause between two checks
//! health_check_timeout = "30s"         # longest time of one
//! [health]                             # of what was out of service
//! test = ["/usr/bin/dcgmi", "diag", "-r", "1"]  # must exit 0; default: the agent only looks at the GPU
//! test_timeout = "60s"
//!
//! [[gpus]]                             # instead of "auto": declared, and shown everywhere as simulated
//! model = "a100"
//! memory = "80GiB"
//! count = 4                            # default 1
//! nvlink_group = 0                     # default: none, each GPU by itself
//! numa = 0
//! ```

mod health;
mod host;
mod parse;
mod reader;
mod telemetry;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_proto::channel;
use berth_types::{Fault, GpuInfo, MILLI, NodeSpec};

use crate::layout::Layout;
use crate::layout::MAX_SOCKET_PATH;
pub use health::Health;
pub use host::{Cgroup, Hooks, IsolationKeys};
use reader::Reader;
pub use telemetry::Telemetry;

/// Most GPUs of one node; their index is a `u16` and every view carries them.
const MAX_GPUS: usize = 1_024;
/// Most CPUs that a file may claim.
const MAX_CPUS: u64 = 65_536;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `host:port` of the masters.
    pub masters: Vec<String>,
    /// Where everything lies.
    pub data_dir: PathBuf,
    /// Where this node's certificate lies (`ca.pem` and `identity.pem`): connections to masters are authenticated and
    /// encrypted.
    pub tls_dir: Option<PathBuf>,
    /// What the node offers.
    pub node: NodeSpec,
    /// Longest silence towards the leader.
    pub heartbeat: Duration,
    /// For `fence` jobs, until a leader names one.
    pub lease: Duration,
    /// A master that is silent for so long is given up.
    pub silence: Duration,
    /// Directories of forgotten tasks that are kept.
    pub keep_tasks: usize,
    /// How long they are kept.
    pub keep_for: Duration,
    /// Where metrics are served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// How GPUs are read from a driver, if they are.
    pub telemetry: Option<Telemetry>,
    /// How tasks are isolated.
    pub isolation: IsolationKeys,
    /// Programs of the operator.
    pub hooks: Hooks,
    /// Tests before something is used again.
    pub health: Health,
}

/// What the host has, for the keys that a file leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its CPUs.
    pub cpus: u32,
    /// Its memory.
    pub mem_bytes: u64,
}

impl Host {
    /// Asks the system.
    pub fn detect() -> Self {
        let line = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let kib = line("/proc/meminfo")
            .lines()
            .find_map(|l| {
                l.strip_prefix("MemTotal:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse()
                    .ok()
            })
            .unwrap_or(1u64 << 20);
        Self {
            name: line("/proc/sys/kernel/hostname").trim().to_owned(),
            cpus: std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
            mem_bytes: kib << 10,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every fault of it.
    pub fn load(path: &Path, host: &Host) -> Result<Self, Vec<Fault>> {
        let fault = |e: String| vec![Fault::new(path.display().to_string(), e, "")];
        let text = std::fs::read_to_string(path).map_err(|e| fault(e.to_string()))?;
        Self::parse(&text, host)
    }

    /// Checks a text.
    ///
    /// # Errors
    /// Every fault of it.
    pub fn parse(text: &str, host: &Host) -> Result<Self, Vec<Fault>> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            vec![Fault::new(
                "file",
                e.to_string().trim(),
                "see the TOML syntax",
            )]
        })?;
        let mut root = Reader::new("", table);
        let config = read(&mut root, host);
        let faults = root.finish();
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(faults)
        }
    }
}

fn read(root: &mut Reader, host: &Host) -> Config {
    let from_driver = root.is_text("gpus", "auto");
    let tls_dir = root.string("tls_dir").map(PathBuf::from);
    let node = read_node(root, host, tls_dir.is_some());
    let masters = root.strings("masters");
    if masters.is_empty() {
        root.fault(
            "masters",
            "no master",
            "give a list such as [\"127.0.0.1:7401\"]",
        );
    }
    for (i, master) in masters.iter().enumerate() {
        let fine = master.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0)
        });
        if !fine {
            let what = format!("`{master}` is no `host:port`");
            root.fault(&format!("masters[{i}]"), &what, "such as 127.0.0.1:7401");
        } else if tls_dir.is_none() && !channel::is_loopback(master) {
            let what = format!("`{master}` is not a loopback address");
            root.fault(&format!("masters[{i}]"), &what, channel::NEEDS_TLS);
        }
    }
    let config = Config {
        masters,
        data_dir: read_data_dir(root),
        tls_dir,
        node,
        heartbeat: root.duration("heartbeat", Duration::from_secs(1)),
        lease: root.duration("lease", Duration::from_secs(8)),
        silence: root.duration("silence", Duration::from_millis(2_500)),
        keep_tasks: usize::try_from(root.count("keep_tasks", 2_000, 1_000_000))
            .unwrap_or(usize::MAX),
        keep_for: root.duration("keep_for", Duration::from_secs(7 * 24 * 3600)),
        metrics: telemetry::read_metrics(root),
        telemetry: telemetry::read(root, from_driver),
        isolation: host::read_isolation(root),
        hooks: host::read_hooks(root),
        health: health::read(root),
    };
    if config.heartbeat < Duration::from_millis(10) {
        root.fault("heartbeat", "shorter than 10 ms", "1s is usual");
    }
    if config.silence < config.heartbeat * 2 {
        root.fault(
            "silence",
            "shorter than two heartbeats",
            "2.5 heartbeats are usual",
        );
    }
    config
}

fn read_data_dir(root: &mut Reader) -> PathBuf {
    let Some(dir) = root.string("data_dir") else {
        root.fault(
            "data_dir",
            "missing",
            "an absolute directory of this agent alone",
        );
        return PathBuf::new();
    };
    let path = PathBuf::from(&dir);
    let socket = Layout::new(&path).keeper_socket();
    let length = socket.as_os_str().len();
    if !path.is_absolute() {
        root.fault(
            "data_dir",
            &format!("`{dir}` is not absolute"),
            "start with `/`",
        );
    } else if length > MAX_SOCKET_PATH {
        let what = format!("{} would be {length} bytes long", socket.display());
        let hint =
            format!("a Unix socket's path has at most {MAX_SOCKET_PATH}: use a shorter directory");
        root.fault("data_dir", &what, &hint);
    }
    path
}

fn read_node(root: &mut Reader, host: &Host, tls: bool) -> NodeSpec {
    let name = root.string("name").unwrap_or_else(|| host.name.clone());
    if name.is_empty()
        || name.len() > 128
        || name.contains(|c: char| c.is_control() || c == '/' || c == ',')
    {
        root.fault(
            "name",
            &format!("`{name}` is no name"),
            "up to 128 letters, digits, `-`, `_` and `.`",
        );
    }
    let address = root.string("address").unwrap_or_else(|| "127.0.0.1".into());
    if !tls && !channel::is_loopback(&address) {
        let what = format!("`{address}` is not a loopback address");
        root.fault("address", &what, channel::NEEDS_TLS);
    }
    let (port_first, port_count) = read_ports(root);
    let cpus = root.cpus("cpus", host.cpus, MAX_CPUS);
    let mem_bytes = root.bytes("memory").unwrap_or(host.mem_bytes);
    let labels: BTreeMap<String, String> = root.string_map("labels");
    let gpus = read_gpus(root, &name);
    NodeSpec {
        name,
        address,
        labels,
        rack: root.string("rack").unwrap_or_default(),
        millicpu: cpus,
        mem_bytes,
        simulated_gpus: !gpus.is_empty(),
        gpus,
        port_first,
        port_count,
        agent_version: env!("CARGO_PKG_VERSION").into(),
    }
}

fn read_ports(root: &mut Reader) -> (u16, u16) {
    let text = root.string("ports").unwrap_or_else(|| "20000-20999".into());
    match parse::ports(&text) {
        Ok(ports) => ports,
        Err(what) => {
            root.fault(
                "ports",
                &what,
                "a range such as \"20000-20999\", within 1024-65535",
            );
            (0, 0)
        }
    }
}

fn read_gpus(root: &mut Reader, node: &str) -> Vec<GpuInfo> {
    let mut gpus: Vec<GpuInfo> = Vec::new();
    for mut entry in root.tables("gpus") {
        let model = entry.string("model").unwrap_or_default();
        if model.is_empty() {
            entry.fault("model", "missing", "such as \"a100\"");
        }
        let mem_bytes = entry.bytes("memory").unwrap_or_else(|| {
            entry.fault("memory", "missing", "such as \"80GiB\"");
            0
        });
        let count = entry.count("count", 1, MAX_GPUS as u64);
        let nvlink = entry.optional_count("nvlink_group", u64::from(u16::MAX) / 2);
        let numa = entry.count("numa", 0, u64::from(u16::MAX));
        for _ in 0..count {
            let index = gpus.len();
            // Each GPU without NVLink gets a number of its own, far from those that are given.
            let own = u64::from(u16::MAX) - index as u64;
            gpus.push(GpuInfo {
                uuid: format!("SIM-{node}-{index}"),
                model: model.clone(),
                mem_bytes,
                nvlink_group: u16::try_from(nvlink.unwrap_or(own)).unwrap_or(u16::MAX),
                numa: u16::try_from(numa).unwrap_or(0),
            });
        }
        root.adopt(entry);
    }
    if gpus.len() > MAX_GPUS {
        root.fault(
            "gpus",
            &format!("{} GPUs", gpus.len()),
            &format!("at most {MAX_GPUS}"),
        );
        gpus.truncate(MAX_GPUS);
    }
    gpus
}

/// Thousandths of so many CPUs.
const fn millis(cpus: u32) -> u32 {
    cpus.saturating_mul(MILLI)
}

#[cfg(test)]
mod tests;
