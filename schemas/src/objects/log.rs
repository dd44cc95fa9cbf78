//! One entry of the desired state: what to collect, into which topic, and how.
//!
//! The fields and their order are those of the document that an agent reads; an option that is not
//! set is not written, so that the plainest entry stays `{"path","topic"}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::checked::{LogPath, Topic};
use super::options::{
    self, Format, Multiline, OnLongLine, Rate, StartAt, encoding_fault, headers_fault, key_fault,
    line_limit_fault,
};

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
    #[schemars(schema_with = "options::encoding_schema")]
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
    #[schemars(regex(pattern = r"^([^{}]|\{host\}|\{path\})+$"))]
    pub key: Option<String>,
    /// Headers of the Kafka records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32))]
    pub headers: Option<BTreeMap<String, String>>,
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
        let mut check = |field, fault: Option<String>| {
            faults.extend(fault.map(|message| (field, message)));
        };
        let limit = self.max_line_bytes.map(u64::from);
        check("max_line_bytes", limit.and_then(line_limit_fault));
        check("rate", self.rate.as_ref().and_then(Rate::fault));
        check(
            "encoding",
            self.encoding.as_deref().and_then(encoding_fault),
        );
        check("key", self.key.as_deref().and_then(key_fault));
        check("headers", self.headers.as_ref().and_then(headers_fault));
        for fault in self.multiline.iter().flat_map(Multiline::faults) {
            check("multiline", Some(fault));
        }
        faults
    }
}
