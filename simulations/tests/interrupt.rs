//! Ctrl-C: what is finished stays readable and says that it is not all, and the exit code tells.
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest time until something is asked for again.
const DEADLINE: Duration = Duration::from_secs(120);

/// One job that runs for good, and one that fails again and again: a run that takes as long as it is let.
const CLUSTER: &str = r#"
[gpu_models.a]
[[pools]]
name = "p"
gpu = "a"
nodes = 50
gpus_per_node = 8
mean_time_between_failures = "1h"
repair_time = "1m"
"#;

fn start(folder: &Path, arguments: &[&str]) -> Child {
    let header = "job_id,submit_s,user,family,gpus,run_s,end,expected_s\n";
    let rows: String = (0..40_000)
        .map(|id| format!("{id},{},u,f,{},{},completed,0\n", id * 3, 1 + id % 8, 3_600))
        .collect();
    std::fs::write(folder.join("jobs.csv"), header.to_owned() + &rows).expect("it can be written");
    std::fs::write(folder.join("c.toml"), CLUSTER).expect("it can be written");
    Command::new(env!("CARGO_BIN_EXE_berth-sim"))
        .args(arguments)
        .args([
            "--trace",
            "jobs.csv",
            "--format",
            "berth-csv",
            "--cluster",
            "c.toml",
        ])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it was built")
}

/// Presses Ctrl-C until it ends, since the first one may come before it listens, in which case it ends at once and leaves
/// nothing. What it said.
fn interrupt(mut child: Child, ready: impl Fn() -> bool) -> Output {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < DEADLINE, "it is never ready");
        assert!(child.try_wait().expect("it is ours").is_none(), "it ended");
        sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let begun = Instant::now();
    while child.try_wait().expect("it is ours").is_none() {
        if begun.elapsed() > DEADLINE {
            child.kill().expect("it is ours");
            panic!("Ctrl-C did not end it");
        }
        sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("it has ended")
}

/// True once the process handles SIGINT itself.
fn listens(child: &Child) -> impl Fn() -> bool + use<> {
    let path = format!("/proc/{}/status", child.id());
    move || {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask & 0b10 != 0)
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_run_tells_what_had_happened() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arguments = [
        "run",
        "--policy",
        "srtf:preempt=yes",
        "--check",
        "--json",
        "o.json",
    ];
    let child = start(folder.path(), &arguments);
    let ready = listens(&child);
    let output = interrupt(child, ready);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    let text = std::fs::read(folder.path().join("o.json")).expect("it was written");
    let report: Value = serde_json::from_slice(&text).expect("it is JSON");
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["jobs"], 40_000);
    assert!(report["completed"].as_u64() < Some(40_000));
}

#[test]
#[cfg(target_os = "linux")]
fn a_comparison_reports_the_runs_that_are_finished() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arguments = [
        "compare",
        "--policies",
        "fifo,srtf:preempt=yes",
        "--seeds",
        "50",
        "-j",
        "1",
        "--report",
        "r.md",
    ];
    let child = start(folder.path(), &arguments);
    let ready = listens(&child);
    let output = interrupt(child, ready);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    let report = std::fs::read_to_string(folder.path().join("r.md")).expect("it was written");
    assert!(report.contains("of 100 runs are finished"), "{report}");
}
