//! Following one job until it is over.

use std::time::Duration;

use berth_proto::v1::Event;
use berth_types::{Epoch, ErrorKind, JobId, JobView};
use futures_util::FutureExt;
use tonic::Streaming;

use super::jobs::note;
use super::logs::{Terminal, copy, of_attempt};
use crate::client::Client;
use crate::failure::Failure;

/// Without news for this long the job is looked at anyway: the stream may have lost its master.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often output that is not there yet is asked for again while nothing happens.
const LOGS_EVERY: Duration = Duration::from_millis(20);
/// The same right after submission, and for how many times.
const EARLY_EVERY: Duration = Duration::from_millis(3);
const EARLY_TRIES: u32 = 10;
/// Every job's first attempt.
const FIRST: Epoch = Epoch(1);
/// How long output may stay away after its attempt has ended.
const MAX_LATE_TRIES: u32 = 100;

/// Waits until the job is over; with `logs`, shows the output of rank 0 of each attempt meanwhile.
pub(super) async fn to_the_end(client: &Client, id: JobId, logs: bool) -> Result<JobView, Failure> {
    let mut shown = Epoch(0);
    if logs && show_at_once(client, id).await? {
        shown = FIRST;
    }
    // Opened before the first look, so that nothing happens in between unseen.
    let mut news = News::open(client, id).await?;
    loop {
        let job = client.job(id).await?;
        if logs && let Some(epoch) = next_attempt(&job, shown) {
            if shown > Epoch(0) || epoch > Epoch(1) {
                note(&format!("attempt {epoch} of job {id}"));
            }
            show_attempt(client, id, epoch).await?;
            shown = epoch;
            continue;
        }
        if job.state.is_final() {
            return Ok(job);
        }
        news.wait(client, id).await?;
    }
}

/// On an idle cluster a job starts within milliseconds: asking for its output right away, a few times, shows the first
/// line sooner than asking for news first. True if the output of the first attempt was shown.
async fn show_at_once(client: &Client, id: JobId) -> Result<bool, Failure> {
    for _ in 0..EARLY_TRIES {
        match copy(client, of_attempt(id, FIRST), &mut Terminal::default()).await {
            Ok(()) => return Ok(true),
            Err(Failure::Api(error)) if may_come(error.kind) => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(EARLY_EVERY).await;
    }
    Ok(false)
}

/// The oldest attempt whose output was not shown yet.
fn next_attempt(job: &JobView, shown: Epoch) -> Option<Epoch> {
    let past = job.past.iter().map(|p| p.epoch);
    let current = job.attempt.iter().map(|a| a.epoch);
    past.chain(current).filter(|&e| e > shown).min()
}

/// Shows the output of an attempt to its end, waiting for its start if need be.
async fn show_attempt(client: &Client, id: JobId, epoch: Epoch) -> Result<(), Failure> {
    let mut late = 0;
    loop {
        match copy(client, of_attempt(id, epoch), &mut Terminal::default()).await {
            Ok(()) => return Ok(()),
            Err(Failure::Api(error)) if may_come(error.kind) => {
                let job = client.job(id).await?;
                let current = job.attempt.as_ref().is_some_and(|a| a.epoch == epoch);
                if job.state.is_final() || !current {
                    late += 1;
                }
                if late > MAX_LATE_TRIES {
                    note(&format!(
                        "attempt {epoch} of job {id} left no output to show: {error}"
                    ));
                    return Ok(());
                }
                tokio::time::sleep(LOGS_EVERY).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// True if output that cannot be read now may be there later.
fn may_come(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::FailedPrecondition | ErrorKind::Unavailable
    )
}

/// Tells when it is worth looking at the job again.
struct News {
    stream: Option<Streaming<Event>>,
}

impl News {
    async fn open(client: &Client, id: JobId) -> Result<Self, Failure> {
        Ok(Self {
            stream: Some(client.watch(0, Some(id)).await?),
        })
    }

    /// Returns when something happened to the job, or when a look is due.
    async fn wait(&mut self, client: &Client, id: JobId) -> Result<(), Failure> {
        let Some(stream) = &mut self.stream else {
            // Open first, look then: the caller looks right after.
            self.stream = Some(client.watch(0, Some(id)).await?);
            return Ok(());
        };
        match tokio::time::timeout(LOOK_EVERY, stream.message()).await {
            Ok(Ok(Some(_))) => {
                // One look for everything that has come by now.
                while let Some(Ok(Some(_))) = stream.message().now_or_never() {}
            }
            Ok(Ok(None) | Err(_)) => {
                self.stream = None;
                tokio::time::sleep(LOGS_EVERY).await;
            }
            Err(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use berth_types::{AttemptEnd, JobSpec, JobState, PastAttempt};

    use super::*;

    #[test]
    fn no_attempt_s_output_is_left_out() {
        let past = |epoch| PastAttempt {
            epoch: Epoch(epoch),
            started_ms: 0,
            ended_ms: 0,
            end: AttemptEnd::TimedOut,
            nodes: Vec::new(),
            resumed_step: None,
        };
        let job = JobView {
            id: JobId(1),
            spec: Arc::new(JobSpec::default()),
            state: JobState::Pending,
            reason: String::new(),
            reason_text: String::new(),
            submitted_ms: 0,
            started_ms: None,
            ended_ms: None,
            outcome: None,
            attempt: None,
            past: vec![past(1), past(2)],
            restarts: 2,
            checkpoints: Vec::new(),
            progress: None,
            node_names: BTreeMap::new(),
        };
        let mut shown = Epoch(0);
        let mut order = Vec::new();
        while let Some(next) = next_attempt(&job, shown) {
            order.push(next.0);
            shown = next;
        }
        assert_eq!(order, [1, 2]);
    }
}
