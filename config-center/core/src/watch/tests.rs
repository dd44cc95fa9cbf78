//! The groups against a list of watchers that is looked through from end to end.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::WatcherGroups;
use super::intervals::Intervals;
use crate::mvcc::KeyRange;

fn range(key: &str, end: &str) -> KeyRange {
    KeyRange::new(
        Bytes::copy_from_slice(key.as_bytes()),
        Bytes::copy_from_slice(end.as_bytes()),
    )
}

fn publish(groups: &mut WatcherGroups, revision: i64, keys: &[&str]) -> Vec<u64> {
    let keys: Vec<Bytes> = keys
        .iter()
        .map(|key| Bytes::copy_from_slice(key.as_bytes()))
        .collect();
    let mut woken = Vec::new();
    groups.publish(revision, &keys, |stream_id| woken.push(stream_id));
    woken
}

#[test]
fn a_watcher_keeps_its_first_pending_revision_and_wakes_its_stream_once() {
    let mut groups = WatcherGroups::default();
    assert!(groups.add(1, 0, range("a", "")));
    assert!(groups.add(1, 1, range("a", "c")));
    assert!(groups.add(2, 0, range("b", "\0")));
    assert_eq!(
        publish(&mut groups, 5, &["a"]),
        vec![1],
        "one wake for two watchers"
    );
    assert_eq!(
        publish(&mut groups, 6, &["a", "b"]),
        vec![2],
        "stream 1 is awake"
    );
    assert_eq!(groups.take_pending(1), vec![(0, 5), (1, 5)]);
    assert_eq!(groups.take_pending(2), vec![(0, 6)]);
    assert_eq!(groups.take_pending(1), vec![]);
    assert_eq!(
        publish(&mut groups, 7, &["a"]),
        vec![1],
        "asleep again, so woken again"
    );
    assert_eq!(groups.take_pending(1), vec![(0, 7), (1, 7)]);
}

#[test]
fn ids_are_per_stream_and_a_duplicate_changes_nothing() {
    let mut groups = WatcherGroups::default();
    assert!(groups.add(1, 0, range("a", "")));
    assert!(!groups.add(1, 0, range("b", "")));
    assert!(groups.add(2, 0, range("b", "")));
    assert_eq!((groups.len(), groups.streams()), (2, 2));
    assert_eq!(publish(&mut groups, 2, &["b"]), vec![2]);
    assert!(!groups.remove(1, 7));
    assert!(groups.remove(1, 0));
    assert!(!groups.remove(1, 0));
    assert_eq!(groups.remove_stream(2), 1);
    assert_eq!(groups.remove_stream(2), 0);
    assert!(groups.is_empty());
    assert_eq!(groups.streams(), 0);
    assert_eq!(publish(&mut groups, 3, &["a", "b"]), Vec::<u64>::new());
}

#[test]
fn a_cancelled_watcher_is_not_pending_and_its_slot_is_clean() {
    let mut groups = WatcherGroups::default();
    groups.add(1, 0, range("a", ""));
    groups.add(1, 1, range("a", ""));
    publish(&mut groups, 4, &["a"]);
    groups.remove(1, 0);
    groups.add(2, 9, range("b", ""));
    assert_eq!(groups.take_pending(1), vec![(1, 4)]);
    assert_eq!(
        groups.take_pending(2),
        vec![],
        "the reused slot is not pending"
    );
}

#[test]
fn an_empty_range_is_never_concerned() {
    let mut groups = WatcherGroups::default();
    groups.add(1, 0, range("b", "a"));
    groups.add(1, 1, range("b", "b"));
    assert_eq!(publish(&mut groups, 2, &["a", "b", "c"]), Vec::<u64>::new());
    assert_eq!(groups.remove_stream(1), 2);
}

