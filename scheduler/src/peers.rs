//! The way to the other masters: one long-lived stream each.
//!
//! ```text
//! Dialling --connected--> Streaming --broken--> (told unreachable, short pause) --> Dialling
//! ```
//! A message that finds no connection or a full queue is lost; the replica and Raft repeat what matters.
//!
//! Where masters listen is in the log. A master whose log lags behind a change of members does not know the new leader, and
//! would never catch up if it could not answer it: so each says with its messages where it listens, and [`heard`] keeps that
//! for those whom the log does not have.

mod heard;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_core::Input;
use berth_core::replica::PeerMessage;
use berth_proto::v1::peers_client::PeersClient;
use berth_proto::{CHUNK_BYTES, MAX_ANSWER_BYTES, v1};
use berth_raft::MessageKind;
use berth_types::MasterId;
use berth_types::api::MasterInfo;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::inbox::{Inbox, Message};
use heard::Heard;

/// Messages that may wait for one master; a few pipelined appends and what clients of this master ask meanwhile.
const QUEUE: usize = 16_384;
/// Messages in one frame at most.
const FRAME_MESSAGES: usize = 256;
/// Bytes after which a frame is closed.
const FRAME_BYTES: usize = CHUNK_BYTES;
/// A message above this travels in chunks by itself, so that heartbeats do not wait behind it.
const LARGE_BYTES: usize = 4 * CHUNK_BYTES;
/// Frames written but not yet taken by the connection.
const FRAMES_IN_FLIGHT: usize = 4;
/// Dialling gives up after this.
const DIAL_TIMEOUT: Duration = Duration::from_millis(500);
/// First pause after a failure; doubles up to [`MAX_PAUSE`]. Short, because a failover waits for it.
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// Longest time for a chunked message.
const LARGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a link that is no longer needed waits until what it sent has been read.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Closing the queue ends it: what waits in there is still sent, so that a master that is removed hears what was decided
/// about it.
struct Link {
    address: String,
    /// The log has this address. If not, the link ends with its connection and is made again when there is something to
    /// say, so that a master that is gone for good is not dialled for ever.
    listed: bool,
    queue: mpsc::Sender<PeerMessage>,
}

/// Who this master is.
pub(crate) struct Own {
    pub(crate) id: MasterId,
    /// Where the others reach it.
    pub(crate) listens: String,
    pub(crate) cluster_id: Arc<AtomicU64>,
    pub(crate) dialler: berth_tls::Dialler,
}

/// Links to all other masters. Owned by the event loop.
pub(crate) struct Peers {
    own: MasterId,
    listens: watch::Sender<String>,
    cluster_id: Arc<AtomicU64>,
    dialler: berth_tls::Dialler,
    inbox: Inbox,
    runtime: Handle,
    links: BTreeMap<MasterId, Link>,
    heard: Heard,
}

impl Peers {
    pub(crate) fn new(own: Own, inbox: Inbox, runtime: Handle) -> Self {
        Self {
            own: own.id,
            listens: watch::Sender::new(own.listens),
            cluster_id: own.cluster_id,
            dialler: own.dialler,
            inbox,
            runtime,
            links: BTreeMap::new(),
            heard: Heard::default(),
        }
    }

    /// Talks to these from now on.
    pub(crate) fn set(&mut self, masters: &[(MasterId, MasterInfo)]) {
        let wanted: BTreeMap<MasterId, &str> = masters
            .iter()
            .filter(|(id, info)| *id != self.own && !info.address.is_empty())
            .map(|(id, info)| (*id, info.address.as_str()))
            .collect();
        let stays = |id: &MasterId, link: &mut Link| match wanted.get(id) {
            Some(address) => link.listed && *address == link.address,
            None => !link.listed,
        };
        self.links.retain(stays);
        for (id, address) in &wanted {
            if !self.links.contains_key(id) {
                self.link(*id, address, true);
            }
        }
        if let Some((_, info)) = masters.iter().find(|(id, _)| *id == self.own) {
            self.listens.send_replace(info.address.clone());
        }
    }

