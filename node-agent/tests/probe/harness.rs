//! A probe that is read line by line and ended by its pid.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use berth_agent::gpu::line::Line;
use berth_fake_nvml::Stage;
use berth_fake_nvml::scenario::Scenario;
use berth_types::telemetry::{GpuIdentity, GpuReading};
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_berth-agent");
/// How long anything may take before a test fails; generous, because the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A probe.
pub(crate) struct Probe {
    child: Child,
    lines: Receiver<Line>,
    stage: Option<(TempDir, Stage)>,
}

impl Probe {
    /// On the library with scenarios.
    pub(crate) fn fake(scenario: &Scenario) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut stage = Stage::new(dir.path());
        stage.play(scenario).unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .args(["nvml-probe", "--interval", "30ms", "--library"])
            .arg(berth_fake_nvml::library().unwrap())
            .args(["--tasks-dir", "/d/tasks"])
            .env("FAKE_NVML_SCENARIO", stage.file());
        Self::start(command, Some((dir, stage)))
    }

    /// On the machine's own library, if it has one.
    pub(crate) fn real() -> Option<Self> {
        let mut command = Command::new(PROGRAM);
        command.args(["nvml-probe", "--interval", "200ms"]);
        let mut probe = Self::start(command, None);
        let first = probe.until("a first word", |line| match line {
            Line::Driver(_) | Line::Failed { .. } => Some(line.clone()),
            _ => None,
        });
        match first {
            Line::Failed { why } => {
                let missing = why.contains("libnvidia-ml") && why.contains("cannot open");
                assert!(missing, "there is a library, and it fails: {why}");
                None
            }
            _ => Some(probe),
        }
    }

    fn start(mut command: Command, stage: Option<(TempDir, Stage)>) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let line = Line::decode(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            stage,
        }
    }

    /// Plays another scenario.
    pub(crate) fn play(&mut self, scenario: &Scenario) {
        let (_, stage) = self.stage.as_mut().expect("a scenario is played");
        stage.play(scenario).unwrap();
    }

    /// The first line for which there is an answer.
    pub(crate) fn until<T>(&mut self, what: &str, mut test: impl FnMut(&Line) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(found) = test(&line) {
                        return found;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("in vain: {what}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the probe ended before {what}"),
            }
        }
    }

    pub(crate) fn reading(
        &mut self,
        index: u16,
        what: &str,
        test: impl Fn(&GpuReading) -> bool,
    ) -> GpuReading {
        self.until(what, |line| match line {
            Line::Reading { reading, .. } if reading.index == index && test(reading) => {
                Some((**reading).clone())
            }
            _ => None,
        })
    }

    pub(crate) fn identity(&mut self, index: u16) -> GpuIdentity {
        self.until("an identity", |line| match line {
            Line::Gpu(identity) if identity.index == index => Some(identity.clone()),
            _ => None,
        })
    }

    pub(crate) fn say(&mut self, word: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{word}").unwrap();
        stdin.flush().unwrap();
    }

    /// Closes its standard input, as the agent's end does, and waits for its own end.
    pub(crate) fn hang_up(mut self) {
        self.child.stdin.take();
        let end = Instant::now() + DEADLINE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "the probe outlives its agent");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that is the agent's with a scenario in its environment.
pub(crate) fn with_scenario(dir: &TempDir, stage: &Stage) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.path().join("agent.sh");
    let script = format!(
        "#!/bin/sh\nFAKE_NVML_SCENARIO='{}' exec '{PROGRAM}' \"$@\"\n",
        stage.file().display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}
