//! The steps of `cargo xtask ci`: what each runs, how long it took, and a clear list of what failed.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::{arrows, tidy, tools};

/// A named check. It returns its faults, one line each; none means it passed.
pub(crate) struct Step {
    name: &'static str,
    check: fn() -> anyhow::Result<Vec<String>>,
}

pub(crate) const FMT: Step = Step {
    name: "fmt",
    check: fmt,
};
pub(crate) const TIDY: Step = Step {
    name: "tidy",
    check: tidy::check,
};
pub(crate) const ARROWS: Step = Step {
    name: "arrows",
    check: arrows::check,
};
pub(crate) const DENY: Step = Step {
    name: "deny",
    check: deny,
};
pub(crate) const CLIPPY: Step = Step {
    name: "clippy",
    check: clippy,
};
pub(crate) const DOCS: Step = Step {
    name: "docs",
    check: docs,
};

/// Cheap ones first, so that a slip shows within seconds.
pub(crate) const ALL: [Step; 6] = [FMT, TIDY, ARROWS, DENY, CLIPPY, DOCS];

/// Runs every step, also after a failed one, so that one run shows everything.
pub(crate) fn run(steps: &[Step]) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for step in steps {
        let started = Instant::now();
        let faults = (step.check)().unwrap_or_else(|error| vec![format!("{error:#}")]);
        let verdict = if faults.is_empty() { "ok" } else { "FAILED" };
        println!(
            "{:<8} {verdict:<7} {:>6.1} s",
            step.name,
            started.elapsed().as_secs_f64()
        );
        for fault in &faults {
            println!("  {fault}");
        }
        if !faults.is_empty() {
            failed.push(step.name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Builds the daemons and the CLI, then runs a binary of berth-tests on them. It finds them beside itself.
pub(crate) fn with_daemons(binary: &str, args: &[String]) -> anyhow::Result<()> {
    let packages = ["berth-cli", "berth-scheduler", "berth-agent", "berth-tests"];
    let mut build = tools::cargo();
    build.args(["build", "--release", "--quiet", "--locked", "--bins"]);
    build.args(packages.iter().flat_map(|package| ["-p", package]));
    must_succeed(build)?;
    let mut run = Command::new(tools::target_dir()?.join("release").join(binary));
    run.current_dir(crate::house::root()).args(args);
    must_succeed(run)
}

/// Builds the programs for release, and a Debian package of each crate that has one.
pub(crate) fn packages() -> anyhow::Result<()> {
    let tool = tools::DEB.ensure()?;
    let packaged = ["berth-agent", "berth-scheduler", "berth-cli"];
    let mut build = tools::cargo();
    build.args(["build", "--release", "--quiet", "--locked", "--bins"]);
    // `berth-sim` travels with the command line, which calls it.
    let built = packaged.iter().chain(&["berth-sim"]);
    build.args(built.flat_map(|package| ["-p", package]));
    must_succeed(build)?;
    for package in packaged {
        let mut deb = Command::new(&tool);
        deb.current_dir(crate::house::root());
        deb.args(["deb", "--no-build", "--locked", "-p", package]);
        must_succeed(deb)?;
    }
    Ok(())
}

/// Names the places only: the whole difference of a large change would hide the other steps.
fn fmt() -> anyhow::Result<Vec<String>> {
    let mut command = tools::cargo();
    command
        .args(["fmt", "--all", "--check", "--", "--color", "never"])
        .stderr(Stdio::inherit());
    let output = command.output().context("cannot start cargo fmt")?;
    let root = crate::house::root();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut faults: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Diff in "))
        .map(|place| {
            place
                .trim_end_matches(':')
                .replace(&format!("{}/", root.display()), "")
        })
        .map(|place| format!("{place}: run `cargo fmt --all`"))
        .collect();
    if !output.status.success() && faults.is_empty() {
        faults.push("cargo fmt failed; see above".to_owned());
    }
    Ok(faults)
}

/// No `--workspace`: the default members are what everybody builds.
fn clippy() -> anyhow::Result<Vec<String>> {
    let mut command = tools::cargo();
    command.args([
        "clippy",
        "--quiet",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]);
    faults_of(&mut command, "clippy has warnings; see above")
}

fn docs() -> anyhow::Result<Vec<String>> {
    let mut command = tools::cargo();
    let flags = std::env::var("RUSTDOCFLAGS").unwrap_or_default();
    command
        .args(["doc", "--quiet", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", format!("{flags} -Dwarnings"));
    faults_of(&mut command, "the documentation has warnings; see above")
}

fn deny() -> anyhow::Result<Vec<String>> {
    let program = tools::DENY.ensure()?;
    let mut command = Command::new(program);
    command.current_dir(crate::house::root());
    command.args([
        "--log-level",
        "error",
        "--locked",
        "check",
        "bans",
        "licenses",
        "sources",
    ]);
    faults_of(&mut command, "cargo deny found something; see above")
}

fn faults_of(command: &mut Command, fault: &str) -> anyhow::Result<Vec<String>> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    Ok(if status.success() {
        Vec::new()
    } else {
        vec![fault.to_owned()]
    })
}

fn must_succeed(mut command: Command) -> anyhow::Result<()> {
    let faults = faults_of(&mut command, "the command failed; see above")?;
    if faults.is_empty() {
        Ok(())
    } else {
        bail!("{}", faults.join("; "))
    }
}
