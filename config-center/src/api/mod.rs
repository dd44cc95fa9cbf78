//! The etcd API: translates calls into commands and reads, checks limits, gives every refusal its
//! exact code and text. Holds no state of its own; the store is behind [`Node`].

mod access;
mod gateway;
pub mod grpc;
pub(crate) mod hangup;
pub mod http;
pub mod routes;
pub mod v2;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use config_center_core::{Caller, Refusal, Reply, State, quota};
use schemas::command::command::Op;
use schemas::etcdserverpb::alarm_request::AlarmAction;
use schemas::etcdserverpb::{AlarmRequest, AlarmType, ResponseHeader};
use tokio_util::sync::CancellationToken;

use crate::auth::{PasswordError, Passwords, SignedTokens};
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::raft::{MemberFault, MemberRefusal, Node, ProposeError, Proposed};

/// What a gRPC message may weigh beyond `--max-request-bytes`: its frame and its metadata.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 512 * 1024;

/// The limits that the API enforces itself.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_txn_ops: usize,
    pub max_request_bytes: usize,
    pub watch_progress_interval: Duration,
    pub election_ms: u64,
    /// What the database may grow to; `None`: it is not limited.
    pub quota_bytes: Option<i64>,
    pub bcrypt_cost: u32,
}

impl Limits {
    /// The largest message that is read at all.
    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        self.max_request_bytes + MESSAGE_OVERHEAD_BYTES
    }
}

/// What every call shares.
pub struct Context {
    pub(crate) node: Arc<Node>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) passwords: Passwords,
    /// `None`: simple tokens.
    pub(crate) signed_tokens: Option<SignedTokens>,
    /// Cancelled when the server stops: streams end with a reason that makes clients reconnect.
    pub(crate) stopping: CancellationToken,
    cluster_id: u64,
    member_id: u64,
}

impl Context {
    #[must_use]
    pub(crate) fn new(
        node: Arc<Node>,
        metrics: Arc<Metrics>,
        limits: Limits,
        stopping: CancellationToken,
        signed_tokens: Option<SignedTokens>,
    ) -> Self {
        let (cluster_id, member_id) = (node.cluster_id(), node.member_id());
        Self {
            node,
            metrics,
            passwords: Passwords::new(limits.bcrypt_cost),
            signed_tokens,
            limits,
            stopping,
            cluster_id,
            member_id,
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.node.engine()
    }

    pub(crate) fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    pub(crate) fn member_id(&self) -> u64 {
        self.member_id
    }

    /// The header of an answer that was true at `revision`.
    pub(crate) fn header(&self, revision: i64) -> ResponseHeader {
        self.header_at(revision, self.node.term())
    }

    pub(crate) fn header_at(&self, revision: i64, raft_term: u64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term,
        }
    }

    pub(crate) fn has_leader(&self) -> bool {
        self.node.has_leader()
    }

    /// Refuses what would take the database beyond its quota, and raises the alarm that makes every
    /// member refuse it until an operator has made room and taken the alarm back.
    async fn check_room(&self, op: &Op) -> Result<(), Fault> {
        let Some(quota) = self.limits.quota_bytes else {
            return Ok(());
        };
        let cost = quota::cost_bytes(op);
        let room = u64::try_from(quota).unwrap_or(0);
        if cost == 0 || self.node.quota_used_bytes().saturating_add(cost) < room {
            return Ok(());
        }
        // Boxed: what nearly no write needs is not moved about with every one.
        Box::pin(self.raise_no_space(quota)).await;
        Err(Fault::Refused(Refusal::NoSpace))
    }

    async fn raise_no_space(&self, quota: i64) {
        let alarm = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.member_id,
            alarm: AlarmType::Nospace as i32,
        };
        let is_raised = |state: &State| {
            let alarms = state.alarms_of(alarm.alarm);
            alarms
                .iter()
                .any(|active| active.member_id == self.member_id)
        };
        if !self.engine().read(is_raised) {
            tracing::warn!(
                quota,
                "the database has reached its quota; raising an alarm"
            );
            let raised = self.node.propose(Caller::Member.command(Op::Alarm(alarm)));
            if let Err(error) = raised.await {
                // The next write that finds no room tries again.
                tracing::warn!(%error, "the alarm about the quota could not be raised");
            }
        }
    }

    /// Replicates a command that `permit` has allowed, or one of this member itself.
    pub(crate) async fn propose_as(
        &self,
        caller: &Caller,
        op: Op,
    ) -> Result<(Reply, ResponseHeader), Fault> {
        let (reply, header, _) = self.propose_indexed(caller, op).await?;
        Ok((reply, header))
    }

    /// Also answers the command's index in the log.
    pub(crate) async fn propose_indexed(
        &self,
        caller: &Caller,
        op: Op,
    ) -> Result<(Reply, ResponseHeader, u64), Fault> {
        self.check_room(&op).await?;
        match self.node.propose(caller.command(op)).await {
            Ok(Proposed {
                reply,
                revision,
                term,
                index,
            }) => Ok((
                reply.map_err(Fault::Refused)?,
                self.header_at(revision, term),
                index,
            )),
            Err(error) => {
                self.metrics
                    .proposals_failed
                    .fetch_add(1, Ordering::Relaxed);
                Err(Fault::NotProposed(error))
            }
        }
    }
}

impl From<MemberFault> for Fault {
    fn from(fault: MemberFault) -> Self {
        match fault {
            MemberFault::Refused(refusal) => Self::Member(refusal),
            MemberFault::Failed(error) => Self::NotProposed(error),
        }
    }
}

/// Why a call failed, before it becomes a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    NotProposed(#[from] ProposeError),
    #[error(transparent)]
    Member(#[from] MemberRefusal),
    #[error("etcdserver: rpc not supported for learner")]
    NotForLearner,
    #[error("etcdserver: invalid client api version")]
    ClientApiVersion,
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// There is only a key to check tokens with.
    #[error("auth: token signing attempted with verify-only key")]
    NoSigningKey,
    #[error("etcdserver: there is no older version to downgrade to")]
    NoDowngrade,
    /// The state machine answered another kind of reply than the command asks for: a bug.
    #[error("etcdserver: the command was answered by another kind of reply")]
    MismatchedReply,
}
