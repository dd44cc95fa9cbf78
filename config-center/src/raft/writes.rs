//! Proposals: through this member's core when it leads, through the leader's otherwise.

use bytes::Bytes;
use config_center_core::{Refusal, Reply};
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use prost::Message as _;
use schemas::command::Command;
use schemas::command::command::Op;
use tokio::time::Instant;

use super::error::ProposeError;
use super::node::Node;
use super::peer::NotForwarded;
use super::proposer::{Place, ReplySender};
use super::types::{COMMAND_VERSION, Outcome, Proposal, TypeConfig};

/// A committed and applied command.
#[derive(Debug)]
pub struct Proposed {
    pub reply: Result<Reply, Refusal>,
    /// The store's revision after the command.
    pub revision: i64,
    pub term: u64,
    /// The command's index in the log.
    pub index: u64,
}

/// A proposal as one attempt left it.
enum Attempt {
    Done(Proposed),
    /// It is certainly not in the log.
    NotProposed(Proposal),
}

impl Node {
    /// Replicates a command and answers with what it did. `version` and origin are filled in here.
    pub async fn propose(&self, mut command: Command) -> Result<Proposed, ProposeError> {
        command.version = COMMAND_VERSION;
        let physical_compaction = match &command.op {
            Some(Op::Compaction(request)) if request.physical => Some(request.revision),
            _ => None,
        };
        let encoded = Bytes::from(command.encode_to_vec());
        if encoded.len() > self.max_request_bytes {
            return Err(ProposeError::TooLarge);
        }
        // Read back from its own bytes: what came from the network is a slice of a buffer that would
        // stay for as long as the entry is in memory.
        drop(command);
        let proposal = Proposal::decode(encoded).map_err(|_| ProposeError::Stopped)?;
        let begun = Instant::now();
        let deadline = begun + self.request_timeout;
        let proposed = tokio::time::timeout_at(deadline, self.write(proposal, deadline))
            .await
            .unwrap_or(Err(ProposeError::Timeout))
            .map_err(|error| self.explain(error, begun))?;
        if let Some(revision) = physical_compaction
            && proposed.reply.is_ok()
        {
            Box::pin(self.state.purged(revision))
                .await
                .map_err(|_| ProposeError::Stopped)?;
        }
        Ok(proposed)
    }

    async fn write(
        &self,
        mut proposal: Proposal,
        deadline: Instant,
    ) -> Result<Proposed, ProposeError> {
        loop {
            let attempt = match self.route() {
                Route::Here => self.write_here(proposal).await?,
                Route::To { leader, term } => {
                    Box::pin(self.write_at(leader, term, proposal)).await?
                }
                Route::Nowhere => Attempt::NotProposed(proposal),
            };
            match attempt {
                Attempt::Done(proposed) => return Ok(proposed),
                Attempt::NotProposed(back) => proposal = back,
            }
            Box::pin(self.wait_for_leader(deadline)).await?;
        }
    }

    /// Replicates what this member has decided as the leader of this term; nobody carries it out in
    /// a later one.
    pub async fn propose_as_leader_of(
        &self,
        term: u64,
        mut command: Command,
    ) -> Result<Proposed, ProposeError> {
        command.version = COMMAND_VERSION;
        let encoded = Bytes::from(command.encode_to_vec());
        let leader = self.raft.as_leader().map_err(|_| ProposeError::NoLeader)?;
        if leader.term() != term {
            return Err(ProposeError::NoLeader);
        }
        let place = self
            .admit(encoded.len())
            .ok_or(ProposeError::TooManyRequests)?;
        let (responder, answered) = ReplySender::<ClientWriteResult<TypeConfig>>::new(place);
        self.raft
            .write(Proposal::new(encoded, command))
            .with_leader(leader.to_committed_leader_id())
            .responder(responder)
            .await
            .map_err(|_| ProposeError::Stopped)?;
        let answer = tokio::time::timeout(self.request_timeout, answered).await;
        match answer.map_err(|_| ProposeError::Timeout)? {
            Ok(Ok(response)) => {
                let term = response.log_id.committed_leader_id().term;
                done(response.data, term)
            }
            Ok(Err(_)) => Err(ProposeError::LeaderChanged),
            Err(_) => Err(ProposeError::Stopped),
        }
    }

    /// A place for one more proposal, unless too many wait.
    pub(super) fn admit(&self, bytes: usize) -> Option<Place> {
        self.pending.admit(bytes)
    }

