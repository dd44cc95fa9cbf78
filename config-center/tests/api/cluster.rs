//! Status, members, and the services that are refused by name.

use schemas::etcdserverpb as pb;
use schemas::etcdserverpb::auth_client::AuthClient;
use schemas::etcdserverpb::cluster_client::ClusterClient;
use schemas::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::Code;

use crate::fixture::{Fixture, assert_status};

#[tokio::test]
async fn status_tells_the_truth_about_one_member() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    let mut maintenance = MaintenanceClient::new(fixture.channel.clone());
    let status = maintenance
        .status(pb::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    let header = status.header.unwrap();
    assert_eq!(status.version, "3.7.1");
    assert_eq!((status.leader, header.revision), (header.member_id, 2));
    assert!(status.raft_term >= 1 && status.raft_term == header.raft_term);
    assert!(status.raft_index >= status.raft_applied_index && status.raft_applied_index > 0);
    assert!(status.db_size > 0 && status.db_size_in_use <= status.db_size);
    assert_eq!(
        (status.errors, status.is_learner),
        (Vec::<String>::new(), false)
    );
    fixture.stop().await;
}

#[tokio::test]
async fn the_member_list_shows_where_clients_go() {
    let fixture = Fixture::start_with(&[
        "--name=n1",
        "--advertise-client-urls=http://10.1.2.3:2379,http://10.1.2.4:2379",
        "--initial-advertise-peer-urls=http://10.1.2.3:2380",
    ])
    .await;
    let mut cluster = ClusterClient::new(fixture.channel.clone());
    for linearizable in [false, true] {
        let request = pb::MemberListRequest { linearizable };
        let list = cluster.member_list(request).await.unwrap().into_inner();
        let header = list.header.unwrap();
        assert_eq!(header.revision, 0);
        assert_eq!(list.members.len(), 1);
        let member = &list.members[0];
        assert_eq!((member.id, member.name.as_str()), (header.member_id, "n1"));
        assert_eq!(
            member.client_ur_ls,
            ["http://10.1.2.3:2379", "http://10.1.2.4:2379"]
        );
        assert_eq!(member.peer_ur_ls, ["http://10.1.2.3:2380"]);
        assert!(!member.is_learner);
    }
    fixture.stop().await;
}

#[tokio::test]
async fn without_users_clients_are_told_so() {
    let fixture = Fixture::start().await;
    let mut auth = AuthClient::new(fixture.channel.clone());
    let status = auth
        .auth_status(pb::AuthStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(!status.enabled);
    assert_status(
        auth.authenticate(pb::AuthenticateRequest::default()).await,
        Code::FailedPrecondition,
        "etcdserver: authentication is not enabled",
    );
    let mut maintenance = MaintenanceClient::new(fixture.channel.clone());
    let alarms = maintenance
        .alarm(pb::AlarmRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(alarms.alarms, vec![]);
    fixture.stop().await;
}

#[tokio::test]
async fn a_lone_member_gets_a_second_one_and_loses_it_again() {
    let fixture = Fixture::start().await;
    let mut cluster = ClusterClient::new(fixture.channel.clone());
    let add = |url: &str, is_learner| pb::MemberAddRequest {
        peer_ur_ls: vec![url.to_owned()],
        is_learner,
    };
    for (request, code, text) in [
        (
            add("127.0.0.1:1", false),
            Code::InvalidArgument,
            "etcdserver: given member URLs are invalid",
        ),
        (
            pb::MemberAddRequest::default(),
            Code::InvalidArgument,
            "etcdserver: given member URLs are invalid",
        ),
        (
            add("http://localhost:2380", false),
            Code::FailedPrecondition,
            "etcdserver: Peer URLs already exists",
        ),
    ] {
        assert_status(cluster.member_add(request).await, code, text);
    }
    let added = cluster
        .member_add(add("http://127.0.0.1:9", false))
        .await
        .unwrap()
        .into_inner();
    let member = added.member.unwrap();
    assert_eq!((member.name.as_str(), member.is_learner), ("", false));
    assert_eq!(added.header.unwrap().revision, 0);
    assert_eq!(added.members.len(), 2);
    // The new one has not started, and the cluster goes on without it.
    fixture.put("a", "1").await;
    assert_status(
        cluster.member_add(add("http://127.0.0.1:10", false)).await,
        Code::FailedPrecondition,
        "etcdserver: re-configuration failed due to not enough started members",
    );
    let unknown = pb::MemberRemoveRequest { id: 77 };
    assert_status(
        cluster.member_remove(unknown).await,
        Code::NotFound,
        "etcdserver: member not found",
    );
    let promote = pb::MemberPromoteRequest { id: member.id };
    assert_status(
        cluster.member_promote(promote).await,
        Code::FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader",
    );
    let gone = pb::MemberRemoveRequest { id: member.id };
    let left = cluster.member_remove(gone).await.unwrap().into_inner();
    assert_eq!(left.members.len(), 1);
    assert_status(
        cluster.member_remove(gone).await,
        Code::NotFound,
        "etcdserver: member not found",
    );
    // One learner is allowed, two are not.
    let learner = cluster.member_add(add("http://127.0.0.1:11", true)).await;
    assert!(learner.unwrap().into_inner().member.unwrap().is_learner);
    assert_status(
        cluster.member_add(add("http://127.0.0.1:12", true)).await,
        Code::FailedPrecondition,
        "etcdserver: too many learner members in cluster",
    );
    fixture.stop().await;
}

#[tokio::test]
async fn leadership_moves_only_to_a_member_that_votes() {
    let fixture = Fixture::start().await;
    let mut maintenance = MaintenanceClient::new(fixture.channel.clone());
    let to = |target_id| pb::MoveLeaderRequest { target_id };
    assert_status(
        maintenance.move_leader(to(7)).await,
        Code::FailedPrecondition,
        "etcdserver: bad leader transferee",
    );
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap();
    let own = status.into_inner().leader;
    maintenance.move_leader(to(own)).await.unwrap();
    fixture.stop().await;
}
