//! Rules for manifests: a reason per dependency, the workspace's lints everywhere, the bans in every PURE crate.

use std::path::{Path, PathBuf};

use anyhow::Context;
use toml::{Table, Value};

use crate::house::PURE;

/// The bans that every PURE crate carries.
const PURE_CLIPPY: &str = include_str!("../pure-clippy.toml");

pub(super) fn check(root: &Path, files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let read = |path: &Path| {
        std::fs::read_to_string(root.join(path))
            .with_context(|| format!("cannot read {}", path.display()))
    };
    let mut faults = reasons(&read(Path::new("Cargo.toml"))?);
    for (name, directory) in PURE {
        let path = Path::new(directory).join("clippy.toml");
        let text = read(&path).unwrap_or_default();
        let missing = missing_bans(&text)?;
        if !missing.is_empty() {
            faults.push(format!(
                "{}: {name} is PURE and lacks the bans on {}; copy xtask/src/pure-clippy.toml",
                path.display(),
                missing.join(", ")
            ));
        }
    }
    for file in files
        .iter()
        .filter(|file| file.file_name().is_some_and(|name| name == "Cargo.toml"))
    {
        let manifest: Table = read(file)?
            .parse()
            .with_context(|| format!("{}", file.display()))?;
        let inherits = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            == Some(&Value::Boolean(true));
        if manifest.contains_key("package") && !inherits {
            faults.push(format!(
                "{}: needs `[lints] workspace = true`",
                file.display()
            ));
        }
    }
    Ok(faults)
}

/// Third-party lines of `[workspace.dependencies]` without a comment that says why.
fn reasons(manifest: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut section = "";
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim();
        }
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let starts_entry = section == "[workspace.dependencies]"
            && line.starts_with(|c: char| c.is_alphanumeric());
        if starts_entry && !value.contains("path =") && !value.contains("# ") {
            faults.push(format!(
                "Cargo.toml:{}: say in a comment why {} is here",
                index + 1,
                name.trim()
            ));
        }
    }
    faults
}

/// Paths that `text` does not ban although a PURE crate must.
fn missing_bans(text: &str) -> anyhow::Result<Vec<String>> {
    let required = bans(PURE_CLIPPY).context("xtask/src/pure-clippy.toml")?;
    let present = bans(text)?;
    Ok(required
        .into_iter()
        .filter(|ban| !present.contains(ban))
        .collect())
}

fn bans(text: &str) -> anyhow::Result<Vec<String>> {
    let table: Table = text.parse()?;
    let lists = ["disallowed-types", "disallowed-methods"]
        .into_iter()
        .filter_map(|key| table.get(key)?.as_array());
    let path = |entry: &Value| {
        entry
            .get("path")
            .unwrap_or(entry)
            .as_str()
            .map(str::to_owned)
    };
    Ok(lists.flatten().filter_map(path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_without_a_reason_is_named() {
        let manifest = "[package]\nname = \"x\"\n[workspace.dependencies]\nours = { path = \"ours\" }\nwhy = \"1\"\nserde = \"1\" # JSON\n[profile.dev]\ndebug = 1\n";
        assert_eq!(
            reasons(manifest),
            ["Cargo.toml:5: say in a comment why why is here"]
        );
    }

    #[test]
    fn the_full_list_passes_and_every_gap_is_named() {
        assert!(missing_bans(PURE_CLIPPY).unwrap().is_empty());
        let clock = "std::time::Instant::now";
        let without: String = PURE_CLIPPY
            .lines()
            .filter(|line| !line.contains(clock))
            .map(|l| format!("{l}\n"))
            .collect();
        assert_eq!(missing_bans(&without).unwrap(), [clock]);
        assert!(missing_bans("").unwrap().len() > 30);
    }
}
