//! Figures about the member, for Maintenance.Status and the metrics.

use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};

use super::node::Node;
use crate::metrics::{Disk, Histogram, PeerTraffic};
use crate::storage::SyncCounts;

/// Cheap to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeStatus {
    /// 0 while there is none.
    pub leader_id: u64,
    pub term: u64,
    /// The last index in the log.
    pub raft_index: u64,
    pub applied_index: u64,
    /// Proposals that wait for their answer.
    pub pending_proposals: usize,
    /// This member does not vote.
    pub is_learner: bool,
    pub db_size_bytes: i64,
    pub db_size_in_use_bytes: i64,
}

impl Node {
    /// What the quota is compared with: the data in the database and what is on its way there.
    #[must_use]
    pub fn quota_used_bytes(&self) -> u64 {
        let data = u64::try_from(self.state.sizes().data_bytes).unwrap_or(0);
        data.saturating_add(self.state.unwritten_bytes())
    }

    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let sizes = self.state.sizes();
        let data = self.raft.data_metrics();
        let last_log = data.borrow_watched().last_log;
        let term = self.server.borrow_watched().vote.leader_id.term;
        NodeStatus {
            leader_id: self.leader_id().unwrap_or(0),
            term,
            raft_index: last_log.map_or(0, |id| id.index()),
            applied_index: self.mark.index(),
            pending_proposals: self.pending.count(),
            is_learner: self.is_learner(),
            db_size_bytes: sizes.database_bytes,
            db_size_in_use_bytes: sizes.in_use_bytes,
        }
    }

    /// How long the disk has taken.
    #[must_use]
    pub fn disk(&self) -> Disk {
        let histogram = |counts: SyncCounts| Histogram {
            buckets: counts.buckets,
            count: counts.count,
            sum_s: counts.sum_s,
        };
        Disk {
            log_flush: histogram(self.log.sync_counts()),
            state_commit: histogram(self.state.commit_counts()),
        }
    }

    /// What went to and came from the other members.
    #[must_use]
    pub fn peer_traffic(&self) -> Vec<PeerTraffic> {
        self.directory.traffic()
    }

    /// The present term, for headers.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.server.borrow_watched().vote.leader_id.term
    }

    #[must_use]
    pub fn has_leader(&self) -> bool {
        self.leader_id().is_some()
    }

    /// The leader that this member is in touch with. A leader that no majority answers is none.
    pub(super) fn leader_id(&self) -> Option<u64> {
        let (leader, state) = {
            let server = self.server.borrow_watched();
            (server.current_leader?, server.state)
        };
        let silence = 2 * self.timing.election;
        if leader != self.member_id() {
            return self.contact.is_fresh(leader, silence).then_some(leader);
        }
        if state != ServerState::Leader {
            return None;
        }
        let data = self.raft.data_metrics();
        let data = data.borrow_watched();
        let is_confirmed = data
            .last_quorum_acked
            .is_some_and(|acked| acked.elapsed() < silence);
        drop(data);
        (is_confirmed || self.is_sole_voter()).then_some(leader)
    }

    /// As far as this member knows; [`Node::read_barrier`] makes sure.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.server.borrow_watched().state == ServerState::Leader
    }

    /// Whether clients are to see this member as a learner.
    #[must_use]
    pub fn is_learner(&self) -> bool {
        self.mark.is_learner()
    }

    /// Whether this member may campaign.
    pub(super) fn has_vote(&self) -> bool {
        let server = self.server.borrow_watched();
        let me = self.member_id();
        let membership = server.membership_config.membership();
        membership.voter_ids().any(|id| id == me)
    }

    pub(super) fn is_sole_voter(&self) -> bool {
        let server = self.server.borrow_watched();
        is_only(
            server.membership_config.get_joint_config(),
            self.member_id(),
        )
    }

    /// Leads, nobody else votes, and an entry of the present term has been applied.
    pub(super) fn leads_alone(&self) -> bool {
        let server = self.server.borrow_watched();
        server.state == ServerState::Leader
            && server.vote.committed
            && server.vote.leader_id.term == self.mark.term()
            && is_only(
                server.membership_config.get_joint_config(),
                self.member_id(),
            )
    }
}

fn is_only(joint: &[std::collections::BTreeSet<u64>], member_id: u64) -> bool {
    matches!(joint, [voters] if voters.len() == 1 && voters.contains(&member_id))
}
