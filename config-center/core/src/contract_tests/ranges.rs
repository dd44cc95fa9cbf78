//! Reads: what the end of a range means, old revisions, and the order of filter, sort and limit.

use super::*;

/// Revisions 2 to 6: `a` is oldest, `e` newest; `c` has version 2.
fn five() -> Store {
    let mut store = Store::default();
    store.put("c", "1");
    for (key, value) in [("a", "9"), ("b", "5"), ("d", "2"), ("e", "7")] {
        store.put(key, value);
    }
    store.put("c", "3");
    store
}

#[test]
fn the_range_end_says_how_much() {
    let store = five();
    for (key, range_end, expected) in [
        ("b", "", vec!["b"]),
        ("b", "d", vec!["b", "c"]),
        ("d", "\0", vec!["d", "e"]),
        ("\0", "\0", vec!["a", "b", "c", "d", "e"]),
        ("d", "b", vec![]),
        ("b", "b", vec![]),
        ("x", "", vec![]),
    ] {
        let response = store.range(&range_request(key, range_end));
        assert_eq!(keys(&response.kvs), expected, "[{key:?}, {range_end:?})");
        assert_eq!(response.count, expected.len() as i64);
        assert!(!response.more);
    }
}

#[test]
fn count_is_of_all_keys_whatever_the_limit_and_the_filters() {
    let store = five();
    let all = range_request("\0", "\0");
    let limited = store.range(&RangeRequest {
        limit: 2,
        ..all.clone()
    });
    assert_eq!(keys(&limited.kvs), ["a", "b"]);
    assert_eq!((limited.count, limited.more), (5, true));
    let exact = store.range(&RangeRequest {
        limit: 5,
        ..all.clone()
    });
    assert_eq!((exact.kvs.len(), exact.more), (5, false));
    let negative = store.range(&RangeRequest {
        limit: -1,
        ..all.clone()
    });
    assert_eq!((negative.kvs.len(), negative.more), (5, false));
    let filtered = store.range(&RangeRequest {
        min_mod_revision: 4,
        max_mod_revision: 6,
        limit: 2,
        ..all.clone()
    });
    assert_eq!(keys(&filtered.kvs), ["b", "d"]);
    assert_eq!(
        (filtered.count, filtered.more),
        (5, true),
        "e passed too, but was cut"
    );
    let count_only = store.range(&RangeRequest {
        count_only: true,
        limit: 1,
        ..all
    });
    assert_eq!(
        (count_only.count, count_only.kvs.len(), count_only.more),
        (5, 0, false)
    );
}

#[test]
fn filters_of_creation_and_change() {
    let store = five();
    let all = range_request("\0", "\0");
    let created = store.range(&RangeRequest {
        min_create_revision: 2,
        max_create_revision: 3,
        ..all.clone()
    });
    assert_eq!(keys(&created.kvs), ["a", "c"]);
    let changed = store.range(&RangeRequest {
        min_mod_revision: 7,
        ..all
    });
    assert_eq!(keys(&changed.kvs), ["c"]);
}

#[test]
fn a_sort_comes_before_the_limit() {
    let store = five();
    for (sort_order, sort_target, expected) in [
        (2, 0, ["e", "d"]),
        (1, 1, ["a", "b"]),
        (2, 1, ["c", "a"]),
        (1, 2, ["c", "a"]),
        (2, 2, ["e", "d"]),
        (1, 3, ["a", "b"]),
        (2, 3, ["c", "e"]),
        (1, 4, ["d", "c"]),
        (2, 4, ["a", "e"]),
    ] {
        let response = store.range(&RangeRequest {
            sort_order,
            sort_target,
            limit: 2,
            ..range_request("\0", "\0")
        });
        assert_eq!(
            keys(&response.kvs),
            expected,
            "{sort_order} of {sort_target}"
        );
        assert_eq!((response.count, response.more), (5, true));
    }
}

#[test]
fn a_target_without_a_direction_sorts_up_what_the_limit_left() {
    let store = five();
    let by_value = RangeRequest {
        sort_target: 4,
        ..range_request("\0", "\0")
    };
    assert_eq!(keys(&store.range(&by_value).kvs), ["d", "c", "b", "e", "a"]);
    let limited = store.range(&RangeRequest {
        limit: 2,
        ..by_value
    });
    assert_eq!(keys(&limited.kvs), ["c", "b"], "the lowest of a, b and c");
    assert!(limited.more);
}

#[test]
fn keys_only_leaves_out_the_value_and_the_lease() {
    let mut store = Store::default();
    store.grant(7);
    store.put_full(PutRequest {
        lease: 7,
        ..put_request("a", "1")
    });
    let keys_only = RangeRequest {
        keys_only: true,
        ..range_request("a", "")
    };
    let kv = store.range(&keys_only).kvs.remove(0);
    assert_eq!(
        (kv.value.len(), kv.lease, kv.mod_revision, kv.version),
        (0, 0, 2, 1)
    );
    let sorted = RangeRequest {
        sort_target: 4,
        ..keys_only
    };
    let kv = store.range(&sorted).kvs.remove(0);
    assert_eq!(
        (kv.value.len(), kv.lease),
        (0, 7),
        "etcd reads the rows to sort by value"
    );
}

#[test]
fn an_old_revision_shows_the_store_as_it_was() {
    let mut store = five();
    store.delete("a", "");
    let at = |revision| RangeRequest {
        revision,
        ..range_request("\0", "\0")
    };
    assert_eq!(keys(&store.range(&at(3)).kvs), ["a", "c"]);
    assert_eq!(store.range(&at(3)).count, 2);
    assert_eq!(keys(&store.range(&at(7)).kvs), ["a", "b", "c", "d", "e"]);
    assert_eq!(keys(&store.range(&at(8)).kvs), ["b", "c", "d", "e"]);
    assert_eq!(
        keys(&store.range(&at(-1)).kvs),
        ["b", "c", "d", "e"],
        "the newest"
    );
    assert_eq!(store.state.range(&at(9)), Err(Refusal::FutureRevision));
}

#[test]
fn the_compacted_revision_itself_can_be_read() {
    let mut store = five();
    store.compact(4);
    let at = |revision| RangeRequest {
        revision,
        ..range_request("c", "")
    };
    assert_eq!(store.state.range(&at(3)), Err(Refusal::Compacted));
    assert_eq!(&store.range(&at(4)).kvs[0].value[..], b"1");
    assert_eq!(&store.range(&at(0)).kvs[0].value[..], b"3");
}
