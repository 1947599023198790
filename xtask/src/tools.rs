//! The programs that the checks call, and how a missing one is installed: pinned, into `.deps/tools`, once.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::house::root;

/// A program that cargo can install.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    /// Another version that is already on the machine will do.
    any_version: bool,
    features: &'static [&'static str],
}

/// Reads licences and bans; its own output format and configuration change with versions.
pub(crate) const DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    any_version: false,
    features: &["--no-default-features"],
};

/// Runs the tests, one process each.
pub(crate) const NEXTEST: Tool = Tool {
    name: "cargo-nextest",
    version: "0.9.143",
    any_version: true,
    features: &["--no-default-features", "--features", "default-no-update"],
};

/// Makes Debian packages; its metadata keys change with versions.
pub(crate) const DEB: Tool = Tool {
    name: "cargo-deb",
    version: "3.8.0",
    any_version: false,
    features: &["--no-default-features", "--features", "gzip"],
};

/// `cargo`, at the repository's root, the same one that called us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Where cargo puts what it builds, also when the environment or a configuration file moved it.
pub(crate) fn target_dir() -> anyhow::Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata failed")?;
    let path = metadata["target_directory"]
        .as_str()
        .context("cargo metadata has no target_directory")?;
    Ok(PathBuf::from(path))
}

/// Installs whatever `make test` needs and this machine lacks.
pub(crate) fn install_all() -> anyhow::Result<()> {
    for tool in [DENY, NEXTEST, DEB] {
        let path = tool.ensure()?;
        println!("{:<14} {}", tool.name, path.display());
    }
    Ok(())
}

impl Tool {
    /// The path of a version that will do, installed now if there is none.
    pub(crate) fn ensure(&self) -> anyhow::Result<PathBuf> {
        let home = root().join(".deps/tools");
        let installed = home.join("bin").join(self.name);
        for candidate in [installed.clone(), PathBuf::from(self.name)] {
            if self.will_do(&candidate) {
                return Ok(candidate);
            }
        }
        println!(
            "installing {} {} into .deps/tools (once, a few minutes)",
            self.name, self.version
        );
        let mut install = cargo();
        install
            .args(["install", "--quiet", "--locked", "--force", "--root"])
            .arg(&home)
            .args(self.features)
            .arg(format!("{}@{}", self.name, self.version))
            // Built to be ready soon, not to be fast: deny takes a second either way.
            .envs([
                ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
                ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
                ("CARGO_PROFILE_RELEASE_LTO", "off"),
                ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
            ])
            .env("CARGO_TARGET_DIR", home.join("build"))
            .env("PATH", path_with(&home)?);
        let status = install.status().context("cannot start cargo install")?;
        if !status.success() {
            bail!(
                "cargo install {}@{} failed; see above",
                self.name,
                self.version
            );
        }
        // The intermediate files are a few hundred MB and never needed again.
        let _ = std::fs::remove_dir_all(home.join("build"));
        Ok(installed)
    }

    fn will_do(&self, program: &PathBuf) -> bool {
        let output = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let Ok(output) = output else { return false };
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success()
            && (self.any_version || text.split_whitespace().nth(1) == Some(self.version))
    }
}

/// The search path with our own tools first; it also keeps cargo install from warning about it.
fn path_with(home: &std::path::Path) -> anyhow::Result<OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(home.join("bin")).chain(std::env::split_paths(&old));
    Ok(std::env::join_paths(paths)?)
}
