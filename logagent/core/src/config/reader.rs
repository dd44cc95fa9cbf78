//! One item of the array: its topic and its paths, under any of their names.
//!
//! Reports what is wrong by index and field, all of it at once.

use schemas::agent::{validate_path, validate_topic};
use schemas::fleet::Problem;
use serde_json::{Map, Value};

use super::{Entry, EntryId, Plan, kind, normal_path};
use crate::pattern::{Pattern, is_pattern};

/// How an entry names its path, and whether commas separate several.
pub(super) const PATH_NAMES: [(&str, bool); 4] = [
    ("path", false),
    ("logpath", true),
    ("log_path", true),
    ("filepath", false),
];

pub(super) struct EntryReader<'a> {
    index: usize,
    plan: &'a mut Plan,
}

impl<'a> EntryReader<'a> {
    pub(super) fn new(index: usize, plan: &'a mut Plan) -> Self {
        Self { index, plan }
    }

    fn problem(&self, field: Option<&str>, message: String) -> Problem {
        Problem {
            index: Some(self.index),
            field: field.map(str::to_owned),
            message,
        }
    }

    pub(super) fn refuse(&mut self, field: Option<&str>, message: String) {
        let problem = self.problem(field, message);
        self.plan.problems.push(problem);
    }

    pub(super) fn warn(&mut self, field: &str, message: String) {
        let problem = self.problem(Some(field), message);
        self.plan.warnings.push(problem);
    }

    /// The entries of one item: several when it lists paths, none when it is refused.
    pub(super) fn read(&mut self, item: &Value) -> Vec<Entry> {
        let Value::Object(fields) = item else {
            self.refuse(None, format!("the entry is {}, not an object", kind(item)));
            return Vec::new();
        };
        let problems_before = self.plan.problems.len();
        let topic = self.topic(fields);
        let options = self.options(fields);
        let item_is_bad = self.plan.problems.len() > problems_before;
        let paths = self.paths(fields);
        if !options.exclude.is_empty() && !paths.iter().any(|path| is_pattern(path)) {
            self.warn(
                "exclude",
                "exclude means nothing without a pattern in the path".into(),
            );
        }
        let Some(topic) = topic.filter(|_| !item_is_bad) else {
            return Vec::new();
        };
        paths
            .into_iter()
            .map(|path| Entry {
                id: EntryId {
                    path,
                    topic: topic.clone(),
                },
                index: self.index,
                options: options.clone(),
                pattern: None,
            })
            .collect()
    }

    fn topic(&mut self, fields: &Map<String, Value>) -> Option<String> {
        match fields.get("topic") {
            Some(Value::String(topic)) => match validate_topic(topic) {
                Ok(()) => return Some(topic.clone()),
                Err(why) => self.refuse(Some("topic"), why),
            },
            Some(other) => {
                self.refuse(
                    Some("topic"),
                    format!("topic is {}, not a string", kind(other)),
                );
            }
            None => self.refuse(Some("topic"), "topic is missing: name a Kafka topic".into()),
        }
        None
    }

    /// The good ones of the paths; the others are reported.
    fn paths(&mut self, fields: &Map<String, Value>) -> Vec<String> {
        let mut named = PATH_NAMES
            .iter()
            .filter_map(|(name, list)| fields.get(*name).map(|value| (*name, *list, value)));
        let Some((name, is_list, value)) = named.next() else {
            self.refuse(
                Some("path"),
                "path is missing: give an absolute path".into(),
            );
            return Vec::new();
        };
        if let Some((other, _, _)) = named.find(|(_, _, other)| *other != value) {
            self.refuse(
                Some(other),
                format!("{name} and {other} differ: keep one of them"),
            );
            return Vec::new();
        }
        let Value::String(text) = value else {
            self.refuse(
                Some(name),
                format!("{name} is {}, not a string", kind(value)),
            );
            return Vec::new();
        };
        let candidates: Vec<&str> = if is_list {
            text.split(',')
                .map(str::trim)
                .filter(|path| !path.is_empty())
                .collect()
        } else {
            vec![text]
        };
        if candidates.is_empty() {
            self.refuse(Some(name), format!("{name} names no path"));
        }
        let mut paths = Vec::new();
        for path in candidates {
            match check_path(path) {
                Ok(path) => paths.push(path),
                Err(why) => self.refuse(Some(name), why),
            }
        }
        paths
    }
}

fn check_path(path: &str) -> Result<String, String> {
    validate_path(path)?;
    let normal = normal_path(path);
    if normal == "/" || path.ends_with('/') {
        return Err(format!(
            "path {path:?} names a directory: give the path of a file"
        ));
    }
    if is_pattern(&normal) {
        Pattern::parse(&normal, &[])?;
    }
    Ok(normal)
}
