//! Where tasks' control groups go, and what the keeper does with them; without any, process groups have to do.
//!
//! A service manager puts a service's main process into the service's own group at every start, which the kernel refuses
//! once that group has limited children. The keeper outlives the agent, so under systemd it gets a scope of its own
//! (`systemd-run --scope`), which nobody restarts.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use berth_types::{Isolation, IsolationKind, TaskKey};

use crate::cgroup::{Limits, Tree, place, tree};
use crate::keeper::protocol::{ExitRecord, Reply};
use crate::layout::Layout;

/// Pause between attempts to remove groups whose processes are on their way out.
const CLEAR_AGAIN: Duration = Duration::from_millis(200);
/// Asks systemd for a scope.
const SYSTEMD_RUN: &str = "/usr/bin/systemd-run";

/// Where a keeper may make control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Below the one that it is started in, which was given to it.
    Own,
    /// Below this directory.
    At(PathBuf),
    /// Nowhere: switched off.
    Off,
    /// Nowhere: no group was given to the agent.
    NotGiven,
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Groups::Own => f.write_str("own"),
            Groups::At(dir) => write!(f, "{}", dir.display()),
            Groups::Off => f.write_str("off"),
            Groups::NotGiven => f.write_str("not-given"),
        }
    }
}

impl From<&str> for Groups {
    fn from(text: &str) -> Self {
        match text {
            "own" => Groups::Own,
            "off" => Groups::Off,
            "not-given" => Groups::NotGiven,
            dir => Groups::At(PathBuf::from(dir)),
        }
    }
}

/// True if a service manager started this process, which then gave it a group if its unit says so.
pub fn is_service() -> bool {
    let set = |name| std::env::var_os(name).is_some();
    let of_another =
        std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|pid| pid != std::process::id().to_string());
    set("INVOCATION_ID") && set("NOTIFY_SOCKET") && !of_another
}

/// True if there is a systemd that can be asked for a scope.
pub(crate) fn can_have_scope() -> bool {
    Path::new("/run/systemd/system").is_dir() && Path::new(SYSTEMD_RUN).exists()
}

/// Runs a program in a scope that was given to it.
pub(crate) fn in_scope(program: &Path) -> Command {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let mut command = Command::new(SYSTEMD_RUN);
    command
        .args(["--scope", "--quiet", "--collect", "--property=Delegate=yes"])
        // The manager's default is meant for a single service, not for all tasks of a machine.
        .arg("--property=TasksMax=infinity")
        .arg("--description=Tasks of Berth")
        // The scope of an earlier keeper may still be there.
        .arg(format!(
            "--unit=berth-keeper-{}-{}",
            std::process::id(),
            since.as_millis()
        ))
        .arg("--")
        .arg(program);
    command
}

/// Process groups, and why.
pub(crate) fn without(why: &str) -> Isolation {
    Isolation {
        kind: IsolationKind::ProcessGroup,
        enforced: Vec::new(),
        note: format!("no limits: {why}"),
    }
}

/// The tasks' control groups, or the lack of them.
#[derive(Debug)]
pub(crate) struct Confinement {
    tree: Result<Tree, String>,
    /// Groups of ended tasks that are not empty yet.
    leaving: BTreeSet<TaskKey>,
    clear_at: Option<Instant>,
}

impl Confinement {
    /// Takes the group over and ends what an earlier keeper left, wherever that had its tasks.
    ///
    /// # Errors
    /// If processes of earlier tasks do not end.
    pub(crate) fn begin(layout: &Layout, groups: &Groups) -> Result<Self, String> {
        if let Ok(earlier) = std::fs::read_to_string(layout.keeper_group()) {
            tree::sweep(Path::new(earlier.trim()))?;
        }
        let tree = match groups {
            Groups::Own => place::own().and_then(Tree::open),
            Groups::At(dir) => Tree::open_at(dir),
            Groups::Off => Err("switched off in the configuration".into()),
            Groups::NotGiven => {
                Err("the agent is no service with a control group of its own".into())
            }
        };
        if let Ok(tree) = &tree {
            tree.sweep()?;
            let dir = tree.place().dir.display().to_string();
            // Without it a successor finds tasks by their environment.
            if let Err(error) = std::fs::write(layout.keeper_group(), dir) {
                tracing::warn!(%error, "where the tasks' control groups are cannot be written down");
            }
        }
        let confinement = Self {
            tree,
            leaving: BTreeSet::new(),
            clear_at: None,
        };
        let asked = matches!(groups, Groups::Own | Groups::At(_));
        if let (Err(why), true) = (&confinement.tree, asked) {
            tracing::warn!(why, "tasks get no control groups and no limits");
        }
        Ok(confinement)
    }

    pub(crate) fn isolation(&self) -> Isolation {
        let mut isolation = match &self.tree {
            Ok(tree) => tree.isolation(),
            Err(why) => without(why),
        };
        berth_types::host::shorten(&mut isolation.note, berth_types::host::MAX_HOST_TEXT_BYTES);
        isolation
    }

    pub(crate) fn reply(&self) -> Reply {
        let group = self.tree.as_ref().map(|tree| tree.place().name.clone());
        Reply::Isolation {
            isolation: self.isolation(),
            group: group.unwrap_or_default(),
        }
    }

    /// Makes a task's group, if tasks have any.
    ///
    /// # Errors
    /// What the node could not do.
    pub(crate) fn make(&mut self, key: TaskKey, limits: &Limits) -> Result<Option<File>, String> {
        match &self.tree {
            Ok(tree) => tree.make(key, limits).map(Some),
            Err(_) => Ok(None),
        }
    }

    pub(crate) fn kill(&self, key: TaskKey) {
        if let Ok(tree) = &self.tree {
            tree.kill(key);
        }
    }

    /// Says so in the record of a task whose memory ran out.
    pub(crate) fn tell_memory(&self, key: TaskKey, limits: &Limits, exit: &mut ExitRecord) {
        let Ok(tree) = &self.tree else {
            return;
        };
        let killed = tree.oom_kills(key);
        if killed == 0 {
            return;
        }
        let most = limits.mem_bytes.div_ceil(1 << 20);
        let told = format!(
            "out of memory: it used up its {most} MiB, and the kernel killed {killed} of its processes"
        );
        exit.reason = match exit.reason.as_str() {
            "" => told,
            how => format!("{told}; {how}"),
        };
    }

    /// The task's first process is gone: so is everything else of it, soon.
    pub(crate) fn end(&mut self, key: TaskKey) {
        let Ok(tree) = &self.tree else {
            return;
        };
        tree.kill(key);
        if !tree.remove(key) {
            self.leaving.insert(key);
            self.clear_at
                .get_or_insert_with(|| Instant::now() + CLEAR_AGAIN);
        }
    }

    /// When [`Self::clear`] is due.
    pub(crate) fn clear_at(&self) -> Option<Instant> {
        self.clear_at
    }

    /// Removes groups that are empty by now.
    pub(crate) fn clear(&mut self) {
        let Ok(tree) = &self.tree else {
            return;
        };
        if self.clear_at.is_some_and(|at| Instant::now() >= at) {
            self.leaving.retain(|key| !tree.remove(*key));
            self.clear_at = (!self.leaving.is_empty()).then(|| Instant::now() + CLEAR_AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_groups_go_survives_a_command_line() {
        for groups in [
            Groups::Own,
            Groups::Off,
            Groups::NotGiven,
            Groups::At("/sys/fs/cgroup/berth".into()),
        ] {
            assert_eq!(Groups::from(groups.to_string().as_str()), groups);
        }
    }
}
