//! Files that are written whole or not at all: a temporary file in the same folder, renamed when it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A file could not be written.
#[derive(Debug, Error)]
pub enum OutputError {
    /// Its folder is not there.
    #[error("{}: the folder {} is not there; hint: create it first", path.display(), folder.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// It is a folder itself.
    #[error("{}: this is a folder; hint: name a file in it", path.display())]
    Folder {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Whether a file can be written there, as far as can be told before there is something to write.
///
/// # Errors
/// If its folder is missing or it is a folder itself.
pub fn check_writable(path: &Path) -> Result<(), OutputError> {
    let folder = folder_of(path);
    if !is_stdout(path) && path.is_dir() {
        let path = path.to_owned();
        return Err(OutputError::Folder { path });
    }
    if !is_stdout(path) && !folder.is_dir() {
        let (path, folder) = (path.to_owned(), folder.to_owned());
        return Err(OutputError::NoFolder { path, folder });
    }
    Ok(())
}

/// Writes a file with `fill`; `-` is standard output. Whoever reads it sees all of it or what was there before.
///
/// # Errors
/// If it cannot be written; nothing is left of it then.
pub fn write(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), OutputError> {
    check_writable(path)?;
    let written = if is_stdout(path) {
        let mut out = io::stdout().lock();
        fill(&mut out).and_then(|()| out.flush())
    } else {
        replace(path, fill)
    };
    written.map_err(|source| OutputError::Write {
        path: path.to_owned(),
        source,
    })
}

fn replace(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder_of(path).join(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut out = BufWriter::new(File::create(&temporary)?);
        fill(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // It may never have come to be; what counts is the first error.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("out.json");
        write(&path, |out| out.write_all(b"first")).expect("it can be written");
        let failed = write(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).expect("it is there"), b"first");
        let files = fs::read_dir(folder.path()).expect("it is there").count();
        assert_eq!(files, 1, "no temporary file is left");
        let nowhere = folder.path().join("nowhere/out.json");
        let error = write(&nowhere, |_| Ok(())).expect_err("no such folder");
        assert!(
            error.to_string().contains("hint: create it first"),
            "{error}"
        );
    }
}
