//! Free loopback ports, below the range from which the kernel picks ports for outgoing connections.

use std::collections::BTreeSet;
use std::net::TcpListener;

use anyhow::{Context, bail};

/// Where to look. The kernel's own range starts at 32768.
const FIRST: u16 = 12_000;
const LAST: u16 = 31_000;

/// Hands out ports that were free a moment ago, never the same one twice.
#[derive(Debug)]
pub struct Ports {
    next: u16,
    given: BTreeSet<u16>,
}

impl Ports {
    /// Starts at a place that depends on this process, so that two programs at the same time rarely meet.
    pub fn new() -> Self {
        let spread = u32::from(LAST - FIRST);
        let start = std::process::id().wrapping_mul(2_654_435_761) % spread;
        Self {
            next: FIRST + u16::try_from(start).unwrap_or(0),
            given: BTreeSet::new(),
        }
    }

    /// One free port.
    ///
    /// # Errors
    /// If there is none left.
    pub fn one(&mut self) -> anyhow::Result<u16> {
        self.range(1)
    }

    /// The first of `count` free ports in a row.
    ///
    /// # Errors
    /// If there are none left.
    pub fn range(&mut self, count: u16) -> anyhow::Result<u16> {
        for _ in FIRST..LAST {
            let first = self.next;
            if first > LAST - count {
                self.next = FIRST;
                continue;
            }
            let wanted = first..first + count;
            match wanted.clone().rev().find(|port| !self.is_free(*port)) {
                Some(taken) => self.next = taken + 1,
                None => {
                    self.next = first + count;
                    self.given.extend(wanted);
                    return Ok(first);
                }
            }
        }
        bail!("no {count} free ports in a row between {FIRST} and {LAST}")
    }

    fn is_free(&self, port: u16) -> bool {
        !self.given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok()
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::new()
    }
}

/// `127.0.0.1:port`.
pub fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The port of a `host:port`.
///
/// # Errors
/// If there is none.
pub fn port_of(address: &str) -> anyhow::Result<u16> {
    let (_, port) = address.rsplit_once(':').context("an address has a port")?;
    port.parse().with_context(|| format!("`{port}` is no port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_taken_ones_are_skipped() {
        let mut ports = Ports::new();
        let first = ports.range(10).unwrap();
        let _taken = TcpListener::bind(("127.0.0.1", first + 10)).unwrap();
        let second = ports.range(5).unwrap();
        assert!(second > first + 10 || second + 5 <= first);
        assert_ne!(ports.one().unwrap(), ports.one().unwrap());
    }
}
