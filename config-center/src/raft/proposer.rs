//! From a command to an answer: the limits at the door, and the responder that carries the answer
//! from the state machine straight to the caller.
//!
//! There is no task of our own in between. Proposals that wait in the core's queue are merged by
//! openraft into one append, so the queue is bounded here, by number and by bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use openraft::OptionalSend;
use openraft::raft::responder::Responder;
use schemas::peer::RefusalReason;
use tokio::sync::oneshot;

use super::peer::Outbox;
use super::types::TypeConfig;

/// Proposals that are not answered yet; the next one is refused with "too many requests".
pub(super) const MAX_PENDING: usize = 16 * 1024;

/// Their encoded size.
pub(super) const MAX_PENDING_BYTES: usize = 256 * 1024 * 1024;

/// What has been proposed and not been answered.
#[derive(Debug, Default)]
pub(super) struct Pending {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

impl Pending {
    /// Takes a place for a proposal of this size, unless there is none.
    pub(super) fn admit(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        let place = Place {
            pending: Arc::clone(self),
            bytes,
        };
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Refused: dropping the place gives it back.
        (count < MAX_PENDING && before + bytes <= MAX_PENDING_BYTES).then_some(place)
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// One admitted proposal. It lives as long as its responder: a caller that went away does not make
/// room before the core has let go of the command.
#[derive(Debug)]
pub(super) struct Place {
    pending: Arc<Pending>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.count.fetch_sub(1, Ordering::Relaxed);
        self.pending.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Carries the outcome to whoever proposed. When openraft drops it unanswered, a caller of this
/// member sees a closed channel at once; another member sees by its own apply or its own clock.
pub(super) struct ReplySender<T> {
    to: To<T>,
    _place: Place,
}

enum To<T> {
    /// A caller of this member.
    Caller(oneshot::Sender<T>),
    /// Another member, which is told only what it cannot see for itself.
    Member {
        refused: Refused,
        judge: fn(&T) -> Option<RefusalReason>,
    },
}

/// Where another member's proposal is refused.
pub(super) struct Refused {
    /// The proposal's id on its stream.
    pub(super) id: u64,
    pub(super) outbox: Arc<Outbox>,
}

impl<T> ReplySender<T> {
    pub(super) fn new(place: Place) -> (Self, oneshot::Receiver<T>) {
        let (answer, answered) = oneshot::channel();
        let sender = Self {
            to: To::Caller(answer),
            _place: place,
        };
        (sender, answered)
    }

    pub(super) fn remote(
        refused: Refused,
        judge: fn(&T) -> Option<RefusalReason>,
        place: Place,
    ) -> Self {
        Self {
            to: To::Member { refused, judge },
            _place: place,
        }
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for ReplySender<T> {
    fn on_complete(self, result: T) {
        match self.to {
            // The caller may have timed out; the command was carried out all the same.
            To::Caller(answer) => drop(answer.send(result)),
            To::Member { refused, judge } => {
                if let Some(reason) = judge(&result) {
                    refused.outbox.refuse(refused.id, reason);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_run_out_by_number_and_by_bytes_and_come_back() {
        let pending = Arc::new(Pending::default());
        let mut places: Vec<Place> = (0..MAX_PENDING)
            .map(|_| pending.admit(1).unwrap())
            .collect();
        assert!(pending.admit(1).is_none());
        assert_eq!(pending.count(), MAX_PENDING);
        places.truncate(1);
        assert!(pending.admit(MAX_PENDING_BYTES).is_none());
        assert!(pending.admit(MAX_PENDING_BYTES - 1).is_some());
        drop(places);
        assert_eq!(pending.count(), 0);
        assert!(pending.admit(MAX_PENDING_BYTES).is_some());
    }

    #[tokio::test]
    async fn a_dropped_responder_is_an_error_and_no_hang() {
        let pending = Arc::new(Pending::default());
        let (sender, answered) = ReplySender::<u8>::new(pending.admit(1).unwrap());
        drop(sender);
        assert!(answered.await.is_err());
        assert_eq!(pending.count(), 0);
    }
}
