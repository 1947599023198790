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

/// Longest `host:port` that counts as one: a DNS name and a port.
const MAX_ADDRESS: usize = 253 + 6;

/// True if `address` is a `host:port` that can be dialled. Says nothing about whether anybody is there.
pub fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = match bracketed {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(named),
    };
    let port = !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port != 0);
    address.len() <= MAX_ADDRESS && host && port && endpoint(address).is_ok()
}

/// What to do about an address on another host.
pub const NEEDS_TLS: &str = "use 127.0.0.1, [::1] or localhost, or set up certificates: `berth init` makes a cluster authority, then set `tls_dir` (docs/security.md)";

/// True if the host of a `host:port` is this host and no other, so that nobody else hears what is said.
pub fn is_loopback(address: &str) -> bool {
    let is_own = |host: &str| {
        let ip = host.parse::<std::net::IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    // An IPv6 address without brackets has no port.
    is_own(address) || is_own(host.trim_start_matches('[').trim_end_matches(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_nonsense() {
        for good in [
            "127.0.0.1:7101",
            "[::1]:1",
            "localhost:65535",
            "m-1.rack_2.example:7101",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            ":",
            ":1",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:-1",
            "host:+1",
            "http://host:1",
            "u@host:1",
            "host/path:1",
            "host?:1",
            "ho st:1",
            "::1:1",
            "[::1:1",
            "[nine]:1",
            "h\n:1",
            "hôte:1",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
        assert!(!is_address(&format!("{}:1", "h".repeat(258))));
    }

    #[test]
    fn loopback_is_told_from_the_network() {
        for own in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "localhost:1",
            "::1",
            "127.0.0.1",
        ] {
            assert!(is_loopback(own), "{own}");
        }
        for other in [
            "0.0.0.0:1",
            "10.0.0.1:1",
            "[::]:1",
            "localhost.example:1",
            "127.0.0.1.example:1",
            "",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
