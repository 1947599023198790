//! What can go wrong with keys and certificates.

use std::path::PathBuf;

use thiserror::Error;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot {verb} {path}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {what}; {hint}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// A key could not be made or used.
    #[error("cannot make a key or sign with it")]
    Key(#[from] rcgen::Error),
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness")]
    Random,
    /// rustls refuses.
    #[error("the certificates cannot be used")]
    Tls(#[from] rustls::Error),
    /// What was received is no certificate of this cluster.
    #[error("{0}")]
    Certificate(String),
    /// A join token that cannot be one.
    #[error("the join token {0}")]
    Token(&'static str),
    /// The call failed.
    #[error("{}", .0.message)]
    Call(Box<berth_types::ApiError>),
    /// No connection.
    #[error("cannot reach {address}: {why}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
}

impl From<tonic::Status> for TlsError {
    fn from(status: tonic::Status) -> Self {
        TlsError::Call(Box::new(berth_proto::from_status(&status)))
    }
}

/// The last cause, which says most.
pub(crate) fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
