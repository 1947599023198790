use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_agent::layout::Layout;
use berth_types::TaskKey;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_berth-agent");

/// An agent process with its own directory; ended with its keeper and tasks when dropped.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
    agent: Option<Child>,
    /// More variables of the agent.
    env: Vec<(String, String)>,
}

impl Node {
    pub(crate) fn start(masters: &[&str]) -> Self {
        Self::start_with(masters, "")
    }

    pub(crate) fn start_with(masters: &[&str], more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, masters, more, &[])
    }

    /// In this directory, with more variables.
    pub(crate) fn start_in(
        dir: TempDir,
        masters: &[&str],
        more: &str,
        env: &[(&str, &Path)],
    ) -> Self {
        let metrics = if more.contains("metrics = ") {
            ""
        } else {
            "metrics = \"off\"\n"
        };
        let config = format!(
            "name = \"n1\"\nmasters = {masters:?}\ndata_dir = {:?}\nheartbeat = \"100ms\"\nsilence = \"5s\"\n{metrics}{more}",
            dir.path().join("data")
        );
        std::fs::write(dir.path().join("agent.toml"), config).unwrap();
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.display().to_string()))
            .collect();
        let agent = None;
        let mut node = Self { dir, agent, env };
        node.start_agent();
        node
    }

    pub(crate) fn start_agent(&mut self) {
        assert!(self.agent.is_none());
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("agent.log"))
            .unwrap();
        let agent = Command::new(PROGRAM)
            .arg("--config")
            .arg(self.dir.path().join("agent.toml"))
            .env("BERTH_LOG", "info,berth_agent=debug")
            .env("SECRET_OF_THE_AGENT", "s")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        self.agent = Some(agent);
    }

    /// kill -9 of the agent alone.
    pub(crate) fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// SIGTERM of the agent, as for an upgrade.
    pub(crate) fn stop_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        signal(agent.id(), Signal::TERM);
        assert!(agent.wait().unwrap().success());
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(self.dir.path().join("data").canonicalize().unwrap())
    }

    pub(crate) fn keeper_pid(&self) -> u32 {
        std::fs::read_to_string(self.layout().keeper_pid())
            .unwrap()
            .parse()
            .unwrap()
    }

    pub(crate) fn task_file(&self, key: TaskKey, name: &str) -> PathBuf {
        self.layout().task_dir(key).join(name)
    }

    pub(crate) fn stdout(&self, key: TaskKey) -> String {
        std::fs::read_to_string(self.task_file(key, "stdout.log")).unwrap_or_default()
    }

    pub(crate) fn keeper_stop(&self, grace: &str) -> std::process::Output {
        Command::new(PROGRAM)
            .args(["keeper-stop", "--grace", grace, "--dir"])
            .arg(self.dir.path().join("data"))
            .output()
            .unwrap()
    }
}

impl Drop for Node {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if self.dir.path().join("data").exists() {
            let _ = self.keeper_stop("0s");
        }
        if std::thread::panicking() {
            for log in [
                self.dir.path().join("agent.log"),
                self.dir.path().join("data/keeper/log"),
            ] {
                eprintln!("--- {}\n{}", log.display(), tail(&log));
            }
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}
