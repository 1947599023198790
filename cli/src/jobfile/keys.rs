//! Every key of a job file, once: the reader walks these tables and the JSON Schema is made from them.

/// What a key's value must be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path; a relative one starts at the job file's directory.
    Path,
    /// A whole number in this range.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// `true` or `false`.
    Flag,
    /// Text such as `"90s"`, `"1h 30m"`.
    Duration,
    /// Text such as `"256MiB"`.
    Memory,
    /// A number with at most three decimals, from 0 to this.
    Amount {
        /// Largest.
        max: u32,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts, or one text for the shell.
    Command,
    /// A list of texts.
    Texts,
    /// A table from text to text.
    Map,
    /// A table with these keys.
    Table(&'static [Key]),
    /// A list of tables with these keys.
    Tables(&'static [Key]),
}

/// A key of a table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// What holds if it is left out, in words; empty if it is required.
    pub default: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        default,
        doc,
    }
}

/// Most devices that one worker may ask for; more than any node has.
const MAX_GPUS: u32 = 1_024;
/// Most CPUs that one worker may ask for.
const MAX_CPUS: u32 = 65_536;

const WORKERS: Kind = Kind::Integer {
    min: 1,
    max: berth_types::job::MAX_WORKERS as i64,
};
const GPUS: Key = key(
    "gpus",
    Kind::Amount { max: MAX_GPUS },
    "0",
    "GPUs per worker: a whole number, or a fraction below 1 such as 0.5",
);
const GPU_TYPES: Key = key(
    "gpu_types",
    Kind::Texts,
    "[] (any)",
    "GPU models that will do, compared without case",
);
const GPU_MEMORY: Key = key(
    "gpu_memory",
    Kind::Memory,
    "any",
    "Least memory of each GPU",
);
const CPUS: Key = key(
    "cpus",
    Kind::Amount { max: MAX_CPUS },
    "1",
    "CPUs per worker; fractions with up to three decimals",
);
const MEMORY: Key = key(
    "memory",
    Kind::Memory,
    "0B (not accounted)",
    "Host memory per worker",
);
const COMMAND: Key = key(
    "command",
    Kind::Command,
    "",
    "Program and arguments; one text instead of a list is run by `/bin/sh -c`",
);
const WORKERS_KEY: Key = key(
    "workers",
    WORKERS,
    "1",
    "Number of workers; not together with min_workers and max_workers",
);
const MIN_WORKERS: Key = key(
    "min_workers",
    WORKERS,
    "1",
    "Fewest workers that make sense; with a larger max_workers the group is elastic",
);
const MAX_WORKERS: Key = key(
    "max_workers",
    WORKERS,
    "min_workers",
    "Most workers that help",
);
const GANG: Key = key(
    "gang",
    Kind::Flag,
    "true",
    "All workers start together or none does",
);
const NODE_LABELS: Key = key(
    "node_labels",
    Kind::Map,
    "{} (any node)",
    "Labels that a node must have",
);

/// Keys of `[groups.resources]`.
pub static RESOURCES: &[Key] = &[GPUS, GPU_TYPES, GPU_MEMORY, CPUS, MEMORY];

/// Keys of `[[groups]]`.
pub static GROUP: &[Key] = &[
    key(
        "name",
        Kind::Text,
        "\"worker\"",
        "Name of the group, unique in the job",
    ),
    COMMAND,
    WORKERS_KEY,
    MIN_WORKERS,
    MAX_WORKERS,
    GANG,
    key(
        "resources",
        Kind::Table(RESOURCES),
        "1 CPU",
        "What each worker needs",
    ),
    NODE_LABELS,
];

/// Keys of `[checkpoint]`.
pub static CHECKPOINT: &[Key] = &[
    key(
        "dir",
        Kind::Path,
        "the cluster's own",
        "Directory that every node can reach; each attempt writes below it",
    ),
    key(
        "keep",
        Kind::Integer {
            min: 1,
            max: 10_000,
        },
        "3",
        "How many checkpoints to keep",
    ),
];

