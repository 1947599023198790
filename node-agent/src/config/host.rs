//! Keys of isolation and hooks.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use crate::keeper::confinement::{self, Groups};

/// Processes and threads of one task, unless a file says otherwise: far beyond what data loaders need, far below what
/// exhausts a machine's numbers.
const PIDS: u64 = 32_768;
/// What the kernel can number at most.
const MOST_PIDS: u64 = 4_194_304;

/// How tasks are isolated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolationKeys {
    /// Where their control groups go.
    pub cgroup: Cgroup,
    /// Most processes and threads of one task.
    pub pids: u64,
}

/// Where control groups may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// Below the group that a service manager gave to the agent.
    Auto,
    /// Nowhere.
    Off,
    /// Below this directory, which no other agent uses.
    At(PathBuf),
}

impl Cgroup {
    /// For a keeper that this process starts.
    pub fn groups(&self) -> Groups {
        match self {
            Cgroup::Auto if confinement::is_service() => Groups::Own,
            Cgroup::Auto => Groups::NotGiven,
            Cgroup::Off => Groups::Off,
            Cgroup::At(dir) => Groups::At(dir.clone()),
        }
    }
}

/// Programs of the operator that run beside tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Before the first task of an attempt on this node.
    pub prolog: Option<PathBuf>,
    /// After the last one.
    pub epilog: Option<PathBuf>,
    /// Longest time of either.
    pub timeout: Duration,
    /// Every so often.
    pub health_check: Option<PathBuf>,
    /// Pause between two checks.
    pub health_check_interval: Duration,
    /// Longest time of one.
    pub health_check_timeout: Duration,
}

/// `[isolation]`.
pub(super) fn read_isolation(root: &mut Reader) -> IsolationKeys {
    let mut table = root.table("isolation");
    let cgroup = match table.string("cgroup").as_deref() {
        None | Some("auto") => Cgroup::Auto,
        Some("off") => Cgroup::Off,
        Some(dir) if dir.starts_with('/') => Cgroup::At(PathBuf::from(dir)),
        Some(other) => {
            let what = format!("`{other}` is no control group");
            let hint = "\"auto\", \"off\", or a directory such as \"/sys/fs/cgroup/berth\"";
            table.fault("cgroup", &what, hint);
            Cgroup::Auto
        }
    };
    let pids = table.count("pids", PIDS, MOST_PIDS);
    root.adopt(table);
    IsolationKeys { cgroup, pids }
}

/// `[hooks]`.
pub(super) fn read_hooks(root: &mut Reader) -> Hooks {
    let mut table = root.table("hooks");
    let mut program = |key: &'static str| {
        let path = PathBuf::from(table.string(key)?);
        if !path.is_absolute() {
            let what = format!("`{}` is not absolute", path.display());
            table.fault(key, &what, "start with `/`");
        }
        Some(path)
    };
    let (prolog, epilog) = (program("prolog"), program("epilog"));
    let health_check = program("health_check");
    let mut duration = |key: &'static str, default: u64| {
        let duration = table.duration(key, Duration::from_secs(default));
        if duration.is_zero() {
            table.fault(key, "no time at all", "such as \"30s\"");
        }
        duration
    };
    let hooks = Hooks {
        prolog,
        epilog,
        timeout: duration("timeout", 300),
        health_check,
        health_check_interval: duration("health_check_interval", 60),
        health_check_timeout: duration("health_check_timeout", 30),
    };
    root.adopt(table);
    hooks
}
