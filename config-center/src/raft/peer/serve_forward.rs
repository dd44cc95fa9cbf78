//! The leader's side of a forward stream: proposals go straight into the core's queue, questions of
//! one message are answered together, and what there is to say goes back in one message.

use std::sync::Arc;

use config_center_core::lease;
use futures::Stream;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use schemas::peer as pb;
use schemas::peer::RefusalReason;
use schemas::peer::answer::Kind as Answer;
use schemas::peer::question::Kind as Question;
use tokio::sync::{Notify, Semaphore};
use tonic::Streaming;

use crate::raft::error::ProposeError;
use crate::raft::node::Node;
use crate::raft::proposer::{Refused, ReplySender};
use crate::raft::types::{Proposal, TypeConfig};

/// Messages with questions that are being answered for one member; then its stream waits.
const QUESTIONS_IN_FLIGHT: usize = 32;

/// What waits to be sent back. Bounded by what was asked: proposals by the limit at the door,
/// questions by [`QUESTIONS_IN_FLIGHT`].
#[derive(Debug, Default)]
pub(in crate::raft) struct Outbox {
    waiting: Mutex<(pb::ForwardResponse, bool)>,
    changed: Notify,
}

impl Outbox {
    pub(in crate::raft) fn refuse(&self, id: u64, reason: RefusalReason) {
        let reason = reason as i32;
        self.waiting
            .lock()
            .0
            .refusals
            .push(pb::Refusal { id, reason });
        self.changed.notify_one();
    }

    fn answer(&self, answers: Vec<pb::Answer>) {
        self.waiting.lock().0.answers.extend(answers);
        self.changed.notify_one();
    }

    fn close(&self) {
        self.waiting.lock().1 = true;
        self.changed.notify_one();
    }

    /// Everything that waits, once there is something; `None` at the end.
    async fn next(&self) -> Option<pb::ForwardResponse> {
        loop {
            {
                let mut waiting = self.waiting.lock();
                let (response, is_closed) = &mut *waiting;
                if !response.refusals.is_empty() || !response.answers.is_empty() {
                    return Some(std::mem::take(response));
                }
                if *is_closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

/// Serves one member's stream until it ends.
pub(super) fn serve(
    node: Arc<Node>,
    from: u64,
    requests: Streaming<pb::ForwardRequest>,
) -> impl Stream<Item = pb::ForwardResponse> + Send + 'static {
    let outbox = Arc::new(Outbox::default());
    let taking = Arc::clone(&outbox);
    tokio::spawn(async move {
        if let Err(status) = take(&node, requests, &taking).await {
            tracing::debug!(%status, from = format!("{from:x}"), "a forward stream ended");
        }
        taking.close();
    });
    futures::stream::unfold(outbox, |outbox| async move {
        let response = outbox.next().await?;
        Some((response, outbox))
    })
}

async fn take(
    node: &Arc<Node>,
    mut requests: Streaming<pb::ForwardRequest>,
    outbox: &Arc<Outbox>,
) -> Result<(), tonic::Status> {
    let places = Arc::new(Semaphore::new(QUESTIONS_IN_FLIGHT));
    while let Some(request) = requests.message().await? {
        for proposal in request.proposals {
            propose(node, proposal, outbox).await?;
        }
        if !request.questions.is_empty() {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return Ok(());
            };
            let (node, outbox) = (Arc::clone(node), Arc::clone(outbox));
            // One task for all that waited at the sender, so that the stream goes on meanwhile.
            tokio::spawn(async move {
                outbox.answer(answer(&node, request.questions).await);
                drop(place);
            });
        }
    }
    Ok(())
}

async fn propose(
    node: &Node,
    proposal: pb::Proposal,
    outbox: &Arc<Outbox>,
) -> Result<(), tonic::Status> {
    let id = proposal.id;
    let decoded = Proposal::decode(proposal.command)
        .map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
    let Some(place) = node.admit(decoded.encoded().len()) else {
        outbox.refuse(id, RefusalReason::TooManyRequests);
        return Ok(());
    };
    let refused = Refused {
        id,
        outbox: Arc::clone(outbox),
    };
    let responder =
        ReplySender::<ClientWriteResult<TypeConfig>>::remote(refused, judge_write, place);
    node.raft()
        .client_write_ff(decoded, Some(responder))
        .await
        .map_err(|fatal| tonic::Status::unavailable(fatal.to_string()))
}

/// What the proposer must be told; success it sees for itself.
fn judge_write(result: &ClientWriteResult<TypeConfig>) -> Option<RefusalReason> {
    match result {
        Ok(_) => None,
        Err(ClientWriteError::ForwardToLeader(_)) => Some(RefusalReason::NotLeader),
        Err(_) => Some(RefusalReason::LeaderChanged),
    }
}

/// All questions of a message share one confirmation that this member leads.
async fn answer(node: &Arc<Node>, questions: Vec<pb::Question>) -> Vec<pb::Answer> {
    let renewed = questions.iter().filter_map(|question| match question.kind {
        Some(Question::RenewLease(id)) => Some(id),
        _ => None,
    });
    let confirmed = match node.forget_checkpoints(renewed).await {
        Ok(()) => node.confirm_leadership().await,
        Err(error) => Err(error),
    };
    let mut answers: Vec<pb::Answer> = questions
        .into_iter()
        .map(|question| {
            let kind = match (&confirmed, question.kind) {
                (Err(error), _) => refused(*error),
                (Ok(_), None) => Answer::Refused(RefusalReason::Unspecified as i32),
                (Ok(confirmed), Some(Question::ReadIndex(_))) => Answer::ReadIndex(confirmed.index),
                (Ok(_), Some(Question::RenewLease(id))) => {
                    lease_answer(node.engine().lease_renew(id))
                }
                (Ok(_), Some(Question::LeaseRemaining(id))) => {
                    lease_answer(node.engine().lease_remaining_s(id))
                }
            };
            pb::Answer {
                id: question.id,
                kind: Some(kind),
            }
        })
        .collect();
    if confirmed.is_ok_and(|confirmed| !confirmed.still_holds()) {
        for answer in &mut answers {
            answer.kind = Some(refused(ProposeError::NoLeader));
        }
    }
    answers
}

fn refused(error: ProposeError) -> Answer {
    let reason = match error {
        ProposeError::TooManyRequests => RefusalReason::TooManyRequests,
        ProposeError::Timeout
        | ProposeError::TimeoutLeaderFailed
        | ProposeError::TimeoutConnectionLost => RefusalReason::Timeout,
        // Nothing was done: the asker may ask the next leader.
        _ => RefusalReason::NotLeader,
    };
    Answer::Refused(reason as i32)
}

fn lease_answer(ttl_s: Option<i64>) -> Answer {
    Answer::Lease(pb::LeaseAnswer {
        known: ttl_s.is_some(),
        ttl_s: ttl_s.unwrap_or(0).min(lease::MAX_TTL_S),
    })
}
