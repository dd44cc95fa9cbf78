//! Members come, get their vote, move, leave, and never come back under their old id.

use std::time::Duration;

use schemas::etcdserverpb::{
    MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
};
use schemas::peer::change_members_request::Change;

use super::cluster::{Cluster, Seat, listen, until};
use super::{all, put};
use crate::raft::{ClusterState, InitialMember, MemberFault, MemberRefusal, NodeConfig};

fn add(url: &str, is_learner: bool) -> Change {
    Change::Add(MemberAddRequest {
        peer_ur_ls: vec![url.to_owned()],
        is_learner,
    })
}

fn remove(id: u64) -> Change {
    Change::Remove(MemberRemoveRequest { id })
}

impl Cluster {
    /// Adds a member through `at` and starts it; returns its id.
    async fn grow(&mut self, at: usize, is_learner: bool) -> u64 {
        let listener = listen(0).await;
        let url = format!("http://{}", listener.local_addr().unwrap());
        let changed = self
            .node(at)
            .change_members(add(&url, is_learner))
            .await
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let name = format!("n{}", self.seats.len());
        let initial_cluster = changed
            .members
            .iter()
            .map(|member| InitialMember {
                name: if member.id == changed.member_id {
                    name.clone()
                } else {
                    member.name.clone()
                },
                peer_urls: member.peer_ur_ls.clone(),
            })
            .collect();
        let config = NodeConfig {
            peer_urls: vec![url],
            client_urls: vec![format!("http://{name}.clients:2379")],
            name,
            initial_cluster,
            cluster_state: ClusterState::Existing,
            snapshot_count: self.seats[0].config.snapshot_count,
            catchup_entries: self.seats[0].config.catchup_entries,
            ..super::config(dir.path())
        };
        let mut seat = Seat {
            dir,
            config,
            node: None,
        };
        seat.start(listener).await.unwrap();
        let id = seat.node.as_ref().unwrap().member_id();
        assert_eq!(id, changed.member_id);
        self.seats.push(seat);
        id
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_from_one_to_three_and_survives_its_first_member() {
    let mut cluster = Cluster::start(1).await;
    for n in 0..50 {
        let written = cluster.node(0).propose(put(format!("k{n}"), "v")).await;
        written.unwrap();
    }
    for at in [0, 1] {
        cluster.grow(at, false).await;
        cluster.all_listed().await;
        // It has its vote, so that the next one may come.
        until("the vote", || {
            cluster.running().all(|(_, node)| node.has_vote())
        })
        .await;
    }
    let leader = cluster.leader().await;
    for (n, node) in cluster.running() {
        node.propose(put(format!("by{n}"), "v")).await.unwrap();
        assert_eq!(node.members().len(), 3);
        assert!(node.members().iter().all(|member| !member.is_learner));
    }
    cluster.stop(leader).await;
    let other = (leader + 1) % 3;
    cluster
        .node(other)
        .propose(put("after", "v"))
        .await
        .unwrap();
    assert_eq!(all(cluster.node(other)).count, 54);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_has_no_vote_until_it_is_promoted() {
    let mut cluster = Cluster::start(1).await;
    cluster.node(0).propose(put("a", "1")).await.unwrap();
    let id = cluster.grow(0, true).await;
    cluster.all_listed().await;
    let learner = cluster.node(1);
    until("the learner's state", || learner.engine().revision() == 2).await;
    assert!(learner.is_learner() && !learner.has_vote());
    assert!(learner.status().is_learner);
    // A member that does not vote forwards all the same; the API is what refuses.
    learner.propose(put("b", "1")).await.unwrap();
    let promote = || Change::Promote(MemberPromoteRequest { id });
    let promoted = learner.change_members(promote()).await.unwrap();
    assert!(promoted.members.iter().all(|member| !member.is_learner));
    until("the vote", || learner.has_vote() && !learner.is_learner()).await;
    let again = learner.change_members(promote()).await.unwrap_err();
    assert_eq!(again, MemberFault::Refused(MemberRefusal::NotLearner));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_stops_and_is_refused_when_it_returns() {
    let mut cluster = Cluster::start(3).await;
    cluster.all_listed().await;
    let leader = cluster.leader().await;
    let gone = (leader + 1) % 3;
    let asked = (leader + 2) % 3;
    let id = cluster.node(gone).member_id();
    // While it is away: it does not hear of its own removal.
    cluster.stop(gone).await;
    let removing = tokio::time::Instant::now();
    loop {
        // It counts as connected until it has been silent for a while.
        match cluster.node(asked).change_members(remove(id)).await {
            Ok(changed) => {
                assert_eq!(changed.members.len(), 2);
                break;
            }
            Err(MemberFault::Refused(MemberRefusal::Unhealthy)) => {}
            Err(other) => panic!("{other}"),
        }
        assert!(removing.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let again = cluster.node(asked).change_members(remove(id)).await;
    assert_eq!(
        again.unwrap_err(),
        MemberFault::Refused(MemberRefusal::NotFound)
    );
    cluster.restart(gone).await.unwrap();
    let returned = cluster.node(gone);
    let why = tokio::time::timeout(Duration::from_secs(20), returned.failed()).await;
    assert!(why.unwrap().contains("permanently removed"));
    assert!(returned.is_removed());
    // The others were not disturbed.
    cluster.node(leader).propose(put("a", "1")).await.unwrap();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_removes_itself_hands_over_and_stops() {
    let mut cluster = Cluster::start(3).await;
    cluster.all_listed().await;
    let leader = cluster.leader().await;
    let id = cluster.node(leader).member_id();
    let changed = cluster.node(leader).change_members(remove(id)).await;
    assert_eq!(changed.unwrap().members.len(), 2);
    let why = tokio::time::timeout(Duration::from_secs(20), cluster.node(leader).failed()).await;
    assert!(why.unwrap().contains("permanently removed"));
    cluster.stop(leader).await;
    let refused = cluster.restart(leader).await.unwrap_err().to_string();
    assert!(refused.contains("permanently removed"), "{refused}");
    cluster.leader().await;
    let other = (leader + 1) % 3;
    cluster.node(other).propose(put("a", "1")).await.unwrap();
    assert_eq!(cluster.node(other).members().len(), 2);
    // A new one takes its place, under another id.
    let new_id = cluster.grow(other, false).await;
    assert_ne!(new_id, id);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request_and_only_from_the_leader() {
    let cluster = Cluster::start(3).await;
    cluster.all_listed().await;
    let leader = cluster.leader().await;
    let to = (leader + 1) % 3;
    let id = cluster.node(to).member_id();
    let refused = cluster.node(to).move_leader(id).await.unwrap_err();
    assert_eq!(refused, MemberFault::Refused(MemberRefusal::NotLeader));
    let refused = cluster.node(leader).move_leader(77).await.unwrap_err();
    assert_eq!(refused, MemberFault::Refused(MemberRefusal::BadTransferee));
    cluster.node(leader).move_leader(id).await.unwrap();
    assert_eq!(cluster.leader().await, to);
    for (_, node) in cluster.running() {
        node.propose(put("a", "1")).await.unwrap();
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moved_is_found_at_its_new_url() {
    let mut cluster = Cluster::start(3).await;
    cluster.all_listed().await;
    let leader = cluster.leader().await;
    let moved = (leader + 1) % 3;
    let id = cluster.node(moved).member_id();
    cluster.stop(moved).await;
    let listener = listen(0).await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let update = |url: &str| {
        Change::Update(MemberUpdateRequest {
            id,
            peer_ur_ls: vec![url.to_owned()],
        })
    };
    let taken = cluster.seats[leader].config.peer_urls[0].clone();
    let refused = cluster.node(leader).change_members(update(&taken)).await;
    assert_eq!(
        refused.unwrap_err(),
        MemberFault::Refused(MemberRefusal::PeerUrlExists)
    );
    let changed = cluster.node(leader).change_members(update(&url)).await;
    let listed = changed.unwrap().members;
    let own = listed.iter().find(|member| member.id == id).unwrap();
    assert_eq!(own.peer_ur_ls, [url]);
    cluster.seats[moved].start(listener).await.unwrap();
    cluster.node(leader).propose(put("a", "1")).await.unwrap();
    let node = cluster.node(moved);
    until("the write", || node.engine().revision() == 2).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_can_be_made_a_cluster_of_its_own() {
    let mut cluster = Cluster::start(3).await;
    cluster.all_listed().await;
    for n in 0..20 {
        let written = cluster.node(1).propose(put(format!("k{n}"), "v")).await;
        written.unwrap();
    }
    let ids: Vec<u64> = cluster
        .running()
        .map(|(_, node)| node.member_id())
        .collect();
    let state = all(cluster.node(1));
    for n in 0..3 {
        cluster.stop(n).await;
    }
    cluster.seats[1].config.force_new_cluster = true;
    cluster.restart(1).await.unwrap();
    let survivor = cluster.node(1);
    survivor.read_barrier().await.unwrap();
    assert_eq!(all(survivor), state);
    assert_eq!(survivor.members().len(), 1);
    assert_eq!(survivor.member_id(), ids[1]);
    survivor.propose(put("after", "v")).await.unwrap();
    // Those that were left behind may not come back as if nothing had happened.
    cluster.restart(0).await.unwrap();
    let left_behind = cluster.node(0);
    let why = tokio::time::timeout(Duration::from_secs(20), left_behind.failed()).await;
    assert!(why.unwrap().contains("permanently removed"));
    cluster.stop(0).await;
    // A restart with the same flag changes nothing more.
    cluster.stop(1).await;
    cluster.restart(1).await.unwrap();
    assert_eq!(all(cluster.node(1)).count, 21);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_far_behind_and_empty_ones_catch_up_by_snapshot() {
    let mut cluster = Cluster::start_with(3, |config| {
        config.snapshot_count = 100;
        config.catchup_entries = 20;
    })
    .await;
    cluster.all_listed().await;
    let leader = cluster.leader().await;
    let behind = (leader + 1) % 3;
    cluster
        .node(behind)
        .propose(put("k0", "old"))
        .await
        .unwrap();
    cluster.stop(behind).await;
    for n in 0..600 {
        let key = format!("k{}", n % 50);
        let written = cluster.node(leader).propose(put(key, format!("{n}"))).await;
        written.unwrap();
    }
    until("the purge of what the member lacks", || {
        let metrics = cluster.node(leader).raft().data_metrics();
        let purged = openraft::async_runtime::WatchReceiver::borrow_watched(&metrics).purged;
        purged.is_some_and(|id| id.index() > 300)
    })
    .await;
    cluster.restart(behind).await.unwrap();
    cluster.node(behind).read_barrier().await.unwrap();
    assert_eq!(all(cluster.node(behind)), all(cluster.node(leader)));
    // It goes on by the log.
    cluster
        .node(behind)
        .propose(put("next", "v"))
        .await
        .unwrap();
    // It also restarts from what it was given.
    cluster.stop(behind).await;
    cluster.restart(behind).await.unwrap();
    cluster.node(behind).read_barrier().await.unwrap();
    assert_eq!(all(cluster.node(behind)), all(cluster.node(leader)));
    // And one that has nothing at all.
    let leader = cluster.leader().await;
    cluster.grow(leader, false).await;
    let empty = cluster.node(3);
    empty.read_barrier().await.unwrap();
    assert_eq!(all(empty), all(cluster.node(leader)));
    until("the vote", || empty.has_vote()).await;
    assert_eq!(empty.members().len(), 4);
    cluster.shutdown().await;
}
