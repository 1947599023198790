//! Job files: TOML or YAML in, a [`JobSpec`] or every fault at once out.
//!
//! [`parse`] makes a generic document, [`set`] changes a key of it (`--set`), [`read`] walks it. The keys are declared
//! once, in [`keys`]; [`schema`] publishes them.

pub mod keys;
#[cfg(test)]
mod laws;
mod reader;
pub mod schema;
#[cfg(test)]
mod tests;
mod units;

use std::path::{Path, PathBuf};

use berth_types::{
    CheckpointSpec, Fault, GroupSpec, JobSpec, LostNodeRule, MILLI, Resources, RestartSpec,
};
use serde_json::{Map, Value};

use reader::Table;
pub(crate) use reader::nearest;

/// Largest job file; a spec has to fit into one log entry, and free text is bounded far below this.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// In which language a job file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// YAML; JSON is YAML too.
    Yaml,
}

impl Format {
    /// The format that a file's name promises; `None` for an unknown extension.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "toml" => Some(Format::Toml),
            "yaml" | "yml" | "json" => Some(Format::Yaml),
            _ => None,
        }
    }
}

/// What the reader takes from the one who submits.
pub struct Submitter<'a> {
    /// Name of the user.
    pub user: String,
    /// Name of the job if the file gives none.
    pub job_name: String,
    /// Where relative paths start.
    pub directory: PathBuf,
    /// The value of an environment variable; asked only for what the job file names.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Parses a document of at most [`MAX_FILE_BYTES`].
///
/// # Errors
/// One fault that says where the text breaks the language's rules.
pub fn parse(bytes: &[u8], format: Format) -> Result<Value, Vec<Fault>> {
    let fault = |what: String, hint: &str| vec![Fault::new("job file", what, hint)];
    if bytes.len() > MAX_FILE_BYTES {
        return Err(fault(
            format!("{} bytes long", bytes.len()),
            "at most 1 MiB; put large data into files",
        ));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| fault(format!("not UTF-8: {e}"), "save it as UTF-8"))?;
    match format {
        Format::Toml => toml::from_str(text).map_err(|e| fault(format!("no valid TOML: {e}"), "")),
        // By way of YAML's own value, which refuses keys that are given twice.
        Format::Yaml => serde_yaml_ng::from_str::<serde_yaml_ng::Value>(text)
            .map_err(|e| e.to_string())
            .and_then(|v| serde_json::to_value(v).map_err(|e| e.to_string()))
            .map_err(|e| fault(format!("no valid YAML: {e}"), "")),
    }
}

/// Changes one key of a document: `groups.0.workers=8`. The value is read as TOML, and as text if it is none.
///
/// # Errors
/// A fault if the assignment has no `=` or its path leads through something that is no table or list.
pub fn set(document: &mut Value, assignment: &str) -> Result<(), Fault> {
    let Some((path, text)) = assignment.split_once('=') else {
        return Err(Fault::new(
            "--set",
            format!("`{assignment}` has no `=`"),
            "KEY=VALUE, such as groups.0.workers=8",
        ));
    };
    let value = toml::from_str::<Value>(&format!("v = {text}"))
        .ok()
        .and_then(|mut v| v.get_mut("v").map(Value::take))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    let mut place = document;
    for part in path.split('.') {
        let list_len = place.as_array().map(Vec::len);
        place = match (place, part.parse::<usize>()) {
            (Value::Array(list), Ok(index)) if Some(index) < list_len => &mut list[index],
            (Value::Object(map), _) => map.entry(part).or_insert_with(|| Value::Object(Map::new())),
            _ => {
                return Err(Fault::new(
                    format!("--set {path}"),
                    format!("there is no `{part}`"),
                    "lists are counted from 0",
                ));
            }
        };
    }
    *place = value;
    Ok(())
}

