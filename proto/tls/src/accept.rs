//! How a master accepts connections: in the clear on one host, or with TLS and a certificate from whoever dials.
//!
//! Who has no certificate may still connect: joining needs that. What it may call is the master's to say. A connection
//! ends when the certificate on it ends or is revoked.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use berth_types::{Identity, Role};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::dial::{private, provider, roots};
use crate::{Authority, DAEMON_MS, Dialler, Leaf, Signed, TlsError, now_ms};

/// A handshake may take so long.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at once: each costs a signature and a check of one.
const HANDSHAKES: usize = 256;
/// Who joins is done by then.
const ANONYMOUS_MS: u64 = 30_000;
/// Accepted connections that wait for the server.
const BACKLOG: usize = 64;
/// After the system refused a connection (too many open files).
const PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end; in the extensions of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on this host: there is no TLS.
    Local,
    /// Somebody without a certificate.
    Anonymous,
    /// Whom a certificate names.
    Certified(Arc<Leaf>),
}

/// A master's side of TLS.
#[derive(Debug)]
pub struct Acceptor {
    authority: Authority,
    master: Identity,
    config: RwLock<Arc<ServerConfig>>,
    dialler: Dialler,
    registry: Arc<Registry>,
}

impl Acceptor {
    /// For master `id`, which signs its own certificate.
    ///
    /// # Errors
    /// If there is no randomness, or the authority cannot be used.
    pub fn new(authority: Authority, id: u64) -> Result<Self, TlsError> {
        let master = Identity::new(Role::Master, id.to_string()).map_err(TlsError::Certificate)?;
        let signed = authority.issue(&master, now_ms(), DAEMON_MS)?;
        Ok(Self {
            config: RwLock::new(server_config(&authority, &signed)?),
            dialler: Dialler::held(&authority, &signed)?,
            authority,
            master,
            registry: Arc::default(),
        })
    }

    /// What signs and seals.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The way to other masters.
    pub fn dialler(&self) -> &Dialler {
        &self.dialler
    }

    /// Replaces its own certificate at two thirds of its life, and ends connections whose certificates have ended.
    ///
    /// # Errors
    /// If a new one is due and cannot be made.
    pub fn tick(&self, now_ms: u64) -> Result<(), TlsError> {
        self.registry.sweep(now_ms);
        if self
            .dialler
            .leaf()
            .is_some_and(|own| own.renew_at_ms() > now_ms)
        {
            return Ok(());
        }
        let signed = self.authority.issue(&self.master, now_ms, DAEMON_MS)?;
        let config = server_config(&self.authority, &signed)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        self.dialler.hold(&self.authority, &signed)?;
        tracing::info!("this master has a new certificate");
        Ok(())
    }

    /// Certificates of these identities are void up to these numbers; connections with them end.
    pub fn set_revoked(&self, revoked: BTreeMap<Identity, u64>) {
        self.registry.set_revoked(revoked);
    }

    /// True if the certificate is void.
    pub fn is_revoked(&self, leaf: &Leaf) -> bool {
        is_revoked(&self.registry.lock().revoked, leaf)
    }

    fn config(&self) -> Arc<ServerConfig> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&config)
    }

    async fn shake_hands(&self, stream: TcpStream) -> io::Result<Connection> {
        let stream = TlsAcceptor::from(self.config()).accept(stream).await?;
        let (_, session) = stream.get_ref();
        let leaf = match session.peer_certificates().and_then(<[_]>::first) {
            None => None,
            Some(der) => Some(Arc::new(Leaf::read(der).map_err(io::Error::other)?)),
        };
        let (entry, ended) = self.registry.open(leaf.clone());
        Ok(Connection {
            io: Io::Tls(Box::new(stream)),
            peer: leaf.map_or(Peer::Anonymous, Peer::Certified),
            ended: Some(ended),
            _entry: Some(entry),
        })
    }
}

