//! The options of an entry that are more than a number or a switch, with the rules that each of
//! them keeps by itself.
//!
//! The center checks what operators write with these rules, and the agent checks what it is given
//! with the same ones: an entry that the one accepts the other runs.

use std::collections::BTreeMap;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Bounds of `max_line_bytes`. The upper one keeps a record below Kafka's usual limit.
const MIN_LINE_LIMIT_BYTES: u32 = 16;
const MAX_LINE_LIMIT_BYTES: u32 = 900 * 1_024;
/// What a key template may mention.
const KEY_FIELDS: [&str; 2] = ["{host}", "{path}"];
/// More headers than this are no headers.
const HEADERS_MAX: usize = 32;
/// The names by which `encoding` is known, in small letters; capitals are the same.
pub const ENCODINGS: [&str; 30] = [
    "utf-8",
    "utf8",
    "gbk",
    "gb2312",
    "gb18030",
    "big5",
    "shift_jis",
    "euc-jp",
    "euc-kr",
    "utf-16",
    "utf-16le",
    "utf-16be",
    "iso-8859-1",
    "iso-8859-2",
    "iso-8859-5",
    "iso-8859-7",
    "iso-8859-9",
    "iso-8859-15",
    "latin1",
    "windows-1250",
    "windows-1251",
    "windows-1252",
    "windows-1253",
    "windows-1254",
    "windows-1255",
    "windows-1256",
    "windows-1257",
    "windows-1258",
    "koi8-r",
    "koi8-u",
];
/// A longer pattern than this describes no beginning of a line.
const PATTERN_MAX_CHARS: usize = 1_000;
/// A pattern that needs more than this when it is compiled is refused.
const PATTERN_COMPILED_MAX_BYTES: usize = 1 << 20;
const TIMEOUT_MAX_MS: u32 = 3_600_000;
const MULTILINE_MAX_LINES: u32 = 100_000;

/// Where a file that was never read before begins.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum StartAt {
    #[default]
    Beginning,
    /// Only for a file that is there when the entry starts; later ones are read whole.
    End,
}

#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The line as it is.
    #[default]
    Raw,
    /// An envelope with host, path, offset and time.
    Json,
}

/// What becomes of a line that is longer than `max_line_bytes`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnLongLine {
    /// It comes in several records.
    #[default]
    Split,
    /// Its beginning is published; the rest is counted.
    Truncate,
    /// Its beginning goes to the agent's dead-letter topic.
    DeadLetter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    #[schemars(range(min = 1))]
    pub lines_per_s: u32,
    /// Lines that may come at once after a pause. Absent: those of one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
}

/// How several lines become one record: by the line that starts one, or by those that continue it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["start"] }, { "required": ["continue"] }]))]
pub struct Multiline {
    /// A pattern of the lines that begin a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_000))]
    pub start: Option<String>,
    /// A pattern of the lines that belong to the one before them.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_000))]
    pub continues: Option<String>,
    /// A record is complete when nothing was added for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub timeout_ms: Option<u32>,
    /// A record is complete with so many lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_lines: Option<u32>,
}

impl Rate {
    /// What is wrong with it, as a sentence.
    pub fn fault(&self) -> Option<String> {
        (self.lines_per_s == 0 || self.burst == Some(0))
            .then(|| "a rate of 0 would hold every line back for ever: write 1 or more".to_owned())
    }
}

impl Multiline {
    /// What is wrong with it, as sentences.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.start.is_some() == self.continues.is_some() {
            faults.push("multiline needs either start or continue, and not both".to_owned());
        }
        for pattern in self.start.iter().chain(&self.continues) {
            faults.extend(line_pattern(pattern).err());
        }
        if self
            .timeout_ms
            .is_some_and(|ms| !(1..=TIMEOUT_MAX_MS).contains(&ms))
        {
            faults.push(format!("timeout_ms goes from 1 to {TIMEOUT_MAX_MS}"));
        }
        if self
            .max_lines
            .is_some_and(|lines| !(1..=MULTILINE_MAX_LINES).contains(&lines))
        {
            faults.push(format!("max_lines goes from 1 to {MULTILINE_MAX_LINES}"));
        }
        faults
    }
}

