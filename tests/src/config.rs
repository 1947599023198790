//! The configuration files of the daemons, as a person would write them.

use std::fmt::Write;
use std::path::Path;

/// A master's file.
pub(crate) struct MasterFile<'a> {
    pub(crate) id: u64,
    pub(crate) data_dir: &'a Path,
    pub(crate) listen: &'a str,
    /// The first masters, with the addresses under which they are known.
    pub(crate) masters: &'a [(u64, String)],
    pub(crate) join: bool,
    pub(crate) settings: &'a Settings,
}

/// What a scenario may change in all masters' files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `sled` or `redb`.
    pub storage: &'static str,
    /// Log entries between snapshots; the default if `None`.
    pub snapshot_entries: Option<u64>,
    /// Keys of `[timeouts]`, as they stand in the file.
    pub timeouts: Vec<(&'static str, &'static str)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            storage: "sled",
            snapshot_entries: None,
            timeouts: Vec::new(),
        }
    }
}

impl MasterFile<'_> {
    pub(crate) fn text(&self) -> String {
        let settings = self.settings;
        let mut text = format!(
            "id = {}\ndata_dir = {:?}\nlisten = {:?}\nstorage = {:?}\ncheck_every = 100\n",
            self.id, self.data_dir, self.listen, settings.storage
        );
        if self.join {
            text.push_str("join = true\n");
        }
        if let Some(entries) = settings.snapshot_entries {
            let _ = writeln!(text, "snapshot_entries = {entries}");
        }
        if !settings.timeouts.is_empty() {
            text.push_str("[timeouts]\n");
            for (key, value) in &settings.timeouts {
                let _ = writeln!(text, "{key} = {value:?}");
            }
        }
        for (id, address) in self.masters {
            let _ = write!(text, "[[masters]]\nid = {id}\naddress = {address:?}\n");
        }
        text
    }
}

/// An agent's file.
pub(crate) struct AgentFile<'a> {
    pub(crate) name: &'a str,
    pub(crate) data_dir: &'a Path,
    pub(crate) masters: &'a [String],
    pub(crate) cpus: u32,
    pub(crate) gpus: u32,
    /// Instead of simulated GPUs: a library with the driver's interface.
    pub(crate) library: Option<&'a Path>,
    pub(crate) port_first: u16,
    pub(crate) port_count: u16,
}

impl AgentFile<'_> {
    pub(crate) fn text(&self) -> String {
        let last = self.port_first + (self.port_count - 1);
        let mut text = format!(
            "name = {:?}\ndata_dir = {:?}\nmasters = {:?}\ncpus = {}\nmemory = \"16GiB\"\nmetrics = \"off\"\nports = \"{}-{last}\"\n",
            self.name, self.data_dir, self.masters, self.cpus, self.port_first
        );
        if self.library.is_some() {
            text.push_str("gpus = \"auto\"\n");
        }
        let _ = write!(text, "[labels]\nname = {:?}\n", self.name);
        if let Some(library) = self.library {
            let _ = write!(text, "[telemetry]\nlibrary = {library:?}\n");
        } else if self.gpus > 0 {
            let count = self.gpus;
            let _ = write!(
                text,
                "[[gpus]]\nmodel = \"a100\"\nmemory = \"40GiB\"\ncount = {count}\n"
            );
        }
        text
    }
}
