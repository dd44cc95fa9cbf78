//! What this member's clients ask and only the leader can do: proposals and questions, gathered
//! into one stream to the present leader.
//!
//! A proposal is answered by this member's own apply, so that its client reads its own write here;
//! the leader only speaks up when it refuses one. When the stream breaks, nobody knows what became
//! of the proposals on it: they stay until they are applied, until an entry of a later term is
//! applied (then they never will be, unless the leader comes back to them), or until their time is
//! over. None is ever sent twice.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use schemas::peer as pb;
use schemas::peer::RefusalReason;
use schemas::peer::question::Kind as Question;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::directory::Directory;
use crate::raft::types::Outcome;

/// Items that wait for the stream; then callers wait.
const QUEUE_DEPTH: usize = 16 * 1024;
/// Items that go into one message.
const MAX_ITEMS: usize = 1024;
/// Their encoded size, about.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Messages that wait for the connection.
const MESSAGES_IN_FLIGHT: usize = 16;

/// Why something did not reach the leader, or came back from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::raft) enum NotForwarded {
    /// It was certainly not carried out: it may be sent again.
    Refused,
    TooManyRequests,
    /// It may have been carried out.
    Unknown,
    LeaderChanged,
    Timeout,
}

/// What was applied of one's own proposal.
#[derive(Debug)]
pub(in crate::raft) struct Forwarded {
    pub(in crate::raft) outcome: Outcome,
    pub(in crate::raft) term: u64,
}

type Answered = oneshot::Sender<Result<Forwarded, NotForwarded>>;

/// Proposals of this member that it waits to see applied.
#[derive(Debug)]
pub(in crate::raft) struct Awaiting {
    /// Begins anywhere, so that entries of an earlier life of this process are no answers.
    next_id: AtomicU64,
    /// By id, with the term of the leader that it was sent to.
    waiting: Mutex<FxHashMap<u64, (u64, Answered)>>,
}

impl Default for Awaiting {
    fn default() -> Self {
        Self {
            next_id: AtomicU64::new(RandomState::new().hash_one("origin") | 1),
            waiting: Mutex::default(),
        }
    }
}

impl Awaiting {
    pub(in crate::raft) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits for a proposal that goes to the leader of this term.
    pub(in crate::raft) fn expect(
        self: &Arc<Self>,
        id: u64,
        term: u64,
    ) -> (oneshot::Receiver<Result<Forwarded, NotForwarded>>, Expected) {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(id, (term, answer));
        let expected = Expected {
            awaiting: Arc::clone(self),
            id,
        };
        (answered, expected)
    }

    /// The proposal was applied here.
    pub(in crate::raft) fn applied(&self, id: u64, outcome: Outcome, term: u64) {
        if let Some((_, answer)) = self.waiting.lock().remove(&id) {
            // The client may have gone.
            drop(answer.send(Ok(Forwarded { outcome, term })));
        }
    }

    fn failed(&self, id: u64, why: NotForwarded) {
        if let Some((_, answer)) = self.waiting.lock().remove(&id) {
            drop(answer.send(Err(why)));
        }
    }

    /// An entry of this term was applied: what was sent to leaders of earlier terms and is not here
    /// yet was lost with them.
    pub(in crate::raft) fn term_began(&self, term: u64) {
        let lost: Vec<Answered> = {
            let mut waiting = self.waiting.lock();
            waiting
                .extract_if(|_, (sent_in, _)| *sent_in < term)
                .map(|(_, (_, answer))| answer)
                .collect()
        };
        for answer in lost {
            drop(answer.send(Err(NotForwarded::LeaderChanged)));
        }
    }

    /// A snapshot took the place of entries: nobody knows which of the proposals were among them.
    pub(in crate::raft) fn overtaken(&self) {
        let unknown: Vec<_> = self.waiting.lock().drain().collect();
        for (_, (_, answer)) in unknown {
            drop(answer.send(Err(NotForwarded::Unknown)));
        }
    }

    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.waiting.lock().is_empty()
    }
}

/// Forgets the proposal when its caller does.
pub(in crate::raft) struct Expected {
    awaiting: Arc<Awaiting>,
    id: u64,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.awaiting.waiting.lock().remove(&self.id);
    }
}

type AnswerKind = pb::answer::Kind;

enum Item {
    Proposal {
        to: u64,
        id: u64,
        command: Bytes,
    },
    Question {
        to: u64,
        question: Question,
        answer: oneshot::Sender<Result<AnswerKind, NotForwarded>>,
    },
}

