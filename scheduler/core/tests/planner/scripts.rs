//! Runs `tests/planner/scripts/*.txt`: blocks of commands, `----`, and what they must print. `UPDATE_GOLDEN=1`
//! rewrites them; read the difference before you commit it.

use std::fs;
use std::path::PathBuf;

use crate::script::Script;

/// Runs every block of a file and returns the file as it should be. A line `== title` begins a new cluster.
fn run(text: &str) -> String {
    let mut script = Script::new();
    let mut out = String::new();
    for block in text.trim_end().split("\n\n") {
        let input = block.split("----").next().unwrap_or_default();
        let mut printed = String::new();
        let mut any = false;
        for line in input.lines() {
            out += line;
            out.push('\n');
            if line.starts_with("==") {
                script = Script::new();
            }
            if line.is_empty() || line.starts_with('#') || line.starts_with("==") {
                continue;
            }
            any = true;
            printed += &script.line(line);
        }
        if any {
            out += "----\n";
            out += &printed;
        }
        out.push('\n');
    }
    out.trim_end().to_owned() + "\n"
}

#[test]
fn scripts_print_what_they_should() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/planner/scripts");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("the directory of scripts")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 6, "scripts are missing: {files:?}");
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let is = run(&text);
        if update {
            fs::write(&file, is).expect("writable");
            continue;
        }
        let mut pairs = (1..).zip(is.lines().zip(text.lines()));
        if let Some((n, (is, should))) = pairs.find(|(_, (a, b))| a != b) {
            panic!("{name}:{n}: expected\n  {should}\nbut got\n  {is}\n(UPDATE_GOLDEN=1 rewrites)");
        }
        assert_eq!(is.lines().count(), text.lines().count(), "{name}: length");
    }
}