/// Compiles a pattern that is matched with lines, in time that grows with the line alone.
pub fn line_pattern(pattern: &str) -> Result<Regex, String> {
    if pattern.is_empty() || pattern.chars().count() > PATTERN_MAX_CHARS {
        return Err(format!(
            "a pattern of multiline has 1 to {PATTERN_MAX_CHARS} characters"
        ));
    }
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_COMPILED_MAX_BYTES)
        .build()
        .map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            let why = last.strip_prefix("error: ").unwrap_or(last);
            format!("pattern {pattern:?} of multiline cannot be used: {why}")
        })
}

/// What is wrong with the name of an encoding.
pub fn encoding_fault(name: &str) -> Option<String> {
    let is_known = ENCODINGS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name));
    (!is_known).then(|| {
        let name: String = name.chars().take(40).collect();
        format!("encoding {name:?} is unknown: write one such as utf-8, gbk, gb18030 or utf-16le")
    })
}

/// What is wrong with the length of a line.
pub fn line_limit_fault(bytes: u64) -> Option<String> {
    let limits = u64::from(MIN_LINE_LIMIT_BYTES)..=u64::from(MAX_LINE_LIMIT_BYTES);
    (!limits.contains(&bytes)).then(|| {
        format!(
            "max_line_bytes is {bytes}: write a number from {MIN_LINE_LIMIT_BYTES} to \
             {MAX_LINE_LIMIT_BYTES}"
        )
    })
}

/// What is wrong with the template of a key.
pub fn key_fault(template: &str) -> Option<String> {
    if template.is_empty() {
        return Some("key is empty: write a text such as \"{host}:{path}\"".to_owned());
    }
    let rest = KEY_FIELDS
        .iter()
        .fold(template.to_owned(), |text, field| text.replace(field, ""));
    rest.contains(['{', '}'])
        .then(|| format!("key {template:?} has an unknown field: known are {{host}} and {{path}}"))
}

/// What is wrong with the headers.
pub fn headers_fault(headers: &BTreeMap<String, String>) -> Option<String> {
    (headers.len() > HEADERS_MAX).then(|| {
        format!(
            "headers holds {}: write at most {HEADERS_MAX}",
            headers.len()
        )
    })
}

/// The pattern that a JSON Schema shows for the names of encodings.
pub(super) fn encoding_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let letter = |c: char| {
        if c.is_ascii_lowercase() {
            format!("[{c}{}]", c.to_ascii_uppercase())
        } else {
            c.to_string()
        }
    };
    let names = ENCODINGS.map(|name| name.chars().map(letter).collect::<String>());
    schemars::json_schema!({
        "description": "Encoding of the file, such as gbk; lines are published as UTF-8.",
        "type": ["string", "null"],
        "pattern": format!("^({})$", names.join("|")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_judged_before_they_run() {
        assert!(line_pattern(r"^\d{4}-").is_ok());
        assert!(line_pattern(r"^\p{Han}").is_ok());
        let longest = "x".repeat(PATTERN_MAX_CHARS);
        assert!(line_pattern(&longest).is_ok());
        for bad in ["", "(", r"(?=x)", "x{1000}{1000}{1000}", &(longest + "x")] {
            let why = line_pattern(bad).unwrap_err();
            assert!(!why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn encodings_are_known_by_any_spelling() {
        for good in ["gbk", "GB18030", "UTF-16LE", "utf8", "Latin1"] {
            assert_eq!(encoding_fault(good), None, "{good}");
        }
        for bad in ["", "klingon", "iso-2022-jp", "gbk ", "utf_8"] {
            assert!(encoding_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn keys_and_headers() {
        assert_eq!(key_fault("{host}:{path}"), None);
        assert_eq!(key_fault("plain"), None);
        for bad in ["", "{nobody}", "{host", "a}"] {
            assert!(key_fault(bad).is_some(), "{bad}");
        }
        let many = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(headers_fault(&many(HEADERS_MAX)), None);
        assert!(headers_fault(&many(HEADERS_MAX + 1)).is_some());
    }
}
