//! Two hosts with addresses of their own: a master on one, an agent and people on the other, and certificates between them.
//!
//! The hosts are network namespaces. Where none can be made they are two loopback addresses of this host, and the test says so.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use berth_tests::process::Daemon;
use berth_tests::programs::Programs;
use berth_tests::scratch::Scratch;

/// Nothing here takes this long; a test that does has found something.
const DEADLINE: Duration = Duration::from_secs(60);
const PORT: u16 = 7600;

/// Where the two hosts are.
struct Hosts {
    /// Names of the namespaces, if there are some.
    namespaces: Option<[String; 2]>,
    addresses: [&'static str; 2],
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("ip: {error}")),
    }
}

impl Hosts {
    /// Two namespaces with a cable between them, all of it inside.
    fn new() -> Self {
        let pid = std::process::id();
        let names = [format!("berth-{pid}-a"), format!("berth-{pid}-b")];
        let hosts = Self {
            namespaces: Some(names.clone()),
            addresses: ["10.203.0.1", "10.203.0.2"],
        };
        match hosts.connect(&names) {
            Ok(()) => hosts,
            Err(why) => {
                eprintln!(
                    "no network namespaces here ({why}): 127.0.0.2 and 127.0.0.3 are the two hosts"
                );
                Self {
                    namespaces: None,
                    addresses: ["127.0.0.2", "127.0.0.3"],
                }
            }
        }
    }

