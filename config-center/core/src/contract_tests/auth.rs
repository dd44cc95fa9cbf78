//! Users, roles, and who may do what. The expectations are those of etcd 3.7.1.

use bytes::Bytes;
use schemas::authpb::{Permission, permission::Type};
use schemas::command::{AuthUserAdd, AuthUserChangePassword, Authenticate, command::Op};
use schemas::etcdserverpb as pb;
use schemas::etcdserverpb::{Compare, PutRequest, TxnRequest};

use super::{
    Store, always, delete_op, delete_request, op, put_op, put_request, range_op, range_request,
    text, txn_op, value_is,
};
use crate::auth::{Access, Caller};
use crate::state::Change;
use crate::{KeyRange, Refusal, Reply, State};

impl Store {
    fn by(&mut self, caller: &Caller, op: Op) -> Result<Reply, Refusal> {
        let before = format!("{:?}", self.state);
        let applied = self.state.apply(&caller.command(op));
        if applied.reply.is_err() {
            assert!(applied.changes.is_empty());
            assert_eq!(before, format!("{:?}", self.state), "nothing is applied");
        }
        applied.reply
    }

    fn admin(&mut self, op: Op) {
        self.by(&Caller::Member, op).unwrap();
    }

    /// A user of this name, with the revision as it stands.
    fn user(&self, name: &str) -> Caller {
        Caller::User {
            name: name.to_owned(),
            auth_revision: self.state.auth_revision(),
        }
    }

    fn may(&self, name: &str, access: Access<'_>) -> Result<(), Refusal> {
        self.state.authorize(&self.user(name), access)
    }
}

fn user_add(name: &str) -> Op {
    Op::AuthUserAdd(AuthUserAdd {
        name: name.to_owned(),
        password_hash: Bytes::from_static(b"hash"),
        no_password: false,
    })
}

fn role_add(name: &str) -> Op {
    let name = name.to_owned();
    Op::AuthRoleAdd(pb::AuthRoleAddRequest { name })
}

fn grant_role(user: &str, role: &str) -> Op {
    Op::AuthUserGrantRole(pb::AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    })
}

fn revoke_role(name: &str, role: &str) -> Op {
    Op::AuthUserRevokeRole(pb::AuthUserRevokeRoleRequest {
        name: name.to_owned(),
        role: role.to_owned(),
    })
}

fn grant(role: &str, perm_type: Type, key: &str, range_end: &str) -> Op {
    Op::AuthRoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
        name: role.to_owned(),
        perm: Some(Permission {
            perm_type: perm_type as i32,
            key: text(key),
            range_end: text(range_end),
        }),
    })
}

fn revoke(role: &str, key: &str, range_end: &str) -> Op {
    Op::AuthRoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
        role: role.to_owned(),
        key: text(key),
        range_end: text(range_end),
    })
}

fn user_delete(name: &str) -> Op {
    let name = name.to_owned();
    Op::AuthUserDelete(pb::AuthUserDeleteRequest { name })
}

fn role_delete(role: &str) -> Op {
    let role = role.to_owned();
    Op::AuthRoleDelete(pb::AuthRoleDeleteRequest { role })
}

fn enable() -> Op {
    Op::AuthEnable(pb::AuthEnableRequest {})
}

fn disable() -> Op {
    Op::AuthDisable(pb::AuthDisableRequest {})
}

/// root; ann reads and writes a to c; bob reads everything from m on; eve has nothing.
fn guarded() -> Store {
    let mut store = Store::default();
    for op in [
        user_add("root"),
        grant_role("root", "root"),
        role_add("editor"),
        grant("editor", Type::Readwrite, "a", "c"),
        role_add("listener"),
        grant("listener", Type::Read, "m", "\0"),
        role_add("dropbox"),
        grant("dropbox", Type::Write, "w", ""),
        user_add("ann"),
        grant_role("ann", "editor"),
        grant_role("ann", "dropbox"),
        user_add("bob"),
        grant_role("bob", "listener"),
        user_add("eve"),
        enable(),
    ] {
        store.admin(op);
    }
    store
}

