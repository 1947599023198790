//! The clusters that come with the program.

use std::path::Path;

use super::ClusterFile;
use crate::input::{InputError, Place, Source, nearest};

/// Names and texts.
const SHIPPED: [(&str, &str); 6] = [
    ("sia-het64", include_str!("../../clusters/sia-het64.toml")),
    (
        "sia-hom64-t4",
        include_str!("../../clusters/sia-hom64-t4.toml"),
    ),
    ("openb", include_str!("../../clusters/openb.toml")),
    ("venus", include_str!("../../clusters/venus.toml")),
    ("philly-vc", include_str!("../../clusters/philly-vc.toml")),
    ("lingjun", include_str!("../../clusters/lingjun.toml")),
];

/// Names of the clusters that come with the program.
pub const NAMES: [&str; SHIPPED.len()] = {
    let mut names = [""; SHIPPED.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = SHIPPED[index].0;
        index += 1;
    }
    names
};

/// The cluster of this name, or in this file.
///
/// # Errors
/// If there is neither, or the file is not sound.
pub fn open(name_or_file: &str) -> Result<ClusterFile, InputError> {
    if let Some((name, text)) = SHIPPED.iter().find(|(name, _)| *name == name_or_file) {
        return read(&format!("{name}.toml"), text);
    }
    let path = Path::new(name_or_file);
    if path.exists() {
        return ClusterFile::read(Source::open(path)?);
    }
    let hint = match nearest(name_or_file, NAMES) {
        Some(near) => format!("did you mean `{near}`? (there are {})", NAMES.join(", ")),
        None => format!("a TOML file, or one of {}", NAMES.join(", ")),
    };
    let place = Place::file(&name_or_file.into());
    Err(place.error("no such cluster and no such file", hint))
}

/// A cluster file in memory.
///
/// # Errors
/// If it is not sound.
pub fn read(name: &str, text: &str) -> Result<ClusterFile, InputError> {
    ClusterFile::read(Source::memory(name, text)?)
}
