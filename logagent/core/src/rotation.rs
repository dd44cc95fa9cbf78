//! Which files of a directory were rotated away from a path, and in which order.
//!
//! Two naming schemes are understood: a number (`access.log.1`), which as a rule grows with age but
//! with some writers grows with time, and a date (`access.log-20261124`). This module compares
//! names and identities; it never looks into a directory or a file.

use crate::identity::FileStat;

/// A file of the same directory whose name begins with the tailed file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// File name without directory.
    pub name: String,
    pub stat: FileStat,
}

/// Suffixes of compressed files.
const COMPRESSED: [&str; 6] = [GZIP, ".bz2", ".xz", ".zst", ".lz4", ".Z"];
/// The one whose content is read.
const GZIP: &str = ".gz";
/// A longer run of digits is a date, not a count of rotations.
const MAX_COUNT_DIGITS: usize = 4;

/// How old a rotated file is, told by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age<'a> {
    Count(u32),
    Date(&'a str),
}

/// Which way the numbers of rotated files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counting {
    /// `.1` is the newest, as logrotate counts: each rotation renames all of them.
    FromTheNewest,
    /// The largest number is the newest: each rotation takes the next one.
    FromTheOldest,
}

impl Counting {
    /// Greater is newer.
    fn rank(self, count: u32) -> i64 {
        match self {
            Self::FromTheNewest => -i64::from(count),
            Self::FromTheOldest => i64::from(count),
        }
    }
}

/// What the caller knows of a rotated file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquaintance {
    /// Nobody has seen it.
    Stranger,
    /// Opened once and not read: missed, wherever its name puts it.
    Unread,
    /// It was rotated before the entry was started.
    Older,
    /// Seen before, but who knows when it had the path: a compressed file.
    Known,
    /// It is the n-th one that was read. Those read later were rotated later.
    Read(usize),
}

impl Acquaintance {
    fn order(self) -> Option<usize> {
        match self {
            Self::Stranger | Self::Unread | Self::Known => None,
            Self::Older => Some(0),
            Self::Read(nth) => Some(nth + 1),
        }
    }
}

fn strip_compression(name: &str) -> Option<&str> {
    COMPRESSED
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
}

/// Whether the name is that of a compressed file.
#[must_use]
pub fn is_compressed(name: &str) -> bool {
    strip_compression(name).is_some()
}

/// Whether the content of the compressed file can be read: what it was made of is not there any
/// more, so it is not still being made.
#[must_use]
pub fn is_unpackable(name: &str, siblings: &[Sibling]) -> bool {
    name.ends_with(GZIP) && !is_being_made(name, siblings)
}

/// Whether the file is compressed and what it is made of is still there.
#[must_use]
pub fn is_being_made(name: &str, siblings: &[Sibling]) -> bool {
    strip_compression(name).is_some_and(|plain| siblings.iter().any(|other| other.name == plain))
}

fn age<'a>(base: &str, name: &'a str) -> Option<Age<'a>> {
    let name = strip_compression(name).unwrap_or(name);
    let suffix = name.strip_prefix(base)?.strip_prefix(['.', '-', '_'])?;
    if !suffix.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if suffix.len() <= MAX_COUNT_DIGITS && suffix.bytes().all(|b| b.is_ascii_digit()) {
        return suffix.parse().ok().map(Age::Count);
    }
    let is_date = |c: char| c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | ':' | 'T' | 'Z');
    suffix.chars().all(is_date).then_some(Age::Date(suffix))
}

/// The name that a rotated file had before, told by its own: `a.log` of `a.log.1`, `a.log-20261124`
/// and `a.log.2.gz`.
#[must_use]
pub fn base_of(name: &str) -> Option<&str> {
    let plain = strip_compression(name).unwrap_or(name);
    plain
        .match_indices(['.', '-', '_'])
        .map(|(at, _)| &plain[..at])
        .find(|base| !base.is_empty() && age(base, plain).is_some())
}

/// Oldest first. Files that are not named like a rotation of `base` are left out.
fn rotated<'a>(
    base: &str,
    siblings: &'a [Sibling],
    counting: Counting,
) -> Vec<(Age<'a>, &'a Sibling)> {
    let mut found: Vec<_> = siblings
        .iter()
        .filter_map(|sibling| Some((age(base, &sibling.name)?, sibling)))
        .collect();
    found.sort_by(|(a, _), (b, _)| match (a, b) {
        (Age::Count(a), Age::Count(b)) => counting.rank(*a).cmp(&counting.rank(*b)),
        (Age::Date(a), Age::Date(b)) => a.cmp(b),
        (Age::Count(_), Age::Date(_)) => std::cmp::Ordering::Less,
        (Age::Date(_), Age::Count(_)) => std::cmp::Ordering::Greater,
    });
    found
}