fn server_config(authority: &Authority, signed: &Signed) -> Result<Arc<ServerConfig>, TlsError> {
    let roots = Arc::new(roots(&authority.certificates)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| TlsError::Certificate(e.to_string()))?;
    // Who joins knows the authority by its fingerprint alone, so it is sent along.
    let chain = vec![
        signed.certificate.clone(),
        authority.certificates[0].clone(),
    ];
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private(signed))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would bring its certificate along unchecked.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn is_revoked(revoked: &BTreeMap<Identity, u64>, leaf: &Leaf) -> bool {
    let through = revoked.get(&leaf.identity);
    through.is_some_and(|through| leaf.serial <= *through)
}

/// Open connections, so that they can be ended.
#[derive(Debug, Default)]
struct Registry(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    revoked: BTreeMap<Identity, u64>,
    connections: BTreeMap<u64, OpenConnection>,
    last: u64,
}

#[derive(Debug)]
struct OpenConnection {
    leaf: Option<Arc<Leaf>>,
    until_ms: u64,
    /// Dropped to end it.
    _end: oneshot::Sender<()>,
}

/// Leaves the registry when dropped.
#[derive(Debug)]
struct Entry {
    registry: Arc<Registry>,
    id: u64,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // Every change is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is revoked may stay until it has been told so: it may not call anything.
    fn open(self: &Arc<Self>, leaf: Option<Arc<Leaf>>) -> (Entry, oneshot::Receiver<()>) {
        let soon = now_ms().saturating_add(ANONYMOUS_MS);
        let (end, ended) = oneshot::channel();
        let mut open = self.lock();
        open.last += 1;
        let id = open.last;
        let good = leaf
            .as_ref()
            .filter(|leaf| !is_revoked(&open.revoked, leaf));
        let connection = OpenConnection {
            until_ms: good.map_or(soon, |leaf| leaf.until_ms),
            leaf,
            _end: end,
        };
        open.connections.insert(id, connection);
        let registry = Arc::clone(self);
        (Entry { registry, id }, ended)
    }

    fn sweep(&self, now_ms: u64) {
        self.lock().connections.retain(|_, c| c.until_ms > now_ms);
    }

    fn set_revoked(&self, revoked: BTreeMap<Identity, u64>) {
        let mut open = self.lock();
        let void = |c: &OpenConnection| {
            c.leaf
                .as_ref()
                .is_some_and(|leaf| is_revoked(&revoked, leaf))
        };
        open.connections.retain(|_, c| !void(c));
        open.revoked = revoked;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.lock().connections.remove(&self.id);
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    peer: Peer,
    ended: Option<oneshot::Receiver<()>>,
    _entry: Option<Entry>,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// Accepted connections.
pub type Incoming = ReceiverStream<io::Result<Connection>>;

/// Accepts connections until the stream is dropped: with TLS if there is an acceptor, and in the clear otherwise. Must be
/// called within a tokio runtime.
pub fn incoming(listener: TcpListener, acceptor: Option<Arc<Acceptor>>) -> Incoming {
    let (accepted, connections) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        tokio::select! {
            () = accepted.closed() => {}
            () = accept(listener, acceptor, accepted.clone()) => {}
        }
    });
    ReceiverStream::new(connections)
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<Arc<Acceptor>>,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        if stream.set_nodelay(true).is_err() {
            // It is gone already.
            continue;
        }
        let Some(acceptor) = acceptor.clone() else {
            let connection = Connection {
                io: Io::Plain(stream),
                peer: Peer::Local,
                ended: None,
                _entry: None,
            };
            if accepted.send(Ok(connection)).await.is_err() {
                return;
            }
            continue;
        };
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
            return;
        };
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let from = stream.peer_addr().ok();
            match timeout(HANDSHAKE, acceptor.shake_hands(stream)).await {
                Ok(Ok(connection)) => {
                    // The server may be gone.
                    let _ = accepted.send(Ok(connection)).await;
                }
                Ok(Err(error)) => tracing::info!(?from, %error, "a TLS handshake failed"),
                Err(_) => tracing::info!(?from, "a TLS handshake took too long"),
            }
            drop(permit);
        });
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(ended) = &mut self.ended
            && Pin::new(ended).poll(cx).is_ready()
        {
            self.ended = None;
            let over = "the certificate has ended or is revoked";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, over)));
        }
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