    /// A master said where it listens; counts for as long as the log does not say so.
    pub(crate) fn hear(&mut self, from: MasterId, address: String) {
        if from != self.own && self.heard.hear(from, address) {
            // Made anew with the next message.
            self.links
                .retain(|id, link| link.listed || self.heard.of(*id) == Some(&link.address));
        }
    }

    /// Where a master said that it listens.
    pub(crate) fn heard(&self, id: MasterId) -> Option<&str> {
        self.heard.of(id)
    }

    fn link(&mut self, to: MasterId, address: &str, listed: bool) {
        let (queue, messages) = mpsc::channel(QUEUE);
        let dialler = Dialler {
            own: self.own,
            listens: self.listens.subscribe(),
            to,
            address: address.to_owned(),
            again: listed,
            cluster_id: Arc::clone(&self.cluster_id),
            dialler: self.dialler.clone(),
            inbox: self.inbox.clone(),
            messages,
        };
        let link = Link {
            address: address.to_owned(),
            listed,
            queue,
        };
        self.runtime.spawn(dialler.run());
        self.links.insert(to, link);
    }

    /// Sends, or loses.
    pub(crate) fn send(&mut self, to: MasterId, message: PeerMessage) {
        let usable = |link: &Link| link.listed || !link.queue.is_closed();
        if !self.links.get(&to).is_some_and(usable)
            && let Some(address) = self.heard.of(to).map(str::to_owned)
        {
            info!(master = %to, address, "the log does not have this master yet: answering where it says it is");
            self.link(to, &address, false);
        }
        let Some(link) = self.links.get(&to) else {
            debug!(master = %to, "no address for a master");
            return;
        };
        if link.queue.try_send(message).is_err() {
            debug!(master = %to, "a message was dropped: the queue is full");
        }
    }
}

struct Dialler {
    own: MasterId,
    listens: watch::Receiver<String>,
    to: MasterId,
    address: String,
    /// Dials for ever.
    again: bool,
    cluster_id: Arc<AtomicU64>,
    dialler: berth_tls::Dialler,
    inbox: Inbox,
    messages: mpsc::Receiver<PeerMessage>,
}

