//! Which paths a pattern asks for: `*`, `?`, `[…]`, `{a,b}` within a name, `**` for any depth of
//! directories, and dates (`access.%Y%m%d.log`), which stand for their digits.
//!
//! Compares names; never looks into a directory. The walk over directories asks two questions: is
//! this file meant, and can anything below this directory be meant.
//!
//! # Example
//!
//! ```
//! use logagent_core::pattern::Pattern;
//! let pattern = Pattern::parse("/srv/*/log/**/*.log", &["*debug*".into()]).expect("a pattern");
//! assert_eq!(pattern.root(), "/srv");
//! assert!(pattern.matches("/srv/shop/log/a.log"));         // `**` may stand for nothing
//! assert!(pattern.matches("/srv/shop/log/x/y/a.log"));
//! assert!(!pattern.matches("/srv/shop/log/debug-1.log"));  // excluded
//! assert!(pattern.may_contain("/srv/shop/log/x") && !pattern.may_contain("/srv/shop/etc"));
//! ```

use globset::{GlobBuilder, GlobMatcher};

/// What a date field stands for, in digits.
const DATE_FIELDS: [(char, usize); 8] = [
    ('Y', 4),
    ('m', 2),
    ('d', 2),
    ('H', 2),
    ('M', 2),
    ('S', 2),
    ('y', 2),
    ('j', 3),
];
/// A pattern with more parts than this was not meant.
const SEGMENTS_MAX: usize = 64;

#[derive(Debug, Clone)]
enum Segment {
    /// Exactly this name.
    Name(String),
    Glob(GlobMatcher),
    /// Any number of directories, none included.
    AnyDepth,
}

#[derive(Debug, Clone)]
enum Exclusion {
    /// Compared with the last part of a path.
    Name(GlobMatcher),
    Path(Vec<Segment>),
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    segments: Vec<Segment>,
    exclude: Vec<Exclusion>,
}

/// Whether a path is a pattern and not the path of one file.
#[must_use]
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '{', '%'])
}

impl Pattern {
    /// `exclude` holds patterns of names (`*.gz`) and of paths (`/srv/*/tmp/**`).
    pub fn parse(path: &str, exclude: &[String]) -> Result<Self, String> {
        let exclude = exclude.iter().map(|text| exclusion(text));
        Ok(Self {
            exclude: exclude.collect::<Result<_, _>>()?,
            segments: segments(path)?,
        })
    }

    /// The directory that all meant files lie below.
    #[must_use]
    pub fn root(&self) -> String {
        let names = self.segments.iter().map_while(|segment| match segment {
            Segment::Name(name) => Some(name.as_str()),
            _ => None,
        });
        // The last part is the file.
        let names = names.take(self.segments.len().saturating_sub(1));
        let root: String = names.flat_map(|name| ["/", name]).collect();
        if root.is_empty() { "/".into() } else { root }
    }

    /// Whether this file is meant.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        reach(&self.segments, path).contains(&self.segments.len()) && !self.excludes(path)
    }

    /// Whether a file below this directory can be meant.
    #[must_use]
    pub fn may_contain(&self, directory: &str) -> bool {
        let end = self.segments.len();
        reach(&self.segments, directory).iter().any(|at| *at < end)
    }

    /// Whether directories at this place are taken in whatever their name is: a link there may lead
    /// back to where the walk came from.
    #[must_use]
    pub fn is_any_depth(&self, directory: &str) -> bool {
        reach(&self.segments, directory)
            .iter()
            .any(|at| matches!(self.segments.get(*at), Some(Segment::AnyDepth)))
    }

    fn excludes(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.exclude.iter().any(|exclusion| match exclusion {
            Exclusion::Name(glob) => glob.is_match(name),
            Exclusion::Path(segments) => reach(segments, path).contains(&segments.len()),
        })
    }
}

