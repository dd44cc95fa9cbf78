//! What pushing or removing a path means for a document: pure decisions, made entry by entry.
//!
//! A push never touches an entry of another path. The same push twice changes nothing the second
//! time, which is what lets a writer repeat it after an answer was lost.

use schemas::agent::LogEntry;

use super::document::Document;

/// What to do with a path that is already there under another topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherTopic {
    /// Its topic becomes the pushed one.
    Change,
    /// It stays, and the pushed one comes beside it.
    KeepBoth,
}

/// What a push did for one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Added,
    /// The topic before; absent when the entry had none.
    TopicChanged {
        from: Option<String>,
    },
    AlreadyThere,
}

/// The path has several entries, so it is open which of them should get the topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path} has {} entries (topics {}): remove one with `rm-path {path} --topic …`, \
     or add another with --add", topics.len(), topics.join(", ")
)]
pub struct Ambiguous {
    pub path: String,
    pub topics: Vec<String>,
}

/// Adds an entry or changes its topic.
pub fn push(
    document: &Document,
    new: &LogEntry,
    other_topic: OtherTopic,
) -> Result<(Document, Change), Ambiguous> {
    let same_path: Vec<usize> = positions(document, &new.path);
    let topic_at = |index: usize| document.entries()[index].topic.as_deref();
    if same_path
        .iter()
        .any(|index| topic_at(*index) == Some(&new.topic))
    {
        return Ok((document.clone(), Change::AlreadyThere));
    }
    match (&same_path[..], other_topic) {
        ([], _) | (_, OtherTopic::KeepBoth) => {
            let index = if document.is_sorted() {
                document
                    .entries()
                    .partition_point(|entry| entry.path.as_deref() <= Some(new.path.as_str()))
            } else {
                document.entries().len()
            };
            Ok((document.insert(index, new), Change::Added))
        }
        ([index], OtherTopic::Change) => {
            let from = topic_at(*index).map(str::to_owned);
            Ok((
                document.set_topic(*index, &new.topic),
                Change::TopicChanged { from },
            ))
        }
        (several, OtherTopic::Change) => Err(Ambiguous {
            path: new.path.clone(),
            topics: several
                .iter()
                .map(|index| topic_at(*index).unwrap_or("none").to_owned())
                .collect(),
        }),
    }
}

/// Removes the entries of a path, all of them or those of one topic; returns their topics.
pub fn remove(
    document: &Document,
    path: &str,
    topic: Option<&str>,
) -> (Document, Vec<Option<String>>) {
    let mut left = document.clone();
    let mut removed = Vec::new();
    for index in positions(document, path).into_iter().rev() {
        let entry = &document.entries()[index];
        if topic.is_none() || entry.topic.as_deref() == topic {
            removed.push(entry.topic.clone());
            left = left.remove(index);
        }
    }
    removed.reverse();
    (left, removed)
}

/// True when the document collects this path into this topic.
pub fn holds(document: &Document, wanted: &LogEntry) -> bool {
    positions(document, &wanted.path)
        .into_iter()
        .any(|index| document.entries()[index].topic.as_deref() == Some(&wanted.topic))
}

