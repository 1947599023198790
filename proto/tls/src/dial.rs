//! How everybody dials a master: in the clear on one host, or with a certificate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use berth_proto::channel;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint, Error};

use crate::authority::MASTER_NAME;
use crate::{Authority, Leaf, Signed, TlsError, files};

/// Dials masters. Cheap to clone; clones share the certificate, also a new one.
#[derive(Clone, Debug, Default)]
pub struct Dialler {
    trust: Option<Arc<Trust>>,
}

#[derive(Debug)]
struct Trust {
    /// Where the files are; masters have none.
    dir: Option<PathBuf>,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ClientConfig>,
    leaf: Leaf,
    /// Of the files when they were read.
    stamps: [Option<(SystemTime, u64)>; 2],
}

impl Dialler {
    /// Without TLS: for masters on this host.
    pub fn plain() -> Self {
        Self::default()
    }

    /// With the authorities and the certificate of a directory, read again whenever they are replaced.
    ///
    /// # Errors
    /// If something is missing there or makes no sense.
    pub fn from_dir(dir: &Path) -> Result<Self, TlsError> {
        let loaded = Mutex::new(load(dir)?);
        let dir = Some(dir.to_owned());
        let trust = Some(Arc::new(Trust { dir, loaded }));
        Ok(Self { trust })
    }

    /// As a master.
    pub(crate) fn held(authority: &Authority, signed: &Signed) -> Result<Self, TlsError> {
        let loaded = Mutex::new(hold(authority, signed)?);
        let trust = Some(Arc::new(Trust { dir: None, loaded }));
        Ok(Self { trust })
    }

    /// A master has a new certificate.
    pub(crate) fn hold(&self, authority: &Authority, signed: &Signed) -> Result<(), TlsError> {
        if let Some(trust) = &self.trust {
            *trust.lock() = hold(authority, signed)?;
        }
        Ok(())
    }

    /// True if it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.trust.is_some()
    }

    /// The certificate that it shows now.
    pub fn leaf(&self) -> Option<Leaf> {
        let trust = self.trust.as_ref()?;
        trust.reload();
        Some(trust.lock().leaf.clone())
    }

    /// Where its certificate lies.
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.trust.as_ref()?.dir.as_deref()
    }

    /// A channel that dials on first use, and again whenever the connection is lost. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// If `address` is no `host:port`.
    pub fn lazy(&self, address: &str) -> Result<Channel, Error> {
        let endpoint = channel::endpoint(address)?;
        Ok(match &self.trust {
            None => endpoint.connect_lazy(),
            Some(trust) => endpoint.connect_with_connector_lazy(connector(trust)),
        })
    }

    /// Dials now.
    ///
    /// # Errors
    /// If `address` is no `host:port`, or nobody there answers in time.
    pub async fn connect(&self, address: &str, within: Duration) -> Result<Channel, Error> {
        let endpoint = channel::endpoint(address)?.connect_timeout(within);
        match &self.trust {
            None => endpoint.connect().await,
            Some(trust) => endpoint.connect_with_connector(connector(trust)).await,
        }
    }
}

impl Trust {
    fn lock(&self) -> MutexGuard<'_, Loaded> {
        // Replaced as a whole.
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files again if they were replaced; keeps what it has if they make no sense.
    fn reload(&self) {
        let Some(dir) = &self.dir else { return };
        let stamps = files::stamps(dir);
        let mut loaded = self.lock();
        if loaded.stamps == stamps {
            return;
        }
        match load(dir) {
            Ok(fresh) => *loaded = fresh,
            Err(error) => {
                let cause = crate::error::root(&error);
                tracing::warn!(dir = %dir.display(), %error, cause, "the new certificate cannot be used; the old one stays");
                loaded.stamps = stamps;
            }
        }
    }

    fn config(&self) -> Arc<ClientConfig> {
        self.reload();
        Arc::clone(&self.lock().config)
    }
}

fn load(dir: &Path) -> Result<Loaded, TlsError> {
    let stamps = files::stamps(dir);
    let authorities = files::read_authorities(dir)?;
    let (certificate, key) = files::read_identity(dir)?;
    let leaf = Leaf::read(&certificate)?;
    let roots = roots(&authorities)?;
    Ok(Loaded {
        config: client_config(roots, certificate, key)?,
        leaf,
        stamps,
    })
}

fn hold(authority: &Authority, signed: &Signed) -> Result<Loaded, TlsError> {
    let certificate = signed.certificate.clone();
    let leaf = Leaf::read(&certificate)?;
    let roots = roots(&authority.certificates)?;
    Ok(Loaded {
        config: client_config(roots, certificate, private(signed))?,
        leaf,
        stamps: [None, None],
    })
}

pub(crate) fn private(signed: &Signed) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(signed.key.serialize_der()).into()
}

pub(crate) fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn client_config(
    roots: RootCertStore,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    Ok(finish(config))
}

/// What all clients have in common: HTTP/2, and a full handshake each time, so that a certificate is always looked at.
pub(crate) fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

type Encrypted = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

fn connector(
    trust: &Arc<Trust>,
) -> impl tower::Service<
    Uri,
    Response = Encrypted,
    Error = io::Error,
    Future = impl Future<Output = io::Result<Encrypted>> + Send,
> + Clone
+ Send
+ 'static {
    let trust = Arc::clone(trust);
    tower::service_fn(move |uri: Uri| {
        let config = trust.config();
        encrypted(uri, config)
    })
}

pub(crate) async fn encrypted(uri: Uri, config: Arc<ClientConfig>) -> io::Result<Encrypted> {
    let no_address = || io::Error::new(io::ErrorKind::InvalidInput, "no address");
    let address = uri.authority().ok_or_else(no_address)?.as_str();
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(MASTER_NAME).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(TokioIo::new(stream))
}

/// A channel over one TLS configuration.
pub(crate) async fn connect_with(
    endpoint: Endpoint,
    config: Arc<ClientConfig>,
) -> Result<Channel, Error> {
    let connector = tower::service_fn(move |uri: Uri| encrypted(uri, Arc::clone(&config)));
    endpoint.connect_with_connector(connector).await
}
