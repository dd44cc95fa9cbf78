//! Property tests of the state against a naive model, and of the check itself against planted bugs.
//!
//! The model keeps a full copy of the keyspace for every revision and recomputes everything else
//! from those copies, so it shares no idea with the code it judges.

mod actions;
mod disk;
mod naive;
mod watchers;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use schemas::etcdserverpb::RangeRequest;

use crate::planted::{self, Bug};
use crate::{KeyRange, State};
use actions::{Action, bytes};
use disk::Disk;
use naive::Naive;

/// Runs the actions on both and compares every answer.
fn agree(actions: &[Action]) -> Result<(), TestCaseError> {
    let mut state = State::default();
    let mut naive = Naive::default();
    let mut disk = Disk::default();
    for action in actions {
        match action {
            Action::Apply(command) => {
                let applied = state.apply(command);
                let (reply, revision) = naive.apply(command);
                prop_assert_eq!(&applied.reply, &reply, "reply to {:?}", command);
                prop_assert_eq!(applied.revision, revision, "revision after {:?}", command);
                prop_assert!(
                    applied.reply.is_ok() || applied.changes.is_empty(),
                    "a refused command changed something"
                );
                disk.persist(&applied);
            }
            Action::Range(request) => {
                prop_assert_eq!(state.range(request), naive.range(request), "{:?}", request);
            }
            Action::ReadOnlyTxn(request) => {
                prop_assert_eq!(
                    state.read_only_txn(request),
                    naive.read_only_txn(request),
                    "{:?}",
                    request
                );
            }
            Action::Restart { purge } => {
                if *purge {
                    disk.purge();
                }
                state = disk
                    .restore()
                    .map_err(|error| TestCaseError::fail(format!("restore: {error}")))?;
                same_everywhere(&state, &naive)?;
            }
        }
    }
    same_everywhere(&state, &naive)
}

/// Compares all that can be observed: every revision, the history from every start, the leases.
fn same_everywhere(state: &State, naive: &Naive) -> Result<(), TestCaseError> {
    prop_assert_eq!(state.revision(), naive.revision());
    prop_assert_eq!(state.compact_revision(), naive.compacted());
    prop_assert_eq!(state.leases(), naive.leases());
    for (id, _) in state.leases() {
        prop_assert_eq!(state.lease(id), naive.lease(id), "lease {}", id);
    }
    prop_assert_eq!(state.members(), naive.members());
    for revision in 0..=state.revision() + 1 {
        let everything = RangeRequest {
            key: bytes(&[0]),
            range_end: bytes(&[0]),
            revision,
            ..RangeRequest::default()
        };
        prop_assert_eq!(
            state.range(&everything),
            naive.range(&everything),
            "everything at {}",
            revision
        );
    }
    for (key, range_end) in [
        (&b"\0"[..], &b"\0"[..]),
        (b"ab", b""),
        (b"a", b"b"),
        (b"b", b"a"),
    ] {
        let range = KeyRange::new(bytes(key), bytes(range_end));
        for from in 0..=state.revision() + 1 {
            for page_revisions in [1, 2, 1000] {
                let ours = all_pages(state, &range, from, page_revisions)?;
                let theirs = naive.events(key, range_end, from);
                prop_assert_eq!(ours, theirs, "events of {:?} from {}", &range, from);
            }
        }
    }
    Ok(())
}

type Events = Result<Vec<schemas::mvccpb::Event>, crate::Refusal>;

/// The history up to now, page by page.
fn all_pages(
    state: &State,
    range: &KeyRange,
    mut from: i64,
    page_revisions: usize,
) -> Result<Events, TestCaseError> {
    let mut events = Vec::new();
    loop {
        let page = match state.events(range, from, i64::MAX, page_revisions, true) {
            Ok(page) => page,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut revisions: Vec<_> = page.events.iter().map(mod_revision).collect();
        revisions.dedup();
        prop_assert!(
            revisions.len() <= page_revisions,
            "page holds {:?}",
            revisions
        );
        prop_assert!(
            revisions
                .iter()
                .all(|rev| from <= *rev && *rev < page.next_rev)
        );
        events.extend(page.events);
        if page.next_rev > state.revision() {
            return Ok(Ok(events));
        }
        prop_assert!(page.next_rev > from, "no progress at {}", from);
        from = page.next_rev;
    }
}

fn mod_revision(event: &schemas::mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

proptest! {
    #[test]
    fn state_agrees_with_the_naive_model(actions in vec(actions::action(), 1..40)) {
        agree(&actions)?;
    }
}

/// The check must see each of these, or it proves nothing.
#[test]
fn planted_bugs_are_found() {
    for bug in [
        Bug::TombstoneCompactedEarly,
        Bug::CountLimited,
        Bug::LateCompare,
        Bug::LeaseNotDetached,
        Bug::PageSplitsRevision,
    ] {
        let found = planted::with(bug, || {
            let mut runner = TestRunner::new(Config {
                cases: 20_000,
                failure_persistence: None,
                max_shrink_iters: 0,
                ..Config::default()
            });
            runner.run(&vec(actions::action(), 1..40), |actions| agree(&actions))
        });
        assert!(
            matches!(found, Err(TestError::Fail(..))),
            "{bug:?} went unnoticed"
        );
    }
}
