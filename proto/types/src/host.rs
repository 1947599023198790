//! What a node says of itself beside its offer: how it isolates tasks, and whether it is fit for work.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest text that a node says of itself, in bytes.
pub const MAX_HOST_TEXT_BYTES: usize = 400;
/// Most limits that a node names.
pub const MAX_ENFORCED: usize = 8;

/// What holds a task's processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IsolationKind {
    /// The node has not said.
    #[default]
    Unknown,
    /// A process group: no limit is enforced, and a process that leaves the group is found by its environment only.
    ProcessGroup,
    /// A control group of its own for each task.
    Cgroup,
}

/// How a node isolates tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// What holds a task together.
    pub kind: IsolationKind,
    /// The limits that are enforced, such as `cpu`, `memory`, `pids`, `devices`.
    pub enforced: Vec<String>,
    /// What an operator should know: why there are no control groups, or what is not enforced.
    pub note: String,
}

/// What a node says of itself; the whole of it each time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// How it isolates tasks.
    pub isolation: Isolation,
    /// Why it should get no new work, in the words of its health check; absent while that passes.
    pub unfit: Option<String>,
}

/// A program of the operator that a node runs beside tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Hook {
    /// Before the first task of an attempt on the node.
    Prolog,
    /// After the last one.
    Epilog,
    /// Every so often.
    HealthCheck,
}

impl Hook {
    /// As configurations and environments name it.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Prolog => "prolog",
            Hook::Epilog => "epilog",
            Hook::HealthCheck => "health_check",
        }
    }
}

impl Isolation {
    /// One word for tables; empty if unknown.
    pub fn word(&self) -> &'static str {
        match self.kind {
            IsolationKind::Unknown => "",
            IsolationKind::ProcessGroup => "process-group",
            IsolationKind::Cgroup => "cgroup",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        if !self.enforced.is_empty() {
            write!(f, " with limits of {}", self.enforced.join(", "))?;
        }
        match self.note.as_str() {
            "" => Ok(()),
            note => write!(f, " ({note})"),
        }
    }
}

/// Cuts a text to at most `most` bytes, at a character's end.
pub fn shorten(text: &mut String, most: usize) {
    if text.len() > most {
        let cut = (0..=most).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolation_reads_like_a_sentence() {
        let mut isolation = Isolation::default();
        assert_eq!(isolation.to_string(), "");
        isolation.kind = IsolationKind::Cgroup;
        isolation.enforced = vec!["cpu".into(), "pids".into()];
        isolation.note = "devices are not enforced".into();
        assert_eq!(
            isolation.to_string(),
            "cgroup with limits of cpu, pids (devices are not enforced)"
        );
    }
}
