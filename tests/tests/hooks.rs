//! A node that is not fit for work, as its operator sees it: real daemons, real hooks, the command line.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use berth_tests::process::Daemon;
use berth_tests::programs::Programs;
use serde_json::Value;

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(120);

fn script(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    // Renamed into place, so that no run ever sees half of it.
    let fresh = dir.join(format!("{name}.new"));
    std::fs::write(&fresh, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&fresh, &path).unwrap();
    path.display().to_string()
}

/// A master and an agent with hooks, ended when dropped.
struct Cluster {
    programs: Programs,
    dir: tempfile::TempDir,
    address: String,
    _daemons: [Daemon; 2],
}

impl Cluster {
    fn start() -> Self {
        let programs = Programs::find().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let at = |name: &str| dir.path().join(name);
        let master = format!(
            "id = 1\ndata_dir = {:?}\nlisten = {address:?}\n[[masters]]\nid = 1\naddress = {address:?}\n",
            at("m")
        );
        let prolog = script(dir.path(), "prolog", "exit 0");
        let health = script(dir.path(), "health", "exit 0");
        let agent = format!(
            "name = \"n1\"\nmasters = [{address:?}]\ndata_dir = {:?}\nmetrics = \"off\"\n[isolation]\ncgroup = \"off\"\n[hooks]\nprolog = {prolog:?}\nhealth_check = {health:?}\nhealth_check_interval = \"100ms\"\n",
            at("a")
        );
        std::fs::write(at("m.toml"), master).unwrap();
        std::fs::write(at("a.toml"), agent).unwrap();
        let start = |program: &Path, config: &str| {
            let log = at(&format!("{config}.log"));
            Daemon::start(Command::new(program).arg("--config").arg(at(config)), &log).unwrap()
        };
        let daemons = [
            start(&programs.scheduler, "m.toml"),
            start(&programs.agent, "a.toml"),
        ];
        Self {
            programs,
            address,
            _daemons: daemons,
            dir,
        }
    }

    fn berth(&self, args: &[&str]) -> Option<Value> {
        let output = Command::new(&self.programs.berth)
            .args(["--addr", &self.address, "-o", "json"])
            .args(args)
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until the node looks like that.
    fn node(&self, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        let mut last = Value::Null;
        while Instant::now() < end {
            if let Some(nodes) = self.berth(&["nodes"]) {
                last = nodes["nodes"][0].clone();
                if test(&last) {
                    return last;
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("in vain: {what}; last: {last}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new(&self.programs.agent)
            .args(["keeper-stop", "--grace", "0s", "--dir"])
            .arg(self.dir.path().join("a"))
            .output();
    }
}

#[test]
fn a_failing_check_drains_the_node_and_a_failing_prolog_does_so_for_good() {
    let cluster = Cluster::start();
    let ready = |node: &Value| node["state"] == "ready" && node["connected"] == true;
    let node = cluster.node("the node is ready", ready);
    assert_eq!(node["isolation"]["kind"], "process-group");
    script(cluster.dir.path(), "health", "echo ib0 is down; exit 1");
    let node = cluster.node("the node drains", |node| node["state"] == "draining");
    let reason = node["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("health check: ") && reason.ends_with("ib0 is down"),
        "{reason}"
    );
    script(cluster.dir.path(), "health", "exit 0");
    cluster.node("the node is back", ready);
    script(
        cluster.dir.path(),
        "prolog",
        "echo scratch is full >&2; exit 1",
    );
    let job = cluster.dir.path().join("job.toml");
    std::fs::write(&job, "name = \"short\"\ncommand = [\"true\"]\n").unwrap();
    cluster.berth(&["submit", job.to_str().unwrap()]).unwrap();
    let node = cluster.node("the node drains", |node| node["state"] == "draining");
    let reason = node["reason"].as_str().unwrap();
    assert!(
        reason.contains("prolog") && reason.ends_with("scratch is full"),
        "{reason}"
    );
    script(cluster.dir.path(), "prolog", "exit 0");
    // The check goes on passing, and that is not enough.
    cluster.berth(&["undrain", "n1"]).unwrap();
    cluster.node("the node is back", ready);
    let end = Instant::now() + DEADLINE;
    loop {
        let jobs = cluster.berth(&["job", "1"]).unwrap_or_default();
        if jobs["state"] == "completed" {
            assert_eq!(
                jobs["restarts"], 0,
                "the node's fault is not the job's: {jobs}"
            );
            break;
        }
        assert!(
            Instant::now() < end,
            "in vain: the job completes; last: {jobs}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
