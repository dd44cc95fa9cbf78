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
    assert_eq!(status.version, "3.5.13");
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
async fn what_is_not_built_is_refused_by_name() {
    let fixture = Fixture::start().await;
    let channel = || fixture.channel.clone();
    let refusal =
        |name| format!("etcdserver: {name} is not implemented in this version of config-center");
    macro_rules! refused {
        ($client:expr, $($method:ident($request:expr) = $name:literal),* $(,)?) => {$(
            assert_status($client.$method($request).await, Code::Unimplemented, &refusal($name));
        )*};
    }
    let mut auth = AuthClient::new(channel());
    refused!(
        auth,
        auth_enable(pb::AuthEnableRequest {}) = "AuthEnable",
        user_add(pb::AuthUserAddRequest::default()) = "UserAdd",
        user_list(pb::AuthUserListRequest {}) = "UserList",
        role_add(pb::AuthRoleAddRequest::default()) = "RoleAdd",
        role_grant_permission(pb::AuthRoleGrantPermissionRequest::default()) =
            "RoleGrantPermission",
    );
    let mut maintenance = MaintenanceClient::new(channel());
    refused!(
        maintenance,
        defragment(pb::DefragmentRequest {}) = "Defragment",
        hash(pb::HashRequest {}) = "Hash",
        hash_kv(pb::HashKvRequest::default()) = "HashKV",
        snapshot(pb::SnapshotRequest {}) = "Snapshot",
        move_leader(pb::MoveLeaderRequest::default()) = "MoveLeader",
        downgrade(pb::DowngradeRequest::default()) = "Downgrade",
        alarm(pb::AlarmRequest {
            action: 1,
            ..pb::AlarmRequest::default()
        }) = "Alarm",
    );
    let mut cluster = ClusterClient::new(channel());
    refused!(
        cluster,
        member_add(pb::MemberAddRequest::default()) = "MemberAdd",
        member_remove(pb::MemberRemoveRequest::default()) = "MemberRemove",
    );
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