    fn connect(&self, [a, b]: &[String; 2]) -> Result<(), String> {
        ip(&format!("netns add {a}"))?;
        ip(&format!("netns add {b}"))?;
        ip(&format!(
            "link add veth0 netns {a} type veth peer name veth0 netns {b}"
        ))?;
        for (name, address) in [(a, self.addresses[0]), (b, self.addresses[1])] {
            ip(&format!("-n {name} address add {address}/24 dev veth0"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} link set veth0 up"))?;
        }
        Ok(())
    }

    /// A program on one of them.
    fn on(&self, host: usize, program: &Path) -> Command {
        match &self.namespaces {
            None => Command::new(program),
            Some(names) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &names[host]]).arg(program);
                command
            }
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.namespaces.iter().flatten() {
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

/// The test's cast.
struct Cluster {
    hosts: Hosts,
    programs: Programs,
    scratch: Scratch,
}

impl Cluster {
    fn place(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn master(&self) -> String {
        format!("{}:{PORT}", self.hosts.addresses[0])
    }

    /// `berth` on a host, as who has a home of this name.
    fn berth(&self, host: usize, home: &str) -> Command {
        let home = self.place(home);
        std::fs::create_dir_all(&home).unwrap();
        let mut command = self.hosts.on(host, &self.programs.berth);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BERTH_") {
                command.env_remove(name);
            }
        }
        command.env_remove("XDG_CONFIG_HOME").env("HOME", home);
        command.stdin(Stdio::null());
        command
    }

    /// As the admin.
    fn admin(&self, arguments: &[&str]) -> String {
        let mut command = self.berth(0, "root");
        command.env("BERTH_ADDR", self.master());
        command.env("BERTH_TLS_DIR", self.place("tls/admin"));
        succeeds(command.args(arguments))
    }

    /// Lets somebody in on the second host.
    fn join(&self, role: &str, name: &str) -> PathBuf {
        let create = [
            "token", "create", "--role", role, "--name", name, "-o", "name",
        ];
        let token = self.admin(&create);
        let mut command = self.berth(1, name);
        command.args(["join", "--addr", &self.master()]);
        command.env("BERTH_TOKEN", token.trim());
        if role == "node" {
            command.arg("--tls-dir").arg(self.place(name).join("tls"));
        }
        succeeds(&mut command);
        self.place(name)
    }
}

fn output(command: &mut Command) -> (Output, String) {
    let output = command.output().expect("a program that starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, told)
}

fn succeeds(command: &mut Command) -> String {
    let (output, told) = output(command);
    assert!(output.status.success(), "{command:?}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "{what} does not come about");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn state_of(cluster: &Cluster, node: &str) -> String {
    let nodes = cluster.admin(&["nodes", "-o", "json"]);
    let nodes: serde_json::Value = serde_json::from_str(&nodes).expect("JSON");
    let all = nodes["nodes"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|n| n["name"] == node);
    found.map_or_else(String::new, |n| {
        n["state"].as_str().unwrap_or_default().to_owned()
    })
}

/// What a daemon says of a file without certificates.
fn refusal(program: &Path, file: &Path) -> String {
    let mut check = Command::new(program);
    let (output, told) = output(check.arg("--check").arg("--config").arg(file));
    assert_eq!(output.status.code(), Some(2), "{told}");
    told
}

fn write_files(cluster: &Cluster, tls: bool) -> (PathBuf, PathBuf) {
    let (master, agent) = (cluster.place("master.toml"), cluster.place("agent.toml"));
    let address = cluster.master();
    let line = |dir: PathBuf| match tls {
        true => format!("tls_dir = '{}'\n", dir.display()),
        false => String::new(),
    };
    let text = format!(
        "id = 1\ndata_dir = '{}'\nlisten = '{address}'\n{}[[masters]]\nid = 1\naddress = '{address}'\n",
        cluster.place("m1").display(),
        line(cluster.place("tls")),
    );
    std::fs::write(&master, text).unwrap();
    let text = format!(
        "name = 'gpu-02'\nmasters = ['{address}']\naddress = '{}'\ndata_dir = '{}'\nmetrics = 'off'\n{}",
        cluster.hosts.addresses[1],
        cluster.place("a").display(),
        line(cluster.place("gpu-02/tls")),
    );
    std::fs::write(&agent, text).unwrap();
    (master, agent)
}

fn nothing_leaves_without_certificates(cluster: &Cluster) -> (PathBuf, PathBuf) {
    let programs = &cluster.programs;
    let (master_file, agent_file) = write_files(cluster, false);
    if cluster.hosts.namespaces.is_some() {
        for (program, file) in [
            (&programs.scheduler, &master_file),
            (&programs.agent, &agent_file),
        ] {
            let told = refusal(program, file);
            assert!(
                told.contains("not a loopback address") && told.contains("berth init"),
                "{told}"
            );
        }
    }
    (master_file, agent_file)
}

/// Each has what is theirs, and no more.
fn people_work(cluster: &Cluster) {
    cluster.join("submitter", "ada");
    cluster.join("submitter", "bob");
    // `berth join` has written where the masters are and which certificate to show them.
    let said =
        succeeds(
            cluster
                .berth(1, "ada")
                .args(["run", "sh", "-c", "echo from the second host"]),
        );
    assert_eq!(said, "from the second host\n");
    let job = cluster.place("job.toml");
    std::fs::write(
        &job,
        "name = 'long'\n[[groups]]\nname = 'w'\ncommand = ['sleep', '600']\n",
    )
    .unwrap();
    let id = succeeds(
        cluster
            .berth(1, "ada")
            .args(["submit", "--parsable"])
            .arg(&job),
    );
    let id = id.trim();
    let (refused, told) = output(cluster.berth(1, "bob").args(["cancel", id]));
    assert_eq!(refused.status.code(), Some(77), "{told}");
    assert!(
        told.contains(&format!("job {id} is ada's: bob may not cancel it")),
        "{told}"
    );
    assert!(told.contains("ask ada or an admin"), "{told}");
    succeeds(cluster.berth(1, "ada").args(["cancel", id]));
    let (refused, told) = output(cluster.berth(1, "ada").args(["drain", "gpu-02"]));
    assert_eq!(refused.status.code(), Some(77), "{told}");
}

#[test]
fn a_second_host_joins_works_and_is_shut_out() {
    let cluster = Cluster {
        hosts: Hosts::new(),
        programs: Programs::find().unwrap(),
        scratch: Scratch::new(None).unwrap(),
    };
    let programs = cluster.programs.clone();
    let (master_file, agent_file) = nothing_leaves_without_certificates(&cluster);
    write_files(&cluster, true);
    let authority = cluster.place("tls");
    succeeds(cluster.berth(0, "root").arg("init").arg(&authority));
    let mut master = cluster.hosts.on(0, &programs.scheduler);
    let mut master = Daemon::start(
        master.arg("--config").arg(&master_file),
        &cluster.place("master.log"),
    )
    .unwrap();
    until("a leader", || {
        cluster.admin(&["status", "-o", "name"]).len() > 1
    });
    cluster.join("node", "gpu-02");
    let mut agent = cluster.hosts.on(1, &programs.agent);
    let mut agent = Daemon::start(
        agent.arg("--config").arg(&agent_file),
        &cluster.place("agent.log"),
    )
    .unwrap();
    until("the second host", || {
        state_of(&cluster, "gpu-02") == "ready"
    });

    people_work(&cluster);
    cluster.admin(&["cert", "revoke", "submitter", "ada"]);
    let (refused, told) = output(cluster.berth(1, "ada").arg("jobs"));
    assert_eq!(refused.status.code(), Some(77), "{told}");
    assert!(told.contains("revoked"), "{told}");
    cluster.admin(&["cert", "revoke", "node", "gpu-02"]);
    until("the loss of the second host", || {
        state_of(&cluster, "gpu-02") == "lost"
    });

    agent.kill_9();
    let mut stop = Command::new(&programs.agent);
    succeeds(
        stop.args(["keeper-stop", "--grace", "0s", "--dir"])
            .arg(cluster.place("a")),
    );
    master.kill_9();
}
