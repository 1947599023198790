//! What can go wrong in a command, what a person is told about it, and the exit code that a script sees.

use std::path::PathBuf;

use berth_types::{ApiError, ErrorKind, Fault};
use thiserror::Error;

/// Exit codes of `berth` itself. With `submit --wait` the job's own code is passed on; see `docs/cli.md`.
pub(crate) mod exit {
    /// The command failed.
    pub(crate) const FAILED: u8 = 1;
    /// Wrong usage, or a job file with faults.
    pub(crate) const USAGE: u8 = 2;
    /// What was named does not exist.
    pub(crate) const NOT_FOUND: u8 = 3;
    /// No master could be reached, or none led, for as long as the command waits.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// Berth is at fault.
    pub(crate) const INTERNAL: u8 = 70;
    /// The master does not know the caller, or does not let it do this.
    pub(crate) const NOT_PERMITTED: u8 = 77;
    /// The job was over its time limit, as with `timeout`.
    pub(crate) const TIMED_OUT: u8 = 124;
    /// The job ended without a code of its own: its node was lost, or it could not start now.
    pub(crate) const NO_CODE: u8 = 125;
    /// The job's program could not be started.
    pub(crate) const NOT_STARTED: u8 = 126;
    /// The terminal was closed.
    pub(crate) const HUNG_UP: u8 = 129;
    /// Interrupted with Ctrl-C while waiting.
    pub(crate) const INTERRUPTED: u8 = 130;
    /// The job was cancelled: as if ended by SIGTERM. Also of `berth up`, `dev` and `bench` when they are.
    pub(crate) const CANCELLED: u8 = 143;
}

/// A command that failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// A master refused the call.
    #[error("{0}")]
    Api(Box<ApiError>),
    /// No master answered.
    #[error("no master answers at {}: {last}", addresses.join(", "))]
    Unreachable {
        /// What was tried.
        addresses: Vec<String>,
        /// What the last of them said.
        last: String,
    },
    /// A job file with faults.
    #[error("{file}: {}", count(faults))]
    JobFile {
        /// Which.
        file: String,
        /// All of them.
        faults: Vec<Fault>,
    },
    /// Something named by the user does not exist, or is ambiguous.
    #[error("{what}")]
    Named {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The command line asks for something that makes no sense.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something on this machine went wrong.
    #[error("{what}")]
    Local {
        /// What.
        what: String,
        /// What to do; empty if nothing is known.
        hint: String,
    },
    /// The reader of our output is gone, as with `berth jobs | head -1`.
    #[error("the output was closed")]
    OutputClosed,
}

fn count(faults: &[Fault]) -> String {
    match faults.len() {
        1 => "1 fault".into(),
        n => format!("{n} faults"),
    }
}

impl Failure {
    /// Something on this machine went wrong.
    pub(crate) fn local(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::Local {
            what: what.into(),
            hint: hint.into(),
        }
    }

    /// The command line makes no sense.
    pub(crate) fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::Usage {
            what: what.into(),
            hint: hint.into(),
        }
    }

    /// A file could not be read or written.
    pub(crate) fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Failure::File {
            path: path.into(),
            source,
        }
    }

    /// The code to exit with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Api(error) => match error.kind {
                ErrorKind::NotFound => exit::NOT_FOUND,
                ErrorKind::Unavailable => exit::UNAVAILABLE,
                ErrorKind::Internal => exit::INTERNAL,
                ErrorKind::InvalidArgument
                | ErrorKind::AlreadyExists
                | ErrorKind::FailedPrecondition
                | ErrorKind::ResourceExhausted => exit::FAILED,
                ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => exit::NOT_PERMITTED,
            },
            Failure::Unreachable { .. } => exit::UNAVAILABLE,
            Failure::JobFile { .. } | Failure::Usage { .. } => exit::USAGE,
            Failure::Named { .. } => exit::NOT_FOUND,
            Failure::File { .. } | Failure::Local { .. } => exit::FAILED,
            Failure::OutputClosed => 0,
        }
    }

    /// What to do about it; empty if nothing is known.
    pub(crate) fn hint(&self) -> String {
        match self {
            Failure::Api(error) => error.hint.clone(),
            Failure::Unreachable { .. } => {
                "start a cluster with `berth up --dir DIR` or `berth dev`, or name its masters with --addr or BERTH_ADDR".into()
            }
            Failure::JobFile { .. } => "docs/job-file.md explains every key; `berth schema` prints the schema".into(),
            Failure::Named { hint, .. } | Failure::Usage { hint, .. } | Failure::Local { hint, .. } => hint.clone(),
            Failure::File { .. } | Failure::OutputClosed => String::new(),
        }
    }

    /// One line for each thing at fault, if there are several.
    pub(crate) fn details(&self) -> Vec<String> {
        match self {
            Failure::JobFile { faults, .. } => faults.iter().map(ToString::to_string).collect(),
            // One field is named in the message already.
            Failure::Api(error) if error.fields.len() > 1 => error
                .fields
                .iter()
                .map(|(field, what, hint)| Fault::new(field, what, hint).to_string())
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Writes `error: …`, the details and `hint: …`.
    pub(crate) fn print(&self, err: &mut impl std::io::Write, colour: bool) {
        let (red, cyan, plain) = if colour {
            ("\x1b[1;31m", "\x1b[36m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        // Nothing is left to do if standard error is closed as well.
        let details = self.details();
        let message = match self {
            Failure::Api(e) if !details.is_empty() => {
                format!("{} fields are wrong", e.fields.len())
            }
            other => other.to_string(),
        };
        let _ = writeln!(err, "{red}error:{plain} {message}");
        for line in details {
            let _ = writeln!(err, "  {line}");
        }
        let hint = self.hint();
        if !hint.is_empty() {
            let _ = writeln!(err, "{cyan}hint:{plain} {hint}");
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure::Api(Box::new(error))
    }
}

impl From<berth_proto::DecodeError> for Failure {
    fn from(error: berth_proto::DecodeError) -> Self {
        Failure::from(ApiError::new(
            ErrorKind::Internal,
            "MALFORMED_ANSWER",
            format!("the master's answer makes no sense: {error}"),
            "client and master may be of different versions",
        ))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Failure::OutputClosed
        } else {
            Failure::local(error.to_string(), "")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(failure: &Failure) -> String {
        let mut out = Vec::new();
        failure.print(&mut out, false);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn faults_are_listed_between_error_and_hint() {
        let failure = Failure::JobFile {
            file: "a.toml".into(),
            faults: vec![
                Fault::new("nmae", "unknown key", "did you mean `name`?"),
                Fault::new("gpus", "-1 is negative", ""),
            ],
        };
        assert_eq!(
            printed(&failure),
            "error: a.toml: 2 faults\n  nmae: unknown key (did you mean `name`?)\n  gpus: -1 is negative\n\
             hint: docs/job-file.md explains every key; `berth schema` prints the schema\n"
        );
        assert_eq!(failure.exit_code(), exit::USAGE);
    }

    #[test]
    fn a_master_s_error_keeps_its_hint_and_class() {
        let error = ApiError::new(
            ErrorKind::NotFound,
            "JOB_NOT_FOUND",
            "there is no job 7",
            "look at `berth jobs`",
        );
        let failure = Failure::from(error);
        assert_eq!(
            printed(&failure),
            "error: there is no job 7\nhint: look at `berth jobs`\n"
        );
        assert_eq!(failure.exit_code(), exit::NOT_FOUND);
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let closed = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from(closed).exit_code(), 0);
    }
}
