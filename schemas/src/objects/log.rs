//! One entry of the desired state: what to collect, into which topic, and how.
//!
//! The fields and their order are those of the document that an agent reads; an option that is not
//! set is not written, so that the plainest entry stays `{"path","topic"}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::checked::{LogPath, Topic};

/// Bounds of `max_line_bytes`, those of the agent.
const MIN_LINE_LIMIT_BYTES: u32 = 16;
const MAX_LINE_LIMIT_BYTES: u32 = 900 * 1_024;

/// What to collect and where to publish it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub path: LogPath,
    pub topic: Topic,
    /// Where a file that was never read before begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<StartAt>,
    /// Patterns of file names that a pattern in `path` leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiline: Option<Multiline>,
    /// Encoding of the file, such as gbk; lines are published as UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Delays lines above this rate; never drops them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 921_600))]
    pub max_line_bytes: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_long_line: Option<OnLongLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_empty: Option<bool>,
    /// Key of the Kafka records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Headers of the Kafka records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartAt {
    Beginning,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The line as it is.
    Raw,
    /// An envelope with host, path, offset and time.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLongLine {
    Split,
    Truncate,
    DeadLetter,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    #[schemars(range(min = 1))]
    pub lines_per_s: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
}

/// How several lines become one record: by the line that starts one, or by those that continue it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["start"] }, { "required": ["continue"] }]))]
pub struct Multiline {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    pub continues: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub timeout_ms: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_lines: Option<u32>,
}

impl Log {
    /// The plainest entry.
    pub fn new(path: LogPath, topic: Topic) -> Self {
        Self {
            path,
            topic,
            from: None,
            exclude: None,
            multiline: None,
            encoding: None,
            format: None,
            rate: None,
            max_line_bytes: None,
            on_long_line: None,
            skip_empty: None,
            key: None,
            headers: None,
        }
    }

    /// What is wrong with the options: field and sentence.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if let Some(bytes) = self.max_line_bytes
            && !(MIN_LINE_LIMIT_BYTES..=MAX_LINE_LIMIT_BYTES).contains(&bytes)
        {
            faults.push((
                "max_line_bytes",
                format!(
                    "max_line_bytes is {bytes}: write a number from {MIN_LINE_LIMIT_BYTES} to \
                     {MAX_LINE_LIMIT_BYTES}"
                ),
            ));
        }
        if let Some(rate) = &self.rate
            && (rate.lines_per_s == 0 || rate.burst == Some(0))
        {
            faults.push((
                "rate",
                "a rate of 0 would hold every line back for ever: write 1 or more".into(),
            ));
        }
        if let Some(encoding) = &self.encoding
            && !(1..=40).contains(&encoding.chars().count())
        {
            faults.push(("encoding", "encoding is not a name such as gbk".into()));
        }
        if let Some(multiline) = &self.multiline {
            if multiline.start.is_some() == multiline.continues.is_some() {
                faults.push((
                    "multiline",
                    "multiline needs either start or continue, and not both".into(),
                ));
            }
            if multiline
                .timeout_ms
                .is_some_and(|ms| !(1..=3_600_000).contains(&ms))
            {
                faults.push(("multiline", "timeout_ms goes from 1 to 3600000".into()));
            }
            if multiline
                .max_lines
                .is_some_and(|lines| !(1..=100_000).contains(&lines))
            {
                faults.push(("multiline", "max_lines goes from 1 to 100000".into()));
            }
        }
        faults
    }
}
