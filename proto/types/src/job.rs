//! Jobs: what a user submits, and where a job is in its life.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Fault, MILLI, Resources};

/// Most workers in one job; bounds a log entry and an attempt's record.
pub const MAX_WORKERS: u32 = 16_384;
/// Most groups in one job.
pub const MAX_GROUPS: usize = 32;
/// Longest name of a job, queue, group or user.
pub const MAX_NAME_LEN: usize = 128;
/// Most bytes of commands, environment and labels together; keeps entries small.
pub const MAX_TEXT_BYTES: usize = 24 * 1024;
/// Most arguments of one command, and most GPU types of one group.
pub const MAX_ITEMS: usize = 1024;
/// Longest time that a task may take to stop: an eviction, a drain or a cancel waits for it.
pub const MAX_GRACE_MS: u64 = 3_600_000;

/// What happens to an attempt when a node that holds part of it is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostNodeRule {
    /// A new epoch starts elsewhere at once; an isolated older copy is stopped on contact.
    #[default]
    Restart,
    /// The node stops its tasks after its lease; a new epoch starts after lease plus margin.
    Fence,
    /// Nothing restarts until the node returns or an operator fences it.
    Wait,
}

/// A group of identical workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Name, unique in the job.
    pub name: String,
    /// Program and arguments; each worker runs it.
    pub command: Vec<String>,
    /// Fewest workers that make sense.
    pub min_workers: u32,
    /// Most workers that help; more than `min_workers` makes the group elastic.
    pub max_workers: u32,
    /// All workers start together or none does.
    pub gang: bool,
    /// What each worker needs.
    pub resources: Resources,
    /// Labels that a node must have.
    pub node_labels: BTreeMap<String, String>,
}

/// When and how often a job is started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartSpec {
    /// Restarts after failures before the job fails. Evictions and start-up faults of a node do not count.
    pub max_restarts: u32,
    /// Pause before a restart after a failure; doubles each time up to 32 times.
    pub backoff_ms: u64,
    /// What to do when a node is lost.
    pub on_lost_node: LostNodeRule,
}

impl Default for RestartSpec {
    fn default() -> Self {
        Self {
            max_restarts: 3,
            backoff_ms: 1_000,
            on_lost_node: LostNodeRule::Restart,
        }
    }
}

/// Where checkpoints go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSpec {
    /// Directory that every node can reach; each epoch writes below it. Empty: the cluster's default.
    pub dir: String,
    /// How many checkpoints to keep.
    pub keep: u32,
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self {
            dir: String::new(),
            keep: 3,
        }
    }
}

/// What a user submits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Name, for people.
    pub name: String,
    /// Who submits.
    pub user: String,
    /// Queue.
    pub queue: String,
    /// Higher goes first within the cluster; ties by arrival.
    pub priority: i32,
    /// Workers.
    pub groups: Vec<GroupSpec>,
    /// Environment for every task.
    pub env: BTreeMap<String, String>,
    /// Working directory of every task; a scratch directory per task if empty.
    pub work_dir: String,
    /// Checkpoints.
    pub checkpoint: CheckpointSpec,
    /// Restarts.
    pub restart: RestartSpec,
    /// Longest time an attempt may run; none if 0.
    pub time_limit_ms: u64,
    /// How long the job is expected to run; 0 if unknown. Used by `srtf` and for backfill.
    pub expected_ms: u64,
    /// Time between asking a task to stop and killing it.
    pub grace_ms: u64,
    /// Start in the next round or be rejected, instead of waiting.
    pub start_now: bool,
    /// Free-form labels.
    pub labels: BTreeMap<String, String>,
}

