//! A file that tasks write to, beside every log and record of Berth: who started, and who came to the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What one incarnation of a task wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    /// The job.
    pub job: u64,
    /// The attempt.
    pub epoch: u32,
    /// The task.
    pub rank: u32,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `start` or `end`.
    pub word: String,
    /// Who wrote it.
    pub copy: Copy,
    /// Its process.
    pub pid: i32,
    /// Where it ran.
    pub node: String,
}

/// The file. Lines are far shorter than what the kernel appends in one piece.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// A ledger in `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self {
            path: dir.join(name),
        }
    }

    /// Shell code that writes a line beginning with `word`.
    pub fn write(&self, word: &str) -> String {
        format!(
            "echo \"{word} $BERTH_JOB_ID $BERTH_ATTEMPT $RANK $$ $BERTH_NODE_NAME\" >> '{}'",
            self.path.display()
        )
    }

    /// Shell code of a task that says when it starts, does `work`, and says when it ends.
    pub fn script(&self, work: &str) -> String {
        format!("{} && {work} && {}", self.write("start"), self.write("end"))
    }

    /// Shell code of a task that says when it starts and then runs until it is ended.
    pub fn endless(&self) -> String {
        format!("{} && exec sleep 3600", self.write("start"))
    }

    /// Everything written so far, in order.
    pub fn lines(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().filter_map(parse).collect()
    }

    /// What was written about a job so far with this word.
    pub fn of(&self, job: u64, word: &str) -> Vec<Line> {
        let mut lines = self.lines();
        lines.retain(|line| line.copy.job == job && line.word == word);
        lines
    }

    /// How often each copy wrote this word.
    pub fn counts(&self, word: &str) -> BTreeMap<Copy, u32> {
        let mut counts = BTreeMap::new();
        for line in self.lines().into_iter().filter(|line| line.word == word) {
            *counts.entry(line.copy).or_insert(0) += 1;
        }
        counts
    }
}

fn parse(line: &str) -> Option<Line> {
    let mut fields = line.split(' ');
    Some(Line {
        word: fields.next()?.to_owned(),
        copy: Copy {
            job: fields.next()?.parse().ok()?,
            epoch: fields.next()?.parse().ok()?,
            rank: fields.next()?.parse().ok()?,
        },
        pid: fields.next()?.parse().ok()?,
        node: fields.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_writes_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(dir.path(), "ledger");
        let status = std::process::Command::new("sh")
            .args(["-c", &ledger.script("true")])
            .envs([
                ("BERTH_JOB_ID", "7"),
                ("BERTH_ATTEMPT", "2"),
                ("RANK", "1"),
                ("BERTH_NODE_NAME", "n1"),
            ])
            .status()
            .unwrap();
        assert!(status.success());
        let copy = Copy {
            job: 7,
            epoch: 2,
            rank: 1,
        };
        assert_eq!(ledger.counts("end"), BTreeMap::from([(copy, 1)]));
        assert_eq!(ledger.of(7, "start")[0].node, "n1");
        assert!(ledger.of(8, "start").is_empty());
    }
}
