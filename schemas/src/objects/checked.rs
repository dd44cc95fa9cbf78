//! Texts that are checked when they are read, each with the pattern that its JSON Schema shows.
//!
//! A pattern counts characters and a check may count bytes: only there, for names in scripts of
//! several bytes, is the check stricter than the schema.

use std::{borrow::Borrow, fmt};

use serde::{Deserialize, Serialize};

use crate::agent::{MAX_PATH_BYTES, validate_path, validate_topic};

/// A name is one segment of a key; DNS allows 253 bytes and nobody needs more.
pub const MAX_NAME_BYTES: usize = 253;
/// As many as Kubernetes allows for a label's value, so labels can be carried over.
const MAX_LABEL_BYTES: usize = 63;

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:path, $pattern:expr, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The error is a sentence for the operator.
            pub fn new(text: impl Into<String>) -> Result<Self, String> {
                Self::try_from(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                $check(&text)?;
                Ok(Self(text))
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "maxLength": $max,
                })
            }
        }
    };
}

checked_text!(
    /// Name of an object or a host: one segment of a key.
    Name,
    validate_name,
    r"^(?!\.{1,2}$)[^/\s\u0000-\u001f\u007f-\u009f\ufeff]+$",
    MAX_NAME_BYTES
);
checked_text!(
    /// Absolute path of a log file in its plain spelling; may be a pattern.
    LogPath,
    validate_plain_path,
    r"^(?!.*/(\.{0,2})(/|$))/[^\u0000\r\n]*$",
    MAX_PATH_BYTES
);
checked_text!(
    /// Name of a Kafka topic.
    Topic,
    validate_topic,
    r"^(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}$",
    249
);
checked_text!(
    /// What a label is called.
    LabelKey,
    validate_label_key,
    r"^[^\s=!,()\u0000-\u001f\u007f-\u009f\ufeff]{1,63}$",
    MAX_LABEL_BYTES
);
checked_text!(
    /// What a label says; may be empty.
    LabelValue,
    validate_label_value,
    r"^[^\s=!,()\u0000-\u001f\u007f-\u009f\ufeff]*$",
    MAX_LABEL_BYTES
);

fn unfit_for_key(c: char) -> bool {
    c == '/' || c == '\u{feff}' || c.is_whitespace() || c.is_control()
}

/// Checks the name of an object or a host before it becomes part of a key.
pub fn validate_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name is empty".into());
    }
    if matches!(name, "." | "..") {
        return Err(format!("{name:?} is not a name"));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!(
            "the name has {} bytes, more than the {MAX_NAME_BYTES} that a name can have",
            name.len()
        ));
    }
    match name.chars().find(|c| unfit_for_key(*c)) {
        Some(bad) => Err(format!(
            "name {name:?} contains {bad:?}, which cannot be part of a name"
        )),
        None => Ok(()),
    }
}

/// A path in the one spelling by which entries are compared: precedence goes by path, and two
/// spellings of one file would pass each other by.
fn validate_plain_path(path: &str) -> Result<(), String> {
    validate_path(path)?;
    let plain: String = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .flat_map(|part| ["/", part])
        .collect();
    if plain.is_empty() || path.ends_with('/') {
        return Err(format!(
            "path {path:?} names a directory: give the path of a file"
        ));
    }
    if plain != path {
        return Err(format!(
            "path {path:?} is not in its plain spelling: write {plain:?}"
        ));
    }
    Ok(())
}

fn validate_label_key(key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err("the name of a label is empty".into());
    }
    validate_label("the name of a label", key)
}

fn validate_label_value(value: &str) -> Result<(), String> {
    validate_label("the value of a label", value)
}

fn validate_label(what: &str, text: &str) -> Result<(), String> {
    if text.len() > MAX_LABEL_BYTES {
        return Err(format!(
            "{what} has {} bytes, more than the {MAX_LABEL_BYTES} allowed",
            text.len()
        ));
    }
    // The characters of the selector syntax would make a label that nobody can select by.
    let unfit = |c: char| {
        matches!(c, '=' | '!' | ',' | '(' | ')' | '\u{feff}') || c.is_whitespace() || c.is_control()
    };
    match text.chars().find(|c| unfit(*c)) {
        Some(bad) => Err(format!("{what} cannot contain {bad:?} ({text:?})")),
        None => Ok(()),
    }
}

/// A length of time as the objects write it: `30s`, `10m`, `1h30m`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    pub ms: u64,
}

/// Largest first, as they are written.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// A year: more is a slip of the pen.
const MAX_SPAN_MS: u64 = 366 * 24 * 3_600_000;

impl Span {
    pub const fn from_s(seconds: u64) -> Self {
        Self {
            ms: seconds * 1_000,
        }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a length of time: write 500ms, 30s, 10m or 1h30m");
        let mut rest = text.as_str();
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total_ms: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let letters = rest
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (unit, after) = rest.split_at(letters);
            let (_, unit_ms) = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(wrong)?;
            let part_ms = number.checked_mul(*unit_ms).ok_or_else(wrong)?;
            total_ms = total_ms.checked_add(part_ms).ok_or_else(wrong)?;
            rest = after;
        }
        if total_ms > MAX_SPAN_MS {
            return Err(format!("{text:?} is longer than a year"));
        }
        Ok(Self { ms: total_ms })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ms == 0 {
            return f.write_str("0s");
        }
        let mut left_ms = self.ms;
        for (unit, unit_ms) in UNITS {
            if left_ms >= unit_ms {
                write!(f, "{}{unit}", left_ms / unit_ms)?;
                left_ms %= unit_ms;
            }
        }
        Ok(())
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl schemars::JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A length of time: 500ms, 30s, 10m, 1h30m.",
            "pattern": "^([0-9]{1,12}(ms|s|m|h))+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_segment_of_a_key() {
        for good in ["192.168.56.1", "web-1", "::1", "主机一", "a..b"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        let too_long = "x".repeat(MAX_NAME_BYTES + 1);
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\n",
            "a\u{85}",
            "\u{feff}a",
            &too_long,
        ] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_have_one_spelling() {
        for good in ["/a", "/a/..b", "/a/.b", "/var/log/**/*.log", "/日志/a.log"] {
            assert!(LogPath::new(good).is_ok(), "{good}");
        }
        for bad in [
            "/", "/a/", "/a//b", "/a/./b", "/a/..", "a", "", "//a", "/a\n", "/.",
        ] {
            assert!(LogPath::new(bad).is_err(), "{bad:?}");
        }
        let words = LogPath::new("/a//b").unwrap_err();
        assert!(words.contains("write \"/a/b\""), "{words}");
    }

    #[test]
    fn spans_are_read_and_written_alike() {
        let table = [
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1s500ms", 1_500),
            ("0s", 0),
        ];
        for (text, ms) in table {
            let span = Span::try_from(text.to_owned()).unwrap();
            assert_eq!((span.ms, span.to_string().as_str()), (ms, text));
        }
        assert_eq!(
            Span::try_from("90s".to_owned()).unwrap().to_string(),
            "1m30s"
        );
        for bad in [
            "",
            "30",
            "s",
            "5x",
            "-5s",
            "1.5s",
            "5s3",
            "99999999999999999999s",
            "9000h",
        ] {
            assert!(Span::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
