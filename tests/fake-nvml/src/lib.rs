//! A shared library with NVML's C interface, driven by a scenario file: what an agent sees of GPUs on a machine that has
//! none, through the very code that talks to the driver.
//!
//! Owns the scenario's format ([`scenario`]), its clock ([`scene`]) and the exported functions ([`exports`]). Must not
//! know: who loads it. Layouts are `nvml-wrapper-sys`'s, so they are the driver's.
//!
//! The scenario is the file named by `FAKE_NVML_SCENARIO`. Its time 0 is the file's modification time, so a library
//! that is loaded anew goes on where the last one was, and writing the file anew starts it anew. A function that is not
//! exported, and a reading that the scenario does not name, is what an old driver would say: not supported.
//!
//! Start reading at [`scenario::Scenario`].

pub mod exports;
pub mod scenario;
pub mod scene;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A scenario file that is played again and again, from its start each time.
#[derive(Debug)]
pub struct Stage {
    file: PathBuf,
    newest: SystemTime,
}

impl Stage {
    /// In this directory; nothing is played yet.
    pub fn new(dir: &Path) -> Self {
        Self {
            file: dir.join("scenario.toml"),
            newest: SystemTime::UNIX_EPOCH,
        }
    }

    /// What [`scene::VARIABLE`] must name.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Plays this from now on.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn play(&mut self, scenario: &scenario::Scenario) -> std::io::Result<()> {
        let text = scenario.to_toml().map_err(std::io::Error::other)?;
        let part = self.file.with_extension("part");
        // The library tells scenarios apart by this time, and file systems may be coarse.
        self.newest = SystemTime::now().max(self.newest + Duration::from_millis(10));
        std::fs::write(&part, text)?;
        let file = std::fs::File::options().write(true).open(&part)?;
        file.set_modified(self.newest)?;
        std::fs::rename(&part, &self.file)
    }
}

/// Where the shared library lies that was built together with the running test, example or benchmark.
///
/// # Errors
/// If it is not there; cargo builds it beside whatever depends on this crate.
pub fn library() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let name = "libberth_fake_nvml.so";
    own.ancestors()
        .skip(1)
        .take(3)
        .flat_map(|dir| [dir.join(name), dir.join("deps").join(name)])
        .find(|path| path.is_file())
        .ok_or_else(|| format!("no {name} beside {}", own.display()))
}