#[test]
fn changes_are_refused_in_etcds_words_and_order() {
    let mut store = Store::default();
    let anybody = Caller::Anonymous;
    for (op, expected) in [
        (enable(), Err(Refusal::RootUserMissing)),
        (user_add(""), Err(Refusal::UserEmpty)),
        (user_add("root"), Ok(())),
        (user_add("root"), Err(Refusal::UserExists)),
        (enable(), Err(Refusal::RootRoleMissing)),
        (grant_role("nobody", "root"), Err(Refusal::UserNotFound)),
        (grant_role("root", "editor"), Err(Refusal::RoleNotFound)),
        (role_add(""), Err(Refusal::RoleEmpty)),
        (role_add("editor"), Ok(())),
        (role_add("editor"), Err(Refusal::RoleExists)),
        (revoke_role("root", "editor"), Err(Refusal::RoleNotGranted)),
        (revoke_role("nobody", "editor"), Err(Refusal::UserNotFound)),
        (
            grant("nothing", Type::Read, "a", ""),
            Err(Refusal::RoleNotFound),
        ),
        (
            grant("editor", Type::Read, "", ""),
            Err(Refusal::InvalidAuthManagement),
        ),
        (
            grant("editor", Type::Read, "b", "a"),
            Err(Refusal::InvalidAuthManagement),
        ),
        (grant("editor", Type::Read, "b", "\0"), Ok(())),
        (
            Op::AuthRoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
                name: "editor".to_owned(),
                perm: None,
            }),
            Err(Refusal::PermissionNotGiven),
        ),
        (
            revoke("editor", "b", ""),
            Err(Refusal::PermissionNotGranted),
        ),
        (revoke("nothing", "b", ""), Err(Refusal::RoleNotFound)),
        (revoke("editor", "b", "\0"), Ok(())),
        (user_delete("nobody"), Err(Refusal::UserNotFound)),
        (role_delete("nothing"), Err(Refusal::RoleNotFound)),
        (grant_role("root", "root"), Ok(())),
        (enable(), Ok(())),
    ] {
        let outcome = store.by(&anybody, op.clone()).map(|_| ());
        assert_eq!(outcome, expected, "{op:?}");
    }
    // What would lock everybody out is refused while authentication is on.
    let root = store.user("root");
    for op in [
        user_delete("root"),
        role_delete("root"),
        revoke_role("root", "root"),
    ] {
        let outcome = store.by(&root, op.clone());
        assert_eq!(outcome, Err(Refusal::InvalidAuthManagement), "{op:?}");
    }
}

#[test]
fn the_revision_grows_with_each_change_and_with_nothing_else() {
    let mut store = Store::default();
    assert_eq!(store.state.auth_revision(), 1);
    for (op, expected) in [
        (user_add("root"), 2),
        (grant_role("root", "root"), 3),
        (grant_role("root", "root"), 3),
        (role_add("r"), 4),
        (grant("r", Type::Read, "a", ""), 5),
        // The same again counts.
        (grant("r", Type::Read, "a", ""), 6),
        (enable(), 6),
        (enable(), 6),
        (disable(), 7),
        (disable(), 7),
    ] {
        store.admin(op.clone());
        assert_eq!(store.state.auth_revision(), expected, "{op:?}");
    }
    assert_eq!(store.state.revision(), 1, "the store's own revision stays");
}

#[test]
fn a_deleted_role_is_taken_from_everybody() {
    let mut store = guarded();
    store.admin(role_delete("editor"));
    assert_eq!(store.state.user("ann").unwrap().roles, ["dropbox"]);
    assert_eq!(
        store.may("ann", Access::Put(&put_request("a", ""))),
        Err(Refusal::PermissionDenied)
    );
    store.admin(role_add("editor"));
    assert_eq!(
        store.may("ann", Access::Put(&put_request("a", ""))),
        Err(Refusal::PermissionDenied),
        "a role of the same name is another one"
    );
}

