//! An early election when the leader's process has ended.
//!
//! Followers promise a leader not to elect another one for two election timeouts after its last
//! sign of life. A process that ends resets its connections, and its host then refuses new ones: a
//! member that sees both takes its promise back and asks the others. Nothing is forced: the usual
//! pre-vote finds a majority only among members that have seen the same, and without one no term
//! changes.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;

use super::node::Node;

/// How often a member looks whether the leader's process has ended, and the pause in between: one
/// that dies closes its connections one by one, and its port may be the last.
const INQUIRIES: u32 = 30;
const INQUIRY_PAUSE: Duration = Duration::from_millis(15);

/// How often a member asks for votes before it leaves the rest to the election timeout.
const ATTEMPTS: u32 = 12;
/// Members do not ask at the same moment, or they would split the votes.
const FIRST_JITTER_MS: u64 = 40;
/// The others may notice a little later, and an election that has begun must be given its time; when
/// the votes were split all the same, it goes on from here.
const NEXT_PAUSE_MS: u64 = 60;
const NEXT_JITTER_MS: u64 = 120;

impl Node {
    /// A connection from this member broke. When it was the leader's, find out whether its process
    /// has ended.
    pub(super) fn connection_lost(self: &Arc<Self>, from: u64) {
        if self.is_stopped() || self.server.borrow_watched().current_leader != Some(from) {
            return;
        }
        // One inquiry at a time; several streams break together.
        if self.is_inquiring.swap(true, Ordering::AcqRel) {
            return;
        }
        let node = Arc::clone(self);
        tokio::spawn(async move {
            for _ in 0..INQUIRIES {
                if node.server.borrow_watched().current_leader != Some(from) {
                    break;
                }
                if node.directory.has_ended(from).await {
                    node.replace(from).await;
                    break;
                }
                tokio::time::sleep(INQUIRY_PAUSE).await;
            }
            node.is_inquiring.store(false, Ordering::Release);
        });
    }

    async fn replace(&self, leader: u64) {
        let vote = self.server.borrow_watched().vote;
        if vote.leader_id.voted_for != leader || !vote.committed {
            return;
        }
        tracing::info!(
            leader = format!("{leader:x}"),
            term = vote.leader_id.term,
            "the leader's process has ended"
        );
        self.contact.lost(leader);
        // Addressed to the one who cannot campaign: it only ends the promise to it.
        let release = TransferLeaderRequest::new(vote, leader, None);
        if self.raft.handle_transfer_leader(release).await.is_err() || !self.has_vote() {
            return;
        }
        let (mut pause_ms, mut jitter_ms) = (0, FIRST_JITTER_MS);
        for attempt in 0..ATTEMPTS {
            let random_ms = RandomState::new().hash_one(attempt) % jitter_ms;
            tokio::time::sleep(Duration::from_millis(pause_ms + random_ms)).await;
            let now = self.server.borrow_watched().current_leader;
            let is_replaced = now.is_some_and(|now| now != leader);
            if is_replaced || self.contact.is_fresh(leader, self.timing.election) {
                return;
            }
            if self.raft.trigger().elect(true).await.is_err() {
                return;
            }
            (pause_ms, jitter_ms) = (NEXT_PAUSE_MS, NEXT_JITTER_MS);
        }
    }
}