fn positions(document: &Document, path: &str) -> Vec<usize> {
    let of_path = |(index, entry): (usize, &super::document::Entry)| {
        (entry.path.as_deref() == Some(path)).then_some(index)
    };
    document
        .entries()
        .iter()
        .enumerate()
        .filter_map(of_path)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(path: &str, topic: &str) -> LogEntry {
        LogEntry {
            path: path.into(),
            topic: topic.into(),
        }
    }

    fn pushed(before: &str, path: &str, topic: &str, other: OtherTopic) -> (String, Change) {
        let document = Document::parse(before.as_bytes()).unwrap();
        let (after, change) = push(&document, &entry(path, topic), other).unwrap();
        (after.text().to_owned(), change)
    }

    const ACCESS: &str = r#"{"path":"/l/access.log","topic":"nginx_log"}"#;
    const ERROR: &str = r#"{"path":"/l/error.log","topic":"nginx_err"}"#;

    #[test]
    fn adding_error_log_keeps_access_log() {
        let before = format!("[{ACCESS}]");
        let (after, change) = pushed(&before, "/l/error.log", "nginx_err", OtherTopic::Change);
        assert_eq!(
            (after, change),
            (format!("[{ACCESS},{ERROR}]"), Change::Added)
        );
    }

    #[test]
    fn the_same_push_again_writes_nothing() {
        let before = format!("[{ACCESS} ]");
        let (after, change) = pushed(&before, "/l/access.log", "nginx_log", OtherTopic::Change);
        assert_eq!((after, change), (before, Change::AlreadyThere));
    }

    #[test]
    fn another_topic_replaces_or_joins() {
        let before = r#"[{"path":"/a","topic":"x","codec":"gbk"},{"path":"/b","topic":"y"}]"#;
        let (after, change) = pushed(before, "/a", "z", OtherTopic::Change);
        assert_eq!(
            after,
            r#"[{"path":"/a","topic":"z","codec":"gbk"},{"path":"/b","topic":"y"}]"#
        );
        assert_eq!(
            change,
            Change::TopicChanged {
                from: Some("x".into())
            }
        );
        let (after, change) = pushed(before, "/a", "z", OtherTopic::KeepBoth);
        let both = r#"[{"path":"/a","topic":"x","codec":"gbk"},{"path":"/a","topic":"z"},{"path":"/b","topic":"y"}]"#;
        assert_eq!((after.as_str(), change), (both, Change::Added));
        let document = Document::parse(both.as_bytes()).unwrap();
        let error = push(&document, &entry("/a", "q"), OtherTopic::Change).unwrap_err();
        assert_eq!(error.topics, ["x", "z"]);
        // One of several already has the topic: that is what was asked for.
        assert_eq!(
            pushed(both, "/a", "z", OtherTopic::Change).1,
            Change::AlreadyThere
        );
    }

    #[test]
    fn order_is_kept_up_where_there_is_one() {
        let sorted = r#"[{"path":"/a","topic":"t"},{"path":"/c","topic":"t"}]"#;
        let (after, _) = pushed(sorted, "/b", "t", OtherTopic::Change);
        assert_eq!(
            after,
            r#"[{"path":"/a","topic":"t"},{"path":"/b","topic":"t"},{"path":"/c","topic":"t"}]"#
        );
        let unsorted = r#"[{"path":"/c","topic":"t"},{"path":"/a","topic":"t"}]"#;
        let (after, _) = pushed(unsorted, "/b", "t", OtherTopic::Change);
        assert!(after.ends_with(r#"{"path":"/b","topic":"t"}]"#), "{after}");
    }

    #[test]
    fn removing_takes_what_was_named() {
        let text =
            r#"[{"path":"/a","topic":"x"},{"path":"/b","topic":"y"},{"path":"/a","topic":"z"}]"#;
        let document = Document::parse(text.as_bytes()).unwrap();
        let (left, removed) = remove(&document, "/a", None);
        assert_eq!(left.text(), r#"[{"path":"/b","topic":"y"}]"#);
        assert_eq!(removed, [Some("x".to_owned()), Some("z".to_owned())]);
        let (left, removed) = remove(&document, "/a", Some("z"));
        assert_eq!(
            left.text(),
            r#"[{"path":"/a","topic":"x"},{"path":"/b","topic":"y"}]"#
        );
        assert_eq!(removed.len(), 1);
        assert_eq!(remove(&document, "/none", None), (document.clone(), vec![]));
    }

    /// Documents as other hands write them: unknown fields, missing fields, odd blanks.
    fn documents() -> impl Strategy<Value = String> {
        let blank = prop::sample::select(vec!["", " ", "\n  ", "\t"]);
        let entry = ("/[a-d]{1,2}", "[xyz]", 0..6_u8, blank.clone()).prop_map(
            |(path, topic, shape, blank)| match shape {
                0 => format!("{{{blank}\"topic\":\"{topic}\",\"path\":\"{path}\"}}"),
                1 => format!("{{\"path\":\"{path}\",{blank}\"topic\":\"{topic}\",\"n\":[1,{{}}]}}"),
                2 => format!("{{\"path\":\"{path}\"}}"),
                3 => format!("{{\"other\":{blank}true}}"),
                _ => format!("{{\"path\":\"{path}\",\"topic\":\"{topic}\"{blank}}}"),
            },
        );
        (prop::collection::vec(entry, 0..6), blank.clone(), blank).prop_map(
            |(entries, before, after)| {
                format!(
                    "{before}[{before}{}{after}]{after}",
                    entries.join(&format!("{after},{before}"))
                )
            },
        )
    }

    /// The bytes of every entry that is not about `path`, in order.
    fn unrelated(document: &Document, path: &str) -> Vec<String> {
        (0..document.entries().len())
            .filter(|index| document.entries()[*index].path.as_deref() != Some(path))
            .map(|index| document.entry_text(index).to_owned())
            .collect()
    }

    proptest! {
        #[test]
        fn a_push_never_touches_an_unrelated_entry(
            text in documents(), path in "/[a-d]{1,2}", topic in "[xyz]", keep in any::<bool>(),
        ) {
            let document = Document::parse(text.as_bytes()).unwrap();
            let other = if keep { OtherTopic::KeepBoth } else { OtherTopic::Change };
            let wanted = entry(&path, &topic);
            match push(&document, &wanted, other) {
                Err(_) => prop_assert!(positions(&document, &path).len() > 1 && !keep),
                Ok((after, change)) => {
                    prop_assert!(holds(&after, &wanted));
                    prop_assert_eq!(unrelated(&document, &path), unrelated(&after, &path));
                    let grown = usize::from(change == Change::Added);
                    prop_assert_eq!(document.entries().len() + grown, after.entries().len());
                    prop_assert_eq!(document.is_sorted(), after.is_sorted() && document.is_sorted());
                    prop_assert_eq!(change == Change::AlreadyThere, after.text() == document.text());
                    let (again, change) = push(&after, &wanted, other).unwrap();
                    prop_assert_eq!(change, Change::AlreadyThere);
                    prop_assert_eq!(again.text(), after.text());
                }
            }
        }

        #[test]
        fn a_removal_never_touches_an_unrelated_entry(
            text in documents(), path in "/[a-d]{1,2}", topic in prop::option::of("[xyz]"),
        ) {
            let document = Document::parse(text.as_bytes()).unwrap();
            let (after, removed) = remove(&document, &path, topic.as_deref());
            prop_assert_eq!(unrelated(&document, &path), unrelated(&after, &path));
            prop_assert_eq!(document.entries().len(), after.entries().len() + removed.len());
            if topic.is_none() {
                prop_assert!(positions(&after, &path).is_empty());
            }
            let (again, removed) = remove(&after, &path, topic.as_deref());
            prop_assert!(removed.is_empty() && again == after);
        }

        #[test]
        fn a_push_undone_is_the_document_before(
            text in documents(), topic in "[xyz]",
        ) {
            let document = Document::parse(text.as_bytes()).unwrap();
            let (after, _) = push(&document, &entry("/new", &topic), OtherTopic::Change).unwrap();
            let (undone, _) = remove(&after, "/new", None);
            prop_assert_eq!(unrelated(&undone, "/new"), unrelated(&document, "/new"));
        }
    }
}
