//! Starting one process, and saying clearly why it did not start.
//!
//! Without control groups everything here stays on std's `posix_spawn` path (absolute program, no hooks), which does not
//! copy the keeper's page tables.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::io::Errno;

use crate::cgroup::enter;
use crate::keeper::protocol::{ExitRecord, SpawnRequest};

/// The shell's code for a program that is not there.
const NOT_FOUND: i32 = 127;
/// The shell's code for a program that cannot be run.
const NOT_EXECUTABLE: i32 = 126;

/// Starts the task in its own process group and returns its process id, or how its start ended. `procs` is the way into
/// its control group, if it has one.
pub fn spawn(
    request: &SpawnRequest,
    null: &File,
    procs: Option<File>,
    now_ms: u64,
) -> Result<u32, ExitRecord> {
    let node = |what: String| ExitRecord {
        code: -1,
        at_ms: now_ms,
        reason: what,
        node_fault: true,
    };
    let dir = Path::new(&request.task_dir);
    std::fs::create_dir_all(dir)
        .map_err(|e| node(format!("cannot make {}: {e}", request.task_dir)))?;
    let log = |name: &str| {
        let path = dir.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.map_err(|e| node(format!("cannot write {}: {e}", path.display())))
    };
    let (stdout, stderr) = (log("stdout.log")?, log("stderr.log")?);
    let stdin = null
        .try_clone()
        .map_err(|e| node(format!("no file for stdin: {e}")))?;
    let mut command = Command::new(&request.program);
    if let Some((name, args)) = request.args.split_first() {
        command.arg0(name).args(args);
    }
    command
        .env_clear()
        .envs(request.env.iter().map(|(k, v)| (k, v)))
        .current_dir(&request.work_dir)
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .process_group(0);
    if let Some(procs) = procs {
        enter::before_exec(&mut command, procs);
    }
    match command.spawn() {
        Ok(child) => Ok(child.id()),
        Err(error) => Err(not_started(request, &error, now_ms)),
    }
}

fn not_started(request: &SpawnRequest, error: &Error, now_ms: u64) -> ExitRecord {
    let program = &request.program;
    let (code, reason) = match Errno::from_io_error(error) {
        Some(Errno::NOENT) if !Path::new(&request.work_dir).is_dir() => (
            -1,
            format!("working directory {} does not exist", request.work_dir),
        ),
        Some(Errno::NOENT) if Path::new(program).exists() => (
            NOT_EXECUTABLE,
            format!("cannot run {program}: the interpreter named in its first line does not exist"),
        ),
        Some(Errno::NOENT) => (
            NOT_FOUND,
            format!("command not found: {program} does not exist"),
        ),
        Some(Errno::ACCESS | Errno::PERM) => (
            NOT_EXECUTABLE,
            format!("cannot run {program}: permission denied (is it executable?)"),
        ),
        Some(Errno::NOEXEC) => (
            NOT_EXECUTABLE,
            format!(
                "cannot run {program}: neither a program for this machine nor a script with a `#!` line"
            ),
        ),
        Some(Errno::TOOBIG) => (
            NOT_EXECUTABLE,
            format!("cannot run {program}: arguments and environment are too large together"),
        ),
        Some(enter::NOT_ENTERED) => (-1, "the node cannot put it into its control group".into()),
        _ => (-1, format!("cannot start {program}: {error}")),
    };
    let node_fault = matches!(
        Errno::from_io_error(error),
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | enter::NOT_ENTERED)
    ) || error.kind() == ErrorKind::OutOfMemory;
    ExitRecord {
        code,
        at_ms: now_ms,
        reason,
        node_fault,
    }
}

/// An exit status as it is recorded.
pub fn exit_record(status: ExitStatus, at_ms: u64) -> ExitRecord {
    use std::os::unix::process::ExitStatusExt;
    let (code, reason) = match (status.code(), status.signal()) {
        (Some(code), _) => (code, String::new()),
        (None, Some(signal)) => {
            let core = if status.core_dumped() {
                ", core dumped"
            } else {
                ""
            };
            let name = signal_name(signal);
            (
                128 + signal,
                format!("killed by signal {signal}{name}{core}"),
            )
        }
        (None, None) => (-1, "ended without a status".into()),
    };
    ExitRecord {
        code,
        at_ms,
        reason,
        node_fault: false,
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (HUP)",
        2 => " (INT)",
        3 => " (QUIT)",
        4 => " (ILL)",
        6 => " (ABRT)",
        7 => " (BUS)",
        8 => " (FPE)",
        9 => " (KILL)",
        11 => " (SEGV)",
        13 => " (PIPE)",
        15 => " (TERM)",
        _ => "",
    }
}
