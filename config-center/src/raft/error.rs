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

/// Why a change of membership, or of leader, is not possible; in etcd's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberRefusal {
    #[error("etcdserver: given member URLs are invalid")]
    BadUrls,
    #[error("etcdserver: member not found")]
    NotFound,
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    #[error("etcdserver: not leader")]
    NotLeader,
    #[error("etcdserver: bad leader transferee")]
    BadTransferee,
    #[error("etcdserver: request timed out, leader transfer took too long")]
    TransferTimeout,
}

impl MemberRefusal {
    const ALL: [Self; 11] = [
        Self::BadUrls,
        Self::NotFound,
        Self::PeerUrlExists,
        Self::NotEnoughStarted,
        Self::NotLearner,
        Self::LearnerNotReady,
        Self::TooManyLearners,
        Self::Unhealthy,
        Self::NotLeader,
        Self::BadTransferee,
        Self::TransferTimeout,
    ];

    /// The refusal of this text, as another member sent it.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|refusal| refusal.to_string() == text)
    }

    /// The gRPC code by its number on the wire.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::BadUrls => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::PeerUrlExists
            | Self::NotEnoughStarted
            | Self::NotLearner
            | Self::LearnerNotReady
            | Self::TooManyLearners
            | Self::NotLeader
            | Self::BadTransferee => Code::FailedPrecondition,
            Self::Unhealthy => Code::Unavailable,
            Self::TransferTimeout => Code::Unknown,
        }
    }
}

/// Why a change of membership was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberFault {
    #[error(transparent)]
    Refused(#[from] MemberRefusal),
    #[error(transparent)]
    Failed(#[from] ProposeError),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_its_way_as_text() {
        for refusal in MemberRefusal::ALL {
            assert_eq!(
                MemberRefusal::from_text(&refusal.to_string()),
                Some(refusal)
            );
        }
        assert_eq!(MemberRefusal::from_text("something else"), None);
    }
}
