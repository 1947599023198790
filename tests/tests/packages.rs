//! Debian packages of what was built: made, installed into an empty root, and started from there.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(120);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
    output
}

/// True if Debian's tools are here; a machine that lacks them cannot install packages, and says so.
#[allow(clippy::print_stderr)]
fn can_install() -> bool {
    let there = Command::new("dpkg-deb").arg("--version").output().is_ok();
    if !there {
        eprintln!("this machine has no dpkg-deb: no package is installed here");
    }
    there
}

/// Makes a crate's package from what lies beside this test's directory.
fn package(krate: &str, out: &Path) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    // TARGET/PROFILE/deps/THIS
    let profile_dir = own.parent().and_then(Path::parent).unwrap();
    let profile = match profile_dir.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let tools = repository().join(".deps/tools/bin");
    let mut path = OsString::from(tools);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let found = Command::new("cargo")
        .env("PATH", &path)
        .args(["deb", "--version"])
        .output();
    let there = found.is_ok_and(|output| output.status.success());
    assert!(
        there,
        "cargo-deb is missing. hint: `cargo xtask tools` installs it"
    );
    let file = out.join(format!("{krate}.deb"));
    run(Command::new("cargo")
        .current_dir(repository())
        .env("PATH", &path)
        .env("CARGO_TARGET_DIR", profile_dir.parent().unwrap())
        .args([
            "deb",
            "--no-build",
            "--fast",
            "--locked",
            "--offline",
            "--profile",
            profile,
            "-p",
            krate,
        ])
        .arg("--output")
        .arg(&file));
    file
}

fn field(deb: &Path, name: &str) -> String {
    let output = run(Command::new("dpkg-deb").arg("--field").arg(deb).arg(name));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Everything of a package's control part by name.
fn control(deb: &Path, out: &Path, name: &str) -> String {
    let dir = out.join("control");
    run(Command::new("dpkg-deb").arg("--control").arg(deb).arg(&dir));
    let text = std::fs::read_to_string(dir.join(name)).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    text
}

/// No script starts or enables anything: not one of them says so.
fn starts_nothing(deb: &Path, out: &Path) {
    for script in ["postinst", "prerm", "postrm"] {
        let text = control(deb, out, script);
        let commands: Vec<&str> = text
            .lines()
            .filter(|l| !l.trim_start().starts_with('#'))
            .collect();
        for word in [
            "systemctl start",
            "systemctl enable",
            "systemctl restart",
            "invoke-rc.d",
            "deb-systemd",
        ] {
            // Advice in quotes is not a command.
            let said = |line: &&&str| line.contains(word) && !line.trim_start().starts_with("echo");
            assert!(!commands.iter().any(|line| said(&line)), "{script}: {word}");
        }
        assert!(
            run(Command::new("sh").args(["-n", "-c", &text]))
                .status
                .success()
        );
    }
}

/// Unpacks a package as an installation would.
fn install(deb: &Path, root: &Path) {
    run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(root));
}

/// Starts an installed daemon and waits until it says that it is ready; then it is asked to end.
fn starts(program: &Path, config: &Path, dir: &Path) {
    let path = dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut child = Command::new(program)
        .arg("--config")
        .arg(config)
        .env("NOTIFY_SOCKET", &path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap();
    let mut words = [0; 4_096];
    let heard = socket.recv(&mut words);
    let told = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    let pid = rustix::process::Pid::from_child(&child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let ended = child.wait().unwrap();
    assert!(
        heard.is_ok_and(|n| words[..n].starts_with(b"READY=1")),
        "{}",
        told()
    );
    assert!(ended.success(), "{}", told());
}

/// The file as installed, with its directories and ports where a test may have them.
fn moved(installed: &Path, to: &Path, changes: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(installed).unwrap();
    for (from, to) in changes {
        assert!(
            text.contains(from),
            "{from} is not in {}",
            installed.display()
        );
        text = text.replace(from, to);
    }
    std::fs::write(to, text).unwrap();
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

#[test]
fn the_agents_package_installs_and_its_agent_starts() {
    if !can_install() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (root, data) = (dir.path().join("root"), dir.path().join("data"));
    std::fs::create_dir(&root).unwrap();
    let deb = package("berth-agent", dir.path());
    assert_eq!(field(&deb, "Package"), "berth-agent");
    assert_eq!(
        field(&deb, "Version").split('-').next(),
        Some(env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(
        control(&deb, dir.path(), "conffiles").trim(),
        "/etc/berth/agent.toml"
    );
    starts_nothing(&deb, dir.path());
    install(&deb, &root);
    assert!(
        root.join("usr/lib/systemd/system/berth-agent.service")
            .is_file()
    );
    let program = root.join("usr/bin/berth-agent");
    let config = dir.path().join("agent.toml");
    let port = free_port();
    moved(
        &root.join("etc/berth/agent.toml"),
        &config,
        &[
            ("/var/lib/berth-agent", data.to_str().unwrap()),
            ("7600", &port),
            ("gpus = \"auto\"", "metrics = \"off\""),
        ],
    );
    run(Command::new(&program)
        .args(["--check", "--config"])
        .arg(root.join("etc/berth/agent.toml")));
    starts(&program, &config, dir.path());
    run(Command::new(&program)
        .args(["keeper-stop", "--dir"])
        .arg(&data));
}

#[test]
fn the_masters_package_installs_and_its_master_starts() {
    if !can_install() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (root, data) = (dir.path().join("root"), dir.path().join("data"));
    std::fs::create_dir(&root).unwrap();
    let deb = package("berth-scheduler", dir.path());
    assert_eq!(
        control(&deb, dir.path(), "conffiles").trim(),
        "/etc/berth/scheduler.toml"
    );
    starts_nothing(&deb, dir.path());
    install(&deb, &root);
    for file in [
        "usr/lib/systemd/system/berth-scheduler.service",
        "usr/lib/sysusers.d/berth-scheduler.conf",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    let program = root.join("usr/bin/berth-scheduler");
    let config = dir.path().join("scheduler.toml");
    let port = free_port();
    moved(
        &root.join("etc/berth/scheduler.toml"),
        &config,
        &[
            ("/var/lib/berth-scheduler", data.to_str().unwrap()),
            ("7600", &port),
        ],
    );
    run(Command::new(&program)
        .args(["--check", "--config"])
        .arg(root.join("etc/berth/scheduler.toml")));
    starts(&program, &config, dir.path());
}

#[test]
fn the_command_lines_package_has_both_programs() {
    if !can_install() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let deb = package("berth-cli", dir.path());
    assert_eq!(field(&deb, "Package"), "berth");
    install(&deb, &root);
    for name in ["berth", "berth-sim"] {
        let told = run(Command::new(root.join("usr/bin").join(name)).arg("--version"));
        let told = String::from_utf8(told.stdout).unwrap();
        assert!(told.contains(env!("CARGO_PKG_VERSION")), "{told}");
    }
}
