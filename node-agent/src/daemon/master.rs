//! The stream to a master: find the leader, keep one stream open, and look elsewhere as soon as it is silent.

use std::time::Duration;

use berth_proto::v1;
use berth_proto::v1::agents_client::AgentsClient;
use berth_proto::v1::master_message::Kind;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::daemon::happening::{Happening, Happenings};

/// Messages to a master that may wait; a master that takes none of so many is given up.
const OUTBOX: usize = 1_024;
/// How long dialling may take; another master may answer meanwhile.
const DIAL: Duration = Duration::from_millis(500);
/// Shortest and longest pause after a try that led nowhere.
const PAUSE_MS: (u64, u64) = (50, 200);
/// Hints that are followed at once; more in a row are masters that send each other's way.
const MOST_HINTS: u32 = 3;

/// Whom to try.
#[derive(Debug)]
pub(super) struct Dialler {
    masters: Vec<String>,
    next: usize,
    hint: Option<String>,
    hints: u32,
    /// Led nowhere just now: somebody else is tried first. A leader that froze still takes connections, and waiting for
    /// it twice would take longer than a node may be out of contact.
    avoid: Option<String>,
    silence: Duration,
    session: u64,
    dice: u64,
}

enum End {
    /// The master sent us on.
    Redirected(String),
    /// The stream stood and ended.
    Lost,
    /// It never stood.
    Failed,
}

impl Dialler {
    /// Tries these masters in turn, beginning anywhere.
    pub(super) fn new(masters: Vec<String>, silence: Duration, seed: u64) -> Self {
        let next = usize::try_from(seed % masters.len().max(1) as u64).unwrap_or(0);
        Self {
            masters,
            next,
            hint: None,
            hints: 0,
            avoid: None,
            silence,
            session: 0,
            dice: seed | 1,
        }
    }

    /// Keeps a stream open for ever.
    pub(super) async fn run(mut self, out: Happenings) {
        loop {
            let address = self.choose();
            match self.serve(&address, &out).await {
                End::Redirected(leader) if !leader.is_empty() && self.hints < MOST_HINTS => {
                    self.hints += 1;
                    self.hint = Some(leader);
                }
                End::Redirected(_) | End::Failed | End::Lost => {
                    self.hints = 0;
                    self.avoid = Some(address);
                    let pause = self.pause();
                    sleep(pause).await;
                }
            }
        }
    }

    fn choose(&mut self) -> String {
        if let Some(hint) = self.hint.take() {
            return hint;
        }
        let avoid = self.avoid.take();
        let mut address = self.in_turn();
        if avoid.as_ref() == Some(&address) {
            address = self.in_turn();
        }
        address
    }

    fn in_turn(&mut self) -> String {
        let address = self.masters.get(self.next).cloned().unwrap_or_default();
        self.next = (self.next + 1) % self.masters.len().max(1);
        address
    }

    /// A pause between the bounds, so that the agents of a cluster do not come all at once.
    fn pause(&mut self) -> Duration {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let (least, most) = PAUSE_MS;
        Duration::from_millis(least + self.dice % (most - least))
    }

    async fn serve(&mut self, address: &str, out: &Happenings) -> End {
        let Ok(endpoint) = berth_proto::channel::endpoint(address) else {
            tracing::warn!(address, "not an address");
            return End::Failed;
        };
        let channel = match timeout(DIAL, endpoint.connect_timeout(DIAL).connect()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                tracing::debug!(address, %error, "master not reached");
                return End::Failed;
            }
            Err(_) => return End::Failed,
        };
        self.session += 1;
        let session = self.session;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let (close, closed) = oneshot::channel();
        out.send(Happening::Connected {
            session,
            address: address.to_owned(),
            outbox,
            close,
        });
        let mut client =
            AgentsClient::new(channel).max_decoding_message_size(berth_proto::MAX_ANSWER_BYTES);
        let stream = client.session(ReceiverStream::new(messages));
        let end = tokio::select! {
            end = listen(session, stream, self.silence, out) => end,
            _ = closed => End::Lost,
        };
        if let End::Redirected(leader) = &end {
            tracing::debug!(address, leader, "redirected");
        }
        out.send(Happening::Gone { session });
        end
    }
}

async fn listen(
    session: u64,
    stream: impl Future<
        Output = Result<tonic::Response<tonic::Streaming<v1::MasterMessage>>, tonic::Status>,
    >,
    silence: Duration,
    out: &Happenings,
) -> End {
    // One that has never spoken gets less time than one that leads: with it two frozen masters fit into the time that a
    // node may be out of contact.
    let first_word = silence / 2;
    let mut stream = match timeout(first_word, stream).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            tracing::debug!(%status, "a master refused the stream");
            return End::Failed;
        }
        Err(_) => return End::Failed,
    };
    loop {
        match timeout(silence, stream.message()).await {
            Ok(Ok(Some(message))) => match message.kind {
                Some(Kind::Redirect(redirect)) => {
                    tracing::debug!(reason = redirect.reason, "the master does not lead");
                    return End::Redirected(redirect.leader_address);
                }
                _ => out.send(Happening::Said { session, message }),
            },
            Ok(Ok(None)) => return End::Lost,
            Ok(Err(status)) => {
                tracing::info!(session, %status, "the stream to the leader broke");
                return End::Lost;
            }
            Err(_) => {
                tracing::info!(
                    session,
                    ?silence,
                    "the leader is silent; looking for another"
                );
                return End::Lost;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_are_tried_in_turn_and_hints_first() {
        let masters = vec!["a:1".to_owned(), "b:2".to_owned()];
        let mut dialler = Dialler::new(masters, Duration::from_secs(1), 3);
        assert_eq!(dialler.choose(), "b:2");
        dialler.hint = Some("c:3".into());
        let tried: Vec<_> = (0..3).map(|_| dialler.choose()).collect();
        assert_eq!(tried, ["c:3", "a:1", "b:2"]);
        dialler.avoid = Some("a:1".into());
        let tried: Vec<_> = (0..2).map(|_| dialler.choose()).collect();
        assert_eq!(
            tried,
            ["b:2", "a:1"],
            "the silent one comes last, but it comes"
        );
        let mut alone = Dialler::new(vec!["a:1".to_owned()], Duration::from_secs(1), 0);
        alone.avoid = Some("a:1".into());
        assert_eq!(alone.choose(), "a:1");
        for _ in 0..100 {
            let pause = dialler.pause();
            assert!(pause >= Duration::from_millis(50) && pause < Duration::from_millis(200));
        }
    }
}
