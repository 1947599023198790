//! A master that lags behind a change of members answers a leader that its log does not have.

mod support;

use berth_core::replica::PeerMessage;
use berth_proto::v1;
use berth_proto::v1::peers_client::PeersClient;
use berth_proto::v1::peers_server::{Peers, PeersServer};
use berth_raft::{Message, MessageKind};
use bytes::Bytes;
use support::{Running, configs, free_ports, ok, within};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// In the term 5, by master 9, to master 4: `eraftpb` fields 1 (kind), 2 (to), 3 (from) and 4 (term).
const HEARTBEAT: &[u8] = &[1 << 3, 8, 2 << 3, 4, 3 << 3, 9, 4 << 3, 5];

/// Master 9, which leads since a change that the other has not heard of. Keeps what it is told.
struct NewLeader(mpsc::UnboundedSender<v1::PeerFrame>);

#[tonic::async_trait]
impl Peers for NewLeader {
    type StreamStream = UnboundedReceiverStream<Result<v1::PeerAck, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::PeerFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (told, mut frames) = (self.0.clone(), request.into_inner());
        let (acks, out) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                if told.send(frame).is_err() {
                    break;
                }
            }
            drop(acks);
        });
        Ok(Response::new(UnboundedReceiverStream::new(out)))
    }

    async fn snapshot_install(
        &self,
        _: Request<Streaming<v1::SnapshotInstallChunk>>,
    ) -> Result<Response<v1::PeerAck>, Status> {
        Err(Status::unimplemented("nobody sends one here"))
    }

    async fn fetch_history(
        &self,
        _: Request<v1::FetchHistoryRequest>,
    ) -> Result<Response<v1::FetchHistoryResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it here"))
    }
}

/// A leader, where it listens, and what it is told.
async fn new_leader() -> (String, mpsc::UnboundedReceiver<v1::PeerFrame>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let (told, hears) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder()
        .add_service(PeersServer::new(NewLeader(told)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    (address, hears)
}

fn heartbeat(address: &str) -> v1::PeerFrame {
    let message = Message::decode(Bytes::from_static(HEARTBEAT)).expect("well formed");
    assert_eq!(message.kind(), MessageKind::Heartbeat);
    v1::PeerFrame {
        from: 9,
        to: 4,
        cluster_id: 0,
        messages: vec![PeerMessage::Raft(message).encode()],
        address: address.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_the_log_does_not_have_is_answered_where_it_says_it_listens() {
    within(async {
        let (dir, ports) = (tempfile::tempdir().expect("a directory"), free_ports(5));
        let mut config = configs(dir.path(), &ports).remove(3);
        // Its directory has masters 1 to 3, of which none is left.
        config.join = true;
        config.masters.truncate(3);
        let lagging = Running::start(&config).await;
        let (address, mut hears) = new_leader().await;

        let (frames, outgoing) = mpsc::channel(8);
        // What makes no sense is passed over.
        for nonsense in ["", "nowhere", "h\u{0}:1"] {
            frames.send(heartbeat(nonsense)).await.expect("open");
        }
        frames.send(heartbeat(&address)).await.expect("open");
        let mut client = PeersClient::new(lagging.channel());
        let _acks = ok(client.stream(ReceiverStream::new(outgoing))).await;

        let answer = hears.recv().await.expect("an answer");
        assert_eq!((answer.from, answer.to), (4, 9));
        assert_eq!(answer.address, lagging.address, "it says where it listens");
        let bytes = answer.messages[0].clone();
        let PeerMessage::Raft(answer) = PeerMessage::decode(bytes).expect("well formed") else {
            panic!("not Raft's");
        };
        assert_eq!(answer.kind(), MessageKind::HeartbeatResponse);
        lagging.stop().await;
    })
    .await;
}