    async fn write_here(&self, proposal: Proposal) -> Result<Attempt, ProposeError> {
        let place = self
            .admit(proposal.encoded().len())
            .ok_or(ProposeError::TooManyRequests)?;
        let (responder, answered) = ReplySender::<ClientWriteResult<TypeConfig>>::new(place);
        self.raft
            .client_write_ff(proposal.clone(), Some(responder))
            .await
            .map_err(|_| ProposeError::Stopped)?;
        match answered.await {
            Ok(Ok(response)) => {
                let term = response.log_id.committed_leader_id().term;
                done(response.data, term).map(Attempt::Done)
            }
            // Refused before it was appended, so it may be proposed again.
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Ok(Attempt::NotProposed(proposal)),
            Ok(Err(_)) => Err(ProposeError::LeaderChanged),
            Err(_) if self.is_stopped() => Err(ProposeError::Stopped),
            Err(_) => Err(ProposeError::LeaderChanged),
        }
    }

    async fn write_at(
        &self,
        leader: u64,
        term: u64,
        proposal: Proposal,
    ) -> Result<Attempt, ProposeError> {
        let id = self.awaiting.next_id();
        let mut command = proposal.command().clone();
        command.origin_member = self.member_id();
        command.origin_id = id;
        let encoded = Bytes::from(command.encode_to_vec());
        let place = self
            .admit(encoded.len())
            .ok_or(ProposeError::TooManyRequests)?;
        let (answered, _expected) = self.awaiting.expect(id, term);
        self.forwarder.propose(leader, id, encoded).await;
        let answer = answered.await;
        drop(place);
        match answer {
            Ok(Ok(applied)) => done(applied.outcome, applied.term).map(Attempt::Done),
            Ok(Err(NotForwarded::Refused)) => Ok(Attempt::NotProposed(proposal)),
            Ok(Err(NotForwarded::TooManyRequests)) => Err(ProposeError::TooManyRequests),
            Ok(Err(NotForwarded::Timeout)) => Err(ProposeError::Timeout),
            Ok(Err(NotForwarded::LeaderChanged | NotForwarded::Unknown)) => {
                Err(ProposeError::LeaderChanged)
            }
            Err(_) => Err(ProposeError::Stopped),
        }
    }

    pub(super) fn route(&self) -> Route {
        if self.is_leader() {
            return Route::Here;
        }
        match self.leader_id() {
            Some(leader) if leader != self.member_id() => Route::To {
                leader,
                term: self.term(),
            },
            _ => Route::Nowhere,
        }
    }

    /// Returns when there is a leader to try, here or elsewhere; never at once, so that callers may
    /// loop.
    pub(super) async fn wait_for_leader(&self, deadline: Instant) -> Result<(), ProposeError> {
        let mut server = self.server.clone();
        loop {
            if self.is_stopped() {
                return Err(ProposeError::Stopped);
            }
            // The metrics do not tell when a leader is heard again: look soon in any case.
            let tick = deadline.min(Instant::now() + LEADER_TICK);
            if let Ok(Err(_)) = tokio::time::timeout_at(tick, changed(&mut server)).await {
                return Err(ProposeError::Stopped);
            }
            if !matches!(self.route(), Route::Nowhere) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ProposeError::Timeout);
            }
        }
    }

    /// A timeout in the words that say most about its cause.
    fn explain(&self, error: ProposeError, begun: Instant) -> ProposeError {
        if error != ProposeError::Timeout {
            return error;
        }
        let lost_before = 2 * self.timing.election;
        match self.leader_since() {
            Some(since) if begun < since && begun + lost_before > since => {
                ProposeError::TimeoutLeaderFailed
            }
            _ if self.is_leader() && !self.has_leader() => ProposeError::TimeoutConnectionLost,
            _ => error,
        }
    }
}

/// How long a change that the metrics do not tell may go unnoticed.
const LEADER_TICK: std::time::Duration = std::time::Duration::from_millis(10);

async fn changed(
    server: &mut super::node::ServerMetrics,
) -> Result<(), impl std::fmt::Debug + use<>> {
    use openraft::async_runtime::WatchReceiver as _;
    server.changed().await
}

fn done(outcome: Outcome, term: u64) -> Result<Proposed, ProposeError> {
    match outcome {
        Outcome::Command {
            reply,
            revision,
            index,
        } => Ok(Proposed {
            reply,
            revision,
            term,
            index,
        }),
        // A command is never applied as anything else.
        Outcome::Nothing => Err(ProposeError::Stopped),
    }
}

/// Who can put a proposal into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Here,
    To { leader: u64, term: u64 },
    Nowhere,
}
