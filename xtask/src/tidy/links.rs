//! Links in Markdown to files of the repository must lead somewhere.

use std::path::Path;

use super::sources::Fault;

/// Finds relative links whose target does not exist. `exists` gets the target relative to the file's directory.
pub(super) fn check(text: &str, exists: impl Fn(&Path) -> bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut in_fence = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        } else if !in_fence {
            for target in targets(line) {
                let path = target.split('#').next().unwrap_or_default();
                if !path.is_empty() && !exists(Path::new(path)) {
                    faults.push((index + 1, format!("the link to {target} leads nowhere")));
                }
            }
        }
    }
    faults
}

/// Targets of `[text](target)` and `[text]: target` in a line, without those that leave the repository.
fn targets(line: &str) -> Vec<&str> {
    // Inline code is every second piece between backticks.
    let prose = line.split('`').step_by(2);
    let mut targets = Vec::new();
    // A link's text may itself be inline code, so its end is looked for at a piece's start, too.
    for piece in prose {
        let mut rest = piece;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            targets.push(rest.split([')', ' ']).next().unwrap_or_default());
        }
    }
    if line.starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        targets.push(target.split(' ').next().unwrap_or_default());
    }
    targets.retain(|target| !target.contains("://") && !target.starts_with("mailto:"));
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_link_is_named_with_its_line() {
        let text = "see [a](docs/a.md#part) and\n[`code`](missing.md \"title\")\n[ref]: gone.md\n";
        let faults = check(text, |path| path == Path::new("docs/a.md"));
        assert_eq!(
            faults,
            [
                (2, "the link to missing.md leads nowhere".to_owned()),
                (3, "the link to gone.md leads nowhere".to_owned())
            ]
        );
    }

    #[test]
    fn code_addresses_and_anchors_are_left_alone() {
        let text =
            "`[a](b)` [w](https://example.org/x) [m](mailto:a@b) [here](#part)\n```\n[c](d)\n```\n";
        assert!(check(text, |_| false).is_empty());
    }
}
