//! The operator's test of a GPU or of the node: a command whose exit code decides.
//!
//! It is told what to test by `CUDA_VISIBLE_DEVICES` (the GPU's UUID, or its number where it has none),
//! `BERTH_TEST_GPU` (its number; empty for the whole node) and `BERTH_NODE`. Whatever it says on standard output is kept
//! as the reason.

use std::process::Stdio;

use berth_agent_core::Input;
use berth_types::HealthCheck;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::Health;
use crate::daemon::agent::Agent;
use crate::daemon::happening::Happening;

/// Bytes of its output that are looked at.
const OUTPUT: u64 = 4_096;

impl Agent {
    /// Runs the test beside the event loop; without a command the core's own look suffices.
    pub(super) fn run_check(&mut self, check: HealthCheck) {
        if self.health.test.is_empty() {
            let text = match check.gpu {
                Some(_) => "it answers, its memory is free and no repair is pending",
                None => "its agent answers",
            };
            let input = checked(check, true, text.to_owned());
            self.feed(input);
            return;
        }
        let gpu = check.gpu.map(|gpu| gpu.to_string()).unwrap_or_default();
        let known = check
            .gpu
            .and_then(|gpu| self.node.gpus.get(usize::from(gpu)));
        let device = match known.map(|known| known.uuid.clone()) {
            Some(uuid) if !uuid.is_empty() => uuid,
            _ => gpu.clone(),
        };
        let mut command = Command::new(&self.health.test[0]);
        command
            .args(&self.health.test[1..])
            .env("CUDA_VISIBLE_DEVICES", device)
            .env("BERTH_TEST_GPU", gpu)
            .env("BERTH_NODE", &self.node.name);
        let (health, out) = (self.health.clone(), self.out.clone());
        tokio::spawn(async move {
            let (passed, text) = run(command, &health).await;
            tracing::info!(gpu = ?check.gpu, passed, text, "tested");
            out.send(Happening::Fact(checked(check, passed, text)));
        });
    }
}

fn checked(check: HealthCheck, passed: bool, text: String) -> Input {
    Input::Checked {
        check,
        passed,
        text,
    }
}

async fn run(mut command: Command, health: &Health) -> (bool, String) {
    let program = &health.test[0];
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return (false, format!("{program} cannot be run: {error}")),
    };
    let stdout = child.stdout.take();
    let ended = timeout(health.test_timeout, async {
        let mut said = Vec::new();
        if let Some(stdout) = stdout {
            // A test that closes its output early is judged by its exit code alone.
            let _ = stdout.take(OUTPUT).read_to_end(&mut said).await;
        }
        (child.wait().await, said)
    });
    match ended.await {
        Ok((Ok(status), said)) => {
            let said = String::from_utf8_lossy(&said);
            let line = said.lines().rev().find(|line| !line.trim().is_empty());
            let line = line
                .map(|line| format!(": {}", line.trim()))
                .unwrap_or_default();
            let verdict = match status.code() {
                Some(0) => format!("{program} passed{line}"),
                Some(code) => format!("{program} exited {code}{line}"),
                None => format!("{program} was killed{line}"),
            };
            (status.success(), verdict)
        }
        Ok((Err(error), _)) => (false, format!("{program}: {error}")),
        Err(_) => {
            let limit = humantime::format_duration(health.test_timeout);
            (false, format!("{program} took longer than {limit}"))
        }
    }
}