/// Which way the numbers go, as far as the known files tell.
///
/// Two known files show it by the order in which they had the path. When there are none such, but
/// every stranger has a larger number than every known file, then the strangers came later, since
/// what was there before would be known; unless so many are known that older ones were forgotten.
fn counting_of(counts: &[(u32, Acquaintance)], known_max: usize) -> Counting {
    let ordered = || {
        counts
            .iter()
            .filter_map(|(count, who)| Some((who.order()?, *count)))
    };
    let last = ordered().max();
    let before = last.and_then(|(order, _)| ordered().filter(|(o, _)| *o < order).max());
    if let (Some((_, last)), Some((_, before))) = (last, before) {
        return if last > before {
            Counting::FromTheOldest
        } else {
            Counting::FromTheNewest
        };
    }
    let (strangers, known): (Vec<_>, Vec<_>) = counts
        .iter()
        .filter(|(_, who)| *who != Acquaintance::Unread)
        .partition(|(_, who)| *who == Acquaintance::Stranger);
    let largest_known = known.iter().map(|(count, _)| *count).max();
    let smallest_stranger = strangers.iter().map(|(count, _)| *count).min();
    match (largest_known, smallest_stranger) {
        (Some(largest), Some(smallest)) if smallest > largest && known.len() < known_max => {
            Counting::FromTheOldest
        }
        _ => Counting::FromTheNewest,
    }
}

/// The files that had the path after the newest known one, and were rotated away before anybody
/// looked. Oldest first. When none is known, all of them.
///
/// The caller remembers at most `known_max` files.
#[must_use]
pub fn missed<'a>(
    base: &str,
    siblings: &'a [Sibling],
    known_max: usize,
    acquaintance: impl Fn(&Sibling) -> Acquaintance,
) -> Vec<&'a Sibling> {
    let counts: Vec<_> = siblings
        .iter()
        .filter_map(|sibling| match age(base, &sibling.name)? {
            Age::Count(count) => Some((count, acquaintance(sibling))),
            Age::Date(_) => None,
        })
        .collect();
    let found = rotated(base, siblings, counting_of(&counts, known_max));
    // The newest known one of each way of naming: an operator may have changed it.
    let (mut after_count, mut after_date) = (0, 0);
    for (at, (age, sibling)) in found.iter().enumerate() {
        let who = acquaintance(sibling);
        if !matches!(who, Acquaintance::Stranger | Acquaintance::Unread) {
            match age {
                Age::Count(_) => after_count = at + 1,
                Age::Date(_) => after_date = at + 1,
            }
        }
    }
    found
        .into_iter()
        .enumerate()
        .filter(|(at, (age, sibling))| {
            let after = match age {
                Age::Count(_) => after_count,
                Age::Date(_) => after_date,
            };
            *at >= after || acquaintance(sibling) == Acquaintance::Unread
        })
        .map(|(_, (_, sibling))| sibling)
        .collect()
}

