//! Whose a process is: what `/proc` says of it. Read here and not in the agent, because reading the environment of a
//! process in trouble can hang as a driver's call can.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use berth_types::telemetry::GpuProcess;

use crate::gpu::procfs::parent_and_start;
use crate::keeper::orphans::MARK;

/// Most of an environment that is read.
const MAX_ENVIRON: u64 = 1 << 20;
/// Most ancestors that are told.
const MAX_ANCESTORS: usize = 16;

/// What is known of processes that were seen before.
#[derive(Debug)]
pub(super) struct Known {
    tasks_dir: Option<OsString>,
    seen: BTreeMap<(u32, u64), GpuProcess>,
}

impl Known {
    pub(super) fn new(tasks_dir: Option<OsString>) -> Self {
        Self {
            tasks_dir,
            seen: BTreeMap::new(),
        }
    }

    /// A process of this number as it is now. Without a `/proc` entry (another pid namespace, or gone) only its number.
    pub(super) fn describe(&mut self, pid: u32) -> GpuProcess {
        let bare = GpuProcess {
            pid,
            ..GpuProcess::default()
        };
        let Some((_, start)) = parent_and_start(pid) else {
            return bare;
        };
        if let Some(seen) = self.seen.get(&(pid, start)) {
            return seen.clone();
        }
        let environ = environ(pid);
        let task_dir = self.task_dir(&environ);
        let described = GpuProcess {
            start_ticks: Some(start),
            ancestors: match task_dir {
                Some(_) => Vec::new(),
                None => ancestors(pid),
            },
            task_dir,
            cgroup: cgroup(pid),
            ..bare
        };
        // In the middle of an exec it has none yet.
        if !environ.is_empty() {
            self.seen.insert((pid, start), described.clone());
        }
        described
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, there: &[GpuProcess]) {
        self.seen
            .retain(|(pid, _), _| there.iter().any(|process| process.pid == *pid));
    }

    /// The mark that a task's processes inherit, if it is one of this node's.
    fn task_dir(&self, environ: &[u8]) -> Option<String> {
        let below = self.tasks_dir.as_ref()?;
        let dir = environ.split(|byte| *byte == 0).find_map(|entry| {
            let value = entry.strip_prefix(MARK.as_bytes())?.strip_prefix(b"=")?;
            value.strip_prefix(below.as_bytes())?.strip_prefix(b"/")?;
            Some(value)
        })?;
        String::from_utf8(dir.to_vec()).ok()
    }
}

/// Empty if it cannot be read.
fn environ(pid: u32) -> Vec<u8> {
    let mut environ = Vec::new();
    if let Ok(file) = std::fs::File::open(format!("/proc/{pid}/environ")) {
        // What came before an error counts.
        let _ = file.take(MAX_ENVIRON).read_to_end(&mut environ);
    }
    environ
}

fn ancestors(pid: u32) -> Vec<u32> {
    let up = |pid: &u32| parent_and_start(*pid).map(|(parent, _)| parent);
    std::iter::successors(Some(pid), up)
        .skip(1)
        .take_while(|pid| *pid > 1)
        .take(MAX_ANCESTORS)
        .collect()
}

/// Its path in the unified hierarchy.
fn cgroup(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described_by_what_it_inherited() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .env(MARK, "/d/tasks/7/2/0")
            .spawn()
            .unwrap();
        let pid = child.id();
        while environ(pid).is_empty() {
            std::thread::yield_now();
        }
        let marked = Known::new(Some("/d/tasks".into())).describe(pid);
        let foreign = Known::new(Some("/e/tasks".into())).describe(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(marked.task_dir.as_deref(), Some("/d/tasks/7/2/0"));
        assert!(marked.start_ticks.is_some() && marked.ancestors.is_empty());
        assert_eq!(foreign.task_dir, None);
        assert_eq!(foreign.ancestors.first(), Some(&std::process::id()));
    }

    #[test]
    fn a_process_that_is_not_there_has_only_its_number() {
        let gone = GpuProcess {
            pid: u32::MAX,
            ..GpuProcess::default()
        };
        assert_eq!(Known::new(None).describe(u32::MAX), gone);
    }
}
