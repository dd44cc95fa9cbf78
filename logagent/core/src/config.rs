//! From the bytes of the config key to the entries that are to run.
//!
//! Knows the document's shape and syntax; not whether a path exists or may be read.
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
//! and what ran before goes on.
//!
//! # Options that are known, and what happens to those not supported yet
//!
//! The test is: would the topic hold something else than the operator asked for? Then the entry
//! is refused, because a consumer would be misled. If every line still arrives as it is, the entry
//! runs with a warning.
//!
//! | option | now | why |
//! |---|---|---|
//! | `from` | supported: `beginning`, `end` | |
//! | `max_line_bytes` | supported | |
//! | `on_long_line` | `split` supported; others are an error | cut or missing lines were asked for |
//! | `format` | `raw` supported; others are an error | consumers expect another record |
//! | `encoding` | `utf-8` supported; others are an error | consumers would get unreadable bytes |
//! | `multiline` | error | one record was asked for, and many would come |
//! | `skip_empty` | supported | |
//! | `key` | supported, with `{host}` and `{path}` | |
//! | `exclude` | supported, with a pattern in the path | |
//! | `rate`, `send_rate` | warning | lines arrive sooner than asked, unchanged |
//! | `headers`, `service` | supported; `service` is a header | |

use std::collections::HashSet;

use schemas::agent::{validate_path, validate_topic};
use schemas::fleet::Problem;
use serde_json::{Map, Value};

use crate::pattern::{Pattern, is_pattern};

/// A value larger than this is refused unread.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Bounds of `max_line_bytes`. The upper one keeps a record below Kafka's usual limit.
pub const MIN_LINE_LIMIT_BYTES: u64 = 16;
pub const MAX_LINE_LIMIT_BYTES: u64 = 900 * 1_024;

/// Identity of an entry: the same path with two topics is two entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    pub path: String,
    pub topic: String,
}

/// Where a file that was never read before begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    #[default]
    Beginning,
    /// Only for a file that is there when the entry starts; later ones are read whole.
    End,
}

/// One entry that is to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub id: EntryId,
    /// Position in the array of the config value.
    pub index: usize,
    pub from: StartAt,
    /// None: the agent's default.
    pub max_line_bytes: Option<usize>,
    /// What a pattern does not mean.
    pub exclude: Vec<String>,
    /// Lines without a byte are not sent.
    pub skip_empty: bool,
    /// Template of the records' key: `{host}` and `{path}` are filled in. None: `{host}:{path}`.
    pub key: Option<String>,
    /// Headers of each record.
    pub headers: Vec<(String, String)>,
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
        Pattern::parse(&self.id.path, &self.exclude).ok()
    }

    /// The path as the config value has it.
    #[must_use]
    pub fn asked_path(&self) -> &str {
        self.pattern.as_deref().unwrap_or(&self.id.path)
    }
}

/// The options of an item.
#[derive(Debug, Default)]
struct Options {
    from: StartAt,
    max_line_bytes: Option<usize>,
    exclude: Vec<String>,
    skip_empty: bool,
    key: Option<String>,
    headers: Vec<(String, String)>,
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
        let mut reader = EntryReader {
            index,
            plan: &mut plan,
        };
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

/// What a key template may mention.
const KEY_FIELDS: [&str; 2] = ["{host}", "{path}"];
/// More headers than this are no headers.
const HEADERS_MAX: usize = 32;

/// How an entry names its path, and whether commas separate several.
const PATH_NAMES: [(&str, bool); 4] = [
    ("path", false),
    ("logpath", true),
    ("log_path", true),
    ("filepath", false),
];

struct EntryReader<'a> {
    index: usize,
    plan: &'a mut Plan,
}

