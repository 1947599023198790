//! Tasks that outlived their keeper: found in `/proc` and ended, so that a new keeper can say that none is alive.
//!
//! A process belongs to a task if its environment carries a `BERTH_TASK_DIR` below this node's directory, or if it is
//! in the process group of a recorded task whose leader still has the recorded start time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use berth_types::TaskKey;
use rustix::process::{Pid, Signal, kill_process};

use crate::keeper::records::Remembered;

/// The variable that marks a task's processes.
pub const MARK: &str = "BERTH_TASK_DIR";
/// `/proc` counts in hundredths of a second.
const TICK_MS: u64 = 10;
/// How far a recorded start may be off: rounding to ticks, and the time between the fork and our clock.
const START_SLACK_MS: u64 = 250;
/// How long killed processes may take to vanish; one in uninterruptible sleep may take longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Milliseconds since the machine's boot, read once from `/proc/uptime` and then counted on.
#[derive(Clone, Copy, Debug)]
pub struct BootClock {
    at_start_ms: u64,
    start: Instant,
}

impl BootClock {
    /// Reads the uptime; 0 if there is none.
    pub fn start() -> Self {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds: f64 = uptime
            .split(' ')
            .next()
            .and_then(|s| s.parse().ok())
            .unwrap_or(0.0);
        Self {
            at_start_ms: (seconds * 1000.0) as u64,
            start: Instant::now(),
        }
    }

    /// Now.
    pub fn now_ms(&self) -> u64 {
        self.at_start_ms + self.start.elapsed().as_millis() as u64
    }
}

struct Process {
    pid: u32,
    group: u32,
    start_ms: u64,
    zombie: bool,
}

/// Kills every process of the remembered tasks and every marked one, and waits until they are gone. Returns how many
/// were killed.
///
/// # Errors
/// If some do not go away; a new keeper must not start then.
pub fn end_survivors(
    tasks_dir: &Path,
    remembered: &BTreeMap<TaskKey, Remembered>,
) -> Result<usize, String> {
    let deadline = Instant::now() + PATIENCE;
    let mark = format!("{MARK}={}/", tasks_dir.display()).into_bytes();
    // Groups are judged once, while their leaders' start times can be compared.
    let groups = recorded_groups(remembered);
    let mut killed = BTreeSet::new();
    loop {
        let survivors = survivors(&mark, &groups);
        if survivors.is_empty() {
            return Ok(killed.len());
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "processes {survivors:?} of earlier tasks do not end on SIGKILL"
            ));
        }
        for pid in survivors {
            killed.insert(pid);
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // Gone in between is as good.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn recorded_groups(remembered: &BTreeMap<TaskKey, Remembered>) -> BTreeSet<u32> {
    remembered
        .values()
        .filter_map(|task| match task {
            Remembered::Alive(started) => *started,
            Remembered::Ended(_) => None,
        })
        .filter(|(pid, boot_ms)| {
            read_process(*pid).is_some_and(|p| p.start_ms.abs_diff(*boot_ms) <= START_SLACK_MS)
        })
        .map(|(pid, _)| pid)
        .collect()
}

fn survivors(mark: &[u8], groups: &BTreeSet<u32>) -> BTreeSet<u32> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(read_process)
        .filter(|p| !p.zombie && (groups.contains(&p.group) || is_marked(p.pid, mark)))
        .map(|p| p.pid)
        .collect()
}

fn is_marked(pid: u32, mark: &[u8]) -> bool {
    std::fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|b| *b == 0).any(|v| v.starts_with(mark)))
}

fn read_process(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything; what follows its last parenthesis is well-formed.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let start_ticks: u64 = fields.nth(16)?.parse().ok()?;
    Some(Process {
        pid,
        group,
        start_ms: start_ticks * TICK_MS,
        zombie: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use berth_types::{Epoch, JobId, Rank};

    use super::*;

    fn sleeper(mark: Option<&Path>) -> Child {
        let mut command = Command::new("sleep");
        command.arg("60").process_group(0);
        if let Some(dir) = mark {
            command.env(MARK, dir.join("1/1/0"));
        }
        command.spawn().unwrap()
    }

    fn key() -> TaskKey {
        TaskKey {
            job: JobId(1),
            epoch: Epoch(1),
            rank: Rank(0),
        }
    }

    #[test]
    fn marked_and_recorded_processes_end_and_others_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let clock = BootClock::start();
        let mut recorded = sleeper(None);
        let started = clock.now_ms();
        let mut marked = sleeper(Some(dir.path()));
        let mut other = sleeper(Some(Path::new("/elsewhere")));
        let mut reused = sleeper(None);
        let remembered = BTreeMap::from([
            (key(), Remembered::Alive(Some((recorded.id(), started)))),
            (
                TaskKey {
                    rank: Rank(1),
                    ..key()
                },
                Remembered::Alive(Some((reused.id(), started.saturating_sub(5_000)))),
            ),
        ]);
        assert_eq!(end_survivors(dir.path(), &remembered), Ok(2));
        assert!(recorded.wait().is_ok_and(|s| !s.success()));
        assert!(marked.wait().is_ok_and(|s| !s.success()));
        for child in [&mut other, &mut reused] {
            assert!(child.try_wait().unwrap().is_none(), "not ours to kill");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
