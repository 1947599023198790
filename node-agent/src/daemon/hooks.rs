//! Running the operator's programs: bounded in time and in what is kept of their words.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use berth_agent_core::{HookRun, Input};
use berth_types::Hook;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Hooks;
use crate::daemon::happening::{Happening, Happenings};

/// Kept of what a hook prints: its last words.
const KEPT_BYTES: usize = 4 << 10;
/// Of these, told.
const TOLD_BYTES: usize = 300;

/// Runs a prolog or an epilog; its end comes back as a fact.
pub(super) fn start(
    settings: &Hooks,
    run: HookRun,
    env: BTreeMap<String, String>,
    out: Happenings,
) {
    let program = match run.hook {
        Hook::Prolog => settings.prolog.clone(),
        Hook::Epilog => settings.epilog.clone(),
        Hook::HealthCheck => settings.health_check.clone(),
    };
    let patience = settings.timeout;
    tokio::spawn(async move {
        let result = match program {
            Some(program) => run_program(&program, &env, patience).await,
            None => Ok(()),
        };
        let hook = run.hook.name();
        match &result {
            Ok(()) => tracing::debug!(job = %run.job, attempt = %run.epoch, hook, "hook ended"),
            Err(why) => {
                tracing::error!(job = %run.job, attempt = %run.epoch, hook, why, "a hook failed: the node takes no new work");
            }
        }
        out.send(Happening::Fact(Input::HookEnded { run, result }));
    });
}

/// Checks the node at once and then every so often.
pub(super) fn check_health(settings: &Hooks, env: BTreeMap<String, String>, out: Happenings) {
    let Some(program) = settings.health_check.clone() else {
        return;
    };
    let (interval, patience) = (
        settings.health_check_interval,
        settings.health_check_timeout,
    );
    tokio::spawn(async move {
        let mut fit = true;
        loop {
            let result = run_program(&program, &env, patience).await;
            match &result {
                Ok(()) if !fit => tracing::info!("the health check passes again"),
                Err(why) if fit => {
                    tracing::error!(why, "the health check fails: the node takes no new work");
                }
                Ok(()) | Err(_) => {}
            }
            fit = result.is_ok();
            out.send(Happening::Fact(Input::Fitness(result)));
            sleep(interval).await;
        }
    });
}

/// Runs one program to its end.
///
/// # Errors
/// Why it counts as failed, with its last words.
async fn run_program(
    program: &Path,
    env: &BTreeMap<String, String>,
    patience: Duration,
) -> Result<(), String> {
    let name = program.display();
    let cannot = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => format!("{name} is not there"),
        ErrorKind::PermissionDenied => format!("{name} is not executable"),
        _ => format!("{name} cannot be run: {e}"),
    };
    let (reader, writer) = std::io::pipe().map_err(cannot)?;
    let words = Receiver::from_owned_fd(reader.into()).map_err(cannot)?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(cannot)?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    let child = command.spawn().map_err(cannot)?;
    // It holds the pipe's other end, too.
    drop(command);
    let (ended, told) = follow(child, words, patience).await;
    let how = match ended {
        Some(Ok(status)) if status.success() => return Ok(()),
        Some(Ok(status)) => describe(status),
        Some(Err(error)) => format!("cannot be waited for: {error}"),
        None => format!("took longer than {}", humantime::format_duration(patience)),
    };
    let words = last_words(&told);
    Err(match words.as_str() {
        "" => format!("{name} {how}"),
        words => format!("{name} {how}: {words}"),
    })
}

/// Until it ends or is ended; its whole process group goes with it. No status if it took too long.
async fn follow(
    mut child: Child,
    words: Receiver,
    patience: Duration,
) -> (Option<std::io::Result<ExitStatus>>, Vec<u8>) {
    let group = child.id();
    let deadline = Instant::now() + patience;
    let mut told = Vec::new();
    let status = {
        let reading = async {
            while words.readable().await.is_ok() && take(&words, &mut told) != Took::End {}
            // Closed: only its end is left to wait for.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = reading => None,
            status = timeout_at(deadline, child.wait()) => status.ok(),
        }
    };
    // What it left running holds the pipe open and has no business here; nobody else can have the number, since a group
    // keeps it for as long as it has members.
    if let Some(group) = group.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    if status.is_none() {
        let _ = child.wait().await;
    }
    while take(&words, &mut told) == Took::Words {}
    (status, told)
}

/// What a look into the pipe found.
#[derive(PartialEq, Eq)]
enum Took {
    Words,
    NothingNow,
    End,
}

/// Takes what is there, and keeps the end of it.
fn take(words: &Receiver, told: &mut Vec<u8>) -> Took {
    let mut chunk = [0; 4 << 10];
    match words.try_read(&mut chunk) {
        Ok(0) => Took::End,
        Ok(read) => {
            told.extend_from_slice(&chunk[..read]);
            let surplus = told.len().saturating_sub(KEPT_BYTES);
            told.drain(..surplus);
            Took::Words
        }
        Err(e) if e.kind() == ErrorKind::WouldBlock => Took::NothingNow,
        Err(_) => Took::End,
    }
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with {code}"),
        None => format!("ended: {status}"),
    }
}

/// One line, without what would upset a terminal.
fn last_words(told: &[u8]) -> String {
    let text = String::from_utf8_lossy(told);
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let line = lines.join(" | ");
    let from =
        (line.len().saturating_sub(TOLD_BYTES)..=line.len()).find(|at| line.is_char_boundary(*at));
    line.get(from.unwrap_or(0)..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn script(text: &str, patience: Duration) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hook");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let env = BTreeMap::from([
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("BERTH_JOB_ID".to_owned(), "7".to_owned()),
        ]);
        let result = run_program(&path, &env, patience).await;
        result.map_err(|why| why.replace(&path.display().to_string(), "HOOK"))
    }

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn ends_are_told_with_the_last_words() {
        assert_eq!(script("exit 0", LONG).await, Ok(()));
        let failed = script("echo job $BERTH_JOB_ID; echo no scratch >&2; exit 3", LONG).await;
        assert_eq!(failed, Err("HOOK ended with 3: job 7 | no scratch".into()));
        assert_eq!(
            script("exit 1", LONG).await,
            Err("HOOK ended with 1".into())
        );
        let killed = script("kill -9 $$", LONG).await.unwrap_err();
        assert!(killed.contains("signal: 9"), "{killed}");
    }

    #[tokio::test]
    async fn much_talk_neither_blocks_nor_is_kept() {
        let long = script("yes long | head -c 1000000; echo last; exit 1", LONG).await;
        let why = long.unwrap_err();
        assert!(why.len() < 400 && why.ends_with("long | last"), "{why}");
    }

    #[tokio::test]
    async fn what_takes_too_long_or_leaves_something_behind_is_ended() {
        let why = script("echo waiting; sleep 600 & wait", Duration::from_millis(500)).await;
        assert_eq!(why, Err("HOOK took longer than 500ms: waiting".into()));
        // Its own end counts, not that of what holds its output open.
        assert_eq!(script("sleep 600 & exit 0", LONG).await, Ok(()));
    }

    #[tokio::test]
    async fn what_cannot_run_is_told() {
        for (path, why) in [
            ("/does/not/exist", "is not there"),
            ("/etc/passwd", "is not executable"),
        ] {
            let result = run_program(Path::new(path), &BTreeMap::new(), LONG).await;
            assert_eq!(result, Err(format!("{path} {why}")));
        }
    }
}
