//! Where everything lies below an agent's data directory.
//!
//! ```text
//! D/agent.lock                         held while an agent runs
//! D/fence                              newest directive seen
//! D/masters                            where leaders said that masters listen
//! D/gpus.json                          numbers of the GPUs that a driver listed
//! D/task.sock                          BERTH_SOCKET
//! D/keeper/{lock,pid,sock,records,log,cgroup} the keeper
//! D/tasks/JOB/EPOCH/RANK/{stdout.log,stderr.log}
//! D/checkpoints/JOB/epoch-EPOCH/       where the job file names no directory
//! ```

use std::path::{Path, PathBuf};

use berth_types::{Epoch, JobId, TaskKey};

/// Longest path of a Unix socket on Linux, without the closing zero.
pub const MAX_SOCKET_PATH: usize = 107;

/// Paths of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Below this directory, which should be absolute and without links, so that tasks are recognised by it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The data directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Locked while an agent runs.
    pub fn agent_lock(&self) -> PathBuf {
        self.root.join("agent.lock")
    }

    /// The newest directive seen.
    pub fn fence(&self) -> PathBuf {
        self.root.join("fence")
    }

    /// Where leaders said that masters listen.
    pub fn masters(&self) -> PathBuf {
        self.root.join("masters")
    }

    /// The GPUs that a driver listed, in the order of their numbers.
    pub fn gpus(&self) -> PathBuf {
        self.root.join("gpus.json")
    }

    /// Where tasks report to.
    pub fn task_socket(&self) -> PathBuf {
        self.root.join("task.sock")
    }

    /// The keeper's directory.
    pub fn keeper_dir(&self) -> PathBuf {
        self.root.join("keeper")
    }

    /// Where the keeper listens.
    pub fn keeper_socket(&self) -> PathBuf {
        self.keeper_dir().join("sock")
    }

    /// Locked while a keeper runs.
    pub fn keeper_lock(&self) -> PathBuf {
        self.keeper_dir().join("lock")
    }

    /// The keeper's process id, for people and scripts.
    pub fn keeper_pid(&self) -> PathBuf {
        self.keeper_dir().join("pid")
    }

    /// The keeper's records.
    pub fn keeper_records(&self) -> PathBuf {
        self.keeper_dir().join("records")
    }

    /// The control group that the keeper used last.
    pub fn keeper_group(&self) -> PathBuf {
        self.keeper_dir().join("cgroup")
    }

    /// What the keeper prints.
    pub fn keeper_log(&self) -> PathBuf {
        self.keeper_dir().join("log")
    }

    /// All tasks' directories.
    pub fn tasks(&self) -> PathBuf {
        self.root.join("tasks")
    }

    /// All attempts of a job.
    pub fn job_dir(&self, job: JobId) -> PathBuf {
        self.tasks().join(job.to_string())
    }

    /// One task's directory.
    pub fn task_dir(&self, key: TaskKey) -> PathBuf {
        let relative = format!("{}/{}/{}", key.job, key.epoch, key.rank);
        self.tasks().join(relative)
    }

    /// Where an epoch's checkpoints go: below `base` if the job names one.
    pub fn checkpoint_dir(&self, base: &str, job: JobId, epoch: Epoch) -> PathBuf {
        let own = format!("epoch-{epoch}");
        if base.is_empty() {
            return self.root.join(format!("checkpoints/{job}/{own}"));
        }
        let base = Path::new(base);
        if base.file_name().is_some_and(|name| *name == *own) {
            base.to_path_buf()
        } else {
            base.join(job.to_string()).join(own)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_has_its_own_checkpoint_directory() {
        let layout = Layout::new("/d");
        let dir = |base| layout.checkpoint_dir(base, JobId(7), Epoch(2));
        assert_eq!(dir(""), Path::new("/d/checkpoints/7/epoch-2"));
        assert_eq!(dir("/nfs/ck"), Path::new("/nfs/ck/7/epoch-2"));
        assert_eq!(dir("/nfs/ck/7/epoch-2"), Path::new("/nfs/ck/7/epoch-2"));
    }
}
