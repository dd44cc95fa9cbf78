//! Changes of membership, one at a time, decided by the leader.
//!
//! A member that is added to vote begins as a learner and gets its vote when it has caught up: a
//! member that is slow to start, or never does, takes nobody's majority away. Clients see it as a
//! voting member from the beginning, as etcd shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{Instant as _, ServerState};
use schemas::etcdserverpb::Member;
use schemas::peer::change_members_request::Change;
use tokio::time::Instant;

use super::error::{MemberFault, MemberRefusal, ProposeError};
use super::identity;
use super::node::Node;
use super::types::PeerNode;
use super::writes::Route;

/// A learner that is this many entries behind, or fewer, keeps up.
const READY_LAG: u64 = 512;

/// etcd promotes a learner that has this share of the leader's log. In a short log that would be
/// all of it, so a few entries are never too many.
const READY_PERCENT: u64 = 90;
const SHORT_LAG: u64 = 16;

/// How often the leader looks after members that wait for their vote, and unfinished changes.
const STEWARD_PAUSE: Duration = Duration::from_millis(100);

/// Between two attempts while another change is under way.
const IN_PROGRESS_PAUSE: Duration = Duration::from_millis(10);

/// How often a transfer that nobody took up is started again.
const TRANSFER_PAUSE: Duration = Duration::from_secs(1);

/// What a change has led to.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangedMembers {
    /// Of a member that was added.
    pub member_id: u64,
    pub members: Vec<Member>,
    /// The change's place in the log.
    pub(super) applied_index: u64,
}

impl Node {
    /// Carries a change out, here or at the leader. Returns when it has been applied here.
    pub async fn change_members(
        self: &Arc<Self>,
        change: Change,
    ) -> Result<ChangedMembers, MemberFault> {
        let deadline = Instant::now() + self.request_timeout;
        let changing = async {
            loop {
                let outcome = match self.route() {
                    Route::Here => self.change_members_here(&change, deadline).await,
                    Route::To { leader, .. } => {
                        self.directory.change_members(leader, change.clone()).await
                    }
                    Route::Nowhere => Err(ProposeError::NoLeader.into()),
                };
                match outcome {
                    Err(MemberFault::Failed(ProposeError::NoLeader)) => {
                        self.wait_for_leader(deadline).await?;
                    }
                    other => break other,
                }
            }
        };
        let changed = tokio::time::timeout_at(deadline, changing)
            .await
            .map_err(|_| ProposeError::Timeout)??;
        tokio::time::timeout_at(deadline, self.mark.reached(changed.applied_index))
            .await
            .map_err(|_| ProposeError::Timeout)??;
        Ok(changed)
    }

    /// The leader's part. `NoLeader` means that nothing was done and another member leads.
    pub(super) async fn change_members_here(
        self: &Arc<Self>,
        change: &Change,
        deadline: Instant,
    ) -> Result<ChangedMembers, MemberFault> {
        let _alone = self.changing.lock().await;
        self.confirm_leadership().await?;
        let members = self.members();
        let mut member_id = 0;
        let change = match change {
            Change::Add(add) => {
                check_urls(&add.peer_ur_ls)?;
                self.may_add(&members, add.is_learner)?;
                if members.iter().any(|m| shares_url(m, &add.peer_ur_ls)) {
                    return Err(MemberRefusal::PeerUrlExists.into());
                }
                let learners = members.iter().filter(|m| m.is_learner).count();
                if add.is_learner && learners >= self.reconfiguration.max_learners {
                    return Err(MemberRefusal::TooManyLearners.into());
                }
                member_id = self.new_member_id(&add.peer_ur_ls);
                let node = PeerNode {
                    peer_urls: add.peer_ur_ls.clone(),
                    votes_when_ready: !add.is_learner,
                };
                ChangeMembers::AddNodes(BTreeMap::from([(member_id, node)]))
            }
            Change::Remove(remove) => {
                let member = find(&members, remove.id)?;
                self.may_remove(&members, member)?;
                if self.is_voter(remove.id) {
                    ChangeMembers::RemoveVoters(BTreeSet::from([remove.id]))
                } else {
                    ChangeMembers::RemoveNodes(BTreeSet::from([remove.id]))
                }
            }
            Change::Update(update) => {
                let member = find(&members, update.id)?;
                check_urls(&update.peer_ur_ls)?;
                let taken = |m: &&Member| m.id != update.id && shares_url(m, &update.peer_ur_ls);
                if members.iter().find(taken).is_some() {
                    return Err(MemberRefusal::PeerUrlExists.into());
                }
                let node = PeerNode {
                    peer_urls: update.peer_ur_ls.clone(),
                    votes_when_ready: !member.is_learner,
                };
                ChangeMembers::SetNodes(BTreeMap::from([(update.id, node)]))
            }
            Change::Promote(promote) => {
                let member = find(&members, promote.id)?;
                if !self.has_caught_up(promote.id, READY_PERCENT) {
                    return Err(MemberRefusal::LearnerNotReady.into());
                }
                self.may_promote(&members)?;
                if !member.is_learner {
                    return Err(MemberRefusal::NotLearner.into());
                }
                ChangeMembers::AddVoterIds(BTreeSet::from([promote.id]))
            }
        };
        let applied_index = self.write_membership(change, deadline).await?;
        self.mark.reached(applied_index).await?;
        Ok(ChangedMembers {
            member_id,
            members: self.members(),
            applied_index,
        })
    }

