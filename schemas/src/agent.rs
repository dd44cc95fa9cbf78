//! One entry of a host's log configuration, and the syntax rules that every side shares.
//!
//! `[{"path":"/var/log/nginx/access.log","topic":"nginx_log"}]` is a complete document. Whether a
//! path exists or may be read is not known here: that is the agent's to find out.

use serde::{Deserialize, Serialize};

/// Kafka's own limit on the length of a topic name.
pub const MAX_TOPIC_BYTES: usize = 249;
/// Linux's PATH_MAX without the terminating NUL.
pub const MAX_PATH_BYTES: usize = 4_095;

/// What to collect and where to publish it. Order of fields is the order in which we write them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LogEntry {
    /// Absolute path of the file to tail.
    #[schemars(regex(pattern = "^/"), length(max = 4095))]
    pub path: String,
    /// Kafka topic that receives each line.
    #[schemars(regex(pattern = "^[a-zA-Z0-9._-]{1,249}$"))]
    pub topic: String,
}

/// Checks the syntax of a path; the error is a sentence for the operator.
pub fn validate_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err(
            "path is empty: give an absolute path such as /var/log/nginx/access.log".into(),
        );
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(format!(
            "path has {} bytes, more than the {MAX_PATH_BYTES} that Linux allows",
            path.len()
        ));
    }
    if let Some(bad) = path.chars().find(|c| matches!(c, '\0' | '\n' | '\r')) {
        return Err(format!("path contains the control character {bad:?}"));
    }
    if !path.starts_with('/') {
        return Err(format!(
            "path {path:?} is not absolute: an agent on Linux needs a path that begins with /"
        ));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!(
            "path {path:?} contains \"..\": write the path it leads to"
        ));
    }
    Ok(())
}

/// Checks the syntax of a Kafka topic name; the error is a sentence for the operator.
pub fn validate_topic(topic: &str) -> Result<(), String> {
    if topic.is_empty() {
        return Err("topic is empty: give a Kafka topic name such as nginx_log".into());
    }
    if topic == "." || topic == ".." {
        return Err(format!(
            "topic {topic:?} is reserved by Kafka: choose another name"
        ));
    }
    if topic.len() > MAX_TOPIC_BYTES {
        return Err(format!(
            "topic has {} bytes, more than Kafka's limit of {MAX_TOPIC_BYTES}",
            topic.len()
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(bad) = topic.chars().find(|c| !allowed(*c)) {
        return Err(format!(
            "topic {topic:?} contains {bad:?}: Kafka allows letters, digits, '.', '_' and '-'"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_plain() {
        for good in [
            "/a",
            "/var/log/nginx/access.log",
            "/data/日志/a.log",
            "/a/..b",
        ] {
            assert_eq!(validate_path(good), Ok(()), "{good}");
        }
        let too_long = format!("/{}", "x".repeat(MAX_PATH_BYTES));
        for bad in [
            "",
            "a",
            "x/y",
            "/a/../b",
            "/a/..",
            "/a\nb",
            "/a\0",
            "D:/nginx/access.log",
            &too_long,
        ] {
            assert!(validate_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn topics_are_kafka_names() {
        let longest = "t".repeat(MAX_TOPIC_BYTES);
        for good in ["nginx_log", "a.b-c_D9", &longest] {
            assert_eq!(validate_topic(good), Ok(()), "{good}");
        }
        let too_long = "t".repeat(MAX_TOPIC_BYTES + 1);
        for bad in ["", ".", "..", "nginx log", "日志", "a/b", &too_long] {
            assert!(validate_topic(bad).is_err(), "{bad}");
        }
    }
}