impl EntryReader<'_> {
    fn problem(&self, field: Option<&str>, message: String) -> Problem {
        Problem {
            index: Some(self.index),
            field: field.map(str::to_owned),
            message,
        }
    }

    fn refuse(&mut self, field: Option<&str>, message: String) {
        let problem = self.problem(field, message);
        self.plan.problems.push(problem);
    }

    fn warn(&mut self, field: &str, message: String) {
        let problem = self.problem(Some(field), message);
        self.plan.warnings.push(problem);
    }

    /// The entries of one item: several when it lists paths, none when it is refused.
    fn read(&mut self, item: &Value) -> Vec<Entry> {
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
                from: options.from,
                max_line_bytes: options.max_line_bytes,
                exclude: options.exclude.clone(),
                skip_empty: options.skip_empty,
                key: options.key.clone(),
                headers: options.headers.clone(),
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

    /// The patterns of what is not meant: a list, or one.
    fn exclude(&mut self, value: &Value) -> Vec<String> {
        let items = match value {
            Value::Array(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut patterns = Vec::new();
        for item in items {
            let checked = match item.as_str() {
                Some(text) => Pattern::parse("/", &[text.to_owned()]).map(|_| text.to_owned()),
                None => Err(format!("exclude holds {}, not a string", kind(item))),
            };
            match checked {
                Ok(text) => patterns.push(text),
                Err(why) => self.refuse(Some("exclude"), why),
            }
        }
        patterns
    }

    /// The template of a key, when all its fields are known.
    fn key(&mut self, value: &Value) -> Option<String> {
        let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
            self.refuse(
                Some("key"),
                format!(
                    "key is {}: write a text such as \"{{host}}:{{path}}\"",
                    shortened(value)
                ),
            );
            return None;
        };
        let rest = KEY_FIELDS
            .iter()
            .fold(text.to_owned(), |text, field| text.replace(field, ""));
        if rest.contains(['{', '}']) {
            self.refuse(
                Some("key"),
                format!("key {text:?} has an unknown field: known are {{host}} and {{path}}"),
            );
            return None;
        }
        Some(text.to_owned())
    }

    fn headers(&mut self, value: &Value) -> Vec<(String, String)> {
        let pairs: Option<Vec<_>> = value.as_object().and_then(|fields| {
            let pair =
                |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
            fields.iter().map(pair).collect()
        });
        match pairs {
            Some(pairs) if pairs.len() <= HEADERS_MAX => pairs,
            _ => {
                self.refuse(
                    Some("headers"),
                    format!(
                        "headers is {}: write an object of at most {HEADERS_MAX} texts",
                        shortened(value)
                    ),
                );
                Vec::new()
            }
        }
    }

    fn options(&mut self, fields: &Map<String, Value>) -> Options {
        let mut options = Options::default();
        for (name, value) in fields {
            let text = value.as_str();
            match name.as_str() {
                "topic" | "path" | "logpath" | "log_path" | "filepath" => {}
                "from" => match text {
                    Some("beginning") => {}
                    Some("end") => options.from = StartAt::End,
                    _ => self.refuse(
                        Some(name),
                        format!("from is {value}: write \"beginning\" or \"end\""),
                    ),
                },
                "max_line_bytes" => match value.as_u64() {
                    Some(bytes @ MIN_LINE_LIMIT_BYTES..=MAX_LINE_LIMIT_BYTES) => {
                        options.max_line_bytes = usize::try_from(bytes).ok();
                    }
                    _ => self.refuse(
                        Some(name),
                        format!(
                            "max_line_bytes is {}: write a number from {MIN_LINE_LIMIT_BYTES} to \
                             {MAX_LINE_LIMIT_BYTES}",
                            shortened(value)
                        ),
                    ),
                },
                "exclude" => options.exclude = self.exclude(value),
                "on_long_line" if text == Some("split") => {}
                "format" if text == Some("raw") => {}
                "encoding" if text.is_some_and(is_utf8_name) => {}
                "skip_empty" => match value.as_bool() {
                    Some(skip) => options.skip_empty = skip,
                    None => self.refuse(
                        Some(name),
                        format!("skip_empty is {}: write true or false", shortened(value)),
                    ),
                },
                "key" => options.key = self.key(value),
                "headers" => {
                    let headers = self.headers(value);
                    options.headers.extend(headers);
                }
                "service" => match text {
                    Some(text) => options.headers.push(("service".into(), text.into())),
                    None => self.refuse(
                        Some(name),
                        format!("service is {}, not a string", kind(value)),
                    ),
                },
                "on_long_line" | "format" | "encoding" | "multiline" => self.refuse(
                    Some(name),
                    format!(
                        "{name} = {} is not supported yet, and without it the topic would \
                             hold something else than asked for: the entry does not run",
                        shortened(value)
                    ),
                ),
                "rate" | "send_rate" => self.warn(
                    name,
                    format!("{name} is not supported yet: the entry runs without it"),
                ),
                other => self.warn(
                    other,
                    format!(
                        "unknown field {:?} is ignored",
                        shortened(&Value::String(other.into()))
                    ),
                ),
            }
        }
        options
    }
}

fn is_utf8_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("utf8")
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(plan: &Plan) -> Vec<(&str, &str)> {
        plan.entries
            .iter()
            .map(|e| (e.id.path.as_str(), e.id.topic.as_str()))
            .collect()
    }

    /// `index:field` of each.
    fn places(problems: &[Problem]) -> Vec<String> {
        let place = |p: &Problem| {
            let index = p.index.map_or("-".into(), |index| index.to_string());
            format!("{index}:{}", p.field.as_deref().unwrap_or("-"))
        };
        problems.iter().map(place).collect()
    }

    #[track_caller]
    fn check(value: &str, want: &[(&str, &str)], problems: &[&str], warnings: &[&str]) -> Plan {
        let plan = parse(Some(value.as_bytes())).unwrap();
        assert_eq!(ids(&plan), want, "{value}");
        assert_eq!(
            places(&plan.problems),
            problems,
            "{value}: {:?}",
            plan.problems
        );
        assert_eq!(
            places(&plan.warnings),
            warnings,
            "{value}: {:?}",
            plan.warnings
        );
        plan
    }

    #[test]
    fn the_complete_entry_is_enough() {
        check(
            r#"[{"path":"/var/log/nginx/access.log","topic":"nginx_log"}]"#,
            &[("/var/log/nginx/access.log", "nginx_log")],
            &[],
            &[],
        );
    }

    #[test]
    fn nothing_is_asked_for_by_an_empty_value() {
        for value in [None, Some(""), Some(" \n\t"), Some("[]"), Some(" [ ] ")] {
            assert_eq!(
                parse(value.map(str::as_bytes)),
                Ok(Plan::default()),
                "{value:?}"
            );
        }
    }

    #[test]
    fn unusable_values_are_rejected_as_a_whole() {
        let deep = "[".repeat(100_000);
        let large = format!("[{}]", " ".repeat(5_000_000));
        let table = [
            "sample_value",
            "{",
            r#"{"path":"x"}"#,
            "null",
            "7",
            "\"[]\"",
            "[",
            "[]]",
            "[{}] x",
            "\u{feff}[]",
            "[{\"path\":\"/a\",}]",
            &deep,
            &large,
        ];
        for value in table {
            let rejected = parse(Some(value.as_bytes())).unwrap_err();
            assert_eq!(places(&rejected.problems), ["-:-"]);
            assert!(rejected.to_string().len() < 300, "{rejected}");
        }
        assert!(parse(Some(&[0xff, 0xfe, 0])).is_err());
    }

    #[test]
    fn one_bad_entry_does_not_stop_the_others() {
        let table = [
            ("null", "1:-"),
            ("7", "1:-"),
            ("[]", "1:-"),
            (r#""x""#, "1:-"),
            (r#"{"path":"/a"}"#, "1:topic"),
            (r#"{"topic":"t"}"#, "1:path"),
            (r#"{"path":"x","topic":"t"}"#, "1:path"),
            (r#"{"path":"","topic":"t"}"#, "1:path"),
            (r#"{"path":"D:/nginx/access.log","topic":"t"}"#, "1:path"),
            (r#"{"path":"/a/../b","topic":"t"}"#, "1:path"),
            (r#"{"path":"/a/","topic":"t"}"#, "1:path"),
            (r#"{"path":"/","topic":"t"}"#, "1:path"),
            (r#"{"path":"/a/[.log","topic":"t"}"#, "1:path"),
            (r#"{"path":"/a/**","topic":"t"}"#, "1:path"),
            (r#"{"path":"/a/%Q.log","topic":"t"}"#, "1:path"),
            (r#"{"path":"/a/*","exclude":[7],"topic":"t"}"#, "1:exclude"),
            (r#"{"path":"/a/*","exclude":"[","topic":"t"}"#, "1:exclude"),
            (r#"{"path":7,"topic":"t"}"#, "1:path"),
            (r#"{"path":"/a","topic":"a topic"}"#, "1:topic"),
            (r#"{"path":"/a","topic":null}"#, "1:topic"),
            (r#"{"logpath":" , ","topic":"t"}"#, "1:logpath"),
            (r#"{"path":"/a","filepath":"/b","topic":"t"}"#, "1:filepath"),
        ];
        for (bad, place) in table {
            let value =
                format!(r#"[{{"path":"/1","topic":"t"}},{bad},{{"path":"/2","topic":"t"}}]"#);
            check(&value, &[("/1", "t"), ("/2", "t")], &[place], &[]);
        }
    }

    #[test]
    fn every_fault_of_an_entry_is_reported_at_once() {
        check(
            r#"[{"path":"x","topic":"a b","from":"middle"}]"#,
            &[],
            &["0:topic", "0:from", "0:path"],
            &[],
        );
    }

    #[test]
    fn older_names_of_the_path_work() {
        check(
            r#"[{"logpath":"/a, /b,,/c","topic":"t"}]"#,
            &[("/a", "t"), ("/b", "t"), ("/c", "t")],
            &[],
            &[],
        );
        check(
            r#"[{"log_path":"/a,b","topic":"t"}]"#,
            &[("/a", "t")],
            &["0:log_path"],
            &[],
        );
        check(
            r#"[{"filepath":"/a,b","topic":"t"}]"#,
            &[("/a,b", "t")],
            &[],
            &[],
        );
        check(
            r#"[{"filepath":"/a","path":"/a","topic":"t"}]"#,
            &[("/a", "t")],
            &[],
            &[],
        );
    }

    #[test]
    fn same_path_and_topic_is_one_entry_however_it_is_spelled() {
        check(
            r#"[{"path":"/a/b","topic":"t"},{"path":"//a/./b","topic":"t"},
                {"path":"/a/b","topic":"u"},{"logpath":"/a/b,/a//b","topic":"t"}]"#,
            &[("/a/b", "t"), ("/a/b", "u")],
            &[],
            &[],
        );
    }

    #[test]
    fn patterns_are_entries() {
        let plan = check(
            r#"[{"path":"/a/**/access.%Y%m%d.log","topic":"t","exclude":["*.tmp","/a/x/**"]}]"#,
            &[("/a/**/access.%Y%m%d.log", "t")],
            &[],
            &[],
        );
        let pattern = plan.entries[0].compiled().unwrap();
        assert!(pattern.matches("/a/b/access.20261124.log"));
        assert!(!pattern.matches("/a/x/access.20261124.log"));
    }

    #[test]
    fn options_are_carried_out_refused_or_warned_about() {
        let runs = [("/a", "t")];
        let none: [(&str, &str); 0] = [];
        let table = [
            (r#""from":"beginning""#, true, ""),
            (r#""from":"end""#, true, ""),
            (r#""from":1"#, false, "0:from"),
            (r#""max_line_bytes":1000"#, true, ""),
            (r#""max_line_bytes":0"#, false, "0:max_line_bytes"),
            (r#""max_line_bytes":99999999"#, false, "0:max_line_bytes"),
            (r#""max_line_bytes":-1"#, false, "0:max_line_bytes"),
            (r#""on_long_line":"split""#, true, ""),
            (r#""on_long_line":"truncate""#, false, "0:on_long_line"),
            (r#""format":"raw""#, true, ""),
            (r#""format":"json""#, false, "0:format"),
            (r#""encoding":"UTF-8""#, true, ""),
            (r#""encoding":"gbk""#, false, "0:encoding"),
            (r#""multiline":{"start":"x"}"#, false, "0:multiline"),
            (r#""skip_empty":false"#, true, ""),
            (r#""skip_empty":true"#, true, ""),
            (r#""skip_empty":1"#, false, "0:skip_empty"),
            (r#""key":"{host}-{path}""#, true, ""),
            (r#""key":"{nobody}""#, false, "0:key"),
            (r#""key":"""#, false, "0:key"),
            (r#""exclude":["*.gz"]"#, true, "0:exclude"),
            (r#""rate":{"lines_per_s":1}"#, true, "0:rate"),
            (r#""send_rate":1000"#, true, "0:send_rate"),
            (r#""headers":{"a":"b"}"#, true, ""),
            (r#""headers":{"a":1}"#, false, "0:headers"),
            (r#""headers":"a""#, false, "0:headers"),
            (r#""service":"web""#, true, ""),
            (r#""service":7"#, false, "0:service"),
            (r#""colour":"red""#, true, "0:colour"),
        ];
        for (option, run, place) in table {
            let value = format!(r#"[{{"path":"/a","topic":"t",{option}}}]"#);
            let place = if place.is_empty() {
                vec![]
            } else {
                vec![place]
            };
            let (problems, warnings) = if run {
                (vec![], place)
            } else {
                (place, vec![])
            };
            check(
                &value,
                if run { &runs } else { &none },
                &problems,
                &warnings,
            );
        }
        let plan = check(
            r#"[{"path":"/a","topic":"t","from":"end","max_line_bytes":4096}]"#,
            &runs,
            &[],
            &[],
        );
        assert_eq!(plan.entries[0].from, StartAt::End);
        assert_eq!(plan.entries[0].max_line_bytes, Some(4_096));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let outcome = parse(Some(&bytes));
            prop_assert!(outcome.is_ok() || outcome.is_err());
        }

        #[test]
        fn whatever_runs_is_valid_and_unique(
            text in r#"\[(\{("(path|topic|from|logpath)":("[/a,. *]{0,6}"|null|[0-9]),?){0,3}\},?){0,4}\]?"#,
        ) {
            if let Ok(plan) = parse(Some(text.as_bytes())) {
                let mut seen = HashSet::new();
                for entry in &plan.entries {
                    prop_assert!(validate_path(&entry.id.path).is_ok());
                    prop_assert!(validate_topic(&entry.id.topic).is_ok());
                    prop_assert!(seen.insert(&entry.id));
                }
            }
        }
    }
}
