//! Why a command was not committed, and why a member could not start, in words for the client and
//! the operator.

use std::path::PathBuf;

use config_center_core::Code;

use crate::storage::StorageError;

/// Why a command was not (or not known to be) committed, in etcd's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// InvalidArgument
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// ResourceExhausted
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// Unavailable; the command may still be committed later.
    #[error("etcdserver: request timed out")]
    Timeout,
    /// Unavailable; the command may still be committed later.
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    TimeoutLeaderFailed,
    /// Unavailable; the command may still be committed later.
    #[error("etcdserver: request timed out, possibly due to connection lost")]
    TimeoutConnectionLost,
    /// Unavailable
    #[error("etcdserver: no leader")]
    NoLeader,
    /// Unavailable; the command may still be committed later.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// Unavailable; the command may have been committed.
    #[error("etcdserver: server stopped")]
    Stopped,
}

impl ProposeError {
    /// The gRPC code by its number on the wire.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::TooLarge => Code::InvalidArgument,
            Self::TooManyRequests => Code::ResourceExhausted,
            Self::Timeout
            | Self::TimeoutLeaderFailed
            | Self::TimeoutConnectionLost
            | Self::NoLeader
            | Self::LeaderChanged
            | Self::Stopped => Code::Unavailable,
        }
    }
}

/// Why a member could not start. Each text is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "raft settings are not possible: {0}; check --heartbeat-interval and --election-timeout"
    )]
    Settings(String),
    /// The cluster that the flags describe cannot be formed or joined.
    #[error("{0}; nothing was changed")]
    Bootstrap(String),
    #[error("raft could not start on {}: {what}; nothing was changed", data_dir.display())]
    Raft { data_dir: PathBuf, what: String },
}
