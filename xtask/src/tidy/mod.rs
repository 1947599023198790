//! Rules of the repository that no compiler knows: sizes, crate docs, leftovers, PURE bans, names and links.
//!
//! Every rule is a function from text to faults, so that a test can show it failing. Files are what git would commit.

mod links;
mod manifests;
mod sources;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::house::root;

/// A larger file does not belong into a source repository.
const MAX_FILE_BYTES: u64 = 1_000_000;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc"];

/// Text files in which a leftover marker is looked for. Prose may name the markers.
const CODE_EXTENSIONS: &[&str] = &["rs", "py", "proto", "sh", "toml"];

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
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .context("cannot start git")?;
    if !output.status.success() {
        bail!(
            "git ls-files failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let list = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let mut files: Vec<PathBuf> = list
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect();
    files.retain(|file| root.join(file).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

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