/// The rotated files of `base`, newest first as logrotate counts: where a lost file is looked for.
#[must_use]
pub fn newest_first<'a>(base: &str, siblings: &'a [Sibling]) -> Vec<&'a Sibling> {
    rotated(base, siblings, Counting::FromTheNewest)
        .into_iter()
        .rev()
        .map(|(_, sibling)| sibling)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::FileId;

    fn dir(names: &[(&str, u64)]) -> Vec<Sibling> {
        names
            .iter()
            .map(|(name, ino)| Sibling {
                name: (*name).into(),
                stat: FileStat {
                    id: FileId {
                        dev: 1,
                        ino: *ino,
                        born_ns: 0,
                    },
                    size: 9,
                    changed_ns: 0,
                },
            })
            .collect()
    }

    /// `known` in the order of their reading.
    #[track_caller]
    fn check(names: &[(&str, u64)], known: &[u64], want: &[&str]) {
        let siblings = dir(names);
        let known = |sibling: &Sibling| {
            let nth = known.iter().position(|ino| *ino == sibling.stat.id.ino);
            nth.map_or(Acquaintance::Stranger, Acquaintance::Read)
        };
        let got: Vec<_> = missed("a.log", &siblings, 16, known)
            .into_iter()
            .map(|sibling| sibling.name.as_str())
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn rotations_newer_than_the_known_ones_were_missed() {
        let counted = [
            ("a.log.1", 4),
            ("a.log.2", 3),
            ("a.log.3", 2),
            ("a.log.10", 1),
        ];
        check(&counted, &[1, 2, 3, 4], &[]);
        check(&counted, &[3, 4], &[]);
        check(&counted, &[1, 2, 3], &["a.log.1"]);
        check(&counted, &[1, 2], &["a.log.2", "a.log.1"]);
        check(&counted, &[1], &["a.log.3", "a.log.2", "a.log.1"]);
        check(&counted, &[1, 3], &["a.log.1"]);
        check(
            &counted,
            &[],
            &["a.log.10", "a.log.3", "a.log.2", "a.log.1"],
        );
        let dated = [
            ("a.log-20261124", 3),
            ("a.log-20261123", 2),
            ("a.log-20261122.gz", 1),
        ];
        check(&dated, &[3], &[]);
        check(&dated, &[1], &["a.log-20261123", "a.log-20261124"]);
    }

    #[test]
    fn numbers_may_grow_with_time() {
        let names = [
            ("a.log.4", 1),
            ("a.log.9", 2),
            ("a.log.14", 3),
            ("a.log.19", 4),
        ];
        check(&names, &[1, 2], &["a.log.14", "a.log.19"]);
        check(&names, &[1], &["a.log.9", "a.log.14", "a.log.19"]);
        check(&names, &[1, 2, 3, 4], &[]);
        check(&names, &[4], &["a.log.14", "a.log.9", "a.log.4"]);
        // The same names as logrotate would have made them.
        check(&names, &[4, 3], &["a.log.9", "a.log.4"]);
    }

    #[test]
    fn what_was_there_before_the_entry_is_not_missed() {
        let siblings = dir(&[
            ("a.log.1", 9),
            ("a.log.2", 3),
            ("a.log.3", 2),
            ("a.log.4", 1),
        ]);
        let before = |known: &'static [u64]| {
            move |sibling: &Sibling| match sibling.stat.id.ino {
                9 => Acquaintance::Read(0),
                ino if known.contains(&ino) => Acquaintance::Older,
                _ => Acquaintance::Stranger,
            }
        };
        assert_eq!(
            missed("a.log", &siblings, 16, before(&[1, 2, 3])),
            [] as [&Sibling; 0]
        );
        // One was unpacked or copied by hand.
        assert_eq!(
            missed("a.log", &siblings, 16, before(&[2, 3])),
            [] as [&Sibling; 0]
        );
        // The oldest ones were forgotten.
        let found = missed("a.log", &siblings[1..], 2, before(&[2, 3]));
        assert_eq!(found, [] as [&Sibling; 0]);
    }

    #[test]
    fn what_was_opened_and_not_read_is_missed_wherever_it_is() {
        let siblings = dir(&[("a.log.1", 3), ("a.log.2", 2), ("a.log.3", 1)]);
        let who = |sibling: &Sibling| match sibling.stat.id.ino {
            1 => Acquaintance::Unread,
            2 => Acquaintance::Read(0),
            _ => Acquaintance::Stranger,
        };
        let names: Vec<_> = missed("a.log", &siblings, 16, who)
            .into_iter()
            .map(|sibling| sibling.name.as_str())
            .collect();
        assert_eq!(names, ["a.log.3", "a.log.1"]);
    }

    #[test]
    fn a_changed_naming_loses_nothing() {
        let names = [("a.log.1", 1), ("a.log-20261123", 2), ("a.log-20261124", 3)];
        check(&names, &[1], &["a.log-20261123", "a.log-20261124"]);
    }

    #[test]
    fn only_rotations_count() {
        let names = [
            ("a.log.1", 1),
            ("a.log.bak", 2),
            ("a.logs", 3),
            ("a.log.swp", 4),
            ("a.log.", 5),
            ("a.log.0", 6),
            ("a.log1", 7),
            ("b.log.0", 8),
        ];
        check(&names, &[1], &["a.log.0"]);
        assert!(is_compressed("a.log.2.gz") && !is_compressed("a.log.2"));
        let both = dir(&[("a.log.1", 1), ("a.log.1.gz", 2), ("a.log.2.gz", 3)]);
        assert!(!is_unpackable("a.log.1.gz", &both) && is_being_made("a.log.1.gz", &both));
        assert!(is_unpackable("a.log.2.gz", &both) && !is_unpackable("a.log.2.xz", &both));
    }

    #[test]
    fn a_rotated_name_tells_the_name_before() {
        for name in [
            "a.log.1",
            "a.log-20261124",
            "a.log.2.gz",
            "a.log-2026-11-24",
            "a.log_7.zst",
        ] {
            assert_eq!(base_of(name), Some("a.log"), "{name}");
        }
        for name in ["a.log", "a-2026-11-24.log", "1", ".1", "a.log.gz"] {
            assert_eq!(base_of(name), None, "{name}");
        }
    }

    #[test]
    fn newest_come_first_when_searching() {
        let siblings = dir(&[("a.log.2", 1), ("a.log.1", 2), ("a.log.3.gz", 3)]);
        let names: Vec<_> = newest_first("a.log", &siblings)
            .into_iter()
            .map(|s| s.name.as_str())
            .collect();
        assert_eq!(names, ["a.log.1", "a.log.2", "a.log.3.gz"]);
    }
}
