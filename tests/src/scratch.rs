//! A cluster's directory: removed when all went well, kept and named when not.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::{process, procfs};

/// Kills whatever still belongs to `$GUARDED` when this program is gone, however it went: its standard input is a pipe
/// that only we hold. The rule is the one of [`procfs::belonging_to`].
const GUARDIAN: &str = r#"
cat > /dev/null
ours() {
    grep -qza "^BERTH_.*$GUARDED" "$1/environ" && return 0
    case $(cat "$1/comm") in berth*) grep -qzaF -- "$GUARDED" "$1/cmdline" ;; *) return 1 ;; esac
}
for round in 1 2 3; do
    for entry in /proc/[0-9]*; do
        if ours "$entry"; then kill -9 "${entry#/proc/}"; fi
    done
done 2> /dev/null
"#;

/// Looks at the processes that are left, so often at most.
const SWEEPS: u32 = 50;

/// A fresh directory for one cluster, and the promise that nothing started in it outlives this value.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: bool,
    guardian: Child,
}

impl Scratch {
    /// A fresh directory below `parent`, or below the system's temporary directory.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        std::fs::create_dir_all(&parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
        let path = tempfile::Builder::new()
            .prefix("berth-cluster-")
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a directory in {}", parent.display()))?
            .keep();
        let path = path.canonicalize().context("the directory is gone")?;
        let guardian = Command::new("sh")
            .args(["-c", GUARDIAN])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("GUARDED", &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start sh")?;
        Ok(Self {
            path,
            keep: false,
            guardian,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keep the files: something went wrong, and they say what.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A keeper that is about to die may still spawn a task: look until nobody is left.
        for _ in 0..SWEEPS {
            let left = procfs::belonging_to(&self.path);
            if left.is_empty() {
                break;
            }
            left.iter().for_each(|process| process::kill_9(process.pid));
            std::thread::sleep(Duration::from_millis(20));
        }
        process::kill_9(self.guardian.id().cast_signed());
        let _ = self.guardian.wait();
        if !self.keep && !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path) -> Child {
        Command::new("sleep")
            .arg("300")
            .env("BERTH_SOCKET", dir.join("socket"))
            .spawn()
            .unwrap()
    }

    #[test]
    fn dropping_it_ends_what_belongs_to_it_and_removes_the_files() {
        let scratch = Scratch::new(None).unwrap();
        let mut child = sleeper(scratch.path());
        let path = scratch.path().to_path_buf();
        drop(scratch);
        assert_eq!(child.wait().unwrap().code(), None, "ended by a signal");
        assert!(!path.exists());
    }

    #[test]
    fn the_guardian_ends_what_is_left_when_its_owner_is_gone() {
        let mut scratch = Scratch::new(None).unwrap();
        let mut child = sleeper(scratch.path());
        // As when this program is killed: the kernel closes the pipe, nobody runs `drop`.
        drop(scratch.guardian.stdin.take());
        assert_eq!(child.wait().unwrap().code(), None, "ended by a signal");
        assert!(scratch.path().exists());
    }
}
