//! From the bytes of the config key to the entries that are to run.
//!
//! Knows the document's shape and syntax; not whether a path exists or may be read. `reader` reads
//! one item of the array, `options` its options.
//!
//! # Example
//!
//! ```
//! let value = br#"[{"path":"/var/log/nginx/access.log","topic":"nginx_log"},{"path":"x"}]"#;
//! let plan = logagent_core::config::parse(Some(value)).expect("an array");
//! assert_eq!(plan.entries[0].id.topic, "nginx_log"); // the good entry runs
//! assert_eq!(plan.problems[0].index, Some(1));       // the bad one is reported
//! ```
//!
//! # What is accepted
//!
//! A JSON array of objects with `path` and `topic`. `logpath` and `log_path` are other names of
//! `path` and may list several paths separated by commas; `filepath` is a third. An empty value,
//! `[]` and a deleted key ask for nothing. Anything that is not an array is rejected as a whole,
//! and what ran before goes on. Options and their limits: `docs/options.md`.

mod options;
mod reader;

use std::collections::HashSet;

use schemas::fleet::Problem;
use serde_json::Value;

pub use options::Options;
pub use schemas::objects::StartAt;

use crate::pattern::{Pattern, is_pattern};
use reader::EntryReader;

/// A value larger than this is refused unread.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Identity of an entry: the same path with two topics is two entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    pub path: String,
    pub topic: String,
}

/// One entry that is to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub id: EntryId,
    /// Position in the array of the config value.
    pub index: usize,
    pub options: Options,
    /// For one file of a pattern: the pattern, which is the path of the entry in the config value.
    pub pattern: Option<String>,
}

impl Entry {
    /// The compiled pattern, when the path is one.
    #[must_use]
    pub fn compiled(&self) -> Option<Pattern> {
        if self.pattern.is_some() || !is_pattern(&self.id.path) {
            return None;
        }
        Pattern::parse(&self.id.path, &self.options.exclude).ok()
    }

    /// The path as the config value has it.
    #[must_use]
    pub fn asked_path(&self) -> &str {
        self.pattern.as_deref().unwrap_or(&self.id.path)
    }
}

/// What a config value asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the order of the array.
    pub entries: Vec<Entry>,
    /// Entries that do not run, and why. The others do.
    pub problems: Vec<Problem>,
    /// Entries that run, but not exactly as asked.
    pub warnings: Vec<Problem>,
}

/// The value as a whole is unusable: what ran before goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config rejected: {}", problems.first().map_or("", |problem| problem.message.as_str()))]
pub struct Rejected {
    pub problems: Vec<Problem>,
}

/// Reads a value; `None` is a deleted or never written key.
pub fn parse(value: Option<&[u8]>) -> Result<Plan, Rejected> {
    let value = value.unwrap_or_default();
    if value.len() > MAX_VALUE_BYTES {
        return Err(reject(format!(
            "the value has {} bytes, more than the {MAX_VALUE_BYTES} allowed",
            value.len()
        )));
    }
    let value = value.trim_ascii();
    if value.is_empty() {
        return Ok(Plan::default());
    }
    let document: Value = serde_json::from_slice(value)
        .map_err(|error| reject(format!("the value is not JSON: {error}")))?;
    let Value::Array(items) = document else {
        return Err(reject(format!(
            "the value is {}, not an array: write [{{\"path\":\"/var/log/x.log\",\"topic\":\"t\"}}]",
            kind(&document)
        )));
    };
    let mut plan = Plan::default();
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let mut reader = EntryReader::new(index, &mut plan);
        for entry in reader.read(item) {
            if seen.insert(entry.id.clone()) {
                plan.entries.push(entry);
            }
        }
    }
    Ok(plan)
}

/// One spelling per path: no empty and no `.` parts.
#[must_use]
pub fn normal_path(path: &str) -> String {
    let parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    let normal: String = parts.flat_map(|part| ["/", part]).collect();
    if normal.is_empty() {
        "/".into()
    } else {
        normal
    }
}

fn reject(message: String) -> Rejected {
    Rejected {
        problems: vec![Problem {
            index: None,
            field: None,
            message,
        }],
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A value as it may appear in a message: a config may be large, a status should not.
fn shortened(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(MAX_CHARS) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
