//! The stream to a master: find the leader, keep one stream open, and look elsewhere as soon as it is silent.

use std::time::Duration;

use berth_agent_core::{Learned, Route};
use berth_proto::v1;
use berth_proto::v1::agents_client::AgentsClient;
use berth_proto::v1::master_message::Kind;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::daemon::happening::{Happening, Happenings};

/// Messages to a master that may wait; a master that takes none of so many is given up.
const OUTBOX: usize = 1_024;
/// How long dialling may take; another master may answer meanwhile.
const DIAL: Duration = Duration::from_millis(500);
/// Shortest and longest pause after a try that led nowhere.
const PAUSE_MS: (u64, u64) = (50, 200);
/// Looks for the leader, and talks to it.
#[derive(Debug)]
pub(super) struct Dialler {
    route: Route,
    learned: watch::Receiver<Learned>,
    tls: berth_tls::Dialler,
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
    /// Tries these masters, and those that leaders name, in turn, beginning anywhere.
    pub(super) fn new(
        configured: Vec<String>,
        learned: watch::Receiver<Learned>,
        tls: berth_tls::Dialler,
        silence: Duration,
        seed: u64,
    ) -> Self {
        let route = Route::new(configured, &learned.borrow(), seed);
        Self {
            route,
            learned,
            tls,
            silence,
            session: 0,
            dice: seed | 1,
        }
    }

    /// Keeps a stream open for ever.
    pub(super) async fn run(mut self, out: Happenings) {
        loop {
            self.route.learn(&self.learned.borrow_and_update());
            let address = self.route.choose().unwrap_or_default();
            let again = match self.serve(&address, &out).await {
                End::Redirected(leader) => self.route.redirected(&address, &leader),
                End::Failed | End::Lost => {
                    self.route.failed(&address);
                    false
                }
            };
            if !again {
                let pause = self.pause();
                sleep(pause).await;
            }
        }
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
        let channel = match timeout(DIAL, self.tls.connect(address, DIAL)).await {
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
            let ours = [tonic::Code::Unauthenticated, tonic::Code::PermissionDenied];
            if ours.contains(&status.code()) {
                let told = berth_proto::from_status(&status);
                tracing::warn!(why = %told, hint = told.hint, "a master refuses this node");
            } else {
                tracing::debug!(%status, "a master refused the stream");
            }
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
    fn pauses_are_short_and_within_bounds() {
        let (_, learned) = watch::channel(Learned::default());
        let masters = vec!["a:1".to_owned()];
        let plain = berth_tls::Dialler::plain();
        let mut dialler = Dialler::new(masters, learned, plain, Duration::from_secs(1), 3);
        for _ in 0..100 {
            let pause = dialler.pause();
            assert!(pause >= Duration::from_millis(50) && pause < Duration::from_millis(200));
        }
    }
}
