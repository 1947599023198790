//! Rules of the repository that no compiler knows: sizes, crate docs, leftovers, PURE bans, names and links.
//!
//! Every rule is a function from text to faults, so that a test can show it failing. Files are what git would commit.

mod links;
mod manifests;
mod sources;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::house::root;

/// A larger file does not belong into a source repository.
const MAX_FILE_BYTES: u64 = 1_000_000;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc"];

/// Text files in which a leftover marker is looked for. Prose may name the markers.
const CODE_EXTENSIONS: &[&str] = &["rs", "py", "proto", "sh", "toml"];

/// Directories that hold what was built or installed, never sources.
const BUILD_RESULTS: &[&str] = &[".git", "target", ".deps", "__pycache__", ".venv"];

/// Checks every file and returns the faults as `path:line: what`.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let root = root();
    let files = files(&root)?;
    let mut faults = Vec::new();
    for file in &files {
        check_file(&root, file, &mut faults)?;
    }
    faults.extend(manifests::check(&root, &files)?);
    faults.sort();
    Ok(faults)
}

fn check_file(root: &Path, file: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let shown = file.display();
    let path = root.join(file);
    if has_empty_name(file) {
        faults.push(format!(
            "{shown}: a name that says nothing; name the concept inside"
        ));
    }
    let bytes = std::fs::metadata(&path)
        .with_context(|| format!("{shown}"))?
        .len();
    if bytes > MAX_FILE_BYTES {
        faults.push(format!(
            "{shown}: {bytes} bytes; at most {MAX_FILE_BYTES} are committed"
        ));
        return Ok(());
    }
    // Not text: nothing below applies.
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(());
    };
    let extension = file
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    let at = |(line, what): (usize, String)| format!("{shown}:{line}: {what}");
    if CODE_EXTENSIONS.contains(&extension) {
        faults.extend(sources::markers(&text).into_iter().map(at));
    }
    match extension {
        "rs" => faults.extend(sources::check(file, &text).into_iter().map(at)),
        "md" => {
            let exists = |target: &Path| {
                root.join(file)
                    .parent()
                    .is_some_and(|p| p.join(target).exists())
            };
            faults.extend(links::check(&text, exists).into_iter().map(at));
        }
        _ => {}
    }
    Ok(())
}

fn has_empty_name(file: &Path) -> bool {
    file.iter().any(|part| {
        let part = part.to_string_lossy();
        let stem = part.split('.').next().unwrap_or_default();
        EMPTY_NAMES.contains(&stem)
    })
}

/// What git tracks, plus what it would track: a new file is checked before it is added.
/// Without git (an unpacked archive, a checkout that belongs to somebody else) everything but build results.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = match git_files(root) {
        Some(files) => files,
        None => {
            let mut files = Vec::new();
            walk(root, Path::new(""), &mut files)?;
            files
        }
    };
    files.retain(|file| root.join(file).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

fn git_files(root: &Path) -> Option<Vec<PathBuf>> {
    let arguments = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let output = Command::new("git")
        .args(arguments)
        .current_dir(root)
        .output()
        .ok()?;
    let list = String::from_utf8(output.stdout).ok()?;
    let files = list
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from);
    output.status.success().then(|| files.collect())
}

fn walk(root: &Path, directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(root.join(directory))? {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        if !entry.file_type()?.is_dir() {
            files.push(path);
        } else if !entry
            .file_name()
            .to_str()
            .is_some_and(|name| BUILD_RESULTS.contains(&name))
        {
            walk(root, &path, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_git_the_same_sources_are_found() {
        let root = root();
        let mut walked = Vec::new();
        walk(&root, Path::new("xtask"), &mut walked).unwrap();
        assert!(
            walked.contains(&PathBuf::from("xtask/src/tidy/mod.rs")),
            "{walked:?}"
        );
        assert!(!walked.iter().any(|file| file.starts_with("target")));
    }

    #[test]
    fn names_that_say_nothing_are_found_as_file_and_as_directory() {
        for name in ["a/utils.rs", "common/b.rs", "helpers/mod.rs", "misc.py"] {
            assert!(has_empty_name(Path::new(name)), "{name}");
        }
        for name in ["a/commonality.rs", "src/keeper.rs", "misconduct.md"] {
            assert!(!has_empty_name(Path::new(name)), "{name}");
        }
    }
}
