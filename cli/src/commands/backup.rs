//! The cluster's state into a file, and a new cluster out of one.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Context, Outcome};
use crate::args::Restore;
use crate::client::Client;
use crate::failure::Failure;
use crate::local::daemons::SCHEDULER;
use crate::local::process::find_program;

/// A snapshot that has been saved.
pub(super) struct Saved {
    /// The log index of its state.
    index: u64,
    /// Its size.
    bytes: u64,
    /// Its hash, in hexadecimal.
    sha256: String,
}

/// `berth backup FILE`. The file is there whole and durable, or not at all.
pub(super) async fn backup(context: &Context, path: &Path) -> Outcome {
    let Saved {
        index,
        bytes,
        sha256,
    } = save(&context.client()?, path).await?;
    let file = path.display().to_string();
    let sentence =
        format!("saved {bytes} bytes to {file}: the state at log index {index}, sha256 {sha256}");
    let value = json!({ "file": file, "bytes": bytes, "index": index, "sha256": sha256 });
    context.screen.say(&sentence, value, &file)?;
    Ok(0)
}

/// Saves the cluster's state, whole and durable, or nothing.
pub(super) async fn save(client: &Client, path: &Path) -> Result<Saved, Failure> {
    let mut stream = client.snapshot().await?;
    let half = path.with_added_extension("part");
    let failed = |e| Failure::file(&half, e);
    let mut file = File::create(&half).map_err(failed)?;
    let mut hash = Sha256::new();
    let (mut index, mut total, mut bytes) = (0, 0, 0u64);
    while let Some(chunk) = stream
        .message()
        .await
        .map_err(|s| Failure::from(berth_proto::from_status(&s)))?
    {
        (index, total) = (chunk.index, chunk.total_bytes);
        bytes += chunk.data.len() as u64;
        hash.update(&chunk.data);
        file.write_all(&chunk.data).map_err(failed)?;
    }
    if bytes != total || total == 0 {
        let _ = std::fs::remove_file(&half);
        return Err(Failure::local(
            format!("the master sent {bytes} of {total} bytes"),
            "try again; nothing was written",
        ));
    }
    file.sync_all().map_err(failed)?;
    std::fs::rename(&half, path).map_err(|e| Failure::file(path, e))?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent)
            .and_then(|d| d.sync_all())
            .map_err(|e| Failure::file(parent, e))?;
    }
    Ok(Saved {
        index,
        bytes,
        sha256: hash.finalize().iter().map(|b| format!("{b:02x}")).collect(),
    })
}

/// `berth restore FILE`: the master's own program does it, since only it knows its files.
pub(super) fn restore(args: &Restore) -> Outcome {
    if !args.file.is_file() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Failure::file(&args.file, missing));
    }
    let only = args.address.as_ref().map(|a| format!("{}={a}", args.id));
    let program = find_program(SCHEDULER)?;
    let mut command = Command::new(&program);
    command.arg("restore").arg("--backup").arg(&args.file);
    command.arg("--data-dir").arg(&args.data_dir);
    command.arg("--id").arg(args.id.to_string());
    for master in args.master.iter().chain(&only) {
        command.arg("--master").arg(master);
    }
    let error = command.exec();
    Err(Failure::file(program, error))
}