impl Dialler {
    async fn run(mut self) {
        let mut pause = MIN_PAUSE;
        let mut told = false;
        loop {
            match self.dial().await {
                Ok(channel) => {
                    info!(master = %self.to, address = self.address, "connected to a master");
                    let connected = tokio::time::Instant::now();
                    let error = self.stream(channel).await;
                    info!(master = %self.to, error = %error, "the connection to a master is gone");
                    if connected.elapsed() > MAX_PAUSE {
                        pause = MIN_PAUSE;
                    }
                    told = false;
                }
                Err(error) => debug!(master = %self.to, %error, "a master cannot be reached"),
            }
            // What was said to a dead connection is stale by the time there is a new one.
            let mut lost = !told;
            while let Ok(message) = self.messages.try_recv() {
                self.snapshot_lost(&message);
                lost = true;
            }
            if lost {
                told = self
                    .inbox
                    .offer(Message::Input(Input::PeerUnreachable(self.to)));
            }
            if self.messages.is_closed() {
                return;
            }
            tokio::time::sleep(pause).await;
            if !self.again {
                return;
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn snapshot_lost(&self, message: &PeerMessage) {
        if is_snapshot(message) {
            let (to, ok) = (self.to, false);
            self.inbox
                .offer(Message::Input(Input::SnapshotSent { to, ok }));
        }
    }

    async fn dial(&self) -> Result<Channel, tonic::transport::Error> {
        self.dialler.connect(&self.address, DIAL_TIMEOUT).await
    }

    /// Streams until the connection breaks; says why.
    async fn stream(&mut self, channel: Channel) -> Status {
        let mut client = PeersClient::new(channel)
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES);
        let (frames, outgoing) = mpsc::channel(FRAMES_IN_FLIGHT);
        let mut acks = match client.stream(ReceiverStream::new(outgoing)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return refused(&status, self.to),
        };
        let mut batch = Vec::with_capacity(FRAME_MESSAGES);
        loop {
            tokio::select! {
                biased;
                ack = acks.message() => match ack {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::unavailable("the other master closed the stream"),
                    Err(status) => return refused(&status, self.to),
                },
                n = self.messages.recv_many(&mut batch, FRAME_MESSAGES) => {
                    if n == 0 {
                        drop(frames);
                        // The other side closes once it has read everything.
                        let rest = async { while let Ok(Some(_)) = acks.message().await {} };
                        let _ = tokio::time::timeout(LAST_WORDS, rest).await;
                        return Status::cancelled("no longer needed");
                    }
                    for frame in self.frames(&client, &mut batch) {
                        if frames.send(frame).await.is_err() {
                            return Status::unavailable("the connection is gone");
                        }
                    }
                }
            }
        }
    }

    fn frame(&self, messages: Vec<Bytes>) -> v1::PeerFrame {
        v1::PeerFrame {
            from: self.own.0,
            to: self.to.0,
            cluster_id: self.cluster_id.load(Ordering::Relaxed),
            messages,
            address: self.listens.borrow().clone(),
        }
    }

    /// Packs messages into frames; large ones leave in chunks on their own.
    fn frames(
        &self,
        client: &PeersClient<Channel>,
        batch: &mut Vec<PeerMessage>,
    ) -> Vec<v1::PeerFrame> {
        let (mut frames, mut messages, mut bytes) = (Vec::new(), Vec::new(), 0);
        for message in batch.drain(..) {
            let snapshot = is_snapshot(&message);
            let encoded = message.encode();
            drop(message);
            if snapshot || encoded.len() > LARGE_BYTES {
                tokio::spawn(self.send_large(client.clone(), encoded, snapshot));
                continue;
            }
            bytes += encoded.len();
            messages.push(encoded);
            if bytes >= FRAME_BYTES {
                frames.push(self.frame(std::mem::take(&mut messages)));
                bytes = 0;
            }
        }
        if !messages.is_empty() {
            frames.push(self.frame(messages));
        }
        frames
    }

    fn send_large(
        &self,
        mut client: PeersClient<Channel>,
        mut data: Bytes,
        snapshot: bool,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (own, to, inbox) = (self.own, self.to, self.inbox.clone());
        let cluster_id = self.cluster_id.load(Ordering::Relaxed);
        let address = self.listens.borrow().clone();
        async move {
            let total_bytes = data.len() as u64;
            info!(master = %to, total_bytes, "sending a large message in chunks");
            let chunks = std::iter::from_fn(move || {
                let n = data.len().min(CHUNK_BYTES);
                (n > 0).then(|| v1::SnapshotInstallChunk {
                    from: own.0,
                    to: to.0,
                    cluster_id,
                    total_bytes,
                    data: data.split_to(n),
                    address: address.clone(),
                })
            });
            let sent = client.snapshot_install(tokio_stream::iter(chunks));
            let ok = match tokio::time::timeout(LARGE_TIMEOUT, sent).await {
                Ok(Ok(_)) => true,
                Ok(Err(status)) => {
                    warn!(master = %to, error = status.message(), "a large message did not arrive");
                    false
                }
                Err(_) => {
                    warn!(master = %to, "a large message took too long");
                    false
                }
            };
            if snapshot {
                inbox
                    .send(Message::Input(Input::SnapshotSent { to, ok }))
                    .await;
            }
        }
    }
}

fn is_snapshot(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Raft(raft) if raft.kind() == MessageKind::Snapshot)
}

/// A refusal is the operator's business; a broken connection is not.
fn refused(status: &Status, to: MasterId) -> Status {
    use tonic::Code;
    if matches!(
        status.code(),
        Code::FailedPrecondition | Code::Unauthenticated | Code::PermissionDenied
    ) {
        warn!(master = %to, "a master refuses this one: {}", status.message());
    }
    status.clone()
}