impl Default for JobSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            user: String::new(),
            queue: "default".into(),
            priority: 0,
            groups: Vec::new(),
            env: BTreeMap::new(),
            work_dir: String::new(),
            checkpoint: CheckpointSpec::default(),
            restart: RestartSpec::default(),
            time_limit_ms: 0,
            expected_ms: 0,
            grace_ms: 10_000,
            start_now: false,
            labels: BTreeMap::new(),
        }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every task of one attempt exited 0.
    Completed,
    /// Out of restarts; the last code.
    Failed {
        /// Exit code, 128+n for signal n, -1 if it could not start.
        code: i32,
    },
    /// Cancelled by a user.
    Cancelled,
    /// Ran longer than its limit.
    TimedOut,
    /// A node was lost and no restart was left.
    NodeLost,
    /// Asked to start now or be rejected, and could not.
    Rejected,
}

/// Where a job is in its life; derived from the replicated record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for resources (or for its back-off).
    Pending,
    /// Placed; its tasks are being started.
    Starting,
    /// All its tasks run.
    Running,
    /// Its tasks are being stopped.
    Stopping,
    /// Waits for a lost node to be fenced or to return.
    Fencing,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Cancelled.
    Cancelled,
    /// Ended by its time limit.
    TimedOut,
}

impl JobState {
    /// True if nothing can change any more.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::TimedOut
        )
    }
}

impl JobSpec {
    /// Fewest workers over all groups.
    pub fn min_workers(&self) -> u32 {
        self.groups
            .iter()
            .fold(0, |n, g| g.min_workers.saturating_add(n))
    }

    /// Every fault of the spec by itself (whether it fits any node is the cluster's to say). Empty if it is sound.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        name_faults("name", &self.name, &mut faults);
        name_faults("queue", &self.queue, &mut faults);
        name_faults("user", &self.user, &mut faults);
        self.group_faults(&mut faults);
        self.text_faults(&mut faults);
        if self.checkpoint.keep == 0 {
            let hint = "keep at least 1";
            faults.push(Fault::new("checkpoint.keep", "0 checkpoints", hint));
        }
        if self.grace_ms > MAX_GRACE_MS {
            let what = format!("{} ms", self.grace_ms);
            let hint = format!("at most {MAX_GRACE_MS} ms");
            faults.push(Fault::new("grace", what, hint));
        }
        faults
    }

    fn group_faults(&self, faults: &mut Vec<Fault>) {
        if self.groups.is_empty() {
            let hint = "add [[groups]] with a command";
            faults.push(Fault::new("groups", "no group of workers", hint));
        }
        if self.groups.len() > MAX_GROUPS {
            let what = format!("{} groups", self.groups.len());
            faults.push(Fault::new("groups", what, format!("at most {MAX_GROUPS}")));
            return;
        }
        for (i, group) in self.groups.iter().enumerate() {
            group.faults(&format!("groups[{i}]"), faults);
            if self.groups[..i].iter().any(|g| g.name == group.name) {
                let what = format!("`{}` is used twice", group.name);
                let field = format!("groups[{i}].name");
                faults.push(Fault::new(field, what, "group names are unique"));
            }
        }
        let most = self
            .groups
            .iter()
            .fold(0u64, |n, g| n + u64::from(g.max_workers));
        if most > u64::from(MAX_WORKERS) {
            let what = format!("{most} workers in all");
            faults.push(Fault::new("groups", what, format!("at most {MAX_WORKERS}")));
        }
    }

    fn text_faults(&self, faults: &mut Vec<Fault>) {
        if self.text_bytes() > MAX_TEXT_BYTES {
            let what = format!("commands, env and labels take {} bytes", self.text_bytes());
            let hint = format!("at most {MAX_TEXT_BYTES}; put large data into files");
            faults.push(Fault::new("env", what, hint));
        }
        for key in self.env.keys() {
            if key.is_empty() || key.contains(['=', '\0']) {
                let what = format!("`{}` is no variable name", key.escape_debug());
                let hint = "use letters, digits and `_`";
                faults.push(Fault::new("env", what, hint));
            }
        }
        if self.env.values().any(|v| v.contains('\0')) {
            faults.push(Fault::new(
                "env",
                "a value contains a NUL byte",
                "remove it",
            ));
        }
        let directories = [
            ("work_dir", &self.work_dir),
            ("checkpoint.dir", &self.checkpoint.dir),
        ];
        for (field, directory) in directories {
            if !directory.is_empty() && !directory.starts_with('/') {
                let what = format!("`{directory}` is not absolute");
                faults.push(Fault::new(field, what, "start with `/`"));
            }
            if directory.contains('\0') {
                faults.push(Fault::new(field, "contains a NUL byte", "remove it"));
            }
        }
    }

    /// Bytes of free text, which is what makes a spec large.
    pub fn text_bytes(&self) -> usize {
        let map =
            |m: &BTreeMap<String, String>| m.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        let groups: usize = self
            .groups
            .iter()
            .map(|g| {
                let types: usize = g.resources.gpu_types.iter().map(String::len).sum();
                g.command.iter().map(String::len).sum::<usize>() + map(&g.node_labels) + types
            })
            .sum();
        groups
            + map(&self.env)
            + map(&self.labels)
            + self.work_dir.len()
            + self.checkpoint.dir.len()
    }
}

