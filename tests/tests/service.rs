//! Daemons as services: what the service manager is told, by whom, and what its own tools say of the units.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_tests::programs::Programs;
use rustix::process::{Pid, Signal, kill_process};

/// What the manager allows between two signs of life.
const WATCHDOG: Duration = Duration::from_secs(8);
/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(120);

/// The service manager's side: a socket that daemons write to.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(dir: &Path) -> Self {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path }
    }

    /// The next words, if they come in time.
    fn hear(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut words = [0; 4_096];
        let length = self.socket.recv(&mut words).ok()?;
        Some(String::from_utf8_lossy(&words[..length]).into_owned())
    }

    /// Waits for a word, whatever else comes before.
    fn until(&self, word: &str) {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            let heard = self.hear(Duration::from_secs(1)).unwrap_or_default();
            if heard.lines().any(|line| line == word) {
                return;
            }
        }
        panic!("in vain: {word}");
    }
}

/// A daemon whose log goes into a pipe. While nobody reads that, whatever part of the daemon writes a line stands still.
struct Service {
    child: Child,
    manager: Manager,
    log: std::io::PipeWriter,
    reading: Arc<AtomicBool>,
}

impl Service {
    fn start(dir: &Path, program: &Path, config: &Path) -> Self {
        let manager = Manager::new(dir);
        let (mut reader, log) = std::io::pipe().unwrap();
        let child = Command::new(program)
            .arg("--config")
            .arg(config)
            .env("NOTIFY_SOCKET", &manager.path)
            // Only the loops have something to say, so that no other thread stands still with them.
            .env(
                "BERTH_LOG",
                "off,berth_scheduler::event_loop=info,berth_agent::daemon=info",
            )
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let reading = Arc::new(AtomicBool::new(true));
        let goes_on = Arc::clone(&reading);
        let mut copy = File::create(dir.join("log")).unwrap();
        std::thread::spawn(move || {
            let mut chunk = [0; 64 << 10];
            loop {
                let read = goes_on
                    .load(Ordering::SeqCst)
                    .then(|| reader.read(&mut chunk));
                match read {
                    Some(Ok(0)) => return,
                    Some(Ok(n)) => copy.write_all(&chunk[..n]).unwrap(),
                    Some(Err(_)) | None => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self {
            child,
            manager,
            log,
            reading,
        }
    }

    /// Signs of life come at less than half of what is allowed.
    fn is_fed(&self) {
        self.manager.until("WATCHDOG=1");
        for _ in 0..4 {
            let began = Instant::now();
            self.manager.until("WATCHDOG=1");
            assert!(began.elapsed() < WATCHDOG / 2, "{:?}", began.elapsed());
        }
    }

    /// Lets nobody read the log any more, and fills it.
    fn block_log(&self) {
        self.reading.store(false, Ordering::SeqCst);
        let mut log = self.log.try_clone().unwrap();
        // Ends when somebody reads again.
        std::thread::spawn(move || {
            let _ = log.write_all(&vec![b'\n'; 1 << 20]);
        });
    }

    /// The manager would have restarted it.
    fn starves(&self) {
        let end = Instant::now() + DEADLINE;
        while let Some(heard) = self.manager.hear(WATCHDOG) {
            assert!(Instant::now() < end, "its loop is stuck, and yet: {heard}");
        }
    }

    fn release_log(&self) {
        self.reading.store(true, Ordering::SeqCst);
    }

    fn stops_when_asked(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.manager.until("STOPPING=1");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ports(number: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..number)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    held.iter()
        .map(|l| l.local_addr().unwrap().port())
        .collect()
}

/// Writes a master's file, below a directory of its own.
fn master(dir: &Path, id: usize, ports: &[u16]) -> (PathBuf, PathBuf) {
    let own = dir.join(format!("m{id}"));
    std::fs::create_dir(&own).unwrap();
    let mut text = format!(
        "id = {id}\ndata_dir = {:?}\nlisten = \"127.0.0.1:{}\"\n",
        own.join("data"),
        ports[id - 1]
    );
    for (id, port) in (1..).zip(ports) {
        text.push_str(&format!(
            "[[masters]]\nid = {id}\naddress = \"127.0.0.1:{port}\"\n"
        ));
    }
    let config = own.join("scheduler.toml");
    std::fs::write(&config, text).unwrap();
    (own, config)
}

#[test]
fn a_master_feeds_the_watchdog_from_the_thread_that_owns_the_replica() {
    let programs = Programs::find().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ports = ports(3);
    let (own, config) = master(dir.path(), 1, &ports);
    let first = Service::start(&own, &programs.scheduler, &config);
    first.manager.until("READY=1");
    first.is_fed();
    // It has nobody to elect a leader with. When it has, its loop has something to say, and stands still.
    first.block_log();
    let (own, config) = master(dir.path(), 2, &ports);
    let second = Service::start(&own, &programs.scheduler, &config);
    first.starves();
    first.release_log();
    first.is_fed();
    first.stops_when_asked();
    second.stops_when_asked();
}

/// An agent's keeper outlives it: ended with the test.
struct KeeperGuard(PathBuf, PathBuf);

impl Drop for KeeperGuard {
    fn drop(&mut self) {
        let _ = Command::new(&self.0)
            .args(["keeper-stop", "--grace", "0s", "--dir"])
            .arg(&self.1)
            .stderr(Stdio::null())
            .status();
    }
}

#[test]
fn an_agent_feeds_the_watchdog_from_its_loop() {
    let programs = Programs::find().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ports = ports(1);
    let own = dir.path().join("a1");
    std::fs::create_dir(&own).unwrap();
    let data = own.join("data");
    let config = own.join("agent.toml");
    let text = format!(
        "name = \"n1\"\nmasters = [\"127.0.0.1:{}\"]\ndata_dir = {data:?}\nmetrics = \"off\"\n",
        ports[0]
    );
    std::fs::write(&config, text).unwrap();
    let _guard = KeeperGuard(programs.agent.clone(), data);
    let agent = Service::start(&own, &programs.agent, &config);
    // Also without a master, since tasks may be there to look after.
    agent.manager.until("READY=1");
    agent.is_fed();
    agent.block_log();
    let (own, config) = master(dir.path(), 1, &ports);
    let master = Service::start(&own, &programs.scheduler, &config);
    agent.starves();
    agent.release_log();
    agent.is_fed();
    agent.stops_when_asked();
    master.stops_when_asked();
}

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/systemd")
        .join(name)
}

/// True if systemd's tool is here; a machine that lacks it cannot check units, and says so.
#[allow(clippy::print_stderr)]
fn can_analyze() -> bool {
    let there = Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_ok();
    if !there {
        eprintln!("this machine has no systemd-analyze: the units are not checked here");
    }
    there
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    if !can_analyze() {
        return;
    }
    let programs = Programs::find().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, program) in [
        ("berth-agent", &programs.agent),
        ("berth-scheduler", &programs.scheduler),
    ] {
        let file = format!("{name}.service");
        let text = std::fs::read_to_string(unit(&file)).unwrap();
        let installed = format!("/usr/bin/{name}");
        assert!(text.contains(&installed));
        // The program is looked for, so it has to be one that is there.
        let here = dir.path().join(&file);
        std::fs::write(
            &here,
            text.replace(&installed, &program.display().to_string()),
        )
        .unwrap();
        let verify = Command::new("systemd-analyze")
            .arg("verify")
            .arg(&here)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&verify.stderr);
        assert!(verify.status.success() && !told.contains(&file), "{told}");
    }
}

#[test]
fn the_units_are_as_hardened_as_they_can_be() {
    if !can_analyze() {
        return;
    }
    // In tenths of systemd's measure. What the agent's unit forbids, every job would be forbidden.
    for (file, most) in [("berth-scheduler.service", 15), ("berth-agent.service", 92)] {
        let checked = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager"])
            .arg(format!("--threshold={most}"))
            .arg(unit(file))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{file}\n{told}");
    }
}

#[test]
fn the_units_say_what_the_daemons_rely_on() {
    for (file, lines) in [
        (
            "berth-agent.service",
            &[
                "Type=notify",
                "WatchdogSec=30s",
                "KillMode=process",
                "Delegate=yes",
                "OOMPolicy=continue",
            ][..],
        ),
        (
            "berth-scheduler.service",
            &[
                "Type=notify",
                "WatchdogSec=30s",
                "KillMode=process",
                "User=berth",
            ][..],
        ),
    ] {
        let text = std::fs::read_to_string(unit(file)).unwrap();
        for line in lines.iter().chain(&[
            "Restart",
            "StateDirectory",
            "RuntimeDirectory",
            "LogsDirectory",
        ]) {
            let there = text
                .lines()
                .any(|l| l == *line || l.starts_with(&format!("{line}=")));
            assert!(there, "{file} without {line}");
        }
    }
}
