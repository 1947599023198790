//! Where the daemons and the CLI are: beside the program that runs now.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The CLI, `berth`.
    pub berth: PathBuf,
    /// The master, `berth-scheduler`.
    pub scheduler: PathBuf,
    /// The agent, `berth-agent`; also its keeper.
    pub agent: PathBuf,
}

impl Programs {
    /// Finds them beside the current executable, or one directory up from a test binary (`target/debug/deps`).
    ///
    /// # Errors
    /// If one is missing: it was not built.
    pub fn find() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        let beside = own
            .parent()
            .context("this program's path has no directory")?;
        let dir = if beside.file_name().is_some_and(|name| name == "deps") {
            beside.parent().unwrap_or(beside)
        } else {
            beside
        };
        Ok(Self {
            berth: existing(dir, "berth")?,
            scheduler: existing(dir, "berth-scheduler")?,
            agent: existing(dir, "berth-agent")?,
        })
    }
}

fn existing(dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    if !path.is_file() {
        bail!(
            "{} is missing. hint: `cargo build --bins` builds it",
            path.display()
        );
    }
    Ok(path)
}
