//! Which files of a directory were rotated away from a path, and in which order.
//!
//! Two naming schemes are understood: a number that grows with age (`access.log.1` is newer than
//! `access.log.2`) and a date or counter that grows with time (`access.log-20261124`). This
//! module compares names and identities; it never looks into a directory or a file.

use crate::identity::FileStat;

/// A file of the same directory whose name begins with the tailed file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// File name without directory.
    pub name: String,
    pub stat: FileStat,
}

/// Suffixes of compressed files: their content cannot be compared or read on.
const COMPRESSED: [&str; 6] = [".gz", ".bz2", ".xz", ".zst", ".lz4", ".Z"];
/// A longer run of digits is a date, not a count of rotations.
const MAX_COUNT_DIGITS: usize = 4;

/// How old a rotated file is, told by its name. Greater is newer, within one scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age<'a> {
    Count(u32),
    Date(&'a str),
}

impl Age<'_> {
    fn is_newer_than(&self, other: &Age<'_>) -> bool {
        match (self, other) {
            (Age::Count(a), Age::Count(b)) => a < b,
            (Age::Date(a), Age::Date(b)) => a > b,
            _ => false,
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

/// Oldest first. Files that are not named like a rotation of `base` are left out.
fn rotated<'a>(base: &str, siblings: &'a [Sibling]) -> Vec<(Age<'a>, &'a Sibling)> {
    let mut found: Vec<_> = siblings
        .iter()
        .filter_map(|sibling| Some((age(base, &sibling.name)?, sibling)))
        .collect();
    found.sort_by(|(a, _), (b, _)| match (a, b) {
        (Age::Count(a), Age::Count(b)) => b.cmp(a),
        (Age::Date(a), Age::Date(b)) => a.cmp(b),
        (Age::Count(_), Age::Date(_)) => std::cmp::Ordering::Less,
        (Age::Date(_), Age::Count(_)) => std::cmp::Ordering::Greater,
    });
    found
}

/// The files that had the path after the newest one that `is_known` knows, and were rotated away
/// before anybody looked. Oldest first. When none is known, all of them.
#[must_use]
pub fn missed<'a>(
    base: &str,
    siblings: &'a [Sibling],
    is_known: impl Fn(&FileStat) -> bool,
) -> Vec<&'a Sibling> {
    let found = rotated(base, siblings);
    let newest_known = found
        .iter()
        .rev()
        .find(|(_, sibling)| is_known(&sibling.stat))
        .map(|(age, _)| *age);
    found
        .into_iter()
        .filter(|(age, _)| newest_known.is_none_or(|known| age.is_newer_than(&known)))
        .map(|(_, sibling)| sibling)
        .collect()
}

/// The rotated files of `base`, newest first: where a lost file is looked for.
#[must_use]
pub fn newest_first<'a>(base: &str, siblings: &'a [Sibling]) -> Vec<&'a Sibling> {
    rotated(base, siblings)
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
                    id: FileId { dev: 1, ino: *ino },
                    size: 9,
                    changed_ns: 0,
                },
            })
            .collect()
    }

    #[track_caller]
    fn check(names: &[(&str, u64)], known: &[u64], want: &[&str]) {
        let siblings = dir(names);
        let got: Vec<_> = missed("a.log", &siblings, |stat| known.contains(&stat.id.ino))
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
        check(&counted, &[4], &[]);
        check(&counted, &[3], &["a.log.1"]);
        check(&counted, &[2], &["a.log.2", "a.log.1"]);
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