impl GroupSpec {
    fn faults(&self, at: &str, faults: &mut Vec<Fault>) {
        name_faults(&format!("{at}.name"), &self.name, faults);
        if self.command.first().is_none_or(String::is_empty) {
            faults.push(Fault::new(
                format!("{at}.command"),
                "no program",
                "give a list such as [\"python3\", \"train.py\"]",
            ));
        }
        if self.command.iter().any(|c| c.contains('\0')) {
            faults.push(Fault::new(
                format!("{at}.command"),
                "contains a NUL byte",
                "remove it",
            ));
        }
        let items = [
            ("command", self.command.len()),
            ("resources.gpu_types", self.resources.gpu_types.len()),
        ];
        for (field, count) in items {
            if count > MAX_ITEMS {
                let what = format!("{count} items");
                let hint = format!("at most {MAX_ITEMS}");
                faults.push(Fault::new(format!("{at}.{field}"), what, hint));
            }
        }
        if self.min_workers == 0 {
            faults.push(Fault::new(
                format!("{at}.min_workers"),
                "0 workers",
                "at least 1",
            ));
        }
        if self.max_workers < self.min_workers {
            let what = format!(
                "{} is less than min_workers {}",
                self.max_workers, self.min_workers
            );
            faults.push(Fault::new(
                format!("{at}.max_workers"),
                what,
                "raise it or lower min_workers",
            ));
        }
        let milligpu = self.resources.milligpu;
        if milligpu > MILLI && !milligpu.is_multiple_of(MILLI) {
            let what = format!("{} GPUs", f64::from(milligpu) / f64::from(MILLI));
            faults.push(Fault::new(
                format!("{at}.resources.gpus"),
                what,
                "a whole number, or a fraction below 1",
            ));
        }
        if milligpu == 0
            && (!self.resources.gpu_types.is_empty() || self.resources.gpu_mem_bytes > 0)
        {
            let hint = "set gpus, or drop gpu_types and gpu_memory";
            faults.push(Fault::new(
                format!("{at}.resources.gpus"),
                "0 GPUs with GPU constraints",
                hint,
            ));
        }
    }
}

pub(crate) fn name_faults(field: &str, name: &str, faults: &mut Vec<Fault>) {
    if name.is_empty() {
        faults.push(Fault::new(field, "empty", "give a name"));
    } else if name.len() > MAX_NAME_LEN {
        faults.push(Fault::new(
            field,
            format!("{} bytes long", name.len()),
            format!("at most {MAX_NAME_LEN}"),
        ));
    } else if name == "." || name == ".." || name.chars().any(|c| c.is_control() || c == '/') {
        faults.push(Fault::new(
            field,
            "is `.` or `..`, or contains a control character or `/`",
            "use letters, digits, `-`, `_` and `.`",
        ));
    }
}