    /// Puts the change through the log, both of its steps; returns the place of the last one.
    async fn write_membership(
        &self,
        change: ChangeMembers<u64, PeerNode>,
        deadline: Instant,
    ) -> Result<u64, ProposeError> {
        loop {
            // Removed voters leave for good; learners are not concerned.
            match self.raft.change_membership(change.clone(), false).await {
                Ok(written) => return Ok(written.log_id.index()),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                    return Err(ProposeError::NoLeader);
                }
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_)
                    | ChangeMembershipError::UncommittedLeaderLog(_),
                ))) if Instant::now() < deadline => tokio::time::sleep(IN_PROGRESS_PAUSE).await,
                Err(RaftError::APIError(error)) => {
                    tracing::warn!(%error, "a change of membership was not carried out");
                    return Err(ProposeError::LeaderChanged);
                }
                Err(RaftError::Fatal(_)) => return Err(ProposeError::Stopped),
            }
        }
    }

    /// Never that of a member that is or was there.
    fn new_member_id(&self, peer_urls: &[String]) -> u64 {
        loop {
            let now = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            let moment = now.as_nanos().to_string();
            let id = identity::joining_member_id(self.cluster_id(), peer_urls, &moment);
            let membership = self.mark.membership();
            if membership.membership().get_node(&id).is_none() && !self.was_removed(id) {
                return id;
            }
        }
    }

    fn may_add(&self, members: &[Member], is_learner: bool) -> Result<(), MemberRefusal> {
        if !self.reconfiguration.is_strict {
            return Ok(());
        }
        let (voting, started) = count_voting(members, None);
        // One that stands alone may always get a second one.
        let restores = started == 1 && voting == 1;
        if !is_learner && !restores && started < quorum(voting + 1) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        if voting > 1 && self.count_connected(members) < quorum(voting + 1) {
            return Err(MemberRefusal::Unhealthy);
        }
        Ok(())
    }

    fn may_remove(&self, members: &[Member], member: &Member) -> Result<(), MemberRefusal> {
        if !self.reconfiguration.is_strict || member.is_learner {
            return Ok(());
        }
        let (voting, started) = count_voting(members, Some(member.id));
        if started < quorum(voting) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        // One that is down counts for no majority already.
        if !self.is_connected(member.id) {
            return Ok(());
        }
        let (voting, _) = count_voting(members, None);
        if self.count_connected(members).saturating_sub(1) < 1 + voting.saturating_sub(1) / 2 {
            return Err(MemberRefusal::Unhealthy);
        }
        Ok(())
    }

    fn may_promote(&self, members: &[Member]) -> Result<(), MemberRefusal> {
        let (voting, started) = count_voting(members, None);
        if self.reconfiguration.is_strict && started + 1 < quorum(voting + 1) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        Ok(())
    }

    fn count_connected(&self, members: &[Member]) -> usize {
        let voting = members.iter().filter(|m| !m.is_learner);
        voting.filter(|m| self.is_connected(m.id)).count()
    }

    /// Whether the member answered this leader lately.
    pub(super) fn is_connected(&self, id: u64) -> bool {
        if id == self.member_id() {
            return true;
        }
        let data = self.raft.data_metrics();
        let data = data.borrow_watched();
        let answered = data.heartbeat.as_ref().and_then(|all| all.get(&id));
        answered.is_some_and(|at| at.is_some_and(|at| at.elapsed() < 2 * self.timing.election))
    }

    fn is_voter(&self, id: u64) -> bool {
        let membership = self.mark.membership();
        membership.membership().voter_ids().any(|voter| voter == id)
    }

    /// Whether the member has this share of the leader's log.
    fn has_caught_up(&self, id: u64, percent: u64) -> bool {
        let data = self.raft.data_metrics();
        let data = data.borrow_watched();
        let last = data.last_log.as_ref().map_or(0, |id| id.index());
        let matched = data.replication.as_ref().and_then(|all| all.get(&id));
        match matched {
            Some(Some(matched)) => {
                matched.index() + SHORT_LAG >= last
                    || matched.index().saturating_mul(100) >= last.saturating_mul(percent)
            }
            // This member itself, or one that has not answered yet.
            _ => id == self.member_id(),
        }
    }

    /// Hands the leadership to this member. Only the leader can.
    pub async fn move_leader(self: &Arc<Self>, to: u64) -> Result<(), MemberFault> {
        if !self.is_leader() {
            return Err(MemberRefusal::NotLeader.into());
        }
        if !self.is_voter(to) {
            return Err(MemberRefusal::BadTransferee.into());
        }
        if to == self.member_id() {
            return Ok(());
        }
        let deadline = Instant::now() + self.request_timeout;
        let mut server = self.server.clone();
        loop {
            self.raft
                .trigger()
                .transfer_leader(to)
                .await
                .map_err(|_| ProposeError::Stopped)?;
            let again = deadline.min(Instant::now() + TRANSFER_PAUSE);
            while server.borrow_watched().current_leader != Some(to) {
                match tokio::time::timeout_at(again, server.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(ProposeError::Stopped.into()),
                    Err(_) => break,
                }
            }
            if server.borrow_watched().current_leader == Some(to) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(MemberRefusal::TransferTimeout.into());
            }
        }
    }

    /// The leader gives members their vote when they have caught up, and ends changes that a
    /// former leader left between their two steps.
    pub(super) fn look_after_members(self: &Arc<Self>) {
        let node = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(STEWARD_PAUSE).await;
                let Some(node) = node.upgrade() else { return };
                if let Some(change) = node.overdue_change()
                    && let Ok(_alone) = node.changing.try_lock()
                {
                    let deadline = Instant::now() + node.request_timeout;
                    // What does not succeed now is found again.
                    node.write_membership(change, deadline).await.ok();
                }
            }
        });
        self.tasks.lock().push(task);
    }

    fn overdue_change(&self) -> Option<ChangeMembers<u64, PeerNode>> {
        let server = self.server.borrow_watched();
        if server.state != ServerState::Leader {
            return None;
        }
        if server.membership_config.get_joint_config().len() > 1 {
            return Some(ChangeMembers::AddVoterIds(BTreeSet::new()));
        }
        let membership = server.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let mut waiting = membership
            .nodes()
            .filter(|(id, node)| node.votes_when_ready && !voters.contains(id))
            .map(|(id, _)| *id);
        let data = self.raft.data_metrics();
        let data = data.borrow_watched();
        let last = data.last_log.as_ref().map_or(0, |id| id.index());
        let matched = data.replication.as_ref()?;
        let ready = waiting.find(|id| {
            let matched = matched.get(id).copied().flatten();
            matched.is_some_and(|matched| matched.index() + READY_LAG >= last)
        })?;
        Some(ChangeMembers::AddVoterIds(BTreeSet::from([ready])))
    }
}