#[test]
fn permissions_are_listed_by_key_and_replaced_by_range() {
    let mut store = Store::default();
    for op in [
        role_add("r"),
        grant("r", Type::Read, "c", ""),
        grant("r", Type::Read, "a", "z"),
        grant("r", Type::Write, "a", ""),
        grant("r", Type::Write, "a", "z"),
    ] {
        store.admin(op);
    }
    let listed: Vec<(i32, Bytes, Bytes)> = store
        .state
        .role("r")
        .unwrap()
        .into_iter()
        .map(|held| (held.perm_type, held.key, held.range_end))
        .collect();
    assert_eq!(
        listed,
        [
            (1, text("a"), text("z")),
            (1, text("a"), text("")),
            (0, text("c"), text("")),
        ]
    );
    assert_eq!(store.state.role("root"), Err(Refusal::RoleNotFound));
    store.admin(role_add("root"));
    let root = &store.state.role("root").unwrap()[0];
    assert_eq!(
        (root.perm_type, &root.key[..], &root.range_end[..]),
        (2, &b""[..], &b"\0"[..])
    );
}

#[test]
fn reads_and_writes_need_the_whole_range() {
    let store = guarded();
    let denied = Err(Refusal::PermissionDenied);
    for (who, key, end, expected) in [
        ("ann", "a", "c", Ok(())),
        ("ann", "a", "d", denied),
        ("ann", "w", "", denied),
        ("bob", "m", "\0", Ok(())),
        ("bob", "z", "\0", Ok(())),
        ("bob", "l", "\0", denied),
        ("bob", "\0", "\0", denied),
        ("eve", "a", "", denied),
        ("nobody", "a", "", denied),
        ("root", "\0", "\0", Ok(())),
    ] {
        let range = range_request(key, end);
        assert_eq!(
            store.may(who, Access::Range(&range)),
            expected,
            "{who} {key:?} {end:?}"
        );
        let watched = KeyRange::new(text(key), text(end));
        assert_eq!(
            store.may(who, Access::Watch(&watched)),
            expected,
            "{who} watches {key:?} {end:?}"
        );
    }
    let delete = |key: &str, end: &str, prev_kv| pb::DeleteRangeRequest {
        prev_kv,
        ..delete_request(key, end)
    };
    for (who, request, expected) in [
        ("ann", delete("a", "c", true), Ok(())),
        ("ann", delete("a", "\0", false), denied),
        // To write is not to see what was there before.
        ("ann", delete("w", "", false), Ok(())),
        ("ann", delete("w", "", true), denied),
        ("bob", delete("m", "", false), denied),
    ] {
        assert_eq!(
            store.may(who, Access::DeleteRange(&request)),
            expected,
            "{who} {request:?}"
        );
    }
    let put = |key: &str, prev_kv| PutRequest {
        prev_kv,
        ..put_request(key, "")
    };
    for (who, request, expected) in [
        ("ann", put("a", true), Ok(())),
        ("ann", put("c", false), denied),
        ("ann", put("w", false), Ok(())),
        ("ann", put("w", true), denied),
        ("bob", put("m", false), denied),
    ] {
        assert_eq!(
            store.may(who, Access::Put(&request)),
            expected,
            "{who} {request:?}"
        );
    }
}

