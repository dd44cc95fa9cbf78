//! Publishing over a key that somebody edited by hand: nothing that they wrote is lost unseen.
//!
//! ```text
//! published before   now in the store     to be published     result
//! /a                 /a, /hand            /a, /b              /a, /b, /hand
//! /a → t             /a → hand            /a → t              /a → hand (still drift)
//! /a → t             /a → hand            /a → u              conflict: somebody has to decide
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::document::Document;

/// A document that holds both the hand's and the publisher's changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    pub text: String,
    /// Paths on which the hand's version stays.
    pub kept: Vec<String>,
}

/// Both sides changed the same path, each in their own way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} edited by hand and changed by this publish: adopt the edit, or restore the published entries",
    paths.join(", ")
)]
pub struct BothChanged {
    pub paths: Vec<String>,
}

/// The texts of the entries of one path; compared as values, so that layout is no change.
#[derive(Debug, Clone, Default)]
struct Said<'a> {
    texts: Vec<&'a str>,
    values: Vec<Value>,
}

impl PartialEq for Said<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

/// Entries without a path have the key "": they belong to whoever wrote them.
fn by_path(document: &Document) -> BTreeMap<String, Said<'_>> {
    let mut paths: BTreeMap<String, Said<'_>> = BTreeMap::new();
    for (index, entry) in document.entries().iter().enumerate() {
        let said = paths
            .entry(entry.path.clone().unwrap_or_default())
            .or_default();
        let text = document.entry_text(index);
        said.texts.push(text);
        said.values
            .push(serde_json::from_str(text).unwrap_or(Value::Null));
        said.values.sort_by_key(Value::to_string);
    }
    paths
}

/// Brings what the publish changes (from `base` to `desired`) into `current`.
pub fn merge(
    base: &Document,
    current: &Document,
    desired: &Document,
) -> Result<Merged, BothChanged> {
    let (old, hand, new) = (by_path(base), by_path(current), by_path(desired));
    let paths: BTreeSet<&String> = old.keys().chain(hand.keys()).chain(new.keys()).collect();
    let none = Said::default();
    let mut texts: Vec<&str> = Vec::new();
    let mut kept = Vec::new();
    let mut clashes = Vec::new();
    for path in paths {
        let said = |side: &'_ BTreeMap<String, Said<'_>>| side.contains_key(path);
        let (was, is, wanted) = (
            old.get(path).unwrap_or(&none),
            hand.get(path).unwrap_or(&none),
            new.get(path).unwrap_or(&none),
        );
        if is == wanted || is == was {
            texts.extend(&wanted.texts);
        } else if was == wanted {
            texts.extend(&is.texts);
            kept.push(path.clone());
        } else {
            debug_assert!(said(&hand) || said(&old));
            clashes.push(if path.is_empty() {
                "an entry without a path".into()
            } else {
                path.clone()
            });
        }
    }
    if !clashes.is_empty() {
        return Err(BothChanged { paths: clashes });
    }
    let text = if kept.is_empty() {
        desired.text().to_owned()
    } else {
        format!("[{}]", texts.join(","))
    };
    Ok(Merged { text, kept })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::diff::{apply, diff, rows};

    /// `"/a>t /b>u"`: an entry per word.
    fn document(text: &str) -> Document {
        let entry = |word: &str| {
            let (path, topic) = word.split_once('>').unwrap();
            format!(r#"{{"path":"{path}","topic":"{topic}"}}"#)
        };
        let entries: Vec<String> = text.split_whitespace().map(entry).collect();
        Document::parse(format!("[{}]", entries.join(",")).as_bytes()).unwrap()
    }

    #[track_caller]
    fn check(base: &str, current: &str, desired: &str, expected: Result<(&str, &[&str]), &[&str]>) {
        let merged = merge(&document(base), &document(current), &document(desired));
        match (merged, expected) {
            (Ok(merged), Ok((text, kept))) => {
                assert_eq!(
                    merged.text,
                    document(text).text(),
                    "{base} | {current} | {desired}"
                );
                assert_eq!(merged.kept, kept);
            }
            (Err(both), Err(paths)) => assert_eq!(both.paths, paths),
            (merged, expected) => panic!("{merged:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn edits_by_hand_stay_unless_they_clash() {
        check("", "", "/a>t", Ok(("/a>t", &[])));
        check("/a>t", "/a>t", "/b>t", Ok(("/b>t", &[])));
        check(
            "/a>t",
            "/a>t /hand>x",
            "/a>t /b>t",
            Ok(("/a>t /b>t /hand>x", &["/hand"])),
        );
        check("/a>t", "/a>hand", "/a>t", Ok(("/a>hand", &["/a"])));
        check("/a>t", "/a>hand", "/a>u", Err(&["/a"]));
        check("/a>t", "/a>u", "/a>u", Ok(("/a>u", &[])));
        // Removed by hand and left alone by the publish: it stays removed.
        check("/a>t /b>t", "/b>t", "/a>t /b>u", Ok(("/b>u", &["/a"])));
        check("/a>t", "", "/a>u", Err(&["/a"]));
        // Nothing was published before, so all that is there was written by hand.
        check("", "/a>t", "/b>t", Ok(("/a>t /b>t", &["/a"])));
        check("", "/a>t", "/a>t /b>t", Ok(("/a>t /b>t", &[])));
    }

    #[test]
    fn what_is_kept_keeps_its_bytes() {
        let current =
            Document::parse(b"[ { \"path\":\"/h\",  \"topic\":\"t\", \"x\":1 } ]").unwrap();
        let merged = merge(&document(""), &current, &document("/a>t")).unwrap();
        assert_eq!(
            merged.text,
            "[{\"path\":\"/a\",\"topic\":\"t\"},{ \"path\":\"/h\",  \"topic\":\"t\", \"x\":1 }]"
        );
        let blanks = Document::parse(b"[ {\"topic\":\"t\",\"path\":\"/a\"} ]").unwrap();
        let merged = merge(&document("/a>t"), &blanks, &document("/a>u")).unwrap();
        assert_eq!(merged.text, document("/a>u").text());
    }

    fn texts() -> impl Strategy<Value = String> {
        prop::collection::btree_map("/[a-c]", "[xy]", 0..3).prop_map(|entries| {
            entries
                .into_iter()
                .map(|(path, topic)| format!("{path}>{topic} "))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn without_edits_the_publish_is_what_is_published(base in texts(), desired in texts()) {
            let merged = merge(&document(&base), &document(&base), &document(&desired)).unwrap();
            prop_assert_eq!(merged.text, document(&desired).text().to_owned());
            prop_assert!(merged.kept.is_empty());
        }

        #[test]
        fn both_sides_changes_are_in_the_result(base in texts(), current in texts(), desired in texts()) {
            let (base, current, desired) = (document(&base), document(&current), document(&desired));
            if let Ok(merged) = merge(&base, &current, &desired) {
                let merged = Document::parse(merged.text.as_bytes()).unwrap();
                let published = diff(&rows(&base), &rows(&desired));
                let by_hand = diff(&rows(&base), &rows(&current));
                for change in by_hand.iter().filter(|change| !published.contains(change)) {
                    // Carrying the hand's change out again changes nothing: it is there.
                    let again = apply(&rows(&merged), std::slice::from_ref(change));
                    prop_assert!(again.len() >= merged.entries().len() || diff(&rows(&merged), &again).is_empty());
                }
                let twice = merge(&desired, &merged, &desired).unwrap();
                prop_assert_eq!(twice.text, merged.text().to_owned());
            }
        }
    }
}
