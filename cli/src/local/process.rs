//! Processes of this machine: started in their own group, known again by pid and start time, ended by pid.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, exit};

/// A process, told apart from a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessId {
    /// Its pid.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot.
    start_ticks: u64,
}

/// CPU time that a process and its ended children used, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTicks {
    /// Of the process itself.
    pub(crate) own: u64,
    /// Of its children that it has waited for.
    pub(crate) children: u64,
}

/// What `/proc/PID/stat` says.
struct Stat {
    state: char,
    cpu: CpuTicks,
    start_ticks: u64,
}

/// Reads `/proc/PID/stat`; `None` if there is no such process.
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses and may hold anything, parentheses too.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        cpu: CpuTicks {
            own: number(11)? + number(12)?,
            children: number(13)? + number(14)?,
        },
        start_ticks: number(19)?,
    })
}

impl ProcessId {
    /// The process that has this pid now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = stat(pid)?;
        Some(Self {
            pid,
            start_ticks: stat.start_ticks,
        })
    }

    /// Reads a pid file; `None` if there is none or it is malformed.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok()?,
            start_ticks: start.parse().ok()?,
        })
    }

    /// Writes a pid file.
    pub(crate) fn save(self, path: &Path) -> Result<(), Failure> {
        let text = format!("{} {}\n", self.pid, self.start_ticks);
        std::fs::write(path, text).map_err(|e| Failure::file(path, e))
    }

    /// True while this very process runs (a zombie does not).
    pub(crate) fn alive(self) -> bool {
        stat(self.pid).is_some_and(|s| s.start_ticks == self.start_ticks && s.state != 'Z')
    }

    /// CPU that it used so far.
    pub(crate) fn cpu(self) -> Option<CpuTicks> {
        let stat = stat(self.pid)?;
        (stat.start_ticks == self.start_ticks).then_some(stat.cpu)
    }

    /// Memory that it holds: proportional share of shared pages if the kernel tells, resident pages otherwise.
    pub(crate) fn memory_bytes(self) -> Option<u64> {
        let kib = |file: &str, key: &str| {
            let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.pid)).ok()?;
            let line = text.lines().find(|l| l.starts_with(key))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let kib = kib("smaps_rollup", "Pss:").or_else(|| kib("status", "VmRSS:"))?;
        Some(kib * 1024)
    }

    /// Asks it to end, and ends it by force after `grace`. True if it ran.
    pub(crate) fn end(self, grace: Duration) -> Result<bool, Failure> {
        let failed = |what: &str, e: rustix::io::Errno| {
            Failure::local(format!("cannot {what} process {}: {e}", self.pid), "")
        };
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(false);
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(e) => return Err(failed("find", e)),
        };
        // The handle holds on to whoever has the pid now; this shows that it is still the one we mean.
        if !self.alive() {
            return Ok(false);
        }
        for (signal, patience) in [
            (Signal::TERM, grace),
            (Signal::KILL, Duration::from_secs(10)),
        ] {
            match pidfd_send_signal(&handle, signal) {
                Ok(()) => {}
                Err(rustix::io::Errno::SRCH) => return Ok(true),
                Err(e) => return Err(failed("end", e)),
            }
            let deadline = Instant::now() + patience;
            while let Some(left) = deadline.checked_duration_since(Instant::now()) {
                let timeout = Timespec::try_from(left).ok();
                let mut fds = [PollFd::new(&handle, PollFlags::IN)];
                match poll(&mut fds, timeout.as_ref()) {
                    Ok(0) | Err(rustix::io::Errno::INTR) => {}
                    Ok(_) => return Ok(true),
                    Err(e) => return Err(failed("wait for", e)),
                }
            }
        }
        Err(Failure::local(
            format!("process {} does not end", self.pid),
            "it may be stuck in the kernel; look at its state in /proc",
        ))
    }
}

/// Starts a daemon in its own process group, with what it says appended to `log`.
pub(crate) fn spawn(program: &Path, args: &[&str], log: &Path) -> Result<Child, Failure> {
    let file = append_to(log)?;
    let copy = file.try_clone().map_err(|e| Failure::file(log, e))?;
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        // Ctrl-C at the terminal is not for the daemons.
        .process_group(0)
        .spawn()
        .map_err(|e| Failure::file(program, e))
}

fn append_to(log: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new().create(true).append(true).open(log);
    file.map_err(|e| Failure::file(log, e))
}

/// From now on a wish that this process ends (Ctrl-C, SIGTERM, a closed terminal) does not end it by itself. The future
/// returns when there is one, with the code to end with.
pub(crate) fn asked_to_end() -> Result<impl Future<Output = u8>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => exit::INTERRUPTED,
            _ = terminate.recv() => exit::CANCELLED,
            _ = hang_up.recv() => exit::HUNG_UP,
        }
    })
}

/// Finds a program beside this one, or in `PATH`.
pub(crate) fn find_program(name: &str) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|exe| {
        // Through symbolic links: an installed `berth` may be a link to where the others are.
        let exe = exe.canonicalize().unwrap_or(exe);
        Some(exe.parent()?.join(name))
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|dir| dir.join(name));
    beside
        .into_iter()
        .chain(in_path)
        .find(|p| p.is_file())
        .ok_or_else(|| {
            Failure::local(
                format!("`{name}` is neither beside `berth` nor in PATH"),
                "build it with `cargo build --bins`",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path, script: &str) -> Child {
        spawn(Path::new("/bin/sh"), &["-c", script], &dir.join("log")).unwrap()
    }

    fn id(child: &Child) -> ProcessId {
        ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap()
    }

    #[test]
    fn a_process_is_known_again_and_ended_by_pid() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = sleeper(dir.path(), "exec sleep 60");
        let id = id(&child);
        let file = dir.path().join("pid");
        id.save(&file).unwrap();
        assert_eq!(ProcessId::load(&file), Some(id));
        assert!(id.alive());
        assert!(id.cpu().is_some() && id.memory_bytes().is_some());
        assert!(id.end(Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
        assert!(!id.alive());
        assert!(!id.end(Duration::from_secs(10)).unwrap());
    }

    #[test]
    fn one_that_ignores_the_request_is_ended_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let script = format!(
            "trap '' TERM; touch {}; while :; do sleep 1; done",
            ready.display()
        );
        let mut child = sleeper(dir.path(), &script);
        let id = id(&child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !ready.exists() {
            assert!(Instant::now() < deadline, "the script never started");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(id.end(Duration::from_millis(50)).unwrap());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn another_process_with_the_pid_is_left_alone() {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let earlier = ProcessId {
            start_ticks: own.start_ticks - 1,
            ..own
        };
        assert!(!earlier.alive());
        assert!(!earlier.end(Duration::ZERO).unwrap());
        assert!(own.alive());
    }

    #[test]
    fn odd_program_names_do_not_confuse() {
        let text = "7 (a) b (c)) S 3 7 7 0 -1 4 1 0 0 0 10 20 30 40 20 0 1 0 999 1 1";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.start_ticks), ('S', 999));
        assert_eq!((stat.cpu.own, stat.cpu.children), (30, 70));
        assert!(parse_stat("").is_none());
    }
}
