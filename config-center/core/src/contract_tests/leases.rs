//! Leases: what is attached, what a revocation deletes, what is refused.

use super::*;
use crate::Change;

#[test]
fn a_put_without_the_lease_detaches_the_key() {
    let mut store = Store::default();
    store.grant(7);
    store.grant(8);
    store.put_leased("a", 7);
    store.put_leased("b", 7);
    assert_eq!(store.state.lease(7), Some((60, vec![text("a"), text("b")])));
    store.put("a", "1");
    assert_eq!(store.get("a").expect("exists").lease, 0);
    assert_eq!(store.state.lease(7), Some((60, vec![text("b")])));
    store.put_leased("b", 8);
    assert_eq!(store.state.lease(7), Some((60, vec![])));
    assert_eq!(store.state.lease(8), Some((60, vec![text("b")])));
    store.delete("b", "");
    assert_eq!(store.state.lease(8), Some((60, vec![])));
    store.revoke(7);
    assert!(store.get("a").is_some(), "detached keys outlive the lease");
}

#[test]
fn a_revocation_deletes_in_key_order_in_one_revision() {
    let mut store = Store::default();
    store.grant(7);
    for key in ["c", "a", "b"] {
        store.put_leased(key, 7);
    }
    let applied = store.revoke(7);
    assert_eq!(applied.revision, 5);
    let deleted: Vec<_> = applied.changed_keys().map(|key| &key[..]).collect();
    assert_eq!(deleted, [b"a", b"b", b"c"]);
    assert_eq!(applied.changes.last(), Some(&Change::LeaseDelete { id: 7 }));
    let events = store.events("\0", "\0", 5).expect("readable");
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.r#type == 1));
    assert_eq!(store.state.lease(7), None);
    assert_eq!(store.state.leases(), []);
}

#[test]
fn a_grant_is_refused_for_its_reason() {
    let mut store = Store::default();
    store.grant(7);
    let grant = |id, ttl| Op::LeaseGrant(LeaseGrantRequest { id, ttl });
    assert_eq!(store.refused(grant(7, 60)), Refusal::LeaseExists);
    assert_eq!(
        store.refused(grant(8, 9_000_000_001)),
        Refusal::LeaseTtlTooLarge
    );
    assert_eq!(store.refused(grant(0, 60)), Refusal::LeaseNotFound);
    let revoke = Op::LeaseRevoke(LeaseRevokeRequest { id: 9 });
    assert_eq!(store.refused(revoke), Refusal::LeaseNotFound);
    let applied = store.apply(grant(8, 9_000_000_000));
    assert_eq!(
        applied.changes,
        [Change::LeasePut {
            id: 8,
            ttl_s: 9_000_000_000
        }]
    );
    assert_eq!(applied.revision, 1);
    assert_eq!(store.state.leases(), [(7, 60), (8, 9_000_000_000)]);
}

#[test]
fn members_are_published_without_a_revision() {
    use schemas::command::MemberPublish;
    use schemas::etcdserverpb::Member;
    let mut store = Store::default();
    let member = |id, name: &str| Member {
        id,
        name: name.to_owned(),
        ..Member::default()
    };
    for published in [member(2, "b"), member(1, "a"), member(2, "c")] {
        let applied = store.apply(Op::MemberPublish(MemberPublish {
            member: Some(published.clone()),
        }));
        assert_eq!(applied.reply, Ok(Reply::MemberPublish));
        assert_eq!(applied.changes, [Change::MemberPut(published)]);
        assert_eq!(applied.revision, 1);
    }
    assert_eq!(store.state.members(), [member(1, "a"), member(2, "c")]);
}
