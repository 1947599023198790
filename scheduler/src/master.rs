//! A master: its threads, its services, its start and its stop.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_core::Replica;
use berth_core::planner::PlanLimits;
use berth_core::policy::Policy;
use berth_core::replica::ReplicaError;
use berth_proto::channel::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use berth_raft_store::{Backend, HistoryStore, LogStore, StoreError, StoreOptions};
use berth_tls::{Acceptor, Authority, Dialler, TlsError};
use berth_types::MasterId;
use berth_types::api::MasterInfo;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, oneshot, watch};
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::Config;
use crate::event_loop::{self, End, EventLoop, Outlets};
use crate::history;
use crate::history_gap;
use crate::inbox::{Inbox, Message, inbox};
use crate::peers::{self, Peers};
use crate::planning::Planning;
use crate::service;
use crate::sessions::Sessions;
use crate::shared::{EVENT_BATCHES, Leader, Shared};
use crate::snapshots;
use crate::storage;

/// What the health service knows; the empty name is the master as a whole.
const SERVICES: [&str; 4] = ["", "berth.v1.Jobs", "berth.v1.Nodes", "berth.v1.Cluster"];
/// Certificates are looked at so often.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// How long open connections may take to end once the master stops.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// Why a master did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address is taken, or not this host's.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store is damaged, another master's, or in use.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds makes no sense to the replica.
    #[error(
        "master {id} cannot use its data; if it stays so, replace it: berth masters replace {id} NEW_ID NEW_ADDRESS"
    )]
    Replica {
        /// This master.
        id: u64,
        /// Why.
        #[source]
        source: ReplicaError,
    },
    /// The authority's files are missing or make no sense.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No such policy or backend.
    #[error("{0}")]
    Setting(String),
    /// The operating system refused a thread or randomness.
    #[error("the operating system refused")]
    Os(#[from] std::io::Error),
}

/// How a master ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// It failed: what to tell the operator.
    #[error("{0}")]
    Fatal(String),
    /// Its server failed.
    #[error("the server failed")]
    Serve(#[from] tonic::transport::Error),
    /// A thread panicked.
    #[error("the {0} thread panicked")]
    Panicked(&'static str),
}

/// A policy that never fails and looks at nothing but order.
const FALLBACK: &str = "fifo";

fn policy(name: &str) -> Result<Box<dyn Policy>, StartError> {
    berth_policy::by_name(name).map_err(|e| StartError::Setting(e.to_string()))
}

/// A number that no other start has drawn.
fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes).max(1))
}

