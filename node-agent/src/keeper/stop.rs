//! Ending a node's keeper with all its tasks: `berth-agent keeper-stop`.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::keeper::orphans;
use crate::keeper::protocol::{self, PROTOCOL_VERSION, Reply, Request};
use crate::keeper::records::Records;
use crate::keeper::server::{KeeperError, lock};
use crate::layout::Layout;

/// How long after the kill the keeper may take to say that all is gone.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was there to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A keeper, with its tasks.
    Keeper,
    /// No keeper, but this many processes of tasks that had outlived one.
    Orphans(usize),
}

/// Ends the keeper of this data directory and all tasks: TERM, then KILL after the grace. Without a keeper it ends
/// what a killed one left behind.
///
/// # Errors
/// If the keeper does not answer in time, or processes do not end.
pub fn stop(root: &Path, grace: Duration) -> Result<Stopped, KeeperError> {
    let root = root
        .canonicalize()
        .map_err(KeeperError::io(format!("find {}", root.display())))?;
    let layout = Layout::new(root);
    match lock(&layout) {
        Ok(lock) => {
            let (records, remembered) = Records::open(&layout.keeper_records())?;
            let ended = orphans::end_survivors(&layout.tasks(), &remembered)
                .map_err(KeeperError::Survivors)?;
            drop((records, lock));
            Ok(Stopped::Orphans(ended))
        }
        Err(KeeperError::AlreadyRuns(_)) => {
            shut_down(&layout, grace)?;
            Ok(Stopped::Keeper)
        }
        Err(error) => Err(error),
    }
}

fn shut_down(layout: &Layout, grace: Duration) -> Result<(), KeeperError> {
    let what = || {
        KeeperError::io(format!(
            "stop the keeper at {}",
            layout.keeper_socket().display()
        ))
    };
    let mut stream = UnixStream::connect(layout.keeper_socket()).map_err(what())?;
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    for request in [
        Request::Hello {
            version: PROTOCOL_VERSION,
        },
        Request::Shutdown { grace_ms },
    ] {
        protocol::encode(&request, &mut bytes)
            .map_err(|e| what()(std::io::Error::new(ErrorKind::InvalidData, e)))?;
    }
    stream.write_all(&bytes).map_err(what())?;
    stream
        .set_read_timeout(Some(grace + PATIENCE))
        .map_err(what())?;
    let deadline = Instant::now() + grace + PATIENCE;
    let (mut input, mut chunk) = (Vec::new(), [0; 16 << 10]);
    while Instant::now() < deadline {
        let read = match stream.read(&mut chunk) {
            Ok(read) => read,
            // It closes without a word if the answer did not fit the socket; the lock tells.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => 0,
            Err(e) => return Err(what()(e)),
        };
        if read == 0 {
            return wait_for_lock(layout, deadline);
        }
        input.extend_from_slice(&chunk[..read]);
        let mut at = 0;
        while let Some(reply) = protocol::decode::<Reply>(&input, &mut at)
            .map_err(|e| what()(std::io::Error::new(ErrorKind::InvalidData, e)))?
        {
            if reply == Reply::Stopped {
                return wait_for_lock(layout, deadline);
            }
        }
        input.drain(..at);
    }
    Err(what()(ErrorKind::TimedOut.into()))
}

/// The keeper is gone once its lock is free.
fn wait_for_lock(layout: &Layout, deadline: Instant) -> Result<(), KeeperError> {
    loop {
        match lock(layout) {
            Ok(_) => return Ok(()),
            Err(KeeperError::AlreadyRuns(_)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
}