/// Words of `restart.on_lost_node`.
pub static LOST_NODE: &[&str] = &["restart", "fence", "wait"];

/// Keys of `[restart]`.
pub static RESTART: &[Key] = &[
    key(
        "max_restarts",
        Kind::Integer {
            min: 0,
            max: 1_000_000,
        },
        "3",
        "Restarts after failures before the job fails",
    ),
    key(
        "backoff",
        Kind::Duration,
        "\"1s\"",
        "Pause before a restart; doubles each time, up to 32 times",
    ),
    key(
        "on_lost_node",
        Kind::Choice(LOST_NODE),
        "\"restart\"",
        "What to do when a node is lost: restart elsewhere at once, after the node's lease (fence), or wait for it",
    ),
];

/// Keys of the document that describe the only group of a job in the short form.
pub static SHORT: &[Key] = &[
    COMMAND,
    WORKERS_KEY,
    MIN_WORKERS,
    MAX_WORKERS,
    GANG,
    GPUS,
    GPU_TYPES,
    GPU_MEMORY,
    CPUS,
    MEMORY,
    NODE_LABELS,
];

/// Keys of the document itself, the short form's included.
pub static JOB: &[Key] = &[
    key(
        "name",
        Kind::Text,
        "the file's name without its extension",
        "Name, for people",
    ),
    key("user", Kind::Text, "who runs `berth`", "Who submits"),
    key("queue", Kind::Text, "\"default\"", "Queue"),
    key(
        "priority",
        Kind::Integer {
            min: i32::MIN as i64,
            max: i32::MAX as i64,
        },
        "0",
        "Higher goes first; equal ones in order of arrival",
    ),
    key(
        "groups",
        Kind::Tables(GROUP),
        "the short form's keys",
        "Groups of identical workers",
    ),
    COMMAND,
    WORKERS_KEY,
    MIN_WORKERS,
    MAX_WORKERS,
    GANG,
    GPUS,
    GPU_TYPES,
    GPU_MEMORY,
    CPUS,
    MEMORY,
    NODE_LABELS,
    key("env", Kind::Map, "{}", "Environment for every task"),
    key(
        "env_from_submitter",
        Kind::Texts,
        "[]",
        "Variables whose values are taken from the environment of `berth submit`; nothing else is",
    ),
    key(
        "work_dir",
        Kind::Path,
        "a scratch directory per task",
        "Working directory of every task; a relative one starts at the job file's directory",
    ),
    key(
        "checkpoint",
        Kind::Table(CHECKPOINT),
        "3 in the cluster's own directory",
        "Where checkpoints go",
    ),
    key(
        "restart",
        Kind::Table(RESTART),
        "3 restarts",
        "When and how often the job is started again",
    ),
    key(
        "time_limit",
        Kind::Duration,
        "none",
        "Longest time that an attempt may run",
    ),
    key(
        "expected",
        Kind::Duration,
        "unknown",
        "How long the job is expected to run",
    ),
    key(
        "grace",
        Kind::Duration,
        "\"10s\"",
        "Time between asking a task to stop and killing it",
    ),
    key(
        "start_now",
        Kind::Flag,
        "false",
        "Start in the next round or be rejected, instead of waiting",
    ),
    key("labels", Kind::Map, "{}", "Free-form labels of the job"),
];

/// The table that a key belongs to, when it is known somewhere but not where it was found.
pub(super) fn home_of(name: &str) -> Option<&'static str> {
    let tables: [(&str, &[Key]); 5] = [
        ("the top level", JOB),
        ("[[groups]]", GROUP),
        ("[groups.resources]", RESOURCES),
        ("[checkpoint]", CHECKPOINT),
        ("[restart]", RESTART),
    ];
    // The most specific table wins: most keys of a group are also keys of the short form.
    tables
        .iter()
        .rev()
        .find(|(_, keys)| keys.iter().any(|k| k.name == name))
        .map(|(table, _)| *table)
}
