//! The tasks' groups below one group that is ours.
//!
//! ```text
//! ROOT/supervisor        the keeper, if ROOT was the group that it was started in
//! ROOT/task-JOB.EPOCH.RANK
//! ```

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_types::{Epoch, Isolation, IsolationKind, JobId, Rank, TaskKey};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::place::{Mount, Place, SUPERVISOR};

/// What can be limited, in the kernel's words.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Length of the period in which CPU time is counted, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;
/// The kernel takes no smaller share of a period.
const LEAST_QUOTA_US: u64 = 1_000;
/// How long what an earlier keeper left may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Rounds over the processes of a group where the kernel cannot end it as one.
const KILL_ROUNDS: usize = 16;

/// Bounds of one task. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time per time, in thousandths of a CPU.
    pub millicpu: u32,
    /// Memory.
    pub mem_bytes: u64,
    /// Processes and threads together.
    pub pids: u64,
}

/// A group that is ours.
#[derive(Debug)]
pub struct Tree {
    place: Place,
    enforced: Vec<&'static str>,
    /// Held while we use it.
    _lock: Option<File>,
}

impl Tree {
    /// Takes a group over: moves the processes in it into a child, and turns on what the host offers.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(place: Place) -> Result<Self, String> {
        let dir = &place.dir;
        let failed = |what: &str, e: std::io::Error| format!("{what} {}: {e}", dir.display());
        if let Err(e) = std::fs::create_dir(dir)
            && e.kind() != ErrorKind::AlreadyExists
        {
            return Err(failed("cannot make", e));
        }
        let lock = File::open(dir).map_err(|e| failed("cannot open", e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(format!("{} belongs to another keeper", dir.display()));
        }
        let offered = std::fs::read_to_string(dir.join("cgroup.controllers"))
            .map_err(|e| failed("cannot read cgroup.controllers of", e))?;
        vacate(dir).map_err(|e| failed("cannot move processes within", e))?;
        let control = dir.join("cgroup.subtree_control");
        let turned_on = |name: &&str| {
            offered.split_whitespace().any(|o| o == *name)
                && std::fs::write(&control, format!("+{name}")).is_ok()
        };
        let enforced: Vec<&'static str> = CONTROLLERS.into_iter().filter(turned_on).collect();
        let tree = Self {
            enforced,
            place,
            _lock: Some(lock),
        };
        tree.try_out()?;
        Ok(tree)
    }

    /// A directory below the host's hierarchy.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open_at(dir: &Path) -> Result<Self, String> {
        let mount = Mount::of_host().ok_or("the host has no control groups of version 2")?;
        let place = mount.at(dir).ok_or_else(|| {
            format!(
                "{} is not below {}, where control groups are",
                dir.display(),
                mount.point.display()
            )
        })?;
        Self::open(place)
    }

    /// Nothing is promised that the first task would find missing.
    fn try_out(&self) -> Result<(), String> {
        let dir = self.place.dir.join("probe");
        let made = std::fs::create_dir(&dir);
        // Left over from a start that was cut short.
        if made
            .as_ref()
            .is_err_and(|e| e.kind() != ErrorKind::AlreadyExists)
        {
            return made
                .map_err(|e| format!("cannot make groups in {}: {e}", self.place.dir.display()));
        }
        std::fs::remove_dir(&dir).map_err(|e| format!("cannot remove {}: {e}", dir.display()))
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// For people.
    pub fn isolation(&self) -> Isolation {
        let missing: Vec<&str> = CONTROLLERS
            .into_iter()
            .filter(|name| !self.enforced.contains(name))
            .collect();
        let mut note = match missing.as_slice() {
            [] => String::new(),
            missing => format!("{} not limited: not offered here; ", missing.join(", ")),
        };
        note.push_str("devices not enforced");
        Isolation {
            kind: IsolationKind::Cgroup,
            enforced: self
                .enforced
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            note,
        }
    }

    fn dir(&self, key: TaskKey) -> PathBuf {
        self.place.dir.join(group_name(key))
    }

    /// Makes a task's group and sets its limits. The answer is what a process writes its way in with.
    ///
    /// # Errors
    /// What the node could not do; nothing is left behind then.
    pub fn make(&self, key: TaskKey, limits: &Limits) -> Result<File, String> {
        let dir = self.dir(key);
        if let Err(e) = std::fs::create_dir(&dir)
            && e.kind() != ErrorKind::AlreadyExists
        {
            return Err(format!("cannot make control group {}: {e}", dir.display()));
        }
        let made = self.limit(&dir, limits).and_then(|()| {
            let procs = dir.join("cgroup.procs");
            // A real one is there; nothing may be cut off.
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&procs)
                .map_err(|e| format!("cannot open {}: {e}", procs.display()))
        });
        if made.is_err() {
            // It has never had a process.
            let _ = std::fs::remove_dir(&dir);
        }
        made
    }

    fn limit(&self, dir: &Path, limits: &Limits) -> Result<(), String> {
        let mut values: Vec<(&str, String)> = Vec::new();
        let enforced = |name| self.enforced.contains(&name);
        if enforced("cpu") && limits.millicpu > 0 {
            let millicpu = u64::from(limits.millicpu);
            let quota_us = (millicpu * PERIOD_US / 1_000).max(LEAST_QUOTA_US);
            values.push(("cpu.max", format!("{quota_us} {PERIOD_US}")));
        }
        if enforced("memory") && limits.mem_bytes > 0 {
            values.push(("memory.max", limits.mem_bytes.to_string()));
            // Half a task is of no use to anybody: all of it or none.
            values.push(("memory.oom.group", "1".into()));
        }
        if enforced("pids") && limits.pids > 0 {
            values.push(("pids.max", limits.pids.to_string()));
        }
        for (file, value) in values {
            let path = dir.join(file);
            std::fs::write(&path, &value)
                .map_err(|e| format!("cannot write {value} to {}: {e}", path.display()))?;
        }
        Ok(())
    }

    /// Kills whatever is in a task's group, also what has left its process group or session.
    pub fn kill(&self, key: TaskKey) {
        kill_all(&self.dir(key));
    }

    /// How many processes of the task the kernel killed because its memory was used up.
    pub fn oom_kills(&self, key: TaskKey) -> u64 {
        let events = std::fs::read_to_string(self.dir(key).join("memory.events"));
        let events = events.unwrap_or_default();
        let of = |name: &str| {
            let value = events
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        of("oom_kill")
    }

    /// Removes a task's group. False while something in it is still on its way out.
    pub fn remove(&self, key: TaskKey) -> bool {
        remove_below(&self.dir(key))
    }

    /// Ends what an earlier keeper of this group left.
    ///
    /// # Errors
    /// If something does not go away.
    pub fn sweep(&self) -> Result<usize, String> {
        sweep(&self.place.dir)
    }
}

