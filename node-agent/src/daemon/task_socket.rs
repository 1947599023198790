//! The socket that tasks report to (`docs/task-socket.md`): one for the whole node, newline-delimited JSON.
//!
//! Which task speaks is told by the peer's environment (`BERTH_TASK_DIR`, read from `/proc` by the peer's process id),
//! else by what it says in its hello. All tasks run as the agent's own user, so this guards against mistakes, not
//! against malice.

use std::path::Path;

use berth_agent_core::{Input, ReportedCheckpoint, TaskMessage};
use berth_types::{CheckpointFile, Epoch, JobId, Rank, TaskKey};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::daemon::happening::{Happening, Happenings};
use crate::keeper::orphans::MARK;

/// Longest line.
const MAX_LINE_BYTES: usize = 1 << 20;
/// Version of the protocol.
const VERSION: u64 = 1;
/// Lines that may wait for a task that does not read; more closes its connection.
const OUTBOX: usize = 256;

/// Lines for one connection.
pub(super) type Outbox = mpsc::Sender<String>;

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum FromTask {
    Hello {
        version: u64,
        #[serde(default)]
        job: Option<Number>,
        #[serde(default)]
        epoch: Option<u32>,
        #[serde(default)]
        rank: Option<u32>,
    },
    Progress {
        step: u64,
        #[serde(default)]
        samples: Option<u64>,
        #[serde(default)]
        loss: Option<f64>,
        #[serde(default)]
        step_ms: Option<f64>,
    },
    Checkpoint {
        step: u64,
        path: String,
        files: Vec<CheckpointFile>,
        #[serde(default)]
        seconds: f64,
        #[serde(default)]
        shard: u32,
        #[serde(default = "one")]
        shards: u32,
    },
    #[serde(other)]
    Unknown,
}

fn one() -> u32 {
    1
}

/// Job ids are numbers; some languages send texts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ToTask<'a> {
    Welcome {
        version: u64,
    },
    Ack {
        step: u64,
        accepted: bool,
        reason: &'a str,
    },
    Stop {
        deadline_ms: u64,
        reason: &'a str,
    },
    Error {
        reason: &'a str,
    },
}

fn line(message: &ToTask<'_>) -> String {
    let mut text = serde_json::to_string(message).expect("plain data is JSON");
    text.push('\n');
    text
}

/// A message as a line; deadlines become what is left of them.
pub(super) fn message_line(message: &TaskMessage, now_ms: u64) -> String {
    match message {
        TaskMessage::Ack {
            step,
            accepted,
            reason,
        } => line(&ToTask::Ack {
            step: *step,
            accepted: *accepted,
            reason,
        }),
        TaskMessage::Stop {
            deadline_ms,
            reason,
        } => line(&ToTask::Stop {
            deadline_ms: deadline_ms.saturating_sub(now_ms),
            reason,
        }),
    }
}

