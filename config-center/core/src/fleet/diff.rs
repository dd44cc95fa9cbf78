//! What changes between two documents, entry by entry, and how far a change reaches.
//!
//! Compares meaning and not bytes: the order of entries, blanks, and the order of fields are no
//! difference.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::Value;

use super::document::{Document, DocumentError};
use crate::planted::{self, Bug};

/// One entry, as far as two entries are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The whole entry, fields ordered by name.
    pub content: Value,
}

impl Row {
    fn sort_key(&self) -> (Option<&str>, Option<&str>, String) {
        (
            self.path.as_deref(),
            self.topic.as_deref(),
            self.content.to_string(),
        )
    }

    fn target(&self) -> String {
        let path = self.path.as_deref().unwrap_or("(no path)");
        format!("{path} → {}", self.topic.as_deref().unwrap_or("(no topic)"))
    }
}

/// The entries of a document.
pub fn rows(document: &Document) -> Vec<Row> {
    let row = |(index, entry): (usize, &super::document::Entry)| Row {
        path: entry.path.clone(),
        topic: entry.topic.clone(),
        content: serde_json::from_str(document.entry_text(index)).unwrap_or(Value::Null),
    };
    document.entries().iter().enumerate().map(row).collect()
}

/// The entries of a key's value; an absent key and an empty value hold none.
pub fn rows_of_value(value: Option<&[u8]>) -> Result<Vec<Row>, DocumentError> {
    match value {
        Some(value) if !value.trim_ascii().is_empty() => Ok(rows(&Document::parse(value)?)),
        _ => Ok(Vec::new()),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum EntryChange {
    Added {
        entry: Row,
    },
    Removed {
        entry: Row,
    },
    /// Another topic or other options for the same path.
    Changed {
        before: Row,
        after: Row,
    },
}

impl fmt::Display for EntryChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { entry } => write!(f, "+ {}", entry.target()),
            Self::Removed { entry } => write!(f, "- {}", entry.target()),
            Self::Changed { before, after } if before.topic != after.topic => {
                let path = after.path.as_deref().unwrap_or("(no path)");
                let topic = |row: &Row| row.topic.clone().unwrap_or_else(|| "(no topic)".into());
                write!(f, "~ {path}: topic {} → {}", topic(before), topic(after))
            }
            Self::Changed { before, after } => {
                let names = changed_fields(&before.content, &after.content);
                write!(f, "~ {}: {}", after.target(), names.join(", "))
            }
        }
    }
}

fn changed_fields(before: &Value, after: &Value) -> Vec<String> {
    let none = serde_json::Map::new();
    let (before, after) = (
        before.as_object().unwrap_or(&none),
        after.as_object().unwrap_or(&none),
    );
    let value = |value: Option<&Value>| value.map_or("not set".to_owned(), Value::to_string);
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| {
            format!(
                "{name} {} → {}",
                value(before.get(name)),
                value(after.get(name))
            )
        })
        .collect()
}

/// What leads from one list of entries to another, by path.
pub fn diff(before: &[Row], after: &[Row]) -> Vec<EntryChange> {
    let mut left = count(before);
    let mut came: Vec<&Row> = Vec::new();
    for row in after {
        match left.get_mut(&row.sort_key()) {
            Some((_, count)) if *count > 0 => *count -= 1,
            _ => came.push(row),
        }
    }
    let mut gone: Vec<&Row> = left
        .into_values()
        .flat_map(|(row, count)| std::iter::repeat_n(row, count))
        .collect();
    came.sort_by_key(|row| row.sort_key());
    gone.sort_by_key(|row| row.sort_key());
    let mut changes: Vec<EntryChange> = Vec::new();
    // An entry that kept its topic pairs first: only its options changed.
    for keeps_topic in [true, false] {
        came.retain(|row| {
            let pair = gone.iter().position(|old| {
                old.path == row.path
                    && row.path.is_some()
                    && (!keeps_topic || old.topic == row.topic)
            });
            let Some(index) = pair else { return true };
            let before = gone.remove(index).clone();
            changes.push(EntryChange::Changed {
                before,
                after: (*row).clone(),
            });
            false
        });
    }
    if !planted::is(Bug::DiffForgetsRemovals) {
        changes.extend(
            gone.into_iter()
                .map(|row| EntryChange::Removed { entry: row.clone() }),
        );
    }
    changes.extend(
        came.into_iter()
            .map(|row| EntryChange::Added { entry: row.clone() }),
    );
    changes.sort_by_key(|change| {
        let row = change.row();
        (row.path.clone(), row.topic.clone())
    });
    changes
}

type Counted<'a> = BTreeMap<(Option<&'a str>, Option<&'a str>, String), (&'a Row, usize)>;

fn count(rows: &[Row]) -> Counted<'_> {
    let mut counted = Counted::new();
    for row in rows {
        counted.entry(row.sort_key()).or_insert((row, 0)).1 += 1;
    }
    counted
}

impl EntryChange {
    fn row(&self) -> &Row {
        match self {
            Self::Added { entry } | Self::Removed { entry } => entry,
            Self::Changed { after, .. } => after,
        }
    }
}

/// Carries changes out on a list of entries.
pub fn apply(before: &[Row], changes: &[EntryChange]) -> Vec<Row> {
    let mut rows = before.to_vec();
    let remove = |rows: &mut Vec<Row>, gone: &Row| {
        if let Some(index) = rows.iter().position(|row| row == gone) {
            rows.remove(index);
        }
    };
    for change in changes {
        match change {
            EntryChange::Added { entry } => rows.push(entry.clone()),
            EntryChange::Removed { entry } => remove(&mut rows, entry),
            EntryChange::Changed { before, after } => {
                remove(&mut rows, before);
                rows.push(after.clone());
            }
        }
    }
    rows.sort_by_key(|row| {
        let (path, topic, content) = row.sort_key();
        (path.map(str::to_owned), topic.map(str::to_owned), content)
    });
    rows
}