#[test]
fn every_corner_of_a_transaction_counts() {
    let store = guarded();
    let compare = |key: &str, end: &str| Compare {
        range_end: text(end),
        ..value_is(key, "1")
    };
    let with_prev = |key: &str| {
        op(pb::request_op::Request::RequestPut(PutRequest {
            prev_kv: true,
            ..put_request(key, "")
        }))
    };
    let hidden = |inner: pb::RequestOp| {
        [
            always(vec![inner.clone()]),
            TxnRequest {
                failure: vec![inner.clone()],
                ..TxnRequest::default()
            },
            always(vec![txn_op(TxnRequest {
                failure: vec![txn_op(always(vec![inner.clone()]))],
                ..TxnRequest::default()
            })]),
        ]
    };
    for allowed in [
        put_op("a", "1"),
        range_op("a", "c"),
        delete_op("a", "b"),
        put_op("w", "1"),
    ] {
        for txn in hidden(allowed) {
            assert_eq!(store.may("ann", Access::Txn(&txn)), Ok(()), "{txn:?}");
        }
    }
    for secret in [
        put_op("x", "1"),
        range_op("a", "\0"),
        range_op("w", ""),
        delete_op("w", ""),
        with_prev("w"),
        txn_op(TxnRequest {
            compare: vec![compare("x", "")],
            ..TxnRequest::default()
        }),
        txn_op(TxnRequest {
            compare: vec![compare("a", "\0")],
            ..TxnRequest::default()
        }),
    ] {
        for txn in hidden(secret) {
            let outcome = store.may("ann", Access::Txn(&txn));
            assert_eq!(outcome, Err(Refusal::PermissionDenied), "{txn:?}");
        }
    }
}

#[test]
fn a_lease_is_as_guarded_as_the_keys_on_it() {
    let mut store = guarded();
    store.admin(Op::LeaseGrant(pb::LeaseGrantRequest { id: 7, ttl: 60 }));
    let attached = |key: &str| PutRequest {
        lease: 7,
        ..put_request(key, "")
    };
    let ann = store.user("ann");
    // Nothing hangs on it: any user may end it.
    assert_eq!(store.may("eve", Access::LeaseWrite(7)), Ok(()));
    store.by(&ann, Op::Put(attached("a"))).unwrap();
    store.by(&ann, Op::Put(attached("w"))).unwrap();
    let denied = Err(Refusal::PermissionDenied);
    assert_eq!(store.may("ann", Access::LeaseWrite(7)), Ok(()));
    assert_eq!(store.may("eve", Access::LeaseWrite(7)), denied);
    assert_eq!(
        store.may("ann", Access::LeaseRead(7)),
        denied,
        "w is written only"
    );
    assert_eq!(store.may("ann", Access::EveryLease), denied);
    assert_eq!(store.may("root", Access::EveryLease), Ok(()));
    // A key of somebody else on it closes it for both.
    store
        .by(&store.user("root"), Op::Put(attached("x")))
        .unwrap();
    assert_eq!(store.may("ann", Access::LeaseWrite(7)), denied);
    assert_eq!(store.by(&ann, Op::Put(attached("b"))).map(|_| ()), denied);
    let revoke = Op::LeaseRevoke(pb::LeaseRevokeRequest { id: 7 });
    assert_eq!(store.by(&ann, revoke.clone()).map(|_| ()), denied);
    // The end of its time is nobody's request.
    assert!(store.by(&Caller::Member, revoke).is_ok());
    // An unknown lease is not found before it is forbidden.
    let unknown = PutRequest {
        lease: 99,
        ..put_request("a", "")
    };
    assert_eq!(
        store.by(&ann, Op::Put(unknown)).map(|_| ()),
        Err(Refusal::LeaseNotFound)
    );
}

#[test]
fn administration_is_roots_and_oneself_may_be_seen() {
    let store = guarded();
    let denied = Err(Refusal::PermissionDenied);
    for (who, access, expected) in [
        ("root", Access::Admin, Ok(())),
        ("ann", Access::Admin, denied),
        ("gone", Access::Admin, Err(Refusal::UserNotFound)),
        ("ann", Access::Authenticated, Ok(())),
        ("ann", Access::MemberOnly, denied),
        ("root", Access::MemberOnly, denied),
        ("ann", Access::User("ann"), Ok(())),
        ("ann", Access::User("bob"), denied),
        ("ann", Access::Role("editor"), Ok(())),
        ("ann", Access::Role("listener"), denied),
        ("root", Access::Role("listener"), Ok(())),
    ] {
        assert_eq!(store.may(who, access), expected, "{who} {access:?}");
    }
    for access in [
        Access::Admin,
        Access::Authenticated,
        Access::User(""),
        Access::User("ann"),
        Access::Role("editor"),
        Access::LeaseWrite(1),
        Access::LeaseRead(1),
        Access::EveryLease,
        Access::Range(&range_request("a", "")),
        Access::Put(&put_request("a", "")),
    ] {
        let outcome = store.state.authorize(&Caller::Anonymous, access);
        assert_eq!(outcome, Err(Refusal::UserEmpty), "{access:?}");
    }
    assert_eq!(
        store.state.authorize(&Caller::Anonymous, Access::Open),
        Ok(())
    );
}

