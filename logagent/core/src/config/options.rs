//! The options of one item, with the rules that the center keeps too.
//!
//! An option that cannot be carried out refuses the entry: the topic would hold something else
//! than the operator asked for. A field that nobody knows is a warning, because every line still
//! arrives as it is. `null` is the same as a field that is not there.

use std::collections::BTreeMap;

use schemas::objects::{
    Format, Multiline, OnLongLine, Rate, StartAt, encoding_fault, headers_fault, key_fault,
    line_limit_fault,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::reader::{EntryReader, PATH_NAMES};
use super::{kind, shortened};
use crate::pattern::Pattern;

/// How an entry is collected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Matters only before the first read.
    pub from: StartAt,
    /// What a pattern does not mean.
    pub exclude: Vec<String>,
    pub multiline: Option<Multiline>,
    /// One of [`schemas::objects::ENCODINGS`]. None: lines are published as they are.
    pub encoding: Option<String>,
    pub format: Format,
    pub rate: Option<Rate>,
    /// None: the agent's default.
    pub max_line_bytes: Option<usize>,
    pub on_long_line: OnLongLine,
    /// Lines without a byte are not sent.
    pub skip_empty: bool,
    /// Template of the records' key: `{host}` and `{path}` are filled in. None: `{host}:{path}`.
    pub key: Option<String>,
    /// Headers of each record.
    pub headers: Vec<(String, String)>,
}

impl Options {
    /// Whether a running tail can go on as it is.
    #[must_use]
    pub fn tail_alike(&self, other: &Self) -> bool {
        let neutral = |options: &Self| Self {
            from: StartAt::default(),
            exclude: Vec::new(),
            ..options.clone()
        };
        neutral(self) == neutral(other)
    }
}

impl EntryReader<'_> {
    pub(super) fn options(&mut self, fields: &Map<String, Value>) -> Options {
        let mut options = Options::default();
        let mut send_rate = None;
        let given = fields.iter().filter(|(_, value)| !value.is_null());
        for (name, value) in given {
            let name = name.as_str();
            match name {
                "from" => self.typed(name, value, "\"beginning\" or \"end\"", &mut options.from),
                "exclude" => options.exclude = self.exclude(value),
                "multiline" => options.multiline = self.multiline(value),
                "encoding" => options.encoding = self.text(name, value, encoding_fault),
                "format" => self.typed(name, value, "\"raw\" or \"json\"", &mut options.format),
                "rate" => options.rate = self.rate(value),
                "send_rate" => send_rate = self.send_rate(value),
                "max_line_bytes" => options.max_line_bytes = self.line_limit(value),
                "on_long_line" => self.typed(
                    name,
                    value,
                    "\"split\", \"truncate\" or \"dead_letter\"",
                    &mut options.on_long_line,
                ),
                "skip_empty" => self.typed(name, value, "true or false", &mut options.skip_empty),
                "key" => options.key = self.text(name, value, key_fault),
                "headers" => {
                    let headers = self.headers(value);
                    options.headers.extend(headers);
                }
                "service" => match value.as_str() {
                    Some(text) => options.headers.push(("service".into(), text.into())),
                    None => self.refuse(
                        Some(name),
                        format!("service is {}, not a string", kind(value)),
                    ),
                },
                _ if name == "topic" || PATH_NAMES.iter().any(|(path, _)| *path == name) => {}
                other => self.warn(
                    other,
                    format!(
                        "unknown field {:?} is ignored",
                        shortened(&Value::String(other.into()))
                    ),
                ),
            }
        }
        match (options.rate, send_rate) {
            (Some(rate), Some(old)) if rate.lines_per_s != old.lines_per_s => self.refuse(
                Some("send_rate"),
                "rate and send_rate differ: keep one of them".into(),
            ),
            (None, old) => options.rate = old,
            _ => {}
        }
        options
    }

    /// Reads a value of a few words, or says which ones there are.
    fn typed<T: DeserializeOwned>(&mut self, name: &str, value: &Value, words: &str, into: &mut T) {
        match serde_json::from_value(value.clone()) {
            Ok(read) => *into = read,
            Err(_) => self.refuse(
                Some(name),
                format!("{name} is {}: write {words}", shortened(value)),
            ),
        }
    }

    fn text(
        &mut self,
        name: &str,
        value: &Value,
        fault: impl Fn(&str) -> Option<String>,
    ) -> Option<String> {
        let why = match value.as_str() {
            Some(text) => match fault(text) {
                None => return Some(text.to_owned()),
                Some(why) => why,
            },
            None => format!("{name} is {}, not a string", kind(value)),
        };
        self.refuse(Some(name), why);
        None
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

    fn multiline(&mut self, value: &Value) -> Option<Multiline> {
        let multiline: Multiline = match serde_json::from_value(value.clone()) {
            Ok(multiline) => multiline,
            Err(error) => {
                self.refuse(
                    Some("multiline"),
                    format!("multiline is {}: {error}", shortened(value)),
                );
                return None;
            }
        };
        let faults = multiline.faults();
        for fault in &faults {
            self.refuse(Some("multiline"), fault.clone());
        }
        faults.is_empty().then_some(multiline)
    }

    fn rate(&mut self, value: &Value) -> Option<Rate> {
        let why = match serde_json::from_value::<Rate>(value.clone()) {
            Ok(rate) => match rate.fault() {
                None => return Some(rate),
                Some(why) => why,
            },
            Err(_) => format!(
                "rate is {}: write {{\"lines_per_s\": N}}, with \"burst\" if you like",
                shortened(value)
            ),
        };
        self.refuse(Some("rate"), why);
        None
    }

    /// The older way of writing a rate: lines per second. 0 was no limit there.
    fn send_rate(&mut self, value: &Value) -> Option<Rate> {
        match value.as_u64().map(u32::try_from) {
            Some(Ok(0)) => None,
            Some(Ok(lines_per_s)) => Some(Rate {
                lines_per_s,
                burst: None,
            }),
            _ => {
                self.refuse(
                    Some("send_rate"),
                    format!("send_rate is {}: write lines per second", shortened(value)),
                );
                None
            }
        }
    }

    fn line_limit(&mut self, value: &Value) -> Option<usize> {
        let why = match value.as_u64() {
            Some(bytes) => match line_limit_fault(bytes) {
                None => return usize::try_from(bytes).ok(),
                Some(why) => why,
            },
            None => format!(
                "max_line_bytes is {}, not a number of bytes",
                shortened(value)
            ),
        };
        self.refuse(Some("max_line_bytes"), why);
        None
    }

    fn headers(&mut self, value: &Value) -> BTreeMap<String, String> {
        let why = match serde_json::from_value::<BTreeMap<String, String>>(value.clone()) {
            Ok(headers) => match headers_fault(&headers) {
                None => return headers,
                Some(why) => why,
            },
            Err(_) => format!("headers is {}: write an object of texts", shortened(value)),
        };
        self.refuse(Some("headers"), why);
        BTreeMap::new()
    }
}