/// Reads a job from a document.
///
/// # Errors
/// Every fault of the document, with the path of its key.
pub fn read(document: &Value, submitter: &Submitter<'_>) -> Result<JobSpec, Vec<Fault>> {
    let faults = &mut Vec::new();
    let table = Table::open("", keys::JOB, Some(document), faults);
    let short = !table.has("groups");
    let groups = if short {
        vec![read_short(&table, faults)]
    } else {
        refuse_short_keys(&table, faults);
        let tables = table.tables("groups", faults);
        tables.iter().map(|g| read_group(g, faults)).collect()
    };
    let defaults = JobSpec::default();
    let directory = &submitter.directory;
    let mut spec = JobSpec {
        name: table
            .text("name", faults)
            .unwrap_or_else(|| submitter.job_name.clone()),
        user: table
            .text("user", faults)
            .unwrap_or_else(|| submitter.user.clone()),
        queue: table.text("queue", faults).unwrap_or(defaults.queue),
        priority: table.integer("priority", faults).unwrap_or(0),
        groups,
        env: table.map("env", faults).unwrap_or_default(),
        work_dir: read_path(&table, "work_dir", directory, faults),
        checkpoint: read_checkpoint(&table.table("checkpoint", faults), directory, faults),
        restart: read_restart(&table.table("restart", faults), faults),
        time_limit_ms: table.duration_ms("time_limit", faults).unwrap_or(0),
        expected_ms: table.duration_ms("expected", faults).unwrap_or(0),
        grace_ms: table
            .duration_ms("grace", faults)
            .unwrap_or(defaults.grace_ms),
        start_now: table.flag("start_now", faults).unwrap_or(false),
        labels: table.map("labels", faults).unwrap_or_default(),
    };
    take_environment(&table, submitter, &mut spec, faults);
    add_spec_faults(&spec, &table, short, faults);
    if faults.is_empty() {
        Ok(spec)
    } else {
        Err(std::mem::take(faults))
    }
}

fn refuse_short_keys(table: &Table<'_>, faults: &mut Vec<Fault>) {
    for key in keys::SHORT.iter().filter(|k| table.has(k.name)) {
        let hint = format!("move `{}` into [[groups]], or drop the groups", key.name);
        faults.push(Fault::new(key.name, "given beside [[groups]]", hint));
    }
}

fn read_short(table: &Table<'_>, faults: &mut Vec<Fault>) -> GroupSpec {
    if !table.has("command") {
        faults.push(Fault::new(
            "command",
            "no command and no [[groups]]",
            "give a list such as [\"python3\", \"train.py\"]",
        ));
    }
    let (min_workers, max_workers) = read_workers(table, faults);
    GroupSpec {
        name: "worker".into(),
        command: table.command("command", faults).unwrap_or_default(),
        min_workers,
        max_workers,
        gang: table.flag("gang", faults).unwrap_or(true),
        resources: read_resources(table, faults),
        node_labels: table.map("node_labels", faults).unwrap_or_default(),
    }
}

fn read_group(table: &Table<'_>, faults: &mut Vec<Fault>) -> GroupSpec {
    let (min_workers, max_workers) = read_workers(table, faults);
    GroupSpec {
        name: table
            .text("name", faults)
            .unwrap_or_else(|| "worker".into()),
        command: table.command("command", faults).unwrap_or_default(),
        min_workers,
        max_workers,
        gang: table.flag("gang", faults).unwrap_or(true),
        resources: read_resources(&table.table("resources", faults), faults),
        node_labels: table.map("node_labels", faults).unwrap_or_default(),
    }
}

fn read_workers(table: &Table<'_>, faults: &mut Vec<Fault>) -> (u32, u32) {
    let workers = table.integer("workers", faults);
    let min: Option<u32> = table.integer("min_workers", faults);
    let max = table.integer("max_workers", faults);
    if table.has("workers") && (table.has("min_workers") || table.has("max_workers")) {
        faults.push(Fault::new(
            table.path("workers"),
            "given beside min_workers or max_workers",
            "one number, or a range",
        ));
    }
    match workers {
        Some(n) => (n, n),
        // A range whose one end is wrong is reported already; it must not be reported again as empty.
        None => (min.unwrap_or(1), max.unwrap_or(min.unwrap_or(1))),
    }
}

