//! Submission: from a job file or a command line to a job, and to its end if that is wanted.

use std::io::Read;
use std::path::{Path, PathBuf};

use berth_types::{JobId, JobSpec};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::follow::to_the_end;
use super::jobs::{exit_code, note};
use super::{Context, Outcome, user_name};
use crate::args::{Run, Submit, Validate};
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::jobfile::{self, Format, MAX_FILE_BYTES, Submitter};
use crate::show::job::{full, outcome_text, spec_value};

/// The file's name that means standard input.
const STDIN: &str = "-";

/// `berth submit FILE`.
pub(super) async fn submit(context: &Context, args: Submit) -> Outcome {
    let spec = read_file(&args.file, &args.set)?;
    if args.dry_run {
        return show_spec(context, &spec);
    }
    if let Some(key) = args.key.filter(|k| k.get_version_num() != 7) {
        return Err(Failure::usage(
            format!("--key {key} is no UUIDv7"),
            "leave it out to have one made",
        ));
    }
    // The same key for every try, so that a lost answer never makes two jobs.
    let key = args.key.unwrap_or_else(Uuid::now_v7);
    let client = context.client()?;
    let (id, duplicate) = client.submit(key, &spec).await?;
    announce(context, &args, id, duplicate)?;
    if !(args.wait || args.logs) {
        return Ok(0);
    }
    wait(context, &client, id, args.logs).await
}

/// `berth run COMMAND`.
pub(super) async fn run(context: &Context, args: Run) -> Outcome {
    let number = |text: &str| {
        text.parse::<f64>()
            .map_or_else(|_| Value::from(text), Value::from)
    };
    let mut document = json!({
        "command": args.command,
        "workers": args.workers,
        "gpus": number(&args.gpus),
        "cpus": number(&args.cpus),
        "restart": { "max_restarts": 0 },
    });
    if let Some(name) = args.name {
        document["name"] = name.into();
    }
    let program = args
        .command
        .first()
        .map(Path::new)
        .and_then(Path::file_name);
    let name = program.and_then(|n| n.to_str()).unwrap_or("run").to_owned();
    let spec = read_document(document, &args.set, "command line", name, current_dir()?)?;
    let client = context.client()?;
    let (id, _) = client.submit(Uuid::now_v7(), &spec).await?;
    note(&format!("job {id}"));
    wait(context, &client, id, true).await
}

/// `berth validate FILE`.
pub(super) fn validate(context: &Context, args: &Validate) -> Outcome {
    let spec = read_file(&args.file, &args.set)?;
    let sentence = format!("{} is sound: {}", args.file.display(), workers(&spec));
    let value = json!({ "file": args.file.display().to_string(), "sound": true, "spec": spec_value(&spec) });
    context.screen.say(&sentence, value, &spec.name)?;
    Ok(0)
}

fn workers(spec: &JobSpec) -> String {
    let most: u64 = spec.groups.iter().map(|g| u64::from(g.max_workers)).sum();
    match u64::from(spec.min_workers()) {
        1 if most == 1 => "1 worker".into(),
        least if least == most => format!("{least} workers"),
        least => format!("{least} to {most} workers"),
    }
}

fn show_spec(context: &Context, spec: &JobSpec) -> Outcome {
    let value = spec_value(spec);
    let text = serde_yaml_ng::to_string(&value).unwrap_or_default();
    let sentence = format!("would submit:\n{}", text.trim_end());
    context.screen.say(&sentence, value, &spec.name)?;
    Ok(0)
}

fn announce(context: &Context, args: &Submit, id: JobId, duplicate: bool) -> Result<(), Failure> {
    if args.parsable {
        return context.screen.say(
            &id.to_string(),
            json!({ "id": id.to_string() }),
            &id.to_string(),
        );
    }
    if args.wait || args.logs {
        // Standard output is for the job's own, or for the answer at its end.
        note(&format!("Submitted job {id}"));
        return Ok(());
    }
    let again = if duplicate {
        " before, under the same key"
    } else {
        ""
    };
    let value = json!({ "id": id.to_string(), "duplicate": duplicate });
    context.screen.say(
        &format!("Submitted job {id}{again}"),
        value,
        &id.to_string(),
    )
}

