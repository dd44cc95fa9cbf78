//! Several members in one process, over real connections.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use schemas::command::Command;
use schemas::command::command::Op;
use schemas::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::{all, put};
use crate::raft::{
    ClusterState, InitialMember, Node, NodeConfig, PeerPort, ProposeError, StartError,
};

/// Nothing in these tests takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// One member's place: its folder and its port stay when it stops.
pub(super) struct Seat {
    pub(super) dir: TempDir,
    pub(super) config: NodeConfig,
    pub(super) node: Option<Arc<Node>>,
}

pub(super) struct Cluster {
    pub(super) seats: Vec<Seat>,
}

impl Seat {
    pub(super) fn port(&self) -> u16 {
        let url: http::Uri = self.config.peer_urls[0].parse().unwrap();
        url.port_u16().unwrap()
    }

    pub(super) async fn start(&mut self, listener: TcpListener) -> Result<(), StartError> {
        let node = Node::start(self.config.clone(), PeerPort::plain(vec![listener.into()])).await?;
        self.node = Some(node);
        Ok(())
    }
}

/// A start that failed lets its port go a moment later.
pub(super) async fn listen(port: u16) -> TcpListener {
    let mut listener = None;
    until("the port", || {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        if socket.bind(([127, 0, 0, 1], port).into()).is_ok() {
            listener = socket.listen(128).ok();
        }
        listener.is_some()
    })
    .await;
    listener.unwrap()
}

impl Cluster {
    pub(super) async fn start(size: usize) -> Self {
        Self::start_with(size, |_| ()).await
    }