/// How many segments may be used up when the whole path is: each way counts.
fn reach(segments: &[Segment], path: &str) -> Vec<usize> {
    let mut reached = vec![0];
    skip_any_depth(segments, &mut reached);
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::with_capacity(reached.len() + 1);
        for at in reached {
            let goes_to = match segments.get(at) {
                Some(Segment::Name(name)) if name == part => at + 1,
                Some(Segment::Glob(glob)) if glob.is_match(part) => at + 1,
                Some(Segment::AnyDepth) => at,
                _ => continue,
            };
            if !next.contains(&goes_to) {
                next.push(goes_to);
            }
        }
        skip_any_depth(segments, &mut next);
        reached = next;
    }
    reached
}

/// `**` may stand for nothing.
fn skip_any_depth(segments: &[Segment], reached: &mut Vec<usize>) {
    let mut index = 0;
    while let Some(&at) = reached.get(index) {
        if matches!(segments.get(at), Some(Segment::AnyDepth)) && !reached.contains(&(at + 1)) {
            reached.push(at + 1);
        }
        index += 1;
    }
}

fn segments(path: &str) -> Result<Vec<Segment>, String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.len() > SEGMENTS_MAX {
        return Err(format!(
            "pattern {path:?} has more than {SEGMENTS_MAX} parts"
        ));
    }
    if parts.last() == Some(&"**") {
        return Err(format!(
            "pattern {path:?} ends with **, which stands for directories: write **/* for all files"
        ));
    }
    parts.into_iter().map(segment).collect()
}

fn segment(part: &str) -> Result<Segment, String> {
    if part == "**" {
        return Ok(Segment::AnyDepth);
    }
    if part.contains("**") {
        return Err(format!("{part:?}: ** must stand alone between two slashes"));
    }
    if !is_pattern(part) {
        return Ok(Segment::Name(part.into()));
    }
    Ok(Segment::Glob(glob(part)?))
}

fn glob(part: &str) -> Result<GlobMatcher, String> {
    let text = digits_for_dates(part)?;
    GlobBuilder::new(&text)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| format!("{part:?} is no pattern: {}", error.kind()))
}

fn digits_for_dates(part: &str) -> Result<String, String> {
    let mut text = String::with_capacity(part.len());
    let mut chars = part.chars();
    while let Some(next) = chars.next() {
        if next != '%' {
            text.push(next);
            continue;
        }
        match chars.next() {
            Some('%') => text.push('%'),
            Some(field) if DATE_FIELDS.iter().any(|(known, _)| *known == field) => {
                let digits = DATE_FIELDS.iter().find(|(known, _)| *known == field);
                (0..digits.map_or(0, |(_, digits)| *digits)).for_each(|_| text.push_str("[0-9]"));
            }
            other => {
                let field = other.map(String::from).unwrap_or_default();
                return Err(format!(
                    "%{field} is no date field: known are %Y %m %d %H %M %S %y %j, and %% for a \
                     percent sign"
                ));
            }
        }
    }
    Ok(text)
}

