//! What runs on this machine, read from `/proc`: no daemon is asked, so none can be wrong about it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Parent of the kernel's own threads.
const KTHREADD: i32 = 2;
/// An `exec` takes less than this many milliseconds, also on a busy machine.
const EXEC_LOOKS: u32 = 50;

/// A live process. A zombie is not live: it does nothing and holds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// Reads one process; `None` if it is gone or a zombie.
pub fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        command: split_zeros(&fs::read(format!("/proc/{pid}/cmdline")).ok()?),
    })
}

/// True while `pid` runs.
pub fn alive(pid: i32) -> bool {
    process(pid).is_some()
}

/// CPU time that a process has used so far, in clock ticks (hundredths of a second), user and system.
pub fn cpu_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    Some(user + system)
}

/// Every live process.
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(process)
        .collect()
}

/// The environment that a process was started with; empty if it is not ours to read.
pub fn environment(pid: i32) -> BTreeMap<String, String> {
    split_zeros(&environment_bytes(pid))
        .into_iter()
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// In the middle of an `exec` a process has no environment for a moment; a task must not look dead then.
fn environment_bytes(pid: i32) -> Vec<u8> {
    for _ in 0..EXEC_LOOKS {
        match fs::read(format!("/proc/{pid}/environ")) {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => return bytes,
            Err(_) => return Vec::new(),
        }
        // The kernel's own threads never have one.
        if process(pid).is_none_or(|process| process.parent == KTHREADD || pid == KTHREADD) {
            return Vec::new();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Vec::new()
}

/// Live processes that belong to whatever lives in `dir`: a `BERTH_` variable names it, or an argument of one of our own
/// programs does, or the same holds for an ancestor. Never this process or one of its ancestors.
pub fn belonging_to(dir: &Path) -> Vec<Process> {
    let needle = dir.to_string_lossy().into_owned();
    let everyone = all();
    let parents: BTreeMap<i32, i32> = everyone.iter().map(|p| (p.pid, p.parent)).collect();
    let spared = ancestors(&parents, std::process::id().cast_signed());
    let mut found: BTreeSet<i32> = everyone
        .iter()
        .filter(|p| names(p, &needle))
        .map(|p| p.pid)
        .collect();
    loop {
        let more: Vec<i32> = everyone
            .iter()
            .filter(|p| found.contains(&p.parent) && !found.contains(&p.pid))
            .map(|p| p.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    everyone
        .into_iter()
        .filter(|p| found.contains(&p.pid) && !spared.contains(&p.pid))
        .collect()
}

/// Which of `candidates` holds the local end of the TCP connection whose local port is `port`.
pub fn owner_of_port(port: u16, candidates: &[i32]) -> Option<i32> {
    let wanted = format!("socket:[{}]", inode_of_port(port)?);
    candidates.iter().copied().find(|pid| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
            fds.flatten()
                .filter_map(|fd| fs::read_link(fd.path()).ok())
                .any(|link| link.to_string_lossy() == wanted)
        })
    })
}

fn inode_of_port(port: u16) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // A listener has no peer; 01 is an established connection.
        let is_it = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == "01";
        is_it.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })
}

fn names(process: &Process, needle: &str) -> bool {
    let program = process.command.first().map(Path::new);
    let ours = program
        .and_then(Path::file_name)
        .is_some_and(|name| name.to_string_lossy().starts_with("berth"));
    (ours && process.command.iter().any(|arg| arg.contains(needle)))
        || environment(process.pid)
            .iter()
            .any(|(key, value)| key.starts_with("BERTH_") && value.contains(needle))
}

fn ancestors(parents: &BTreeMap<i32, i32>, of: i32) -> BTreeSet<i32> {
    let mut seen = BTreeSet::new();
    let mut at = of;
    while seen.insert(at) {
        match parents.get(&at) {
            Some(&parent) => at = parent,
            None => break,
        }
    }
    seen
}

fn split_zeros(bytes: &[u8]) -> Vec<String> {
    bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_is_found_by_the_directory_it_names_and_its_parent_is_spared() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .env("BERTH_SOCKET", dir.path().join("socket"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // Between fork and exec the child still has our own environment.
        while belonging_to(dir.path()).is_empty() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        let found: Vec<i32> = belonging_to(dir.path()).iter().map(|p| p.pid).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, vec![pid]);
        assert!(!alive(pid));
    }

    #[test]
    fn a_connection_is_traced_to_the_process_that_holds_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = stream.local_addr().unwrap().port();
        let own = std::process::id().cast_signed();
        assert_eq!(owner_of_port(port, &[1_000_000_000, own]), Some(own));
        assert_eq!(owner_of_port(port, &[]), None);
    }
}