/// Accepts connections for ever.
pub(super) async fn serve(listener: UnixListener, tasks_dir: std::path::PathBuf, out: Happenings) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (tasks_dir, out) = (tasks_dir.clone(), out.clone());
                tokio::spawn(async move { connection(stream, &tasks_dir, out).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a task cannot be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, tasks_dir: &Path, out: Happenings) {
    let marked = stream
        .peer_cred()
        .ok()
        .and_then(|peer| peer.pid())
        .and_then(|pid| marked_task(pid, tasks_dir));
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let (outbox, lines) = mpsc::channel(OUTBOX);
    let (hung_up, end) = oneshot::channel();
    tokio::spawn(write_lines(writer, lines, end));
    if let Err(reason) = converse(&mut reader, marked, &outbox, &out).await {
        // If its queue is full the task does not read anyway.
        let _ = outbox.try_send(line(&ToTask::Error { reason: &reason }));
    }
    // The event loop holds an outbox too, so the writer does not end by itself.
    let _ = hung_up.send(());
}

/// Which task a process belongs to, by the environment that it was started with.
fn marked_task(pid: i32, tasks_dir: &Path) -> Option<TaskKey> {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{MARK}={}/", tasks_dir.display());
    let value = environ
        .split(|b| *b == 0)
        .find_map(|v| v.strip_prefix(prefix.as_bytes()))?;
    let mut parts = std::str::from_utf8(value).ok()?.split('/');
    let key = TaskKey {
        job: JobId(parts.next()?.parse().ok()?),
        epoch: Epoch(parts.next()?.parse().ok()?),
        rank: Rank(parts.next()?.parse().ok()?),
    };
    Some(key)
}

/// Reads until the task hangs up. An error is what the task is told before the connection closes.
async fn converse(
    reader: &mut BufReader<OwnedReadHalf>,
    marked: Option<TaskKey>,
    outbox: &Outbox,
    out: &Happenings,
) -> Result<(), String> {
    let mut key = None;
    while let Some(text) = read_line(reader).await? {
        let said = serde_json::from_slice(&text).map_err(|e| format!("not understood: {e}"))?;
        match (said, key) {
            (
                FromTask::Hello {
                    version,
                    job,
                    epoch,
                    rank,
                },
                _,
            ) => {
                if version != VERSION {
                    return Err(format!(
                        "version {version} is not known; this agent speaks {VERSION}"
                    ));
                }
                let claim = Claim {
                    marked,
                    job,
                    epoch,
                    rank,
                };
                key = Some(out.ask_task(claim, outbox.clone()).await?);
                let welcome = line(&ToTask::Welcome { version: VERSION });
                outbox
                    .try_send(welcome)
                    .map_err(|_| "you do not read".to_owned())?;
            }
            (FromTask::Unknown, _) => {}
            (_, None) => return Err("say hello first".into()),
            (said, Some(key)) => {
                if let Some(fact) = fact(key, said) {
                    out.send(Happening::Fact(fact));
                }
            }
        }
    }
    Ok(())
}

/// What a task that has said who it is tells the core.
fn fact(key: TaskKey, said: FromTask) -> Option<Input> {
    match said {
        FromTask::Hello { .. } | FromTask::Unknown => None,
        FromTask::Progress {
            step,
            samples,
            loss,
            step_ms,
        } => Some(Input::Progress {
            key,
            step,
            samples: samples.unwrap_or(0),
            loss_micros: loss.filter(|l| l.is_finite()).map(|l| (l * 1e6) as i64),
            step_us: step_ms
                .filter(|ms| ms.is_finite())
                .map(|ms| (ms * 1e3) as u64),
        }),
        FromTask::Checkpoint {
            step,
            path,
            files,
            seconds,
            shard,
            shards,
        } => {
            let checkpoint = ReportedCheckpoint {
                step,
                path,
                files,
                save_ms: (seconds * 1e3) as u64,
                shard,
                shards,
            };
            Some(Input::CheckpointReported { key, checkpoint })
        }
    }
}

/// One line without its end; `None` at the end of the stream.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> Result<Option<Vec<u8>>, String> {
    let mut text = Vec::new();
    let mut bounded = reader.take(MAX_LINE_BYTES as u64 + 1);
    match bounded.read_until(b'\n', &mut text).await {
        Err(_) | Ok(0) => Ok(None),
        Ok(_) if text.last() == Some(&b'\n') => Ok(Some(text)),
        Ok(_) if text.len() > MAX_LINE_BYTES => {
            Err(format!("a line has more than {MAX_LINE_BYTES} bytes"))
        }
        // Cut off in the middle of a line: not a whole message.
        Ok(_) => Ok(None),
    }
}

async fn write_lines(
    mut writer: OwnedWriteHalf,
    mut lines: mpsc::Receiver<String>,
    mut end: oneshot::Receiver<()>,
) {
    loop {
        let text = tokio::select! {
            biased;
            text = lines.recv() => text,
            _ = &mut end => None,
        };
        match text {
            Some(text) if writer.write_all(text.as_bytes()).await.is_ok() => {}
            _ => return,
        }
    }
}

/// Who a connection says it is.
#[derive(Debug)]
pub(super) struct Claim {
    marked: Option<TaskKey>,
    job: Option<Number>,
    epoch: Option<u32>,
    rank: Option<u32>,
}

