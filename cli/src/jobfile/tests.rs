//! What the reader makes of good and of bad job files.

use std::path::PathBuf;

use berth_types::{JobSpec, LostNodeRule};
use serde_json::{Value, json};

use super::keys::{self, Key, Kind};
use super::*;

fn submitter() -> Submitter<'static> {
    Submitter {
        user: "ada".into(),
        job_name: "train".into(),
        directory: PathBuf::from("/home/ada/jobs"),
        variable: &|name| (name == "WANDB_MODE").then(|| "offline".to_owned()),
    }
}

fn read_text(text: &str, format: Format) -> Result<JobSpec, Vec<String>> {
    parse(text.as_bytes(), format)
        .and_then(|document| read(&document, &submitter()))
        .map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

const DIGITS: &str = r#"
name = "digits"
queue = "default"
env_from_submitter = ["WANDB_MODE"]
work_dir = "../data"

[env]
EPOCHS = "3"

[[groups]]
name = "worker"
workers = 4
gang = true
command = ["python3", "train.py", "--steps", "600"]

[groups.resources]
gpus = 1
gpu_types = []
cpus = 0.1
memory = "256MiB"

[checkpoint]
keep = 5

[restart]
max_restarts = 5
backoff = "2s"
on_lost_node = "fence"
"#;

#[test]
fn a_job_file_is_read_whole() {
    let spec = read_text(DIGITS, Format::Toml).unwrap();
    assert_eq!((spec.name.as_str(), spec.user.as_str()), ("digits", "ada"));
    assert_eq!(spec.work_dir, "/home/ada/jobs/../data");
    assert_eq!(spec.env["EPOCHS"], "3");
    assert_eq!(spec.env["WANDB_MODE"], "offline");
    assert_eq!(spec.env.len(), 2);
    let group = &spec.groups[0];
    assert_eq!((group.min_workers, group.max_workers), (4, 4));
    assert_eq!(group.resources.milligpu, 1_000);
    assert_eq!(group.resources.millicpu, 100);
    assert_eq!(group.resources.mem_bytes, 256 << 20);
    assert_eq!(spec.checkpoint.keep, 5);
    assert_eq!(spec.restart.backoff_ms, 2_000);
    assert_eq!(spec.restart.on_lost_node, LostNodeRule::Fence);
}

#[test]
fn the_same_job_in_yaml_and_in_the_short_form_is_the_same() {
    let yaml = "
name: digits
command: [python3, train.py]
workers: 2
gpus: 0.5
memory: 1GiB
grace: 3s
";
    let toml = r#"
name = "digits"
grace = "3s"
[[groups]]
command = ["python3", "train.py"]
workers = 2
resources = { gpus = 0.5, memory = "1GiB" }
"#;
    let short = read_text(yaml, Format::Yaml).unwrap();
    assert_eq!(Ok(short), read_text(toml, Format::Toml));
}

#[test]
fn a_text_as_command_goes_to_the_shell() {
    let spec = read_text("command = \"echo a && echo b\"", Format::Toml).unwrap();
    assert_eq!(
        spec.groups[0].command,
        ["/bin/sh", "-c", "echo a && echo b"]
    );
    assert_eq!(spec.name, "train");
}

#[test]
fn every_fault_is_reported_at_once_with_its_path() {
    let faults = read_text(
        r#"
nmae = "x"
prioritty = 3
priority = "high"
time_limit = 90
gpus = 1
[[groups]]
workers = -4
command = []
gpus = 1
[groups.resources]
gpus = 1.5
memory = "256"
cpus = "two"
[restart]
backoff = "soon"
on_lost_node = "restrat"
"#,
        Format::Toml,
    )
    .unwrap_err();
    let expected = [
        "nmae: unknown key (did you mean `name`?)",
        "prioritty: unknown key (did you mean `priority`?)",
        "gpus: given beside [[groups]] (move `gpus` into [[groups]], or drop the groups)",
        "groups[0].gpus: unknown key (`gpus` belongs into [groups.resources])",
        "groups[0].workers: -4 is negative (a whole number from 1 to 16384)",
        "groups[0].resources.cpus: the text `two` is of the wrong type (a number from 0 to 65536)",
        "groups[0].resources.memory: `256` has no unit (a number with a unit, such as \"256MiB\" or \"16GiB\")",
        "priority: the text `high` is of the wrong type (a whole number from -2147483648 to 2147483647)",
        "restart.backoff: `soon` is no duration",
        "restart.on_lost_node: `restrat` is not known (did you mean `restart`? one of restart, fence, wait)",
        "time_limit: 90 has no unit (a text with a unit, such as \"90s\")",
        "groups[0].command: no program",
        "groups[0].resources.gpus: 1.5 GPUs (a whole number, or a fraction below 1)",
    ];
    for text in expected {
        assert!(
            faults.iter().any(|f| f.starts_with(text)),
            "missing: {text}\n{faults:#?}"
        );
    }
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
}

/// TOML with one thing wrong each, and what must be said about it, and nothing else.
const BAD_TOML: &[(&str, &str)] = &[
    ("", "command: no command and no [[groups]]"),
    ("command = 3", "command: 3 is of the wrong type"),
    (
        "command = [1]",
        "command[0]: 1 is of the wrong type (put it into quotes: \"1\")",
    ),
    ("command = \"\"", "command: empty"),
    ("command = [\"\"]", "command: no program"),
    ("command = \"true\"\nworkers = 0", "workers: 0 is too small"),
    (
        "command = \"true\"\nworkers = 99999",
        "workers: 99999 is too large",
    ),
    (
        "command = \"true\"\nworkers = 1.5",
        "workers: 1.5 is no whole number",
    ),
    (
        "command = \"true\"\nworkers = 2\nmin_workers = 1",
        "workers: given beside",
    ),
    (
        "command = \"true\"\nmin_workers = 3\nmax_workers = 2",
        "max_workers: 2 is less than",
    ),
    ("command = \"true\"\ngpus = -1", "gpus: -1 is negative"),
    ("command = \"true\"\ngpus = 1e300", "gpus: 1"),
    (
        "command = \"true\"\ngpus = nan",
        "gpus: nothing where a value is wanted",
    ),
    (
        "command = \"true\"\ngpu_types = [\"a100\"]",
        "gpus: 0 GPUs with GPU constraints",
    ),
    (
        "command = \"true\"\nmemory = \"-1GiB\"",
        "memory: `-1GiB` is negative",
    ),
    ("command = \"true\"\nmemory = 5", "memory: 5 has no unit"),
    (
        "command = \"true\"\ngang = \"yes\"",
        "gang: the text `yes` is of the wrong type",
    ),
    ("command = \"true\"\nname = \"a/b\"", "name: "),
    ("command = \"true\"\nname = \"\"", "name: empty"),
    (
        "command = \"true\"\nexpected = 2026-01-01",
        "expected: a date is of the wrong type",
    ),
    (
        "command = \"true\"\nlabels = 2026-01-01",
        "labels: a date is of the wrong type",
    ),
    (
        "command = \"true\"\n[env]\nA = 3",
        "env.A: 3 is of the wrong type (put it into quotes",
    ),
    (
        "command = \"true\"\n[env]\n\"A=B\" = \"\"",
        "env: `A=B` is no variable name",
    ),
    (
        "command = \"true\"\nenv_from_submitter = [\"NO_SUCH\"]",
        "env_from_submitter: `NO_SUCH` is not set",
    ),
    (
        "command = \"true\"\n[checkpoint]\nkeep = 0",
        "checkpoint.keep: 0 is too small",
    ),
    (
        "command = \"true\"\ncheckpoint = 3",
        "checkpoint: 3 is of the wrong type",
    ),
    ("command = \"true\"\nwork_dir = \"\"", "work_dir: empty"),
    ("groups = []", "groups: no group of workers"),
    ("groups = 3", "groups: 3 is of the wrong type"),
    ("groups = [3]", "groups[0]: 3 is of the wrong type"),
    ("[[groups]]\nname = \"a\"", "groups[0].command: no program"),
    ("command = \"true\"\n\"\" = 1", "\"\": unknown key"),
    ("a = 1\na = 2", "job file: no valid TOML"),
    ("command = [", "job file: no valid TOML"),
];

/// The same in YAML, for what only YAML can have.
const BAD_YAML: &[(&str, &str)] = &[
    ("- a\n- b", "job file: a list is of the wrong type"),
    ("just text", "job file: the text `just text`"),
    ("command: x\ncommand: y", "job file: no valid YAML"),
    ("command: [", "job file: no valid YAML"),
    ("command: true", "command: true is of the wrong type"),
    ("command: x\n7: y", "7: unknown key"),
    (
        "command: x\nenv: {A: null}",
        "env.A: nothing where a value is wanted",
    ),
];

#[test]
fn bad_documents_are_refused_with_one_clear_fault() {
    for (text, expected) in BAD_TOML {
        let faults = read_text(text, Format::Toml).unwrap_err();
        assert!(faults[0].starts_with(expected), "{text}\n{faults:#?}");
        assert_eq!(faults.len(), 1, "{text}\n{faults:#?}");
    }
    for (text, expected) in BAD_YAML {
        let faults = read_text(text, Format::Yaml).unwrap_err();
        assert!(faults[0].starts_with(expected), "{text}\n{faults:#?}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let faults = parse(&[0xff, 0xfe, 0x00], Format::Toml).unwrap_err();
    assert!(faults[0].what.starts_with("not UTF-8"));
    let faults = parse(&vec![b'#'; MAX_FILE_BYTES + 1], Format::Yaml).unwrap_err();
    assert!(faults[0].what.contains("bytes long"));
}

#[test]
fn deep_nesting_and_alias_bombs_are_refused() {
    let deep = format!("a = {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(parse(deep.as_bytes(), Format::Toml).is_err());
    assert!(parse(deep.replace("a = ", "a: ").as_bytes(), Format::Yaml).is_err());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    assert!(parse(bomb.as_bytes(), Format::Yaml).is_err());
}

#[test]
fn set_changes_keys_and_says_where_it_cannot() {
    let mut document = parse(DIGITS.as_bytes(), Format::Toml).unwrap();
    for assignment in [
        "groups.0.workers=8",
        "restart.max_restarts=0",
        "labels.team=vision",
        "name=night run",
    ] {
        set(&mut document, assignment).unwrap();
    }
    let spec = read(&document, &submitter()).unwrap();
    assert_eq!(spec.groups[0].min_workers, 8);
    assert_eq!(spec.restart.max_restarts, 0);
    assert_eq!(spec.labels["team"], "vision");
    assert_eq!(spec.name, "night run");
    for wrong in ["name", "groups.7.workers=1", "name.first=x", "groups.x=1"] {
        assert!(set(&mut document, wrong).is_err(), "{wrong}");
    }
}

/// A value that a key of this kind must accept.
fn sample(key: &Key) -> Value {
    match key.kind {
        Kind::Text => "text".into(),
        Kind::Path => "/dir".into(),
        Kind::Integer { min, .. } => min.max(1).into(),
        Kind::Flag => true.into(),
        Kind::Duration => "90s".into(),
        Kind::Memory => "1GiB".into(),
        Kind::Amount { .. } => 1.into(),
        Kind::Choice(words) => words[0].into(),
        Kind::Command => json!(["true"]),
        Kind::Texts if key.name == "env_from_submitter" => json!(["WANDB_MODE"]),
        Kind::Texts => json!(["text"]),
        Kind::Map => json!({ "A": "b" }),
        Kind::Table(keys) => sample_table(keys),
        Kind::Tables(keys) => json!([sample_table(keys)]),
    }
}

/// Every key at once, but for those that exclude each other.
fn sample_table(keys: &[Key]) -> Value {
    let chosen = keys.iter().filter(|k| k.name != "workers");
    chosen.map(|k| (k.name.to_owned(), sample(k))).collect()
}

#[test]
fn the_reader_knows_every_declared_key() {
    let is_short = |name: &str| keys::SHORT.iter().any(|k| k.name == name);
    let without = |drop: &dyn Fn(&str) -> bool| -> Value {
        let keys: Vec<Key> = keys::JOB
            .iter()
            .filter(|k| !drop(k.name))
            .copied()
            .collect();
        sample_table(&keys)
    };
    let long = without(&is_short);
    let spec = read(&long, &submitter()).unwrap();
    assert_eq!(spec.groups[0].resources.gpu_mem_bytes, 1 << 30);
    assert_eq!(spec.time_limit_ms, 90_000);
    let short = without(&|name| name == "groups");
    let short = read(&short, &submitter()).unwrap();
    assert_eq!(short.groups[0].resources, spec.groups[0].resources);
    assert_eq!(short.groups[0].node_labels, spec.groups[0].node_labels);
}

/// What a declared key does not do would be noticed here: each one alone must change the job.
#[test]
fn every_key_has_an_effect() {
    let base = json!({ "command": ["x"], "gpus": 2 });
    let before = read(&base, &submitter()).unwrap();
    for key in keys::JOB.iter().filter(|k| k.name != "groups") {
        let value = match key.name {
            "gang" => json!(false),
            "workers" | "min_workers" | "max_workers" | "priority" => json!(7),
            "checkpoint" => json!({ "keep": 9 }),
            "restart" => json!({ "on_lost_node": "wait" }),
            "cpus" => json!(2),
            _ => sample(key),
        };
        let mut changed = base.clone();
        changed[key.name] = value;
        if key.name == "min_workers" {
            changed["max_workers"] = json!(9);
        }
        let after = read(&changed, &submitter()).unwrap();
        assert_ne!(before, after, "{}", key.name);
    }
}

#[test]
fn the_published_schema_is_the_one_that_the_reader_uses() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/schema/job.schema.json"
    );
    if std::env::var_os("BERTH_UPDATE_GOLDEN").is_some() {
        std::fs::write(path, schema::text()).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap();
    assert!(
        published == schema::text(),
        "docs/schema/job.schema.json is stale: run the tests with BERTH_UPDATE_GOLDEN=1"
    );
}

#[test]
fn the_guide_names_every_key() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/job-file.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let tables = [
        keys::JOB,
        keys::GROUP,
        keys::RESOURCES,
        keys::CHECKPOINT,
        keys::RESTART,
    ];
    for key in tables.iter().flat_map(|t| t.iter()) {
        assert!(
            guide.contains(&format!("| `{}` |", key.name)),
            "docs/job-file.md does not explain `{}`",
            key.name
        );
    }
}

#[test]
fn the_guide_s_example_is_a_job() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/job-file.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let mut found = 0;
    for (fence, format) in [("```toml\n", Format::Toml), ("```yaml\n", Format::Yaml)] {
        for block in guide.split(fence).skip(1) {
            let text = block.split("```").next().unwrap();
            read_text(text, format).unwrap();
            found += 1;
        }
    }
    assert!(found >= 3, "{found} examples");
}
