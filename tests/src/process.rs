//! One daemon: started in its own process group with its output in a file, and ended by its id.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// A daemon that was started here.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Starts it; its output is appended to `log`.
    ///
    /// # Errors
    /// If the program cannot be started or the file cannot be opened.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("cannot share the log file")?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self {
            child,
            log: log.to_path_buf(),
            ended: None,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The file that its output goes to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Ends it without warning, and waits until it is gone.
    pub fn kill_9(&mut self) {
        if self.ended().is_none() {
            kill_9(self.pid());
            self.ended = self.child.wait().ok();
        }
    }

    /// Asks it to end, as a service manager does, and waits.
    ///
    /// # Errors
    /// If it has not ended by `deadline`.
    pub async fn terminate(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        if self.ended().is_none() {
            signal(self.pid(), Signal::TERM);
        }
        self.wait(deadline).await
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// If it has not ended by `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let pid = self.pid();
        match wait::polled(deadline, || self.ended()).await {
            Some(status) => Ok(status),
            None => bail!("process {pid} still runs after {deadline:?}"),
        }
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill_9();
    }
}

/// Ends a process without warning. It may be gone already.
pub fn kill_9(pid: i32) {
    signal(pid, Signal::KILL);
}

/// Freezes a process.
pub fn freeze(pid: i32) {
    signal(pid, Signal::STOP);
}

/// Lets a frozen process go on.
pub fn thaw(pid: i32) {
    signal(pid, Signal::CONT);
}

fn signal(pid: i32, signal: Signal) {
    // Gone already is as good as done.
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}
