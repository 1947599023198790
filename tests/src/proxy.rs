//! Cuts connections without root: masters are known under the address of a proxy in front of each, and the proxy finds
//! out which of our processes dialled.
//!
//! A cut link swallows: connections stay open and what is sent waits, as in a network that drops packets. When the link
//! heals, what waited arrives. New connections over a cut link are accepted and stay silent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::procfs;

/// Largest piece that is passed on at once.
const PIECE: usize = 64 << 10;
/// How long the dialling process is looked for; a connection is in the kernel's table before it is accepted.
const LOOK_FOR: Duration = Duration::from_millis(200);

/// One end of a link. Clients (the harness, the CLI) are never cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A master, by id.
    Master(u64),
    /// An agent, by its number in the harness.
    Agent(usize),
}

#[derive(Debug, Default)]
struct Book {
    /// Who runs as which process.
    pids: BTreeMap<i32, End>,
    /// Cut links, smaller end first.
    cut: BTreeSet<(End, End)>,
}

/// All proxies of a cluster, and which links are cut.
#[derive(Clone, Debug)]
pub struct Network {
    book: Arc<Mutex<Book>>,
    /// Wakes whoever waits for a link.
    changed: Arc<watch::Sender<u64>>,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Network {
    /// A network without listeners and without cuts.
    pub fn new() -> Self {
        Self {
            book: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            tasks: Arc::default(),
        }
    }

    /// Passes what arrives at `outside` on to the master `id` at `inside`.
    ///
    /// # Errors
    /// If `outside` cannot be bound.
    pub async fn front(
        &self,
        id: u64,
        outside: SocketAddr,
        inside: SocketAddr,
    ) -> anyhow::Result<()> {
        let listener = TcpListener::bind(outside)
            .await
            .with_context(|| format!("cannot listen at {outside}"))?;
        let network = self.clone();
        self.spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let passing = network.clone();
                network.spawn(
                    async move { passing.pass(stream, peer, End::Master(id), inside).await },
                );
            }
        });
        Ok(())
    }

    /// Tells which process an end is now.
    pub fn is_now(&self, end: End, pid: i32) {
        let mut book = self.book();
        book.pids.retain(|_, other| *other != end);
        book.pids.insert(pid, end);
    }

    /// Cuts the link between two ends, in both directions.
    pub fn cut(&self, a: End, b: End) {
        self.book().cut.insert(link(a, b));
        self.changed.send_modify(|n| *n += 1);
    }

    /// Heals every link.
    pub fn heal(&self) {
        self.book().cut.clear();
        self.changed.send_modify(|n| *n += 1);
    }

    async fn pass(&self, client: TcpStream, peer: SocketAddr, to: End, inside: SocketAddr) {
        let from = self.who(peer).await;
        self.open(from, to).await;
        let Ok(server) = TcpStream::connect(inside).await else {
            // Dropping the client's connection tells it what a refused one would.
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        // Either side's end ends both: a reset or a death must not look like silence.
        tokio::select! {
            () = self.pump(client_in, server_out, from, to) => {}
            () = self.pump(server_in, client_out, from, to) => {}
        }
    }

    async fn pump(
        &self,
        mut input: OwnedReadHalf,
        mut output: OwnedWriteHalf,
        from: Option<End>,
        to: End,
    ) {
        let mut piece = vec![0; PIECE];
        loop {
            self.open(from, to).await;
            let Ok(read) = input.read(&mut piece).await else {
                return;
            };
            // The link may have been cut while nothing came.
            self.open(from, to).await;
            if read == 0 || output.write_all(&piece[..read]).await.is_err() {
                return;
            }
        }
    }

    /// Waits until the link is whole.
    async fn open(&self, from: Option<End>, to: End) {
        let Some(from) = from else { return };
        let mut changed = self.changed.subscribe();
        let is_cut = |network: &Self| network.book().cut.contains(&link(from, to));
        while is_cut(self) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    async fn who(&self, peer: SocketAddr) -> Option<End> {
        let until = tokio::time::Instant::now() + LOOK_FOR;
        loop {
            let pids: Vec<i32> = self.book().pids.keys().copied().collect();
            if let Some(pid) = procfs::owner_of_port(peer.port(), &pids) {
                return self.book().pids.get(&pid).copied();
            }
            if tokio::time::Instant::now() >= until {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(future).abort_handle();
        let mut tasks = self.tasks.lock().unwrap_or_else(|held| held.into_inner());
        tasks.retain(|task| !task.is_finished());
        tasks.push(handle);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(|held| held.into_inner())
    }

    /// Stops listening and drops every connection.
    pub fn close(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(|held| held.into_inner());
        tasks.drain(..).for_each(|task| task.abort());
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

fn link(a: End, b: End) -> (End, End) {
    (a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut input, mut output) = stream.split();
                    tokio::io::copy(&mut input, &mut output).await
                });
            }
        });
        address
    }

    async fn answered(stream: &mut TcpStream) -> bool {
        let mut byte = [0];
        let answer = stream.read_exact(&mut byte);
        tokio::time::timeout(Duration::from_millis(300), answer)
            .await
            .is_ok_and(|read| read.is_ok())
    }

    #[tokio::test]
    async fn a_cut_link_swallows_and_a_healed_one_delivers_what_waited() {
        let network = Network::new();
        let outside: SocketAddr = "127.0.0.2:0".parse().unwrap();
        let free = std::net::TcpListener::bind(outside).unwrap();
        let outside = free.local_addr().unwrap();
        drop(free);
        network.front(1, outside, echo().await).await.unwrap();
        let own = std::process::id().cast_signed();
        network.is_now(End::Agent(0), own);

        let mut stream = TcpStream::connect(outside).await.unwrap();
        stream.write_all(b"a").await.unwrap();
        assert!(answered(&mut stream).await);
        network.cut(End::Agent(0), End::Master(1));
        stream.write_all(b"b").await.unwrap();
        assert!(!answered(&mut stream).await);
        let mut second = TcpStream::connect(outside).await.unwrap();
        second.write_all(b"c").await.unwrap();
        assert!(!answered(&mut second).await);
        network.heal();
        assert!(answered(&mut stream).await);
        assert!(answered(&mut second).await);

        // Somebody else's link is not this one.
        network.cut(End::Agent(1), End::Master(1));
        stream.write_all(b"d").await.unwrap();
        assert!(answered(&mut stream).await);
    }
}
