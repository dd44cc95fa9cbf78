//! Why a command did not end well, and the exit code that tells scripts the same.

use std::fmt;

use schemas_client::{ClientError, Code};

use super::document::DocumentError;
use crate::fleet::error::FleetError;

/// The exit codes of configctl; scripts depend on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    /// The store or an agent said no.
    AnsweredNo = 1,
    Unreachable = 2,
    Invalid = 3,
    /// Others kept changing the same document.
    RaceLost = 4,
    Interrupted = 5,
    LocalIo = 6,
    Timeout = 7,
    Denied = 8,
    NotFound = 9,
    Usage = 128,
}

/// A sentence for the operator and the exit code that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Exit::Invalid, message)
    }

    /// A value that is no document: what was found, that it stays, and what to do.
    pub(crate) fn not_a_document(
        host: &str,
        key: &str,
        revision: i64,
        error: &DocumentError,
    ) -> Self {
        Self::invalid(format!(
            "{host}: {error} (key {key}, revision {revision}). Nothing was changed. Look at it with \
             `configctl kv get {key}`; to start over, save what you need of it, run `configctl kv del \
             {key}` and push again"
        ))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            _ if error.is_denied() => Exit::Denied,
            ClientError::InvalidEndpoint { .. } | ClientError::NoEndpoints => Exit::Usage,
            ClientError::TlsFile { .. } => Exit::LocalIo,
            ClientError::Tls { .. } => Exit::Invalid,
            ClientError::Unreachable { .. }
            | ClientError::Timeout { .. }
            | ClientError::OutcomeUnknown { .. }
            | ClientError::Disconnected { .. } => Exit::Unreachable,
            ClientError::Refused { code, .. } => match code {
                Code::Unavailable => Exit::Unreachable,
                Code::InvalidArgument | Code::OutOfRange => Exit::Invalid,
                Code::NotFound => Exit::NotFound,
                _ => Exit::AnsweredNo,
            },
            ClientError::WatchCanceled { .. } => Exit::AnsweredNo,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<FleetError> for Failure {
    fn from(error: FleetError) -> Self {
        let exit = match &error {
            FleetError::Client(error) => return error.clone().into(),
            FleetError::Objects(_)
            | FleetError::Rendering(_)
            | FleetError::Corrupt { .. }
            | FleetError::Invalid(_) => Exit::Invalid,
            FleetError::MassRemoval(_) | FleetError::Command(_) | FleetError::NoDrift(_) => {
                Exit::AnsweredNo
            }
            FleetError::NotFound(_) => Exit::NotFound,
            FleetError::RaceLost { .. } | FleetError::Stale(_) | FleetError::Precondition(_) => {
                Exit::RaceLost
            }
        };
        Self::new(exit, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::LocalIo, format!("cannot write the output: {error}"))
    }
}

/// The code for several hosts: the first failure speaks for all, as its message comes first.
pub(crate) fn combined(exits: impl IntoIterator<Item = Exit>) -> Exit {
    exits
        .into_iter()
        .find(|exit| *exit != Exit::Done)
        .unwrap_or(Exit::Done)
}
