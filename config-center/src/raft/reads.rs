//! Linearizable reads: how far must be applied here before a read sees everything that was
//! acknowledged anywhere before it.
//!
//! All readers that wait share one question. The next question is asked when the answer to the last
//! one is there, for those who came meanwhile: an answer never serves a reader that came after the
//! question.

use std::sync::{Arc, Weak};

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use schemas::peer as pb;
use schemas::peer::answer::Kind as Answer;
use schemas::peer::question::Kind as Question;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::error::ProposeError;
use super::node::Node;
use super::peer::NotForwarded;
use super::writes::Route;

/// Readers that wait for a question; then further ones wait to wait.
const QUEUE_DEPTH: usize = 16 * 1024;

type Reader = oneshot::Sender<Result<u64, ProposeError>>;

/// Where readers queue up.
#[derive(Debug, Clone)]
pub(super) struct ReadRounds {
    readers: mpsc::Sender<Reader>,
}

impl ReadRounds {
    /// The queue, and what must be given to [`run`].
    pub(super) fn new() -> (Self, mpsc::Receiver<Reader>) {
        let (readers, inbox) = mpsc::channel(QUEUE_DEPTH);
        (Self { readers }, inbox)
    }

    async fn index(&self) -> Result<u64, ProposeError> {
        let (reader, index) = oneshot::channel();
        self.readers
            .send(reader)
            .await
            .map_err(|_| ProposeError::Stopped)?;
        index.await.map_err(|_| ProposeError::Stopped)?
    }
}

/// Asks for the readers until the node has gone.
pub(super) async fn run(node: Weak<Node>, mut inbox: mpsc::Receiver<Reader>) {
    let mut readers = Vec::new();
    while inbox.recv_many(&mut readers, QUEUE_DEPTH).await > 0 {
        let Some(node) = node.upgrade() else { return };
        let index = node.ask_index().await;
        drop(node);
        for reader in readers.drain(..) {
            // It may have given up.
            reader.send(index).ok();
        }
    }
}

/// This member led, a moment ago.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confirmed {
    /// What a reader elsewhere must have applied.
    pub(super) index: u64,
    good_until: Instant,
}

impl Confirmed {
    /// Ask again after acting on it: a process that was stopped in between may have been replaced
    /// as the leader, and what it did then does not count.
    pub(super) fn still_holds(&self) -> bool {
        Instant::now() < self.good_until
    }
}