/// The way to the leader. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::raft) struct Forwarder {
    items: mpsc::Sender<Item>,
}

impl Forwarder {
    /// Starts the task that owns the stream; it ends when the last handle is dropped.
    pub(in crate::raft) fn start(directory: Arc<Directory>, awaiting: Arc<Awaiting>) -> Self {
        let (items, inbox) = mpsc::channel(QUEUE_DEPTH);
        let sending = Sending {
            directory,
            awaiting,
            inbox,
            session: None,
        };
        tokio::spawn(sending.run());
        Self { items }
    }

    /// Sends a proposal that [`Awaiting::expect`] was told of.
    pub(in crate::raft) async fn propose(&self, to: u64, id: u64, command: Bytes) {
        // A closed queue means that the member stops; its caller's time ends then.
        drop(self.items.send(Item::Proposal { to, id, command }).await);
    }

    pub(in crate::raft) async fn ask(
        &self,
        to: u64,
        question: Question,
    ) -> Result<AnswerKind, NotForwarded> {
        let (answer, answered) = oneshot::channel();
        let item = Item::Question {
            to,
            question,
            answer,
        };
        self.items
            .send(item)
            .await
            .map_err(|_| NotForwarded::Unknown)?;
        answered.await.map_err(|_| NotForwarded::Unknown)?
    }
}

/// The task that owns the stream.
struct Sending {
    directory: Arc<Directory>,
    awaiting: Arc<Awaiting>,
    inbox: mpsc::Receiver<Item>,
    session: Option<Session>,
}

/// One stream to one leader.
struct Session {
    to: u64,
    messages: mpsc::Sender<pb::ForwardRequest>,
    shared: Arc<Shared>,
    next_question: u64,
}

#[derive(Default)]
struct Shared {
    questions: Mutex<FxHashMap<u64, oneshot::Sender<Result<AnswerKind, NotForwarded>>>>,
    has_ended: AtomicBool,
}

impl Sending {
    async fn run(mut self) {
        let mut items = Vec::with_capacity(MAX_ITEMS);
        while self.inbox.recv_many(&mut items, MAX_ITEMS).await > 0 {
            let mut waiting = items.drain(..).peekable();
            while let Some(first) = waiting.peek() {
                let to = first.to();
                // Commonly all of them go to the same leader, in one message.
                let mut batch = Vec::new();
                let mut bytes = 0;
                while bytes < MAX_MESSAGE_BYTES
                    && let Some(item) = waiting.next_if(|item| item.to() == to)
                {
                    bytes += item.size_bytes();
                    batch.push(item);
                }
                Self::send(
                    &self.directory,
                    &self.awaiting,
                    &mut self.session,
                    to,
                    batch,
                )
                .await;
            }
        }
    }

    async fn send(
        directory: &Directory,
        awaiting: &Arc<Awaiting>,
        session: &mut Option<Session>,
        to: u64,
        batch: Vec<Item>,
    ) {
        if session
            .as_ref()
            .is_none_or(|s| s.to != to || s.shared.has_ended.load(Ordering::Acquire))
        {
            *session = open(directory, awaiting, to).await;
        }
        let Some(open) = session else {
            refuse(awaiting, batch);
            return;
        };
        let message = open.message(batch);
        if let Err(unsent) = open.messages.send(message).await {
            // It never left this process.
            for proposal in unsent.0.proposals {
                awaiting.failed(proposal.id, NotForwarded::Refused);
            }
            for question in unsent.0.questions {
                open.shared.answer(question.id, Err(NotForwarded::Refused));
            }
            *session = None;
        }
    }
}

fn refuse(awaiting: &Awaiting, batch: Vec<Item>) {
    for item in batch {
        match item {
            Item::Proposal { id, .. } => awaiting.failed(id, NotForwarded::Refused),
            Item::Question { answer, .. } => drop(answer.send(Err(NotForwarded::Refused))),
        }
    }
}

async fn open(directory: &Directory, awaiting: &Arc<Awaiting>, to: u64) -> Option<Session> {
    let remote = directory.get(to)?;
    let (messages, outgoing) = mpsc::channel(MESSAGES_IN_FLIGHT);
    let request = remote.stamp.on(ReceiverStream::new(outgoing));
    let mut client = remote.client();
    let opening = tokio::time::timeout(remote.timing.election, client.forward(request));
    let answers = match opening.await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            tracing::debug!(%status, leader = format!("{to:x}"), "no way to the leader");
            return None;
        }
        Err(_) => return None,
    };
    let shared = Arc::new(Shared::default());
    tokio::spawn(listen(answers, Arc::clone(awaiting), Arc::clone(&shared)));
    Some(Session {
        to,
        messages,
        shared,
        next_question: 0,
    })
}

