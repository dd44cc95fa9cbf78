//! Every path that is served over HTTP, in one table: the router is built from it, and tests that
//! must know all of them (is each one authorised? does each RPC have one?) walk it. The fleet's API
//! has a table of its own, `fleet::api::ROUTES`, which also makes its OpenAPI document.

use crate::api::http::Check;
use crate::api::v2::V2Part;
use crate::metrics::Rpc;

/// One path and what answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// In the router's notation: `{*rest}` stands for anything.
    pub path: &'static str,
    pub answers: Answers,
}

/// What a path is answered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// The gRPC method of that name, spoken in JSON.
    Rpc(Rpc),
    Health,
    /// These checks, all of which must pass.
    Checks(&'static [Check]),
    Version,
    Metrics,
    /// A part of the v2 API.
    V2(V2Part),
}

const fn rpc(path: &'static str, rpc: Rpc) -> Route {
    Route {
        path,
        answers: Answers::Rpc(rpc),
    }
}

const fn route(path: &'static str, answers: Answers) -> Route {
    Route { path, answers }
}

/// The whole HTTP surface of a client address. Paths below `/v3/` are served below `/v3beta/` too,
/// as etcd does.
pub const ROUTES: &[Route] = &[
    route("/health", Answers::Health),
    route("/livez", Answers::Checks(Check::LIVE)),
    route(
        "/livez/serializable_read",
        Answers::Checks(&[Check::SerializableRead]),
    ),
    route("/readyz", Answers::Checks(Check::READY)),
    route(
        "/readyz/data_corruption",
        Answers::Checks(&[Check::DataCorruption]),
    ),
    route(
        "/readyz/serializable_read",
        Answers::Checks(&[Check::SerializableRead]),
    ),
    route(
        "/readyz/linearizable_read",
        Answers::Checks(&[Check::LinearizableRead]),
    ),
    route("/readyz/non_learner", Answers::Checks(&[Check::NonLearner])),
    route("/version", Answers::Version),
    route("/metrics", Answers::Metrics),
    route("/v2/keys", Answers::V2(V2Part::Keys)),
    route("/v2/keys/", Answers::V2(V2Part::Keys)),
    route("/v2/keys/{*path}", Answers::V2(V2Part::Keys)),
    route("/v2/machines", Answers::V2(V2Part::Machines)),
    route("/v2/members", Answers::V2(V2Part::Members)),
    route("/v2/members/", Answers::V2(V2Part::Members)),
    route("/v2/members/{id}", Answers::V2(V2Part::Members)),
    route("/v2/stats/self", Answers::V2(V2Part::SelfStats)),
    route("/v2/stats/store", Answers::V2(V2Part::StoreStats)),
    route("/v2/stats/leader", Answers::V2(V2Part::LeaderStats)),
    route("/v2/auth/enable", Answers::V2(V2Part::AuthEnable)),
    route("/v2/auth/users", Answers::V2(V2Part::Users)),
    route("/v2/auth/users/", Answers::V2(V2Part::Users)),
    route("/v2/auth/users/{*name}", Answers::V2(V2Part::Users)),
    route("/v2/auth/roles", Answers::V2(V2Part::Roles)),
    route("/v2/auth/roles/", Answers::V2(V2Part::Roles)),
    route("/v2/auth/roles/{*name}", Answers::V2(V2Part::Roles)),
    rpc("/v3/kv/range", Rpc::Range),
    rpc("/v3/kv/put", Rpc::Put),
    rpc("/v3/kv/deleterange", Rpc::DeleteRange),
    rpc("/v3/kv/txn", Rpc::Txn),
    rpc("/v3/kv/compaction", Rpc::Compact),
    rpc("/v3/watch", Rpc::Watch),
    rpc("/v3/lease/grant", Rpc::LeaseGrant),
    rpc("/v3/lease/revoke", Rpc::LeaseRevoke),
    rpc("/v3/lease/keepalive", Rpc::LeaseKeepAlive),
    rpc("/v3/lease/timetolive", Rpc::LeaseTimeToLive),
    rpc("/v3/lease/leases", Rpc::LeaseLeases),
    // Where these three were before etcd 3.3; every etcd still answers them.
    rpc("/v3/kv/lease/revoke", Rpc::LeaseRevoke),
    rpc("/v3/kv/lease/timetolive", Rpc::LeaseTimeToLive),
    rpc("/v3/kv/lease/leases", Rpc::LeaseLeases),
    rpc("/v3/cluster/member/add", Rpc::MemberAdd),
    rpc("/v3/cluster/member/remove", Rpc::MemberRemove),
    rpc("/v3/cluster/member/update", Rpc::MemberUpdate),
    rpc("/v3/cluster/member/list", Rpc::MemberList),
    rpc("/v3/cluster/member/promote", Rpc::MemberPromote),
    rpc("/v3/maintenance/alarm", Rpc::Alarm),
    rpc("/v3/maintenance/status", Rpc::Status),
    rpc("/v3/maintenance/defragment", Rpc::Defragment),
    rpc("/v3/maintenance/hash", Rpc::Hash),
    rpc("/v3/maintenance/hashkv", Rpc::HashKv),
    rpc("/v3/maintenance/snapshot", Rpc::Snapshot),
    rpc("/v3/maintenance/transfer-leadership", Rpc::MoveLeader),
    rpc("/v3/maintenance/downgrade", Rpc::Downgrade),
    rpc("/v3/auth/enable", Rpc::AuthEnable),
    rpc("/v3/auth/disable", Rpc::AuthDisable),
    rpc("/v3/auth/status", Rpc::AuthStatus),
    rpc("/v3/auth/authenticate", Rpc::Authenticate),
    rpc("/v3/auth/user/add", Rpc::UserAdd),
    rpc("/v3/auth/user/get", Rpc::UserGet),
    rpc("/v3/auth/user/list", Rpc::UserList),
    rpc("/v3/auth/user/delete", Rpc::UserDelete),
    rpc("/v3/auth/user/changepw", Rpc::UserChangePassword),
    rpc("/v3/auth/user/grant", Rpc::UserGrantRole),
    rpc("/v3/auth/user/revoke", Rpc::UserRevokeRole),
    rpc("/v3/auth/role/add", Rpc::RoleAdd),
    rpc("/v3/auth/role/get", Rpc::RoleGet),
    rpc("/v3/auth/role/list", Rpc::RoleList),
    rpc("/v3/auth/role/delete", Rpc::RoleDelete),
    rpc("/v3/auth/role/grant", Rpc::RoleGrantPermission),
    rpc("/v3/auth/role/revoke", Rpc::RoleRevokePermission),
    rpc("/v3/lock/lock", Rpc::Lock),
    rpc("/v3/lock/unlock", Rpc::Unlock),
    rpc("/v3/election/campaign", Rpc::Campaign),
    rpc("/v3/election/proclaim", Rpc::Proclaim),
    rpc("/v3/election/leader", Rpc::ElectionLeader),
    rpc("/v3/election/observe", Rpc::Observe),
    rpc("/v3/election/resign", Rpc::Resign),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_etcd_method_but_range_stream_has_a_path() {
        let pool = prost_reflect::DescriptorPool::decode(schemas::DESCRIPTORS).unwrap();
        let declared: BTreeSet<String> = pool
            .services()
            .filter(|service| {
                ["etcdserverpb", "v3lockpb", "v3electionpb"].contains(&service.package_name())
            })
            .flat_map(|service| {
                let methods: Vec<_> = service.methods().collect();
                methods
                    .into_iter()
                    .map(|method| method.full_name().to_owned())
            })
            // etcd gives this one no path either.
            .filter(|name| name != "etcdserverpb.KV.RangeStream")
            .collect();
        let routed: BTreeSet<String> = ROUTES
            .iter()
            .filter_map(|route| match route.answers {
                Answers::Rpc(rpc) => Some(format!("{}.{}", rpc.service(), rpc.method())),
                _ => None,
            })
            .collect();
        assert_eq!(routed, declared);
    }

    #[test]
    fn no_path_comes_twice() {
        let paths: BTreeSet<&str> = ROUTES.iter().map(|route| route.path).collect();
        assert_eq!(paths.len(), ROUTES.len());
    }
}