/// Waits for the job's end and returns its code. Ctrl-C ends the waiting, not the job.
async fn wait(context: &Context, client: &Client, id: JobId, logs: bool) -> Outcome {
    let job = tokio::select! {
        job = to_the_end(client, id, logs) => job?,
        _ = tokio::signal::ctrl_c() => {
            note(&format!("job {id} goes on; `berth cancel {id}` ends it, `berth logs -f {id}` shows it"));
            return Ok(exit::INTERRUPTED);
        }
    };
    let code = exit_code(&job);
    let outcome = job.outcome.as_ref().map(outcome_text).unwrap_or_default();
    if !context.screen.for_people() && !logs {
        context.screen.say("", full(&job), &id.to_string())?;
    } else if code != 0 || !logs {
        note(&format!("Job {id}: {outcome}"));
        if !job.reason_text.is_empty() && code != 0 {
            note(&format!("reason: {}", job.reason_text));
        }
    }
    Ok(code)
}

fn current_dir() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|e| Failure::file(".", e))
}

/// Reads a job file, with `--set` applied.
pub(super) fn read_file(path: &Path, set: &[String]) -> Result<JobSpec, Failure> {
    let from_stdin = path == Path::new(STDIN);
    let bytes = if from_stdin {
        read_limited(std::io::stdin().lock()).map_err(|e| Failure::file(path, e))?
    } else {
        let file = std::fs::File::open(path).map_err(|e| Failure::file(path, e))?;
        read_limited(file).map_err(|e| Failure::file(path, e))?
    };
    let name = if from_stdin {
        "standard input".into()
    } else {
        path.display().to_string()
    };
    let with_name = |faults| Failure::JobFile {
        file: name.clone(),
        faults,
    };
    let format = match Format::of(path) {
        Some(format) => format,
        None if from_stdin => guess(&bytes),
        None => {
            return Err(Failure::usage(
                format!("{name}: neither .toml nor .yaml"),
                "name it so, or give it as standard input: `berth submit - < FILE`",
            ));
        }
    };
    let document = jobfile::parse(&bytes, format).map_err(with_name)?;
    let directory = match path.parent() {
        Some(parent) if !from_stdin => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            parent
                .canonicalize()
                .map_err(|e| Failure::file(parent, e))?
        }
        _ => current_dir()?,
    };
    let stem = path
        .file_stem()
        .and_then(|s| s.to_str())
        .filter(|_| !from_stdin);
    let job_name = stem.unwrap_or("job").to_owned();
    read_document(document, set, &name, job_name, directory)
}

/// One byte more than is allowed, so that a file that is too long is noticed.
fn read_limited(input: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input
        .take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Standard input has no extension: what parses as TOML is TOML. YAML that does is the same document.
fn guess(bytes: &[u8]) -> Format {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    match toml::from_str::<Map<String, Value>>(text) {
        Ok(_) => Format::Toml,
        // A line that only TOML would have decides whose error message is of use.
        Err(_)
            if text
                .lines()
                .any(|l| l.contains(" = ") || l.starts_with("[[")) =>
        {
            Format::Toml
        }
        Err(_) => Format::Yaml,
    }
}

fn read_document(
    mut document: Value,
    set: &[String],
    file: &str,
    job_name: String,
    directory: PathBuf,
) -> Result<JobSpec, Failure> {
    let wrong = |faults| Failure::JobFile {
        file: file.to_owned(),
        faults,
    };
    let mut faults = Vec::new();
    for assignment in set {
        faults.extend(jobfile::set(&mut document, assignment).err());
    }
    if !faults.is_empty() {
        return Err(wrong(faults));
    }
    let submitter = Submitter {
        user: user_name(),
        job_name,
        directory,
        variable: &|name| std::env::var(name).ok(),
    };
    jobfile::read(&document, &submitter).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_its_name_and_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("night.toml");
        std::fs::write(&path, "command = \"true\"\nwork_dir = \"data\"").unwrap();
        let spec = read_file(&path, &["workers=3".into()]).unwrap();
        assert_eq!((spec.name.as_str(), spec.min_workers()), ("night", 3));
        let directory = dir.path().canonicalize().unwrap().join("data");
        assert_eq!(Path::new(&spec.work_dir), directory);
    }

    #[test]
    fn unknown_extensions_and_missing_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job.txt");
        let missing = read_file(&path, &[]).unwrap_err();
        assert!(matches!(missing, Failure::File { .. }));
        std::fs::write(&path, "").unwrap();
        assert_eq!(read_file(&path, &[]).unwrap_err().exit_code(), exit::USAGE);
    }

    #[test]
    fn standard_input_may_be_either_language() {
        for (text, format) in [
            ("command = \"true\"", Format::Toml),
            ("command: true", Format::Yaml),
            ("[[groups]]\ncommand = [", Format::Toml),
            ("groups:\n- command: [", Format::Yaml),
            ("", Format::Toml),
        ] {
            assert_eq!(guess(text.as_bytes()), format, "{text}");
        }
    }
}
