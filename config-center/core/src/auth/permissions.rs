//! What a user may touch: the permissions of all roles, merged into disjoint spans of keys.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use schemas::authpb::{Permission, permission::Type};

/// The kinds of access to keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// A user's permissions over all roles.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    read: Spans,
    write: Spans,
}

impl Permissions {
    pub(crate) fn merge<'a>(granted: impl Iterator<Item = &'a Permission>) -> Self {
        let mut merged = Self::default();
        for permission in granted {
            // An unknown type, from a newer version, grants nothing.
            let (read, write) = match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => (true, false),
                Ok(Type::Write) => (false, true),
                Ok(Type::Readwrite) => (true, true),
                Err(_) => (false, false),
            };
            if read {
                merged.read.add(&permission.key, &permission.range_end);
            }
            if write {
                merged.write.add(&permission.key, &permission.range_end);
            }
        }
        merged
    }

    /// Whether the whole range is covered; an empty `range_end` is the single key, one zero byte
    /// everything from the key on.
    pub(crate) fn cover(&self, kind: Kind, key: &[u8], range_end: &[u8]) -> bool {
        let spans = match kind {
            Kind::Read => &self.read,
            Kind::Write => &self.write,
        };
        spans.cover(key, range_end)
    }
}

/// Where a span stops: before a key, or never.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Never,
}

impl End {
    fn of(key: &[u8], range_end: &[u8]) -> Self {
        match range_end {
            // The next possible key after `key` is `key` and a zero byte.
            [] => Self::Before([key, &[0]].concat().into()),
            [0] => Self::Never,
            end => Self::Before(Bytes::copy_from_slice(end)),
        }
    }

    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < &end[..],
            Self::Never => true,
        }
    }
}

/// Disjoint spans that do not touch, by their first key: what touches is one span, so a range is
/// covered exactly when one span holds it.
#[derive(Debug, Default)]
struct Spans(BTreeMap<Bytes, End>);

impl Spans {
    fn add(&mut self, key: &[u8], range_end: &[u8]) {
        let mut end = End::of(key, range_end);
        let mut start = Bytes::copy_from_slice(key);
        if !end.is_after(&start) {
            return;
        }
        if let Some((before, before_end)) = self.0.range(..=start.clone()).next_back()
            && (before_end.is_after(&start) || *before_end == End::Before(start.clone()))
        {
            end = end.max(before_end.clone());
            start = before.clone();
        }
        loop {
            let from = (Bound::Included(start.clone()), Bound::Unbounded);
            match self.0.range(from).next() {
                Some((next, next_end))
                    if end.is_after(next) || end == End::Before(next.clone()) =>
                {
                    end = end.max(next_end.clone());
                    let next = next.clone();
                    self.0.remove(&next);
                }
                _ => break,
            }
        }
        self.0.insert(start, end);
    }

    fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        let wanted = End::of(key, range_end);
        let before = (Bound::Unbounded, Bound::Included(key));
        let Some((_, end)) = self.0.range::<[u8], _>(before).next_back() else {
            return false;
        };
        // A range that holds no key at all, because it ends before it begins, must begin within reach.
        end.is_after(key) && *end >= wanted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permission(perm_type: Type, key: &[u8], range_end: &[u8]) -> Permission {
        Permission {
            perm_type: perm_type as i32,
            key: Bytes::copy_from_slice(key),
            range_end: Bytes::copy_from_slice(range_end),
        }
    }

    fn merged(list: &[(&str, &str)]) -> Permissions {
        let list: Vec<Permission> = list
            .iter()
            .map(|(key, end)| permission(Type::Read, key.as_bytes(), end.as_bytes()))
            .collect();
        Permissions::merge(list.iter())
    }

    fn reads(permissions: &Permissions, key: &str, end: &str) -> bool {
        permissions.cover(Kind::Read, key.as_bytes(), end.as_bytes())
    }

    #[test]
    fn a_range_needs_the_whole_of_it_covered_by_the_union() {
        let held = merged(&[("a", "c"), ("c", "e"), ("g", "")]);
        for (key, end, expected) in [
            ("a", "", true),
            ("a", "e", true),
            ("b", "d", true),
            ("a", "f", false),
            ("e", "", false),
            ("g", "", true),
            ("g", "g\0", true),
            ("g", "g\0\0", false),
            ("ga", "", false),
            ("a", "\0", false),
            ("g", "\0", false),
        ] {
            assert_eq!(reads(&held, key, end), expected, "[{key:?}, {end:?})");
        }
        assert!(!held.cover(Kind::Write, b"a", b""));
    }

    #[test]
    fn an_open_end_covers_an_open_end_and_nothing_less_does() {
        let open = merged(&[("m", "\0")]);
        assert!(reads(&open, "m", "\0"));
        assert!(reads(&open, "z", "\0"));
        assert!(reads(&open, "n", "zzzz"));
        assert!(!reads(&open, "l", "\0"));
        // The largest end that can be written is not an open end.
        let long = merged(&[("m", "\u{10ffff}\u{10ffff}")]);
        assert!(!reads(&long, "m", "\0"));
        // A point right before a span belongs to it.
        let joined = merged(&[("a", ""), ("a\0", "\0")]);
        assert!(reads(&joined, "a", "\0"));
    }

    #[test]
    fn a_range_that_holds_nothing_is_not_free() {
        let held = merged(&[("b", "d")]);
        assert!(reads(&held, "c", "c"));
        assert!(reads(&held, "b", "b"));
        assert!(reads(&held, "c", "a"));
        assert!(!reads(&held, "z", "a"));
        assert!(!reads(&held, "a", "a"));
        assert!(!reads(&Permissions::default(), "b", "a"));
    }

    /// Keys of one to three letters out of two, with every possible end.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0_u8..3, 1..4)
    }

    fn end() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![Just(vec![]), Just(vec![0]), key()]
    }

    fn holds(key: &[u8], start: &[u8], range_end: &[u8]) -> bool {
        match range_end {
            [] => key == start,
            [0] => key >= start,
            end => start <= key && key < end,
        }
    }

    proptest! {
        /// Against the definition: every key of the asked range lies in some granted range. The
        /// keys that can tell a difference are the borders, and what comes right after them.
        #[test]
        fn covering_means_that_every_key_is_granted(
            granted in proptest::collection::vec((key(), end()), 0..6),
            asked in (key(), end()),
        ) {
            let list: Vec<Permission> = granted
                .iter()
                .map(|(key, end)| permission(Type::Readwrite, key, end))
                .collect();
            let held = Permissions::merge(list.iter());
            let mut probes: Vec<Vec<u8>> = vec![vec![255; 8]];
            for (key, end) in granted.iter().chain([&asked]) {
                for border in [key, end] {
                    probes.push(border.clone());
                    probes.push([border, &[0][..]].concat());
                }
            }
            let inside: Vec<&Vec<u8>> = probes
                .iter()
                .filter(|probe| holds(probe, &asked.0, &asked.1))
                .collect();
            prop_assume!(!inside.is_empty());
            let expected = inside
                .iter()
                .all(|probe| granted.iter().any(|(key, end)| holds(probe, key, end)));
            prop_assert_eq!(held.cover(Kind::Read, &asked.0, &asked.1), expected);
            prop_assert_eq!(held.cover(Kind::Write, &asked.0, &asked.1), expected);
        }
    }
}