    pub(super) async fn start_with(size: usize, adapt: impl Fn(&mut NodeConfig)) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..size {
            listeners.push(listen(0).await);
        }
        let members: Vec<InitialMember> = listeners
            .iter()
            .enumerate()
            .map(|(n, listener)| InitialMember {
                name: format!("n{n}"),
                peer_urls: vec![format!("http://{}", listener.local_addr().unwrap())],
            })
            .collect();
        let mut seats: Vec<Seat> = members
            .iter()
            .map(|member| {
                let dir = tempfile::tempdir().unwrap();
                let mut config = NodeConfig {
                    name: member.name.clone(),
                    peer_urls: member.peer_urls.clone(),
                    client_urls: vec![format!("http://{}.clients:2379", member.name)],
                    initial_cluster: members.clone(),
                    ..super::config(dir.path())
                };
                adapt(&mut config);
                Seat {
                    dir,
                    config,
                    node: None,
                }
            })
            .collect();
        let started = seats
            .iter_mut()
            .zip(listeners)
            .map(|(seat, listener)| seat.start(listener));
        for outcome in join_all(started).await {
            outcome.unwrap();
        }
        Self { seats }
    }

    pub(super) fn node(&self, n: usize) -> &Arc<Node> {
        self.seats[n].node.as_ref().unwrap()
    }

    pub(super) fn running(&self) -> impl Iterator<Item = (usize, &Arc<Node>)> {
        let seats = self.seats.iter().enumerate();
        seats.filter_map(|(n, seat)| Some((n, seat.node.as_ref()?)))
    }

    /// The seat of the leader, once all that run agree.
    pub(super) async fn leader(&self) -> usize {
        let mut leader = None;
        until("a leader", || {
            let heads: Vec<u64> = self
                .running()
                .map(|(_, node)| node.status().leader_id)
                .collect();
            leader = self
                .running()
                .find(|(_, node)| heads.iter().all(|id| *id == node.member_id()))
                .map(|(n, _)| n);
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    pub(super) async fn stop(&mut self, n: usize) {
        self.seats[n].node.take().unwrap().shutdown().await;
    }

    pub(super) async fn restart(&mut self, n: usize) -> Result<(), StartError> {
        let listener = listen(self.seats[n].port()).await;
        self.seats[n].start(listener).await
    }

    /// Until every member knows every other one by name.
    pub(super) async fn all_listed(&self) {
        until("all members listed", || {
            let lists: Vec<_> = self.running().map(|(_, node)| node.members()).collect();
            lists.iter().all(|list| {
                list.len() == lists.len() && list.iter().all(|member| !member.name.is_empty())
            })
        })
        .await;
    }

    pub(super) async fn shutdown(mut self) {
        for seat in &mut self.seats {
            if let Some(node) = seat.node.take() {
                node.shutdown().await;
            }
        }
    }
}

pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_member_serves_writes_and_reads_its_own() {
    for size in [3, 5] {
        let cluster = Cluster::start(size).await;
        cluster.leader().await;
        let ids: Vec<u64> = cluster.running().map(|(_, n)| n.cluster_id()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:x?}");
        for round in 0..20 {
            for (n, node) in cluster.running() {
                let written = node
                    .propose(put(format!("k{n}"), format!("{round}")))
                    .await
                    .unwrap();
                // Answered by its own apply: its own reads see it without asking anybody.
                assert!(node.engine().revision() >= written.revision);
                assert!(written.term >= 1);
            }
        }
        let revision = cluster.node(0).engine().revision();
        for (_, node) in cluster.running() {
            node.read_barrier().await.unwrap();
            assert!(node.engine().revision() >= revision);
            assert_eq!(all(node), all(cluster.node(0)));
        }
        cluster.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_through_all_members_get_each_their_own_revision() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    cluster.all_listed().await;
    assert_eq!(cluster.node(0).members(), cluster.node(2).members());
    let before = cluster.node(0).engine().revision();
    let writes = (0..3_000).map(|n| {
        let node = cluster.node(n % 3);
        node.propose(put(format!("k{n}"), "v"))
    });
    let mut revisions: Vec<i64> = join_all(writes)
        .await
        .into_iter()
        .map(|written| written.unwrap().revision)
        .collect();
    revisions.sort_unstable();
    let expected: Vec<i64> = (before + 1..=before + 3_000).collect();
    assert_eq!(revisions, expected);
    for (_, node) in cluster.running() {
        assert_eq!(node.status().pending_proposals, 0);
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_go_on_and_the_third_catches_up() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, cluster_id) = (
        cluster.node(leader).member_id(),
        cluster.node(leader).cluster_id(),
    );
    let other = (leader + 1) % 3;
    cluster
        .node(other)
        .propose(put("a", "before"))
        .await
        .unwrap();
    cluster.stop(leader).await;
    cluster
        .node(other)
        .propose(put("a", "after"))
        .await
        .unwrap();
    cluster.leader().await;
    cluster.restart(leader).await.unwrap();
    let back = cluster.node(leader);
    assert_eq!((back.member_id(), back.cluster_id()), (id, cluster_id));
    back.read_barrier().await.unwrap();
    assert_eq!(all(back), all(cluster.node(other)));
    assert_eq!(all(back).kvs[0].value, "after");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_knows_that_there_is_no_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.node(leader).propose(put("a", "1")).await.unwrap();
    for n in (0..3).filter(|n| *n != leader) {
        cluster.stop(n).await;
    }
    let alone = cluster.node(leader);
    until("the loss of the leader", || !alone.has_leader()).await;
    assert_eq!(alone.status().leader_id, 0);
    // Its own data is still there to read, but nothing can be confirmed or written.
    assert_eq!(all(alone).count, 1);
    let refused = alone.propose(put("a", "2")).await.unwrap_err();
    assert_eq!(refused.code(), ProposeError::Timeout.code());
    alone.read_barrier().await.unwrap_err();
    assert_eq!(all(alone).kvs[0].value, "1");
    cluster.restart((leader + 1) % 3).await.unwrap();
    cluster.leader().await;
    cluster.node(leader).propose(put("a", "3")).await.unwrap();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_renewed_through_every_member_by_the_leader() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let grant = Command {
        op: Some(Op::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 60 })),
        ..Command::default()
    };
    cluster
        .node((leader + 1) % 3)
        .propose(grant)
        .await
        .unwrap()
        .reply
        .unwrap();
    for (_, node) in cluster.running() {
        assert_eq!(node.renew_lease(7).await.unwrap(), Some(60));
        assert!(node.lease_remaining_s(7).await.unwrap().unwrap() >= 58);
        assert_eq!(node.renew_lease(8).await.unwrap(), None);
        assert_eq!(node.lease_remaining_s(8).await.unwrap(), None);
    }
    cluster.shutdown().await;
}

/// A leader's process that was stopped goes on where it was: with leases that ran out by its clock,
/// and that the next leader has renewed. What it does about them must not reach that leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leader_decided_about_leases_ends_with_its_term() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    let grant = Command {
        op: Some(Op::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 60 })),
        ..Command::default()
    };
    let granted = cluster.node(old).propose(grant).await.unwrap();
    granted.reply.unwrap();
    let revoke = || Command {
        op: Some(Op::LeaseRevoke(LeaseRevokeRequest { id: 7 })),
        ..Command::default()
    };
    let before = cluster.node(old).take_over_leases().unwrap();
    cluster.node(old).hand_over(DEADLINE).await;
    let new = cluster.leader().await;
    assert_ne!(old, new);
    assert_eq!(cluster.node(old).take_over_leases(), None);
    let refused = cluster.node(old).propose_as_leader_of(before, revoke());
    assert!(refused.await.is_err());
    assert_eq!(cluster.node(new).renew_lease(7).await.unwrap(), Some(60));
    // Neither when it leads again, in a later term.
    cluster.node(new).hand_over(DEADLINE).await;
    let again = cluster.leader().await;
    let node = cluster.node(again);
    let now = node.take_over_leases().unwrap();
    assert!(before < now);
    assert!(node.propose_as_leader_of(before, revoke()).await.is_err());
    assert_eq!(node.renew_lease(7).await.unwrap(), Some(60));
    // What the leader of this term decides is done.
    let done = node.propose_as_leader_of(now, revoke()).await.unwrap();
    done.reply.unwrap();
    assert_eq!(node.renew_lease(7).await.unwrap(), None);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_folder_does_not_come_back_under_its_old_id() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    cluster.all_listed().await;
    cluster.stop(1).await;
    std::fs::remove_dir_all(cluster.seats[1].dir.path()).unwrap();
    let refused = cluster.restart(1).await.unwrap_err().to_string();
    assert!(
        refused.contains("has already been bootstrapped"),
        "{refused}"
    );
    cluster.seats[1].config.cluster_state = ClusterState::Existing;
    let refused = cluster.restart(1).await.unwrap_err().to_string();
    assert!(
        refused.contains("has already been bootstrapped"),
        "{refused}"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_that_do_not_fit_together_are_refused_in_etcds_words() {
    let dir = tempfile::tempdir().unwrap();
    let member = |name: &str, urls: &[&str]| InitialMember {
        name: name.to_owned(),
        peer_urls: urls.iter().map(ToString::to_string).collect(),
    };
    let own = "http://127.0.0.1:2380";
    for (members, expected) in [
        (
            vec![member("x", &[own])],
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            vec![member("default", &["http://127.0.0.1:1"])],
            "--initial-cluster has default=http://127.0.0.1:1 but missing from \
             --initial-advertise-peer-urls=http://127.0.0.1:2380",
        ),
        (
            vec![member("default", &[])],
            "--initial-advertise-peer-urls has http://127.0.0.1:2380 but missing from \
             --initial-cluster=",
        ),
        (
            vec![member("default", &[own]), member("b", &[own])],
            "has duplicate url",
        ),
    ] {
        let config = NodeConfig {
            initial_cluster: members,
            ..super::config(dir.path())
        };
        let refused = super::start(config).await.err().unwrap().to_string();
        assert!(refused.contains(expected), "{refused}");
        assert!(!refused.contains('\n'));
    }
    let config = NodeConfig {
        cluster_state: ClusterState::Existing,
        ..super::config(dir.path())
    };
    let refused = super::start(config).await.err().unwrap().to_string();
    assert!(refused.contains("cannot fetch cluster info"), "{refused}");
}