/// How far a change reaches, in one line: "12 hosts · +1 path".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlastRadius {
    pub hosts: usize,
    /// Distinct changes: the same entry added on many hosts counts once.
    pub added: usize,
    pub removed: usize,
    pub changed: usize,
    /// Hosts that would collect nothing afterwards and did before.
    pub emptied: usize,
}

impl BlastRadius {
    pub fn of<'a>(hosts: impl IntoIterator<Item = &'a HostChange>) -> Self {
        let mut radius = Self::default();
        let mut distinct = BTreeMap::new();
        for host in hosts {
            radius.hosts += 1;
            radius.emptied += usize::from(host.is_emptied);
            for change in &host.changes {
                distinct.insert(change.to_string(), change);
            }
        }
        for change in distinct.values() {
            match change {
                EntryChange::Added { .. } => radius.added += 1,
                EntryChange::Removed { .. } => radius.removed += 1,
                EntryChange::Changed { .. } => radius.changed += 1,
            }
        }
        radius
    }
}

impl fmt::Display for BlastRadius {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many =
            |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        f.write_str(&many(self.hosts, "host"))?;
        let parts = [
            ("+", self.added, "path"),
            ("-", self.removed, "path"),
            ("~", self.changed, "path"),
        ];
        for (sign, count, one) in parts.into_iter().filter(|(_, count, _)| *count > 0) {
            write!(f, " · {sign}{}", many(count, one))?;
        }
        if self.emptied > 0 {
            write!(f, " · {} would collect nothing", many(self.emptied, "host"))?;
        }
        Ok(())
    }
}

/// What changes on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostChange {
    pub host: String,
    pub changes: Vec<EntryChange>,
    pub is_emptied: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Vec<Row> {
        rows_of_value(Some(text.as_bytes())).unwrap()
    }

    #[track_caller]
    fn check(before: &str, after: &str, expected: &[&str]) {
        let told: Vec<String> = diff(&parsed(before), &parsed(after))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn changes_are_told_by_path() {
        check("[]", r#"[{"path":"/a","topic":"t"}]"#, &["+ /a → t"]);
        check(r#"[{"path":"/a","topic":"t"}]"#, "", &["- /a → t"]);
        check(
            r#"[{"path":"/a","topic":"t"},{"path":"/b","topic":"t"}]"#,
            r#"[{"topic":"u","path":"/a"},{"path":"/b","topic":"t"}]"#,
            &["~ /a: topic t → u"],
        );
        check(
            r#"[{"path":"/a","topic":"t"}]"#,
            r#"[{"path":"/a","topic":"t","from":"end"}]"#,
            &["~ /a → t: from not set → \"end\""],
        );
        check(
            r#"[{"path":"/a","topic":"t"}]"#,
            r#"[{"path":"/a","topic":"t"},{"path":"/a","topic":"u"}]"#,
            &["+ /a → u"],
        );
    }

    #[test]
    fn layout_is_no_change() {
        check(
            "[ {\"topic\":\"t\", \"path\":\"/a\"},\n {\"path\":\"/b\",\"topic\":\"t\"} ]",
            r#"[{"path":"/b","topic":"t"},{"path":"/a","topic":"t"}]"#,
            &[],
        );
    }

    #[test]
    fn the_blast_radius_counts_a_change_once() {
        let host = |name: &str, is_emptied| HostChange {
            host: name.into(),
            changes: diff(&[], &parsed(r#"[{"path":"/a","topic":"t"}]"#)),
            is_emptied,
        };
        let hosts = [host("a", false), host("b", false)];
        assert_eq!(BlastRadius::of(&hosts).to_string(), "2 hosts · +1 path");
        assert_eq!(
            BlastRadius::of(&[host("a", true)]).to_string(),
            "1 host · +1 path · 1 host would collect nothing"
        );
        assert_eq!(BlastRadius::of(&[]).to_string(), "0 hosts");
    }

    fn lists() -> impl Strategy<Value = Vec<Row>> {
        let entry = ("/[ab]", "[xy]", 0..3u8).prop_map(|(path, topic, extra)| {
            let mut content = serde_json::json!({ "path": path, "topic": topic });
            if extra > 0 {
                content["max_line_bytes"] = extra.into();
            }
            Row {
                path: Some(path),
                topic: Some(topic),
                content,
            }
        });
        prop::collection::vec(entry, 0..5)
    }

    fn leads_from(before: &[Row], after: &[Row]) -> bool {
        let changes = diff(before, after);
        apply(before, &changes) == apply(after, &[]) && diff(after, after).is_empty()
    }

    proptest! {
        /// The plan turns what runs into what is desired, and touches nothing that is in both.
        #[test]
        fn a_diff_leads_from_one_to_the_other(before in lists(), after in lists()) {
            prop_assert!(leads_from(&before, &after));
            for change in diff(&before, &after) {
                if let EntryChange::Changed { before, after } = change {
                    prop_assert_ne!(before, after);
                }
            }
        }
    }

    #[test]
    fn the_property_can_fail() {
        let before = parsed(r#"[{"path":"/a","topic":"t"}]"#);
        assert!(leads_from(&before, &[]));
        assert!(!planted::with(Bug::DiffForgetsRemovals, || leads_from(
            &before,
            &[]
        )));
    }
}