fn find(members: &[Member], id: u64) -> Result<&Member, MemberRefusal> {
    let mut found = members.iter();
    found
        .find(|member| member.id == id)
        .ok_or(MemberRefusal::NotFound)
}

fn shares_url(member: &Member, peer_urls: &[String]) -> bool {
    member.peer_ur_ls.iter().any(|url| peer_urls.contains(url))
}

/// Voting members and how many of them have started, without the one that leaves.
fn count_voting(members: &[Member], without: Option<u64>) -> (usize, usize) {
    let voting = members
        .iter()
        .filter(|m| !m.is_learner && Some(m.id) != without);
    voting.fold((0, 0), |(all, started), member| {
        (all + 1, started + usize::from(!member.name.is_empty()))
    })
}

fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// `http(s)://host:port` or `unix(s)://file` without a path, and at least one.
fn check_urls(peer_urls: &[String]) -> Result<(), MemberRefusal> {
    let is_valid = |url: &String| {
        let Ok(uri) = url.parse::<http::Uri>() else {
            return false;
        };
        let is_complete = match uri.scheme_str() {
            Some("http" | "https") => uri.port_u16().is_some(),
            Some("unix" | "unixs") => true,
            _ => false,
        };
        is_complete
            && !uri.host().unwrap_or_default().is_empty()
            && matches!(uri.path(), "" | "/")
            && !url.ends_with('/')
            && uri.query().is_none()
    };
    if peer_urls.is_empty() || !peer_urls.iter().all(is_valid) {
        return Err(MemberRefusal::BadUrls);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_that_members_can_call_are_taken() {
        let urls = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            check_urls(&urls(&["http://a:1", "https://[::1]:2"])),
            Ok(())
        );
        for bad in [
            "a:1",
            "http://a",
            "http://a:1/x",
            "ftp://a:1",
            "",
            "http://:1",
        ] {
            assert_eq!(
                check_urls(&urls(&["http://a:1", bad])),
                Err(MemberRefusal::BadUrls),
                "{bad}"
            );
        }
        assert_eq!(check_urls(&[]), Err(MemberRefusal::BadUrls));
    }

    #[test]
    fn only_voting_members_count_and_only_named_ones_have_started() {
        let member = |id, name: &str, is_learner| Member {
            id,
            name: name.to_owned(),
            is_learner,
            ..Member::default()
        };
        let members = [
            member(1, "a", false),
            member(2, "b", false),
            member(3, "", false),
            member(4, "d", true),
        ];
        assert_eq!(count_voting(&members, None), (3, 2));
        assert_eq!(count_voting(&members, Some(2)), (2, 1));
        assert_eq!([1, 2, 3, 4, 5].map(quorum), [1, 2, 2, 3, 3]);
    }
}