/// Ends every task's group below a directory, and says how many there were.
///
/// # Errors
/// If something does not go away.
pub fn sweep(root: &Path) -> Result<usize, String> {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Ok(0);
    };
    let groups: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|n| n.to_str())
                .and_then(task_of_group)
                .is_some()
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    for group in &groups {
        while !remove_below(group) {
            if Instant::now() >= deadline {
                return Err(format!(
                    "processes in {} do not end on SIGKILL",
                    group.display()
                ));
            }
            kill_all(group);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(groups.len())
}

/// Moves the processes of a group into its child for those that are no task's.
fn vacate(dir: &Path) -> std::io::Result<()> {
    let procs = std::fs::read_to_string(dir.join("cgroup.procs"))?;
    if procs.trim().is_empty() {
        return Ok(());
    }
    let inner = dir.join(SUPERVISOR);
    if let Err(e) = std::fs::create_dir(&inner)
        && e.kind() != ErrorKind::AlreadyExists
    {
        return Err(e);
    }
    for pid in procs.lines() {
        // One that has ended meanwhile is out as well.
        let _ = std::fs::write(inner.join("cgroup.procs"), pid);
    }
    Ok(())
}

fn kill_all(dir: &Path) {
    let all = OpenOptions::new().write(true).open(dir.join("cgroup.kill"));
    if all.is_ok_and(|mut file| std::io::Write::write_all(&mut file, b"1").is_ok()) {
        return;
    }
    // Before Linux 5.14: one by one, until none is left that could have started another.
    for _ in 0..KILL_ROUNDS {
        let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        let pids: Vec<Pid> = procs
            .lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?))
            .collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // Gone in between is as good.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A task may have made groups of its own.
fn remove_below(dir: &Path) -> bool {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    match std::fs::remove_dir(dir) {
        Ok(()) => true,
        Err(e) => e.kind() == ErrorKind::NotFound,
    }
}

/// The name of a task's group.
pub fn group_name(key: TaskKey) -> String {
    format!("task-{}.{}.{}", key.job, key.epoch, key.rank)
}

fn task_of_group(name: &str) -> Option<TaskKey> {
    let mut parts = name.strip_prefix("task-")?.split('.');
    let key = TaskKey {
        job: JobId(parts.next()?.parse().ok()?),
        epoch: Epoch(parts.next()?.parse().ok()?),
        rank: Rank(parts.next()?.parse().ok()?),
    };
    parts.next().is_none().then_some(key)
}

/// The task whose group, below the group `root`, a process is in, or in a group that the task made.
pub fn task_of(root: &str, cgroup: &str) -> Option<TaskKey> {
    let below = cgroup.strip_prefix(root)?.strip_prefix('/')?;
    task_of_group(below.split('/').next()?)
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