/// Hands the leader's answers on until the stream ends.
async fn listen(
    mut answers: Streaming<pb::ForwardResponse>,
    awaiting: Arc<Awaiting>,
    shared: Arc<Shared>,
) {
    while let Ok(Some(response)) = answers.message().await {
        for refusal in response.refusals {
            awaiting.failed(refusal.id, reason(refusal.reason));
        }
        for answer in response.answers {
            let outcome = match answer.kind {
                Some(AnswerKind::Refused(why)) => Err(reason(why)),
                Some(kind) => Ok(kind),
                None => Err(NotForwarded::Unknown),
            };
            shared.answer(answer.id, outcome);
        }
    }
    shared.has_ended.store(true, Ordering::Release);
    // Questions change nothing, so whoever asked may ask again.
    let unanswered: Vec<_> = shared.questions.lock().drain().collect();
    for (_, answer) in unanswered {
        answer.send(Err(NotForwarded::Refused)).ok();
    }
}

fn reason(code: i32) -> NotForwarded {
    match RefusalReason::try_from(code) {
        Ok(RefusalReason::NotLeader) => NotForwarded::Refused,
        Ok(RefusalReason::TooManyRequests) => NotForwarded::TooManyRequests,
        Ok(RefusalReason::LeaderChanged) => NotForwarded::LeaderChanged,
        Ok(RefusalReason::Timeout) => NotForwarded::Timeout,
        Ok(RefusalReason::Unspecified) | Err(_) => NotForwarded::Unknown,
    }
}

impl Shared {
    fn answer(&self, id: u64, outcome: Result<AnswerKind, NotForwarded>) {
        if let Some(answer) = self.questions.lock().remove(&id) {
            answer.send(outcome).ok();
        }
    }
}

impl Session {
    fn message(&mut self, batch: Vec<Item>) -> pb::ForwardRequest {
        let mut message = pb::ForwardRequest::default();
        for item in batch {
            match item {
                Item::Proposal { id, command, .. } => {
                    message.proposals.push(pb::Proposal { id, command });
                }
                Item::Question {
                    question, answer, ..
                } => {
                    let id = self.next_question;
                    self.next_question += 1;
                    self.shared.questions.lock().insert(id, answer);
                    message.questions.push(pb::Question {
                        id,
                        kind: Some(question),
                    });
                }
            }
        }
        // The listener may have ended before these were entered.
        if self.shared.has_ended.load(Ordering::Acquire) {
            for question in &message.questions {
                self.shared.answer(question.id, Err(NotForwarded::Refused));
            }
        }
        message
    }
}

impl Item {
    fn to(&self) -> u64 {
        match self {
            Self::Proposal { to, .. } | Self::Question { to, .. } => *to,
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Proposal { command, .. } => command.len() + 16,
            Self::Question { .. } => 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_proposal_is_answered_once_by_apply_or_by_a_later_term() {
        let awaiting = Arc::new(Awaiting::default());
        let ids = [awaiting.next_id(), awaiting.next_id(), awaiting.next_id()];
        let (applied, _a) = awaiting.expect(ids[0], 4);
        let (lost, _b) = awaiting.expect(ids[1], 4);
        let (later, _c) = awaiting.expect(ids[2], 5);
        awaiting.applied(ids[0], Outcome::Nothing, 4);
        awaiting.applied(12345, Outcome::Nothing, 4);
        awaiting.term_began(5);
        assert_eq!(applied.await.unwrap().unwrap().term, 4);
        assert_eq!(
            lost.await.unwrap().unwrap_err(),
            NotForwarded::LeaderChanged
        );
        assert!(!awaiting.is_idle());
        awaiting.applied(ids[2], Outcome::Nothing, 5);
        assert_eq!(later.await.unwrap().unwrap().term, 5);
        assert!(awaiting.is_idle());
    }

    #[tokio::test]
    async fn a_caller_that_went_away_leaves_nothing_behind() {
        let awaiting = Arc::new(Awaiting::default());
        let (_answer, expected) = awaiting.expect(1, 1);
        drop(expected);
        assert!(awaiting.is_idle());
    }
}