/// The threads around the event loop, and what each of them reads.
struct Threads {
    handles: Vec<(&'static str, JoinHandle<()>)>,
    ended: oneshot::Receiver<End>,
    gap: tokio::task::JoinHandle<()>,
}

/// A running master.
pub struct Master {
    address: SocketAddr,
    inbox: Inbox,
    threads: Threads,
    close: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    health: HealthReporter,
}

impl Master {
    /// Opens the store, starts all threads and serves. Must be called within a multi-threaded tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running then.
    pub async fn start(config: &Config) -> Result<Master, StartError> {
        let address = config.listen;
        let listen_error = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let acceptor = acceptor(config)?;
        let (inbox, messages) = inbox();
        let (shared, threads) =
            start_threads(config, address, acceptor.clone(), inbox.clone(), messages)?;
        let (close, closed) = oneshot::channel();
        let (health, health_service) = tonic_health::server::health_reporter();
        for name in SERVICES {
            health
                .set_service_status(name, ServingStatus::Serving)
                .await;
        }
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(berth_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .expect("the descriptors were compiled with this binary");
        let mut routes = service::routes(&shared)
            .add_service(health_service)
            .add_service(reflection);
        if let Some(acceptor) = &acceptor {
            routes = service::access::guarded(routes, Arc::clone(acceptor));
            tokio::spawn(tend(Arc::downgrade(acceptor)));
        }
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(routes)
            .serve_with_incoming_shutdown(berth_tls::incoming(listener, acceptor), async {
                let _ = closed.await;
            });
        let server = tokio::spawn(server);
        Ok(Master {
            address,
            inbox,
            threads,
            close,
            server,
            health,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs until `stop` is ready, then hands over leadership, makes everything durable and ends.
    ///
    /// # Errors
    /// [`RunError`] if it ended by itself.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let panicked = |_| End::Panicked;
        let end = tokio::select! {
            end = &mut self.threads.ended => end.unwrap_or_else(panicked),
            () = stop => {
                for name in SERVICES {
                    self.health.set_service_status(name, ServingStatus::NotServing).await;
                }
                event_loop::stop(&self.inbox).await;
                (&mut self.threads.ended).await.unwrap_or_else(panicked)
            }
        };
        let _ = self.close.send(());
        // Streams of agents, watchers and other masters have no end of their own.
        let closed = tokio::time::timeout(CLOSE_TIMEOUT, &mut self.server).await;
        self.server.abort();
        self.threads.gap.abort();
        let _ = self.threads.gap.await;
        let handles = self.threads.handles;
        let joined = tokio::task::spawn_blocking(move || join(handles)).await;
        match end {
            End::Fatal(reason) => return Err(RunError::Fatal(reason)),
            End::Panicked => return Err(RunError::Panicked("replica")),
            End::Stopped => {}
        }
        joined
            .unwrap_or(Err("closing"))
            .map_err(RunError::Panicked)?;
        if let Ok(Ok(Err(error))) = closed {
            return Err(RunError::Serve(error));
        }
        Ok(())
    }
}

/// Ends with the first thread that panicked.
fn join(handles: Vec<(&'static str, JoinHandle<()>)>) -> Result<(), &'static str> {
    let results: Vec<_> = handles
        .into_iter()
        .map(|(name, thread)| (name, thread.join()))
        .collect();
    results
        .into_iter()
        .try_for_each(|(name, result)| result.map_err(|_| name))
}

/// What the store held, opened.
struct Opened {
    replica: (Replica, Vec<berth_core::Effect>),
    limits: PlanLimits,
    log: Box<dyn LogStore>,
    history: Arc<dyn HistoryStore>,
}

fn open(config: &Config) -> Result<Opened, StartError> {
    let backend: Backend = config.storage.parse().map_err(StartError::Setting)?;
    let options = StoreOptions::new(config.id.0);
    let (recovered, log, history) = berth_raft_store::open(&config.data_dir, backend, options)?;
    info!(
        last_index = recovered.last_index(),
        term = recovered.hard_state.term,
        finished = history.last_seq().unwrap_or(0),
        "opened the store"
    );
    let replica_config = config.replica(random()?, random()?);
    let limits = replica_config.plan_limits.clone();
    let id = config.id.0;
    let replica = Replica::new(replica_config, recovered)
        .map_err(|source| StartError::Replica { id, source })?;
    Ok(Opened {
        replica,
        limits,
        log,
        history,
    })
}

fn start_threads(
    config: &Config,
    listens: SocketAddr,
    acceptor: Option<Arc<Acceptor>>,
    inbox: Inbox,
    messages: Receiver<Message>,
) -> Result<(Shared, Threads), StartError> {
    let (policy, fallback) = (policy(&config.policy)?, policy(FALLBACK)?);
    let Opened {
        replica,
        limits,
        log,
        history: store,
    } = open(config)?;
    let (leader, leader_known) = watch::channel(Leader::default());
    let (masters, masters_known) = watch::channel(Vec::new());
    let (history_through, through) = watch::channel(replica.0.state().finished);
    let known = (leader_known, masters_known.clone());
    let shared = share(
        config,
        acceptor,
        inbox.clone(),
        Arc::downgrade(&store),
        known,
    );
    let dialler = shared.dialler.clone();
    let (history, history_thread) = history::start(store, inbox.clone())?;
    let (storage, storage_thread) = storage::start(log, inbox.clone())?;
    let (snapshots, snapshot_thread) = snapshots::start(history.clone(), inbox.clone())?;
    let fill = history_gap::fill(config.id, dialler, through, masters_known, history.clone());
    let gap = tokio::spawn(fill);
    let peers = others(config, listens, &shared);
    let deadline = config.timeouts.policy;
    let out = Outlets {
        storage,
        history,
        snapshots,
        planning: Planning::start(policy, fallback, limits, deadline, inbox)?,
        peers,
        leader,
        masters,
        history_through,
        shared: shared.clone(),
    };
    let event_loop = EventLoop::new(replica, Clock::start(), config.timeouts.tick, messages, out);
    let (replica_thread, ended) = event_loop.start()?;
    let handles = vec![
        ("replica", replica_thread),
        ("storage", storage_thread),
        ("snapshot", snapshot_thread),
        ("history", history_thread),
    ];
    Ok((
        shared,
        Threads {
            handles,
            ended,
            gap,
        },
    ))
}

/// What the services share.
fn share(
    config: &Config,
    acceptor: Option<Arc<Acceptor>>,
    inbox: Inbox,
    history: Weak<dyn HistoryStore>,
    (leader, masters): (
        watch::Receiver<Leader>,
        watch::Receiver<Vec<(MasterId, MasterInfo)>>,
    ),
) -> Shared {
    let dialler = match &acceptor {
        Some(acceptor) => acceptor.dialler().clone(),
        None => Dialler::plain(),
    };
    Shared {
        id: config.id,
        inbox,
        sessions: Sessions::default(),
        history,
        leader,
        events: broadcast::channel(EVENT_BATCHES).0,
        cluster_id: Arc::new(AtomicU64::new(0)),
        call_timeout: config.timeouts.call,
        masters,
        dialler,
        acceptor,
        data_dir: Arc::from(config.data_dir.as_path()),
    }
}

/// With `tls_dir`: what signs, and who is let in.
fn acceptor(config: &Config) -> Result<Option<Arc<Acceptor>>, StartError> {
    let Some(dir) = &config.tls_dir else {
        return Ok(None);
    };
    let acceptor = Acceptor::new(Authority::load(dir)?, config.id.0)?;
    Ok(Some(Arc::new(acceptor)))
}

/// Renews this master's certificate and ends connections whose certificates have ended, while there is somebody to tend.
async fn tend(acceptor: Weak<Acceptor>) {
    loop {
        tokio::time::sleep(TEND_EVERY).await;
        let Some(acceptor) = acceptor.upgrade() else {
            return;
        };
        if let Err(error) = acceptor.tick(berth_tls::now_ms()) {
            warn!(%error, "this master's certificate could not be renewed");
        }
    }
}

/// The ways to the other masters.
fn others(config: &Config, listens: SocketAddr, shared: &Shared) -> Peers {
    let own = peers::Own {
        id: config.id,
        listens: advertised(config, listens),
        cluster_id: Arc::clone(&shared.cluster_id),
        dialler: shared.dialler.clone(),
    };
    let inbox = shared.inbox.clone();
    let mut peers = Peers::new(own, inbox, Handle::current());
    if config.join {
        // Until the log has told it where the masters listen, it answers those that the file names.
        peers.set(&config.masters);
    }
    peers
}

/// Where the others reach this master until the log says so: as its file has it, or else where it listens.
fn advertised(config: &Config, listens: SocketAddr) -> String {
    let listed = config.masters.iter().find(|(id, _)| *id == config.id);
    listed.map_or_else(|| listens.to_string(), |(_, info)| info.address.clone())
}
