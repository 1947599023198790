//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::StoreError;

/// Suffix of files that are being written. Removed when a store is opened.
pub(crate) const UNFINISHED: &str = "unfinished";

/// Makes what happened to a directory's names durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    let handle = File::open(dir).map_err(StoreError::io("open", dir))?;
    handle.sync_all().map_err(StoreError::io("sync", dir))
}

/// Writes a file so that a crash leaves either all of it, durable under its name, or nothing of that name.
pub(crate) fn write_atomically(path: &Path, parts: &[&[u8]]) -> Result<(), StoreError> {
    let unfinished = unfinished_name(path);
    let mut file = File::create(&unfinished).map_err(StoreError::io("create", &unfinished))?;
    for part in parts {
        file.write_all(part)
            .map_err(StoreError::io("write", &unfinished))?;
    }
    finish(file, &unfinished, path)
}

/// The name under which a file is written before it is renamed to `path`.
pub(crate) fn unfinished_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// Makes an unfinished file durable under its final name.
pub(crate) fn finish(file: File, unfinished: &Path, path: &Path) -> Result<(), StoreError> {
    file.sync_all()
        .map_err(StoreError::io("sync", unfinished))?;
    drop(file);
    fs::rename(unfinished, path).map_err(StoreError::io("rename", unfinished))?;
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => sync_dir(dir),
        _ => sync_dir(Path::new(".")),
    }
}

/// Reads a whole file; `None` if there is none.
pub(crate) fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("open", path)(e)),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    Ok(Some(bytes))
}

/// Removes a file if it is there.
pub(crate) fn remove_if_exists(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::io("remove", path)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Names of the files and directories in `dir`.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(dir).map_err(StoreError::io("list", dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
