//! Put, delete and compaction: revisions, versions, the order of refusals.

use super::*;

#[test]
fn a_fresh_store_is_at_revision_1_and_its_first_write_at_2() {
    let mut store = Store::default();
    assert_eq!(store.state.revision(), 1);
    assert_eq!(store.put("a", "1"), 2);
}

#[test]
fn only_what_changes_state_has_a_revision() {
    let mut store = Store::default();
    store.put("a", "1");
    assert_eq!(store.delete("nothing", "").deleted, 0);
    store.txn(always(vec![]));
    store.txn(always(vec![range_op("a", ""), delete_op("x", "z")]));
    store.txn(TxnRequest {
        compare: vec![value_is("a", "2")],
        success: vec![put_op("a", "3")],
        failure: vec![range_op("a", "")],
    });
    store.grant(7);
    store.revoke(7);
    assert_eq!(store.state.revision(), 2);
    store.put("a", "1");
    assert_eq!(
        store.state.revision(),
        3,
        "the same value is a write all the same"
    );
}

#[test]
fn a_put_counts_versions_and_a_delete_starts_a_new_life() {
    let mut store = Store::default();
    store.put("a", "1");
    store.put("a", "2");
    let kv = store.get("a").expect("exists");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    store.delete("a", "");
    assert_eq!(store.get("a"), None);
    store.put("a", "3");
    let kv = store.get("a").expect("exists");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
}

#[test]
fn prev_kv_is_there_only_if_the_key_existed() {
    let mut store = Store::default();
    let with_prev = |value| PutRequest {
        prev_kv: true,
        ..put_request("a", value)
    };
    assert_eq!(store.put_full(with_prev("1")).prev_kv, None);
    let prev = store.put_full(with_prev("2")).prev_kv.expect("existed");
    assert_eq!((&prev.value[..], prev.mod_revision), (&b"1"[..], 2));
    assert_eq!(
        store.put_full(put_request("a", "3")).prev_kv,
        None,
        "not asked for"
    );
}

#[test]
fn a_delete_answers_in_key_order_and_takes_one_revision() {
    let mut store = Store::default();
    for key in ["c", "a", "b", "d"] {
        store.put(key, "");
    }
    let response = store.delete("a", "d");
    assert_eq!(response.deleted, 3);
    assert_eq!(keys(&response.prev_kvs), ["a", "b", "c"]);
    assert_eq!(store.state.revision(), 6);
    assert_eq!(
        store.delete("d", "a").deleted,
        0,
        "a backwards range is empty, not an error"
    );
    assert_eq!(store.delete("\0", "\0").deleted, 1);
}

#[test]
fn ignore_value_and_ignore_lease_keep_what_was_there() {
    let mut store = Store::default();
    store.grant(7);
    store.put_full(PutRequest {
        lease: 7,
        ..put_request("a", "1")
    });
    store.put_full(PutRequest {
        ignore_value: true,
        ..put_request("a", "")
    });
    let kv = store.get("a").expect("exists");
    assert_eq!(
        (&kv.value[..], kv.lease),
        (&b"1"[..], 0),
        "the lease was not kept"
    );
    store.put_leased("a", 7);
    store.put_full(PutRequest {
        ignore_lease: true,
        ..put_request("a", "2")
    });
    let kv = store.get("a").expect("exists");
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"2"[..], 7, 4));
}

#[test]
fn an_unknown_lease_is_told_before_a_missing_key() {
    let mut store = Store::default();
    let both = PutRequest {
        lease: 9,
        ignore_value: true,
        ..put_request("a", "")
    };
    assert_eq!(store.refused(Op::Put(both)), Refusal::LeaseNotFound);
    let missing = PutRequest {
        ignore_lease: true,
        ..put_request("a", "1")
    };
    assert_eq!(store.refused(Op::Put(missing)), Refusal::KeyNotFound);
}

#[test]
fn compaction_refuses_the_past_and_the_future() {
    let mut store = Store::default();
    store.put("a", "1");
    store.put("a", "2");
    let compact = |revision| {
        Op::Compaction(CompactionRequest {
            revision,
            physical: true,
        })
    };
    assert_eq!(store.refused(compact(4)), Refusal::FutureRevision);
    store.compact(2);
    assert_eq!(store.refused(compact(2)), Refusal::Compacted);
    assert_eq!(store.refused(compact(1)), Refusal::Compacted);
    store.compact(3);
    assert_eq!(store.state.revision(), 3, "no revision of its own");
    assert_eq!(store.state.compact_revision(), 3);
}

#[test]
fn compaction_frees_what_nobody_can_see() {
    let mut store = Store::default();
    for value in ["1", "2", "3"] {
        store.put("a", value);
    }
    store.put("b", "1");
    store.delete("b", "");
    store.compact(6);
    assert_eq!(
        store.state.keys.stored_rows(),
        2,
        "a at 4, and the tombstone at 6"
    );
    store.put("c", "1");
    store.compact(7);
    assert_eq!(store.state.keys.stored_rows(), 2, "a at 4 and c at 7");
}

#[test]
fn a_value_does_not_pin_the_buffer_it_came_in() {
    let mut store = Store::default();
    let frame = Bytes::from(vec![b'x'; 4096]);
    store.put_full(PutRequest {
        key: frame.slice(0..3),
        value: frame.slice(3..9),
        ..PutRequest::default()
    });
    let kv = store.get("xxx").expect("exists");
    let frame_bytes = frame.as_ptr_range();
    assert!(!frame_bytes.contains(&kv.key.as_ptr()));
    assert!(!frame_bytes.contains(&kv.value.as_ptr()));
    assert!(frame.is_unique(), "nothing holds the frame any more");
}

#[test]
fn a_command_without_an_operation_is_refused() {
    let mut state = State::default();
    let applied = state.apply(&Command {
        version: 9,
        op: None,
        ..Command::default()
    });
    assert_eq!(applied.reply, Err(Refusal::NotCapable));
    assert_eq!(applied.revision, 1);
}
