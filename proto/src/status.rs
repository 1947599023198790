//! How an [`ApiError`] travels: as a gRPC status whose details hold a `google.rpc.Status` with one
//! [`ErrorInfo`](v1::ErrorInfo), which is where generic clients look.

use berth_types::api::{ApiError, ErrorKind};
use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use crate::v1;

const TYPE_URL: &str = "type.googleapis.com/berth.v1.ErrorInfo";

/// `google.rpc.Status`, which no crate in use here defines.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

fn code_of(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Internal => Code::Internal,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
    }
}

fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidArgument,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        // A deadline, a lost connection or a cancelled call: whether it took effect is unknown; the same key is safe.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
            ErrorKind::Unavailable
        }
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Internal,
    }
}

/// The error as a gRPC status.
pub fn to_status(error: &ApiError) -> Status {
    let fields = error
        .fields
        .iter()
        .map(|(field, what, hint)| v1::FieldViolation {
            field: field.clone(),
            what: what.clone(),
            hint: hint.clone(),
        })
        .collect();
    let info = v1::ErrorInfo {
        reason: error.reason.clone(),
        hint: error.hint.clone(),
        fields,
    };
    let code = code_of(error.kind);
    let detail = prost_types::Any {
        type_url: TYPE_URL.to_owned(),
        value: info.encode_to_vec(),
    };
    let status = RpcStatus {
        code: code as i32,
        message: error.message.clone(),
        details: vec![detail],
    };
    Status::with_details(code, &error.message, Bytes::from(status.encode_to_vec()))
}

/// The error in a gRPC status. One that did not come from a master's own code (a refused connection, a message over the
/// limit) gets a reason and a hint of its own.
pub fn from_status(status: &Status) -> ApiError {
    let kind = kind_of(status.code());
    if let Some(info) = info_in(status.details()) {
        let fields = info
            .fields
            .into_iter()
            .map(|f| (f.field, f.what, f.hint))
            .collect();
        return ApiError {
            kind,
            reason: info.reason,
            message: status.message().to_owned(),
            hint: info.hint,
            fields,
        };
    }
    let message = match std::error::Error::source(status) {
        Some(source) if kind == ErrorKind::Unavailable => {
            format!("{}: {}", status.message(), root_cause(source))
        }
        _ => status.message().to_owned(),
    };
    if is_too_large(status) {
        let hint = "send less in one message; put large data into files";
        return ApiError::new(kind, "MESSAGE_TOO_LARGE", message, hint);
    }
    let (reason, hint) = match kind {
        ErrorKind::Unavailable => (
            "UNAVAILABLE",
            "check that the masters run and that the address is right, then try again with the same key",
        ),
        ErrorKind::Internal if status.code() == Code::Unimplemented => (
            "UNIMPLEMENTED",
            "client and master may be of different versions",
        ),
        ErrorKind::ResourceExhausted => ("RESOURCE_EXHAUSTED", "try again later"),
        _ => ("RPC_FAILED", "look into the master's log"),
    };
    ApiError::new(kind, reason, message, hint)
}

/// tonic refuses messages over the limit with this code and these words.
fn is_too_large(status: &Status) -> bool {
    matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted)
        && status.message().contains("message length too large")
}

fn root_cause(mut error: &dyn std::error::Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn info_in(details: &[u8]) -> Option<v1::ErrorInfo> {
    if details.is_empty() {
        return None;
    }
    let status = RpcStatus::decode(details).ok()?;
    let detail = status.details.iter().find(|d| d.type_url == TYPE_URL)?;
    v1::ErrorInfo::decode(detail.value.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> ApiError {
        ApiError {
            kind,
            reason: "BAD_JOB".into(),
            message: "spec.name: leer — ü".into(),
            hint: "give a name".into(),
            fields: vec![("spec.name".into(), "empty".into(), "give a name".into())],
        }
    }

    #[test]
    fn every_kind_survives_the_round_trip() {
        use ErrorKind::*;
        for kind in [
            InvalidArgument,
            NotFound,
            AlreadyExists,
            FailedPrecondition,
            ResourceExhausted,
            Unavailable,
            Internal,
            Unauthenticated,
            PermissionDenied,
        ] {
            let error = error(kind);
            assert_eq!(from_status(&to_status(&error)), error);
        }
    }

    #[test]
    fn a_status_without_details_gets_a_reason_and_a_hint() {
        let error = from_status(&Status::unavailable("transport error"));
        assert_eq!(
            (error.kind, error.reason.as_str()),
            (ErrorKind::Unavailable, "UNAVAILABLE")
        );
        assert!(!error.hint.is_empty());
        let error = from_status(&Status::out_of_range(
            "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes",
        ));
        assert_eq!(error.reason, "MESSAGE_TOO_LARGE");
    }

    #[test]
    fn damaged_details_are_ignored() {
        let status = Status::with_details(Code::NotFound, "gone", Bytes::from_static(&[0xff; 9]));
        assert_eq!(from_status(&status).kind, ErrorKind::NotFound);
        assert_eq!(from_status(&status).message, "gone");
    }
}
