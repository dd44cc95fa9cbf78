//! What follows from a change of leader: lease clocks, the end of consensus, a leader that hands
//! over before it stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use tokio::time::Instant;

use super::node::Node;

/// What this member knows about who leads.
#[derive(Debug, Default)]
pub(super) struct Leadership {
    /// When the present leader was first seen.
    since: Option<Instant>,
    leader: Option<u64>,
    /// The term in which this member, as its leader, gave every lease its full TTL.
    leases_taken_in: Option<u64>,
}

impl Node {
    /// A new leader gives every lease its full TTL, because it cannot know what is left of it; once
    /// per term, before it renews, tells or ends any. The term; `None` when this member does not
    /// lead.
    pub fn take_over_leases(&self) -> Option<u64> {
        let term = {
            let server = self.server.borrow_watched();
            if server.state != ServerState::Leader {
                return None;
            }
            server.vote.leader_id.term
        };
        let mut leadership = self.leadership.lock();
        if leadership.leases_taken_in != Some(term) {
            leadership.leases_taken_in = Some(term);
            self.engine.promote_leases();
        }
        Some(term)
    }

    /// Resolves once this member leads, or once it does not; at the end of consensus, never.
    pub async fn until_leading(&self, leading: bool) {
        let mut server = self.server.clone();
        while (server.borrow_watched().state == ServerState::Leader) != leading {
            if server.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// When the present leader was first seen here.
    pub(super) fn leader_since(&self) -> Option<Instant> {
        self.leadership.lock().since
    }

    /// Follows the changes of leader until consensus ends, which is a failure unless the member
    /// stops.
    pub(super) fn follow_leadership(self: &Arc<Self>) {
        let mut server = self.server.clone();
        let raft_metrics = self.raft.metrics();
        let failure = self.failure.clone();
        let stopping = Arc::clone(&self.stopping);
        let node = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            loop {
                {
                    let Some(node) = node.upgrade() else { return };
                    node.note_leader();
                }
                if server.changed().await.is_err() {
                    break;
                }
            }
            if !stopping.load(Ordering::Acquire) {
                let why = match &raft_metrics.borrow_watched().running_state {
                    Ok(()) => "it ended".to_owned(),
                    Err(fatal) => fatal.to_string(),
                };
                failure.report(format!(
                    "consensus stopped: {why}; nothing more is acknowledged"
                ));
            }
        });
        self.tasks.lock().push(task);
    }

    fn note_leader(&self) {
        let (leader, term) = {
            let server = self.server.borrow_watched();
            (server.current_leader, server.vote.leader_id.term)
        };
        {
            let mut leadership = self.leadership.lock();
            if leadership.leader == leader {
                return;
            }
            leadership.leader = leader;
            if leader.is_some() {
                leadership.since = Some(Instant::now());
            }
        }
        match leader {
            Some(id) if id == self.member_id() => {
                self.take_over_leases();
                tracing::info!(term, "this member is the leader");
            }
            Some(id) => tracing::info!(term, leader = format!("{id:x}"), "following a leader"),
            None => tracing::info!(term, "there is no leader"),
        }
    }

    /// A leader that stops hands over first, so that nobody waits for an election timeout.
    pub(super) async fn hand_over(&self, patience: Duration) {
        if !self.is_leader() || self.is_sole_voter() {
            return;
        }
        let Some(to) = self.most_advanced_peer() else {
            return;
        };
        tracing::info!(to = format!("{to:x}"), "handing the leadership over");
        if self.raft.trigger().transfer_leader(to).await.is_err() {
            return;
        }
        let deadline = Instant::now() + patience;
        let mut server = self.server.clone();
        while self.is_leader() {
            if !matches!(
                tokio::time::timeout_at(deadline, server.changed()).await,
                Ok(Ok(()))
            ) {
                return;
            }
        }
    }

    /// The voter that has most of the log, among those that answered lately.
    fn most_advanced_peer(&self) -> Option<u64> {
        let voters: Vec<u64> = {
            let server = self.server.borrow_watched();
            let membership = server.membership_config.membership();
            membership.voter_ids().collect()
        };
        let data = self.raft.data_metrics();
        let data = data.borrow_watched();
        let silence = 2 * self.timing.election;
        let alive = |id: &u64| {
            let heard = data.heartbeat.as_ref().and_then(|all| all.get(id));
            heard.is_some_and(|at| at.is_some_and(|at| at.elapsed() < silence))
        };
        let matched = data.replication.as_ref()?;
        voters
            .into_iter()
            .filter(|id| *id != self.member_id() && alive(id))
            .max_by_key(|id| matched.get(id).and_then(|at| at.map(|at| at.index())))
    }
}
