//! What watchers read: events, their previous values, and compaction's edge.

use super::*;

fn summary(events: &[Event]) -> Vec<(i32, &str, i64)> {
    events
        .iter()
        .map(|event| {
            let kv = event.kv.as_ref().expect("every event has its key");
            let key = std::str::from_utf8(&kv.key).expect("text");
            (event.r#type, key, kv.mod_revision)
        })
        .collect()
}

#[test]
fn events_come_by_revision_and_inside_one_by_operation() {
    let mut store = Store::default();
    store.put("b", "1");
    store.txn(always(vec![
        put_op("c", ""),
        put_op("a", ""),
        delete_op("b", ""),
    ]));
    store.put("x", "");
    let events = store.events("a", "d", 1).expect("all");
    assert_eq!(
        summary(&events),
        [(0, "b", 2), (0, "c", 3), (0, "a", 3), (1, "b", 3)]
    );
    assert_eq!(
        summary(&store.events("b", "", 3).expect("one key")),
        [(1, "b", 3)]
    );
    assert_eq!(store.events("a", "d", 4).expect("later"), []);
    assert_eq!(
        store.events("a", "d", 99),
        Ok(vec![]),
        "the future is silent"
    );
}

#[test]
fn a_tombstone_has_only_its_key_and_revision() {
    let mut store = Store::default();
    store.put("a", "1");
    store.delete("a", "");
    let event = store.events("a", "", 3).expect("one").remove(0);
    let kv = KeyValue {
        key: text("a"),
        mod_revision: 3,
        ..KeyValue::default()
    };
    assert_eq!(event.kv, Some(kv));
    let prev = event.prev_kv.expect("it existed");
    assert_eq!((&prev.value[..], prev.mod_revision), (&b"1"[..], 2));
}

#[test]
fn prev_kv_is_absent_for_creations_and_when_compacted() {
    let mut store = Store::default();
    store.put("a", "1");
    store.put("a", "2");
    store.put("a", "3");
    let prev = |store: &Store, from| -> Vec<Option<i64>> {
        let events = store.events("a", "", from).expect("not compacted");
        let prev = |event: &Event| event.prev_kv.as_ref().map(|kv| kv.mod_revision);
        events.iter().map(prev).collect()
    };
    assert_eq!(prev(&store, 2), [None, Some(2), Some(3)]);
    store.compact(3);
    assert_eq!(prev(&store, 3), [None, Some(3)], "2 is compacted, 3 is not");
    let unasked = KeyRange::new(text("a"), text(""));
    let page = store
        .state
        .events(&unasked, 4, 4, 10, false)
        .expect("readable");
    assert_eq!(page.events[0].prev_kv, None);
}

/// etcd lost this delete twice (in 2024 and again in 2025).
#[test]
fn a_delete_at_the_compacted_revision_is_still_seen_from_there() {
    let mut store = Store::default();
    store.put("a", "1");
    store.delete("a", "");
    store.put("b", "1");
    store.compact(3);
    let events = store
        .events("\0", "\0", 3)
        .expect("start at the compacted revision");
    assert_eq!(summary(&events), [(1, "a", 3), (0, "b", 4)]);
    assert_eq!(
        summary(&store.events("a", "", 3).expect("one key")),
        [(1, "a", 3)]
    );
    assert_eq!(store.events("a", "", 2), Err(Refusal::Compacted));
    store.compact(4);
    assert_eq!(
        summary(&store.events("\0", "\0", 4).expect("b")),
        [(0, "b", 4)]
    );
    assert_eq!(store.events("a", "", 3), Err(Refusal::Compacted));
}

#[test]
fn a_page_never_splits_a_revision_and_says_where_to_go_on() {
    let mut store = Store::default();
    store.txn(always(vec![put_op("a", ""), put_op("b", "")]));
    store.put("x", "");
    store.txn(always(vec![put_op("a", ""), put_op("b", "")]));
    store.put("x", "");
    let range = KeyRange::new(text("a"), text("c"));
    let page = |from, to, revisions| {
        let page = store
            .state
            .events(&range, from, to, revisions, false)
            .expect("readable");
        (
            summary(&page.events)
                .iter()
                .map(|event| event.2)
                .collect::<Vec<_>>(),
            page.next_rev,
        )
    };
    assert_eq!(page(1, 5, 1), (vec![2, 2], 3));
    assert_eq!(page(3, 5, 1), (vec![4, 4], 5));
    assert_eq!(page(5, 5, 1), (vec![], 6));
    assert_eq!(page(1, 5, 2), (vec![2, 2, 4, 4], 5));
    assert_eq!(page(1, 5, 1000), (vec![2, 2, 4, 4], 6));
    assert_eq!(
        page(1, 3, 1000),
        (vec![2, 2], 4),
        "not above the asked revision"
    );
    assert_eq!(page(1, 99, 1000).1, 6, "nor above the store's");
    assert_eq!(
        page(9, 99, 1000),
        (vec![], 9),
        "a future start stays where it is"
    );
}

#[test]
fn a_long_stretch_of_other_keys_ends_a_page_early() {
    let mut store = Store::default();
    for _ in 0..25_000 {
        store.put("busy", "");
    }
    store.put("quiet/1", "");
    let quiet = KeyRange::new(text("quiet/"), text("quiet0"));
    let first = store
        .state
        .events(&quiet, 1, i64::MAX, 1000, false)
        .expect("readable");
    assert_eq!(first.events, []);
    assert!(first.next_rev > 1 && first.next_rev < store.state.revision());
    let second = store
        .state
        .events(&quiet, first.next_rev, i64::MAX, 1000, false);
    assert_eq!(
        summary(&second.expect("readable").events),
        [(0, "quiet/1", 25_002)]
    );
}