/// The depth is what makes a lookup cheap; the order of insertion must not matter.
#[test]
fn intervals_stay_shallow_when_inserted_in_order() {
    let mut intervals = Intervals::default();
    let name = |n: usize| Bytes::from(format!("/hosts/{n:06}/"));
    let nodes: Vec<_> = (0..4096)
        .map(|n| intervals.node_of(&name(n), &Some(name(n + 1))))
        .collect();
    assert_eq!(intervals.len(), 4096);
    assert!(intervals.depth() <= 48, "depth {}", intervals.depth());
    for node in &nodes[..4000] {
        intervals.remove(*node);
    }
    assert_eq!(intervals.len(), 96);
    assert!(intervals.depth() <= 24, "depth {}", intervals.depth());
    assert_eq!(
        intervals.node_of(&name(4095), &Some(name(4096))),
        nodes[4095]
    );
}

#[derive(Debug, Clone)]
enum Step {
    Add(u64, i64, String, String),
    Remove(u64, i64),
    RemoveStream(u64),
    Publish(Vec<String>),
    Take(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![2 => Just(String::new()), 1 => Just("\0".to_owned()), 5 => "[a-d]{1,2}"];
    prop_oneof![
        8 => (0..4_u64, 0..8_i64, "[a-d]{0,2}", end)
            .prop_map(|(stream, id, key, end)| Step::Add(stream, id, key, end)),
        3 => (0..4_u64, 0..8_i64).prop_map(|(stream, id)| Step::Remove(stream, id)),
        1 => (0..4_u64).prop_map(Step::RemoveStream),
        6 => vec("[a-d]{1,2}", 0..3).prop_map(Step::Publish),
        2 => (0..4_u64).prop_map(Step::Take),
    ]
}

proptest! {
    #[test]
    fn groups_agree_with_a_plain_list(steps in vec(step(), 1..120)) {
        let mut groups = WatcherGroups::default();
        let mut list: BTreeMap<(u64, i64), (KeyRange, Option<i64>)> = BTreeMap::new();
        for (index, step) in steps.into_iter().enumerate() {
            match step {
                Step::Add(stream, id, key, end) => {
                    let range = range(&key, &end);
                    let is_new = !list.contains_key(&(stream, id));
                    prop_assert_eq!(groups.add(stream, id, range.clone()), is_new);
                    list.entry((stream, id)).or_insert((range, None));
                }
                Step::Remove(stream, id) => {
                    prop_assert_eq!(groups.remove(stream, id), list.remove(&(stream, id)).is_some());
                }
                Step::RemoveStream(stream) => {
                    let before = list.len();
                    list.retain(|(other, _), _| *other != stream);
                    prop_assert_eq!(groups.remove_stream(stream), before - list.len());
                }
                Step::Publish(keys) => {
                    let revision = index as i64 + 2;
                    let awake: BTreeSet<u64> = list
                        .iter()
                        .filter(|(_, (_, pending))| pending.is_some())
                        .map(|((stream, _), _)| *stream)
                        .collect();
                    let mut to_wake = BTreeSet::new();
                    for ((stream, _), (range, pending)) in &mut list {
                        if keys.iter().any(|key| range.contains(key.as_bytes())) && pending.is_none() {
                            *pending = Some(revision);
                            to_wake.insert(*stream);
                        }
                    }
                    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                    let mut woken = publish(&mut groups, revision, &keys);
                    woken.sort_unstable();
                    let to_wake: Vec<u64> = to_wake.difference(&awake).copied().collect();
                    prop_assert_eq!(woken, to_wake);
                }
                Step::Take(stream) => {
                    let mut taken = groups.take_pending(stream);
                    taken.sort_unstable();
                    let mut wanted = Vec::new();
                    for ((other, id), (_, pending)) in &mut list {
                        if *other == stream && let Some(revision) = pending.take() {
                            wanted.push((*id, revision));
                        }
                    }
                    prop_assert_eq!(taken, wanted);
                }
            }
            prop_assert_eq!(groups.len(), list.len());
        }
    }
}