impl Claim {
    /// The live task that is meant.
    ///
    /// # Errors
    /// Why none is; told to the task.
    pub(super) fn resolve(&self, live: impl Iterator<Item = TaskKey>) -> Result<TaskKey, String> {
        if let Some(marked) = self.marked
            && self.epoch.is_some_and(|epoch| epoch != marked.epoch.0)
        {
            let epoch = self.epoch.unwrap_or_default();
            return Err(format!(
                "epoch {epoch} is not yours: your attempt is {}",
                marked.epoch
            ));
        }
        let job = self.job.as_ref().and_then(|job| match job {
            Number::Number(job) => Some(*job),
            Number::Text(job) => job.parse().ok(),
        });
        let fits = |key: &TaskKey| match self.marked {
            Some(marked) => *key == marked,
            None => {
                job.is_none_or(|job| job == key.job.0)
                    && self.epoch.is_none_or(|epoch| epoch == key.epoch.0)
                    && self.rank.is_none_or(|rank| rank == key.rank.0)
            }
        };
        let mut fitting = live.filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err("no such task runs on this node".into()),
            (Some(_), Some(_)) => Err("several tasks fit: say your job, epoch and rank".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(job: u64, epoch: u32, rank: u32) -> TaskKey {
        TaskKey {
            job: JobId(job),
            epoch: Epoch(epoch),
            rank: Rank(rank),
        }
    }

    fn claim(marked: Option<TaskKey>, job: Option<&str>, epoch: u32, rank: u32) -> Claim {
        Claim {
            marked,
            job: job.map(|j| Number::Text(j.into())),
            epoch: Some(epoch),
            rank: Some(rank),
        }
    }

    #[test]
    fn a_speaker_is_recognised() {
        let live = [key(1, 1, 0), key(2, 1, 0), key(2, 1, 1)];
        let resolve = |claim: Claim| claim.resolve(live.into_iter());
        assert_eq!(
            resolve(claim(Some(key(2, 1, 1)), None, 1, 0)),
            Ok(key(2, 1, 1))
        );
        assert_eq!(resolve(claim(None, Some("2"), 1, 0)), Ok(key(2, 1, 0)));
        assert_eq!(resolve(claim(None, None, 1, 1)), Ok(key(2, 1, 1)));
        assert!(
            resolve(claim(None, None, 1, 0))
                .unwrap_err()
                .contains("several")
        );
        assert!(
            resolve(claim(None, Some("3"), 1, 0))
                .unwrap_err()
                .contains("no such task")
        );
        assert!(
            resolve(claim(Some(key(2, 1, 1)), None, 2, 1))
                .unwrap_err()
                .contains("epoch 2")
        );
    }

    #[test]
    fn messages_are_as_documented() {
        let parse = |text| serde_json::from_str::<FromTask>(text);
        for good in [
            r#"{"type":"hello","version":1,"rank":0,"epoch":3,"pid":123}"#,
            r#"{"type":"hello","version":1,"rank":0,"epoch":3,"pid":123,"job":"7"}"#,
            r#"{"type":"progress","step":120,"samples":7680,"loss":0.31,"step_ms":12.5}"#,
            r#"{"type":"progress","step":1,"loss":null}"#,
            r#"{"type":"checkpoint","step":1,"path":"/d","files":[{"path":"r","bytes":1,"sha256":"h"}],"seconds":0.2}"#,
            r#"{"type":"checkpoint","step":1,"path":"/d","shard":2,"shards":4,"files":[],"seconds":1}"#,
            r#"{"type":"from_the_future","x":1}"#,
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"type":"progress","step":-1}"#,
            r#"{"type":"checkpoint","step":1}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let ack = TaskMessage::Ack {
            step: 100,
            accepted: true,
            reason: String::new(),
        };
        assert_eq!(
            message_line(&ack, 0),
            "{\"type\":\"ack\",\"step\":100,\"accepted\":true,\"reason\":\"\"}\n"
        );
        let stop = TaskMessage::Stop {
            deadline_ms: 5_000,
            reason: "cancelled".into(),
        };
        assert_eq!(
            message_line(&stop, 2_000),
            "{\"type\":\"stop\",\"deadline_ms\":3000,\"reason\":\"cancelled\"}\n"
        );
    }
}