fn read_resources(table: &Table<'_>, faults: &mut Vec<Fault>) -> Resources {
    Resources {
        milligpu: table.thousandths("gpus", faults).unwrap_or(0),
        millicpu: table.thousandths("cpus", faults).unwrap_or(MILLI),
        mem_bytes: table.memory_bytes("memory", faults).unwrap_or(0),
        gpu_types: table.texts("gpu_types", faults).unwrap_or_default(),
        gpu_mem_bytes: table.memory_bytes("gpu_memory", faults).unwrap_or(0),
    }
}

fn read_checkpoint(table: &Table<'_>, directory: &Path, faults: &mut Vec<Fault>) -> CheckpointSpec {
    CheckpointSpec {
        dir: read_path(table, "dir", directory, faults),
        keep: table
            .integer("keep", faults)
            .unwrap_or(CheckpointSpec::default().keep),
    }
}

fn read_restart(table: &Table<'_>, faults: &mut Vec<Fault>) -> RestartSpec {
    let defaults = RestartSpec::default();
    RestartSpec {
        max_restarts: table
            .integer("max_restarts", faults)
            .unwrap_or(defaults.max_restarts),
        backoff_ms: table
            .duration_ms("backoff", faults)
            .unwrap_or(defaults.backoff_ms),
        on_lost_node: match table.text("on_lost_node", faults).as_deref() {
            Some("fence") => LostNodeRule::Fence,
            Some("wait") => LostNodeRule::Wait,
            _ => LostNodeRule::Restart,
        },
    }
}

/// A path of the document, made absolute; empty if there is none.
fn read_path(table: &Table<'_>, key: &str, directory: &Path, faults: &mut Vec<Fault>) -> String {
    let Some(text) = table.text(key, faults) else {
        return String::new();
    };
    if text.is_empty() {
        let hint = "give a directory, or drop the key";
        faults.push(Fault::new(table.path(key), "empty", hint));
        return text;
    }
    let mut path = directory.to_path_buf();
    path.extend(Path::new(&text).components());
    path.to_string_lossy().into_owned()
}

/// Copies the variables that the file names from the submitter's environment. The file's own values win.
fn take_environment(
    table: &Table<'_>,
    submitter: &Submitter<'_>,
    spec: &mut JobSpec,
    faults: &mut Vec<Fault>,
) {
    let names = table.texts("env_from_submitter", faults);
    for name in names.unwrap_or_default() {
        if spec.env.contains_key(&name) {
            continue;
        }
        match (submitter.variable)(&name) {
            Some(value) => {
                spec.env.insert(name, value);
            }
            None => faults.push(Fault::new(
                "env_from_submitter",
                format!("`{name}` is not set, or not UTF-8"),
                "set it before submitting, or drop it from the list",
            )),
        }
    }
}

/// Adds what is wrong with the job as a whole, named as the file names it, and nothing that was reported already.
fn add_spec_faults(spec: &JobSpec, table: &Table<'_>, short: bool, faults: &mut Vec<Fault>) {
    let reported: Vec<String> = faults.iter().map(|f| f.field.clone()).collect();
    for mut fault in spec.faults() {
        if short && let Some(key) = fault.field.strip_prefix("groups[0].") {
            fault.field = key.strip_prefix("resources.").unwrap_or(key).to_owned();
        }
        // Defaults stand in for what could not be read; complaints about them would only confuse.
        let stands_in = reported.iter().any(|field| {
            fault.field.starts_with(field.as_str()) || field.starts_with(&fault.field)
        });
        let no_command = short && fault.field == "command" && !table.has("command");
        if !stands_in && !no_command {
            faults.push(fault);
        }
    }
}
