//! A restored state: what rows may look like, and what is refused.

use super::*;
use crate::{RestoreError, RevisionRow};

fn row(main: i64, sub: i64, key: &str) -> RevisionRow {
    RevisionRow {
        main,
        sub,
        key: text(key),
        value: text("v"),
        create_revision: main,
        version: 1,
        lease: 0,
        tombstone: false,
    }
}

#[test]
fn nothing_stored_is_a_fresh_store() {
    let state = State::restore().finish().expect("nothing is wrong");
    assert_eq!((state.revision(), state.compact_revision()), (1, -1));
}

/// etcd handed revisions out twice when it took them from the rows that survived a crash.
#[test]
fn the_revision_is_the_durable_one_not_that_of_the_rows() {
    let mut restorer = State::restore();
    restorer.row(row(4, 0, "a")).expect("in order");
    restorer.revision(9);
    restorer.compacted(8);
    let state = restorer.finish().expect("consistent");
    assert_eq!((state.revision(), state.compact_revision()), (9, 8));
}

#[test]
fn leases_and_their_keys_come_back_whatever_the_order_of_calls() {
    let mut restorer = State::restore();
    let leased = RevisionRow {
        lease: 7,
        ..row(2, 0, "a")
    };
    restorer.row(leased.clone()).expect("in order");
    restorer.row(row(3, 0, "b")).expect("in order");
    restorer.revision(3);
    restorer.lease(7, 60);
    restorer.lease(8, 5);
    let state = restorer.finish().expect("consistent");
    assert_eq!(state.lease(7), Some((60, vec![text("a")])));
    assert_eq!(state.leases(), [(7, 60), (8, 5)]);

    let mut restorer = State::restore();
    restorer.row(leased).expect("in order");
    let unknown = RestoreError::UnknownLease {
        main: 2,
        sub: 0,
        lease: 7,
    };
    assert_eq!(restorer.finish().expect_err("no such lease"), unknown);
}

#[test]
fn rows_that_contradict_are_refused() {
    for (second, name) in [
        (row(3, 1, "b"), "same"),
        (row(3, 0, "b"), "sub"),
        (row(2, 5, "b"), "main"),
    ] {
        let mut restorer = State::restore();
        restorer.row(row(3, 1, "a")).expect("first");
        let refused = restorer.row(second).expect_err(name);
        assert!(
            matches!(refused, RestoreError::OutOfOrder { last_main: 3, .. }),
            "{name}"
        );
    }
    let mut restorer = State::restore();
    restorer.row(row(5, 0, "a")).expect("first");
    restorer.revision(4);
    let refused = restorer.finish().expect_err("below its rows");
    assert_eq!(
        refused,
        RestoreError::RevisionTooLow {
            revision: 4,
            main: 5
        }
    );
    let mut restorer = State::restore();
    restorer.revision(4);
    restorer.compacted(5);
    assert!(matches!(
        restorer.finish(),
        Err(RestoreError::CompactedAboveRevision { .. })
    ));
}

#[test]
fn rows_that_a_compaction_should_have_removed_are_left_out() {
    let mut restorer = State::restore();
    restorer.row(row(2, 0, "a")).expect("superseded");
    let second = RevisionRow {
        create_revision: 2,
        version: 2,
        ..row(3, 0, "a")
    };
    restorer.row(second).expect("the newest");
    restorer.row(row(4, 0, "b")).expect("dead below");
    let tombstone = RevisionRow {
        tombstone: true,
        create_revision: 0,
        version: 0,
        ..row(5, 0, "b")
    };
    restorer.row(tombstone).expect("its tombstone");
    restorer.revision(6);
    restorer.compacted(6);
    let state = restorer.finish().expect("consistent");
    assert_eq!(state.keys.stored_rows(), 1);
}

#[test]
fn a_compaction_at_0_leaves_nothing_to_remember() {
    let mut store = Store::default();
    let compact = |revision| {
        Op::Compaction(CompactionRequest {
            revision,
            physical: false,
        })
    };
    let applied = store.apply(compact(0));
    assert!(applied.reply.is_ok());
    assert_eq!(applied.changes, []);
    assert_eq!(store.state.compact_revision(), -1);
    assert_eq!(store.refused(compact(-1)), Refusal::Compacted);
    let mut restorer = State::restore();
    restorer.compacted(0);
    let state = restorer.finish().expect("nothing is wrong");
    assert_eq!(state.compact_revision(), -1);
}