#[test]
fn a_decision_from_before_a_change_is_old() {
    let mut store = guarded();
    let ann = store.user("ann");
    store.admin(user_add("somebody"));
    let put = Op::Put(put_request("a", "1"));
    assert_eq!(store.by(&ann, put.clone()), Err(Refusal::AuthRevisionOld));
    assert!(store.by(&store.user("ann"), put.clone()).is_ok());
    // Established before authentication was turned on.
    assert_eq!(
        store.by(&Caller::Anonymous, put.clone()),
        Err(Refusal::UserEmpty)
    );
    store.admin(disable());
    assert!(store.by(&Caller::Anonymous, put).is_ok());
}

#[test]
fn only_users_with_a_password_are_given_tokens() {
    let mut store = guarded();
    store.admin(Op::AuthUserAdd(AuthUserAdd {
        name: "cert".to_owned(),
        password_hash: Bytes::from_static(b"ignored"),
        no_password: true,
    }));
    let login = |name: &str| {
        Op::Authenticate(Authenticate {
            name: name.to_owned(),
            simple_token: "x".to_owned(),
        })
    };
    let auth_revision = store.state.auth_revision();
    let welcome = Ok(Reply::Authenticate { auth_revision });
    assert_eq!(store.by(&Caller::Anonymous, login("ann")), welcome);
    assert_eq!(
        store.by(&Caller::Anonymous, login("cert")),
        Err(Refusal::AuthFailed)
    );
    assert_eq!(
        store.by(&Caller::Anonymous, login("nobody")),
        Err(Refusal::AuthFailed)
    );
    assert_eq!(
        store.state.password_hash("cert"),
        Err(Refusal::NoPasswordUser)
    );
    assert!(store.state.user("cert").unwrap().password.is_empty());
    // A new password gives a certificate's user no way in either.
    store.admin(Op::AuthUserChangePassword(AuthUserChangePassword {
        name: "cert".to_owned(),
        password_hash: Bytes::from_static(b"hash"),
    }));
    assert_eq!(
        store.state.password_hash("cert"),
        Err(Refusal::NoPasswordUser)
    );
    store.admin(disable());
    assert_eq!(
        store.by(&Caller::Anonymous, login("ann")),
        Err(Refusal::AuthNotEnabled)
    );
}

#[test]
fn users_come_back_from_their_rows() {
    let mut store = Store::default();
    let mut restorer = State::restore();
    let mut changes = Vec::new();
    for op in [
        user_add("root"),
        grant_role("root", "root"),
        role_add("editor"),
        grant("editor", Type::Readwrite, "a", "c"),
        user_add("ann"),
        user_add("bob"),
        user_delete("bob"),
        grant_role("ann", "editor"),
        enable(),
    ] {
        changes.extend(store.state.apply(&Caller::Member.command(op)).changes);
    }
    for change in changes {
        match change {
            Change::Auth(change) => restorer.auth(change),
            other => panic!("{other:?}"),
        }
    }
    let restored = Store {
        state: restorer.finish().unwrap(),
    };
    assert!(restored.state.auth_is_enabled());
    assert_eq!(restored.state.auth_revision(), store.state.auth_revision());
    assert_eq!(restored.state.users(), ["ann", "root"]);
    assert_eq!(
        restored.may("ann", Access::Put(&put_request("b", ""))),
        Ok(())
    );
    let outside = put_request("c", "");
    assert_eq!(
        restored.may("ann", Access::Put(&outside)),
        Err(Refusal::PermissionDenied)
    );
}