fn exclusion(text: &str) -> Result<Exclusion, String> {
    if text.is_empty() {
        return Err("an empty pattern excludes nothing: remove it".into());
    }
    if !text.contains('/') {
        return glob(text).map(Exclusion::Name);
    }
    let mut segments = if text.starts_with('/') {
        Vec::new()
    } else {
        vec![Segment::AnyDepth]
    };
    // A directory excludes all that lies below it.
    let whole = text
        .strip_suffix("/**")
        .map(|directory| format!("{directory}/**/*"));
    segments.append(&mut self::segments(whole.as_deref().unwrap_or(text))?);
    Ok(Exclusion::Path(segments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(pattern: &str, exclude: &[&str], yes: &[&str], no: &[&str]) {
        let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
        let pattern = Pattern::parse(pattern, &exclude).unwrap();
        for path in yes {
            assert!(pattern.matches(path), "{path}");
            for (at, _) in path.match_indices('/').filter(|(at, _)| *at > 0) {
                assert!(pattern.may_contain(&path[..at]), "{}", &path[..at]);
            }
        }
        for path in no {
            assert!(!pattern.matches(path), "{path}");
        }
    }

    #[test]
    fn names_and_depths() {
        check(
            "/a/*.log",
            &[],
            &["/a/x.log", "/a/.log"],
            &["/a/b/x.log", "/x.log", "/a/x.log.1", "/a"],
        );
        check(
            "/a/**/x?.log",
            &[],
            &["/a/x1.log", "/a/b/x1.log", "/a/b/c/d/x1.log"],
            &["/a/b/x.log", "/b/x1.log"],
        );
        check("/**/x", &[], &["/x", "/a/x", "/a/b/x"], &["/a/b/y"]);
        check(
            "/a/{b,c}/[xy]",
            &[],
            &["/a/b/x", "/a/c/y"],
            &["/a/d/x", "/a/b/z"],
        );
        check(
            "/a/**/b/**/c",
            &[],
            &["/a/b/c", "/a/b/b/c", "/a/1/b/2/c"],
            &["/a/c"],
        );
    }

    #[test]
    fn dates_are_digits() {
        check(
            "/a/access.%Y%m%d.log",
            &[],
            &["/a/access.20261124.log"],
            &[
                "/a/access.2026112.log",
                "/a/access.log",
                "/a/access.%Y%m%d.log",
            ],
        );
        check("/a/%%.%H", &[], &["/a/%.07"], &["/a/%.7"]);
        assert!(Pattern::parse("/a/%Q", &[]).unwrap_err().contains("%Q"));
        assert!(Pattern::parse("/a/x%", &[]).is_err());
    }

    #[test]
    fn exclusions_are_of_names_or_paths() {
        check(
            "/a/**/*",
            &["*.gz", "/a/tmp/**", "cache/*"],
            &["/a/x", "/a/b/x", "/a/b/tmp/x", "/a/cache/b/x"],
            &[
                "/a/x.gz",
                "/a/b/x.gz",
                "/a/tmp/x",
                "/a/tmp/b/x",
                "/a/b/cache/x",
            ],
        );
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for bad in ["/a/[", "/a/x**", "/a/**", "/a/{b"] {
            assert!(Pattern::parse(bad, &[]).is_err(), "{bad}");
        }
        assert!(Pattern::parse("/a/*", &["".into()]).is_err());
        assert!(!is_pattern("/var/log/a-b_c.log") && is_pattern("/a/%Y"));
    }

    #[test]
    fn the_walk_begins_at_the_literal_part() {
        let root = |text: &str| Pattern::parse(text, &[]).unwrap().root();
        assert_eq!(root("/var/log/*.log"), "/var/log");
        assert_eq!(root("/*/x.log"), "/");
        assert_eq!(root("/a/**/x.log"), "/a");
        let pattern = Pattern::parse("/a/*/**/x", &[]).unwrap();
        assert!(!pattern.is_any_depth("/a") && pattern.is_any_depth("/a/b/c"));
    }

    proptest! {
        /// Against the plainest recursion over the parts.
        #[test]
        fn agrees_with_the_definition(
            pattern in proptest::collection::vec(prop_oneof!["[ab]", Just("**".into()), Just("*".into())], 1..6),
            path in proptest::collection::vec("[abc]", 1..7),
        ) {
            fn naive(pattern: &[String], path: &[String]) -> bool {
                match (pattern.split_first(), path.split_first()) {
                    (None, None) => true,
                    (Some((first, rest)), _) if first == "**" => {
                        naive(rest, path) || path.split_first().is_some_and(|(_, below)| naive(pattern, below))
                    }
                    (Some((first, rest)), Some((name, below))) => {
                        (first == "*" || first == name) && naive(rest, below)
                    }
                    _ => false,
                }
            }
            prop_assume!(pattern.last().is_some_and(|last| last != "**"));
            let text: String = pattern.iter().flat_map(|part| ["/", part]).collect();
            let name: String = path.iter().flat_map(|part| ["/", part]).collect();
            let compiled = Pattern::parse(&text, &[]).unwrap();
            prop_assert_eq!(compiled.matches(&name), naive(&pattern, &path));
        }
    }
}
