//! One connection to the keeper: non-blocking, with bounded buffers.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use thiserror::Error;

use crate::keeper::protocol::{self, FrameError, MAX_FRAME_BYTES, Reply, Request};

/// Unread answers at which a client counts as dead.
const MAX_UNREAD_BYTES: usize = 2 * MAX_FRAME_BYTES;
const READ_BYTES: usize = 64 << 10;

/// Why a connection is given up.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The other side is gone.
    #[error("closed by the other side")]
    Closed,
    /// The system's words.
    #[error("broken")]
    Io(#[from] std::io::Error),
    /// It sent nonsense.
    #[error("not the keeper's protocol")]
    Frame(#[from] FrameError),
    /// It does not read.
    #[error("{0} bytes of answers were not read")]
    Unread(usize),
}

/// A client.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// It asked for changes.
    pub subscribed: bool,
    /// It is polled for room to write.
    pub wants_out: bool,
}

impl Connection {
    /// Takes over an accepted, non-blocking stream.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            subscribed: false,
            wants_out: false,
        }
    }

    /// The stream, to be polled.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Everything that has arrived, also what came right before the other side hung up.
    ///
    /// # Errors
    /// If the connection is of no use any more.
    pub fn receive(&mut self) -> Result<Vec<Request>, ConnectionError> {
        let mut closed = false;
        loop {
            let filled = self.input.len();
            self.input.resize(filled + READ_BYTES, 0);
            let read = self.stream.read(&mut self.input[filled..]);
            self.input
                .truncate(filled + read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => {
                    closed = true;
                    break;
                }
                Ok(n) if n < READ_BYTES => break,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        let (mut at, mut requests) = (0, Vec::new());
        while let Some(request) = protocol::decode(&self.input, &mut at)? {
            requests.push(request);
        }
        self.input.drain(..at);
        if closed && requests.is_empty() {
            return Err(ConnectionError::Closed);
        }
        Ok(requests)
    }

    /// Queues an answer.
    ///
    /// # Errors
    /// If it cannot be framed or too much is unread.
    pub fn send(&mut self, reply: &Reply) -> Result<(), ConnectionError> {
        protocol::encode(reply, &mut self.output)?;
        let unread = self.output.len() - self.written;
        if unread > MAX_UNREAD_BYTES {
            return Err(ConnectionError::Unread(unread));
        }
        Ok(())
    }

    /// Writes what can be written. True if nothing is left.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn flush(&mut self) -> Result<bool, ConnectionError> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(true)
    }
}