impl Node {
    /// Returns when the engine's state is at least as new as everything that was acknowledged
    /// before the call.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        // A lone voter that has applied an entry of its own term has applied everything that was
        // ever acknowledged: an answer is sent after the command was applied here, and nobody else
        // can commit. So there is nothing to ask.
        if self.leads_alone() {
            return Ok(());
        }
        let deadline = Instant::now() + self.request_timeout;
        let reading = async {
            let index = self.read_rounds.index().await?;
            self.mark.reached(index).await
        };
        tokio::time::timeout_at(deadline, reading)
            .await
            .map_err(|_| ProposeError::Timeout)?
    }

    /// One question, asked until somebody can answer it or its time is over.
    async fn ask_index(&self) -> Result<u64, ProposeError> {
        let deadline = Instant::now() + self.request_timeout;
        loop {
            let asked = match self.route() {
                Route::Here => tokio::time::timeout_at(deadline, self.ask_own_core()).await,
                Route::To { leader, .. } => {
                    tokio::time::timeout_at(deadline, self.ask_leader(leader)).await
                }
                Route::Nowhere => Ok(Ok(None)),
            };
            match asked {
                Ok(Ok(Some(index))) => return Ok(index),
                Ok(Ok(None)) => self.wait_for_leader(deadline).await?,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(ProposeError::Timeout),
            }
        }
    }

    /// `None` when this member does not lead.
    async fn ask_own_core(&self) -> Result<Option<u64>, ProposeError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(Some(linearizer.read_log_id().index())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Ok(None),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ProposeError::Timeout)
            }
            Err(RaftError::Fatal(_)) => Err(ProposeError::Stopped),
        }
    }

    /// `None` when the question may be asked again.
    async fn ask_leader(&self, leader: u64) -> Result<Option<u64>, ProposeError> {
        let question = Question::ReadIndex(pb::ReadIndex {});
        match self.forwarder.ask(leader, question).await {
            Ok(Answer::ReadIndex(index)) => Ok(Some(index)),
            Ok(_) | Err(NotForwarded::Refused | NotForwarded::Unknown) => Ok(None),
            Err(NotForwarded::LeaderChanged) => Ok(None),
            Err(NotForwarded::TooManyRequests) => Err(ProposeError::TooManyRequests),
            Err(NotForwarded::Timeout) => Err(ProposeError::Timeout),
        }
    }

    /// For another member's questions: this member leads now, its state holds everything that was
    /// acknowledged before, and its lease clock counts for this term.
    pub(super) async fn confirm_leadership(self: &Arc<Self>) -> Result<Confirmed, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NoLeader);
        }
        let begun = Instant::now();
        let deadline = begun + self.request_timeout;
        let confirming = async {
            if !self.leads_alone() {
                let index = self.read_rounds.index().await?;
                self.mark.reached(index).await?;
            }
            // The round may have been answered by another leader meanwhile.
            if self.take_over_leases().is_none() {
                return Err(ProposeError::NoLeader);
            }
            Ok(Confirmed {
                index: self.mark.index(),
                good_until: begun + self.timing.election,
            })
        };
        tokio::time::timeout_at(deadline, confirming)
            .await
            .map_err(|_| ProposeError::Timeout)?
    }

    /// Gives the lease its full TTL again at the leader; `None` when it is unknown or has run out.
    pub async fn renew_lease(self: &Arc<Self>, id: i64) -> Result<Option<i64>, ProposeError> {
        self.ask_about_lease(id, Question::RenewLease(id)).await
    }

    /// Whole seconds that the leader gives the lease; `None` when it is unknown.
    pub async fn lease_remaining_s(self: &Arc<Self>, id: i64) -> Result<Option<i64>, ProposeError> {
        self.ask_about_lease(id, Question::LeaseRemaining(id)).await
    }

    /// Confirms the leadership; a lease that is to be renewed is then free of what was written down
    /// about its end.
    async fn confirm_for(self: &Arc<Self>, question: &Question) -> Result<Confirmed, ProposeError> {
        if let Question::RenewLease(id) = question {
            self.forget_checkpoints(std::iter::once(*id)).await?;
        }
        self.confirm_leadership().await
    }

    async fn ask_about_lease(
        self: &Arc<Self>,
        id: i64,
        question: Question,
    ) -> Result<Option<i64>, ProposeError> {
        let deadline = Instant::now() + self.request_timeout;
        loop {
            match self.route() {
                Route::Here => match self.confirm_for(&question).await {
                    Ok(confirmed) => {
                        let engine = self.engine();
                        let answer = match question {
                            Question::RenewLease(_) => engine.lease_renew(id),
                            _ => engine.lease_remaining_s(id),
                        };
                        if confirmed.still_holds() {
                            return Ok(answer);
                        }
                    }
                    Err(ProposeError::NoLeader) => {}
                    Err(error) => return Err(error),
                },
                Route::To { leader, .. } => {
                    let asking = self.forwarder.ask(leader, question);
                    match tokio::time::timeout_at(deadline, asking).await {
                        Ok(Ok(Answer::Lease(lease))) => {
                            return Ok(lease.known.then_some(lease.ttl_s));
                        }
                        Ok(Err(NotForwarded::TooManyRequests)) => {
                            return Err(ProposeError::TooManyRequests);
                        }
                        Ok(Err(NotForwarded::Timeout)) | Err(_) => {
                            return Err(ProposeError::Timeout);
                        }
                        // A renewal may be asked twice.
                        Ok(Ok(_) | Err(_)) => {}
                    }
                }
                Route::Nowhere => {}
            }
            self.wait_for_leader(deadline).await?;
        }
    }
}
