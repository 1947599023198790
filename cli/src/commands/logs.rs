//! Output of tasks.

use std::io::Write;
use std::time::Duration;

use berth_proto::v1::{LogChunk, LogStream, LogsRequest};
use berth_types::{Epoch, JobId};

use super::jobs::{find, note};
use super::{Context, Outcome};
use crate::args::Logs;
use crate::client::Client;
use crate::failure::Failure;

/// Pause before a stream that broke is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(200);
/// How often a stream that broke without bringing anything is opened again.
const MAX_IDLE_BREAKS: u32 = 25;

/// `berth logs ID`.
pub(super) async fn show(context: &Context, args: &Logs) -> Outcome {
    let client = context.client()?;
    let job = find(&client, &args.id).await?;
    let stream = match (args.stdout, args.stderr) {
        (true, _) => LogStream::Stdout,
        (_, true) => LogStream::Stderr,
        _ => LogStream::Unspecified,
    };
    let request = LogsRequest {
        job: job.id.0,
        attempt: args.attempt,
        rank: args.rank,
        stream: stream.into(),
        follow: args.follow,
        tail_bytes: args.tail,
        offset: 0,
    };
    let sink = &mut Terminal {
        // Asked for by itself it is the answer, and answers go to standard output.
        merged: args.stderr,
    };
    copy(&client, request, sink).await?;
    Ok(0)
}

/// A request for the output of rank 0 of an attempt, from its start to its end.
pub(super) fn of_attempt(job: JobId, attempt: Epoch) -> LogsRequest {
    LogsRequest {
        job: job.0,
        attempt: Some(attempt.0),
        rank: 0,
        stream: LogStream::Unspecified.into(),
        follow: true,
        tail_bytes: None,
        offset: 0,
    }
}

/// Where output goes.
pub(super) trait Sink {
    /// Takes a piece of standard output or standard error.
    fn take(&mut self, stderr: bool, data: &[u8]) -> Result<(), Failure>;
}

/// This process's own standard output and standard error.
#[derive(Default)]
pub(super) struct Terminal {
    /// Both go to standard output.
    merged: bool,
}

impl Sink for Terminal {
    fn take(&mut self, stderr: bool, data: &[u8]) -> Result<(), Failure> {
        if stderr && !self.merged {
            std::io::stderr().lock().write_all(data)?;
        } else {
            let mut out = std::io::stdout().lock();
            out.write_all(data)?;
            out.flush()?;
        }
        Ok(())
    }
}

/// Copies output until its end. A stream that breaks is opened again where it broke.
pub(super) async fn copy(
    client: &Client,
    mut request: LogsRequest,
    sink: &mut impl Sink,
) -> Result<(), Failure> {
    let mut seen = Seen::default();
    let mut idle_breaks = 0;
    loop {
        let mut stream = match client.logs(&request).await {
            Ok(stream) => stream,
            Err(error) => return Err(error),
        };
        let mut brought = false;
        let broken = loop {
            match stream.message().await {
                Ok(Some(chunk)) => {
                    if let Some(source) = &chunk.source
                        && request.attempt.is_none()
                    {
                        // After a break the output goes on in the same attempt, even if a newer one has started.
                        request.attempt = Some(source.attempt);
                    }
                    let (stderr, data) = seen.new_part(&chunk);
                    if !data.is_empty() {
                        brought = true;
                        sink.take(stderr, data)?;
                    }
                }
                Ok(None) => return Ok(()),
                Err(status) => break berth_proto::from_status(&status),
            }
        };
        idle_breaks = if brought { 0 } else { idle_breaks + 1 };
        if broken.kind != berth_types::ErrorKind::Unavailable || idle_breaks > MAX_IDLE_BREAKS {
            return Err(broken.into());
        }
        if idle_breaks == 1 {
            note(&format!("the output paused: {broken}"));
        }
        tokio::time::sleep(REOPEN_AFTER).await;
        request.tail_bytes = None;
        request.offset = seen.resume_at();
    }
}

/// How far each of the two files has been copied.
#[derive(Debug, Default)]
struct Seen {
    /// Next byte wanted of standard output and of standard error, once something of it was seen.
    next: [Option<u64>; 2],
}

impl Seen {
    /// The part of a chunk that was not copied yet.
    fn new_part<'c>(&mut self, chunk: &'c LogChunk) -> (bool, &'c [u8]) {
        let stderr = chunk.stream == i32::from(LogStream::Stderr);
        let next = &mut self.next[usize::from(stderr)];
        let known = next.map_or(0, |n| n.saturating_sub(chunk.offset));
        let skip = usize::try_from(known)
            .unwrap_or(usize::MAX)
            .min(chunk.data.len());
        if !chunk.data.is_empty() {
            let end = chunk.offset + chunk.data.len() as u64;
            *next = Some(next.map_or(end, |n| n.max(end)));
        }
        (stderr, &chunk.data[skip..])
    }

    /// Where to go on, in both files at once.
    fn resume_at(&self) -> u64 {
        match self.next {
            [Some(a), Some(b)] => a.min(b),
            // Of the other one nothing was seen, so all of it is still wanted.
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(stream: LogStream, offset: u64, data: &'static str) -> LogChunk {
        LogChunk {
            stream: stream.into(),
            offset,
            data: data.into(),
            source: None,
        }
    }

    #[test]
    fn nothing_is_shown_twice_after_a_break() {
        let mut seen = Seen::default();
        let mut text = String::new();
        let mut take = |seen: &mut Seen, c: &LogChunk| {
            let (_, data) = seen.new_part(c);
            text.push_str(std::str::from_utf8(data).unwrap());
        };
        take(&mut seen, &chunk(LogStream::Stdout, 0, "hello "));
        take(&mut seen, &chunk(LogStream::Stderr, 0, "oops"));
        assert_eq!(seen.resume_at(), 4);
        take(&mut seen, &chunk(LogStream::Stdout, 4, "o world"));
        take(&mut seen, &chunk(LogStream::Stderr, 4, "!"));
        take(&mut seen, &chunk(LogStream::Stdout, 0, "hello"));
        assert_eq!(text, "hello oopsworld!");
    }

    #[test]
    fn with_only_one_file_seen_the_other_starts_at_its_start() {
        let mut seen = Seen::default();
        seen.new_part(&chunk(LogStream::Stdout, 100, "tail"));
        assert_eq!(seen.resume_at(), 0);
        let (_, data) = {
            let c = chunk(LogStream::Stdout, 0, "x");
            let part = seen.new_part(&c);
            (part.0, part.1.len())
        };
        assert_eq!(data, 0);
    }
}
