//! `berth what-if`: the simulator answers from a snapshot of the cluster.

use std::path::Path;
use std::process::Command;

use super::nodes::names_in;
use super::submit::read_file;
use super::{Context, Outcome, backup};
use crate::args::WhatIf;
use crate::failure::{Failure, exit};
use crate::local::process::find_program;
use crate::show::Format;

/// The simulator's program.
const SIMULATOR: &str = "berth-sim";

/// `berth what-if`: nothing of the cluster changes.
pub(super) async fn ask(context: &Context, args: &WhatIf) -> Outcome {
    let output = match context.global.output {
        Format::Table | Format::Wide => "table",
        Format::Json => "json",
        Format::Yaml | Format::Name => {
            return Err(Failure::usage(
                "what-if answers with a table or JSON",
                "use -o table or -o json",
            ));
        }
    };
    let program = find_program(SIMULATOR)?;
    // Only its owner reads it: a snapshot holds the environment of every job.
    let scratch = tempfile::Builder::new()
        .prefix("berth-what-if-")
        .tempdir()
        .map_err(|e| Failure::file(std::env::temp_dir(), e))?;
    let mut command = Command::new(&program);
    command.arg("what-if").args(["--output", output]);
    command.arg("--limit").arg(args.limit.to_string());
    match &args.backup {
        Some(file) => command.arg("--snapshot").arg(file),
        None => {
            let client = context.client()?;
            let file = scratch.path().join("snapshot");
            backup::save(&client, &file).await?;
            let policy = client.status().await?.policy;
            if !policy.is_empty() {
                command.args(["--current-policy", &policy]);
            }
            command.arg("--snapshot").arg(file)
        }
    };
    for value in &args.add_nodes {
        command.args(["--add-nodes", value]);
    }
    for name in names_in(&args.drain)? {
        command.args(["--drain", &name]);
    }
    if let Some(policy) = &args.policy {
        command.args(["--policy", policy]);
    }
    for (number, path) in args.submit.iter().enumerate() {
        let spec = scratch.path().join(format!("job-{number}.json"));
        write_spec(path, &spec)?;
        command.arg("--submit-spec").arg(spec);
    }
    let status = tokio::task::spawn_blocking(move || command.status())
        .await
        .map_err(|e| Failure::local(format!("{SIMULATOR}: {e}"), "try again"))?;
    let code = status.map_err(|e| Failure::file(&program, e))?.code();
    Ok(code
        .and_then(|c| u8::try_from(c).ok())
        .unwrap_or(exit::FAILED))
}

/// Checks a job file as `berth submit` does, and writes what it would submit.
fn write_spec(job_file: &Path, to: &Path) -> Result<(), Failure> {
    let spec = read_file(job_file, &[])?;
    let text = serde_json::to_vec(&spec)
        .map_err(|e| Failure::local(format!("{}: {e}", job_file.display()), "report it"))?;
    std::fs::write(to, text).map_err(|e| Failure::file(to, e))
}
