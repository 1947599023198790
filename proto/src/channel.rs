//! How everybody dials a master.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// Pause between keepalive pings, also while idle: a healed partition heals every channel.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a ping may stay unanswered before the connection counts as dead.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long dialling may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The settings of [`connect`], for whoever wants to change one.
///
/// # Errors
/// If `address` is no `host:port`.
pub fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// A channel to the master at `address` (`host:port`). Dials on first use, and again whenever the connection is lost.
/// Must be called within a tokio runtime.
///
/// # Errors
/// If `address` is no `host:port`.
pub fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
    Ok(endpoint(address)?.connect_lazy())
}
