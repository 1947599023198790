//! Wire to vocabulary and back.
//!
//! Encoding is `From`, and cannot fail. Decoding is `TryFrom` with a [`DecodeError`] that names the field; whether a
//! decoded job makes sense is [`JobSpec::faults`](berth_types::JobSpec::faults)' to say.

mod agent;
mod attempt;
mod checkpoint;
mod event;
mod health;
mod host;
mod job;
mod job_view;
mod node;
mod request;
mod response;
mod security;

use berth_types::Fault;
use berth_types::api::ApiError;
use thiserror::Error;

pub use request::log_stream;
pub use security::{identity, role};

/// A message that is no value of the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {what}")]
pub struct DecodeError {
    /// Path of the field, such as `spec.groups[0].resources`.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
    /// What would be right.
    pub hint: String,
}

impl DecodeError {
    /// An error of `field`.
    pub fn new(field: &str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            what: what.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn missing(field: &str) -> Self {
        Self::new(field, "missing", "set it")
    }

    pub(crate) fn unknown(field: &str, value: i32) -> Self {
        Self::new(
            field,
            format!("{value} is not known"),
            "use a value of this enum; client and master may be of different versions",
        )
    }

    /// The same error, seen from the message that holds the field's message.
    pub(crate) fn within(mut self, parent: &str) -> Self {
        self.field = if self.field.is_empty() {
            parent.to_owned()
        } else {
            format!("{parent}.{}", self.field)
        };
        self
    }
}

impl From<DecodeError> for ApiError {
    fn from(e: DecodeError) -> Self {
        ApiError::faults(
            "MALFORMED_REQUEST",
            vec![Fault::new(e.field, e.what, e.hint)],
        )
    }
}

impl From<DecodeError> for tonic::Status {
    fn from(e: DecodeError) -> Self {
        crate::to_status(&e.into())
    }
}

/// Decodes a message that must be there.
fn required<W, D>(value: Option<W>, field: &str) -> Result<D, DecodeError>
where
    D: TryFrom<W, Error = DecodeError>,
{
    let value = value.ok_or_else(|| DecodeError::missing(field))?;
    D::try_from(value).map_err(|e| e.within(field))
}

/// Decodes a message that may be absent.
fn optional<W, D>(value: Option<W>, field: &str) -> Result<Option<D>, DecodeError>
where
    D: TryFrom<W, Error = DecodeError>,
{
    value
        .map(|v| D::try_from(v).map_err(|e| e.within(field)))
        .transpose()
}

/// Decodes a list of messages.
fn list<W, D>(items: Vec<W>, field: &str) -> Result<Vec<D>, DecodeError>
where
    D: TryFrom<W, Error = DecodeError>,
{
    let item = |(i, w)| D::try_from(w).map_err(|e: DecodeError| e.within(&format!("{field}[{i}]")));
    items.into_iter().enumerate().map(item).collect()
}

/// Decodes a number that the wire carries in 32 bits but that has 16.
fn narrow(value: u32, field: &str) -> Result<u16, DecodeError> {
    u16::try_from(value).map_err(|_| {
        DecodeError::new(
            field,
            format!("{value} is too large"),
            format!("at most {}", u16::MAX),
        )
    })
}

/// Encodes a list.
fn wire<'a, D, W>(items: &'a [D]) -> Vec<W>
where
    W: From<&'a D>,
{
    items.iter().map(W::from).collect()
}
