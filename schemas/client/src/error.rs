//! What can go wrong between a caller and the store, in sentences that name the endpoints tried.
//!
//! The variants answer the question a caller has to ask: did nothing happen, did the store say no,
//! or is it unknown whether the request was carried out?

use std::{fmt, path::PathBuf};

use tonic::Code;

/// One endpoint that was tried without success, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub endpoint: String,
    pub reason: String,
}

/// The endpoints that one call tried, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts(pub Vec<Attempt>);

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, attempt) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", attempt.endpoint, attempt.reason)?;
        }
        Ok(())
    }
}

/// Why a call did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    #[error("endpoint {endpoint:?} cannot be used: {reason}")]
    InvalidEndpoint { endpoint: String, reason: String },
    #[error("no endpoint is given: name at least one, such as http://127.0.0.1:2379")]
    NoEndpoints,
    #[error("cannot read {}: {reason}", path.display())]
    TlsFile { path: PathBuf, reason: String },
    #[error("TLS cannot be set up: {reason}")]
    Tls { reason: String },
    /// No endpoint could be reached, so the request was never carried out.
    #[error("{operation}: no endpoint answered ({attempts})")]
    Unreachable {
        operation: &'static str,
        attempts: Attempts,
    },
    /// The time was up before an answer to a request which changes nothing.
    #[error("{operation}: no answer within {timeout_ms} ms ({attempts})")]
    Timeout {
        operation: &'static str,
        timeout_ms: u64,
        attempts: Attempts,
    },
    /// A write was sent and its answer did not come: it may or may not have been applied.
    #[error("{operation}: {endpoint} may or may not have applied the write: {reason}")]
    OutcomeUnknown {
        operation: &'static str,
        endpoint: String,
        reason: String,
    },
    /// The store answered with an error; `message` is etcd's own text.
    #[error("{endpoint} refused {operation}: {message}")]
    Refused {
        operation: &'static str,
        endpoint: String,
        code: Code,
        message: String,
    },
    /// The store ended a watch. `compact_revision` above 0: history before it is gone.
    #[error("the watch was cancelled by {endpoint}: {}", cancel_words(reason, *compact_revision))]
    WatchCanceled {
        endpoint: String,
        reason: String,
        compact_revision: i64,
    },
    /// An open stream broke; open it again and resume.
    #[error("{operation}: the stream from {endpoint} ended: {reason}")]
    Disconnected {
        operation: &'static str,
        endpoint: String,
        reason: String,
    },
}

impl ClientError {
    /// The store's answer, when there was one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// True when the store asks for other credentials or forbids the request.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Refused { code, message, .. } => {
                matches!(code, Code::PermissionDenied | Code::Unauthenticated)
                    || message.contains("authentication failed")
                    || message.contains("user name is empty")
            }
            // A watch is refused in its first response, where the code is part of the text.
            Self::WatchCanceled { reason, .. } => [
                "PermissionDenied",
                "Unauthenticated",
                "user name is empty",
                "auth token",
            ]
            .iter()
            .any(|words| reason.contains(words)),
            _ => false,
        }
    }

    /// True when trying again later may help and nothing is known to be wrong with the request.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Disconnected { .. } => true,
            Self::Refused { code, .. } => {
                matches!(
                    code,
                    Code::Unavailable | Code::ResourceExhausted | Code::Internal
                )
            }
            _ => false,
        }
    }
}

fn cancel_words(reason: &str, compact_revision: i64) -> String {
    match (reason, compact_revision) {
        ("", 0) => "no reason given".to_owned(),
        ("", revision) => format!("history before revision {revision} is compacted"),
        (reason, 0) => reason.to_owned(),
        (reason, revision) => {
            format!("{reason} (history before revision {revision} is compacted)")
        }
    }
}
