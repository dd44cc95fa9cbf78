//! What a record holds: the line as it is, converted to UTF-8, or in an envelope.
//!
//! Knows lines and values; must not know topics or keys. The plain case costs nothing: the value is
//! the line's own bytes.
//!
//! The envelope is one JSON object without newlines:
//!
//! ```text
//! {"host":"192.168.56.1","path":"/var/log/a.log","offset":4096,
//!  "timestamp":"2026-11-24T21:05:09.250Z","message":"…"}
//! ```
//!
//! `offset` is that of the line's first byte in its file, `timestamp` the time at which the agent
//! handed the line over. `message` is text: bytes that are no UTF-8 become U+FFFD, and then
//! `"invalid_utf8":true` follows. A line that was cut has `"whole_bytes"`, its length in the file.

use std::borrow::Cow;
use std::io::Write as _;

use schemas::objects::Format;

use crate::framing::{Line, TextEncoding};

/// How the lines of one file become values.
#[derive(Debug, Clone)]
pub struct Shape {
    encoding: Option<TextEncoding>,
    /// The beginning of every envelope, up to the offset. None: no envelope.
    envelope: Option<Vec<u8>>,
}

impl Shape {
    #[must_use]
    pub fn new(encoding: Option<TextEncoding>, format: Format, host: &str, path: &str) -> Self {
        let envelope = (format == Format::Json).then(|| {
            let mut begin = b"{\"host\":".to_vec();
            push_text(&mut begin, host);
            begin.extend_from_slice(b",\"path\":");
            push_text(&mut begin, path);
            begin.extend_from_slice(b",\"offset\":");
            begin
        });
        Self { encoding, envelope }
    }

    /// Whether the value of a line is its own bytes.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.encoding.is_none() && self.envelope.is_none()
    }

    /// So many times longer a usual line may be as a value.
    #[must_use]
    pub fn growth(&self) -> usize {
        let in_envelope = if self.envelope.is_some() { 2 } else { 1 };
        self.encoding.as_ref().map_or(1, TextEncoding::growth) * in_envelope
    }

    /// The value of a line; `unix_ms` is called when the time is wanted.
    pub fn value<'a>(&self, line: &Line<'a>, unix_ms: impl FnOnce() -> u64) -> Cow<'a, [u8]> {
        let Some(begin) = &self.envelope else {
            return match self.encoding {
                None => Cow::Borrowed(line.bytes),
                Some(encoding) => match encoding.decode(line.bytes, line.start) {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                },
            };
        };
        let text = match self.encoding {
            None => String::from_utf8_lossy(line.bytes),
            Some(encoding) => encoding.decode(line.bytes, line.start),
        };
        let mut value = Vec::with_capacity(begin.len() + text.len() + 64);
        value.extend_from_slice(begin);
        push(&mut value, format_args!("{},\"timestamp\":\"", line.start));
        push_timestamp(&mut value, unix_ms());
        value.extend_from_slice(b"\",\"message\":");
        push_text(&mut value, &text);
        if self.encoding.is_none() && matches!(text, Cow::Owned(_)) {
            value.extend_from_slice(b",\"invalid_utf8\":true");
        }
        if let Some(whole_bytes) = line.whole_bytes {
            push(&mut value, format_args!(",\"whole_bytes\":{whole_bytes}"));
        }
        value.push(b'}');
        Cow::Owned(value)
    }
}

fn push(value: &mut Vec<u8>, words: std::fmt::Arguments<'_>) {
    // Writing into memory cannot fail.
    let written = value.write_fmt(words);
    debug_assert!(written.is_ok());
}

fn push_text(value: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(value, text);
    debug_assert!(written.is_ok());
}

/// RFC 3339 in UTC with milliseconds.
fn push_timestamp(value: &mut Vec<u8>, unix_ms: u64) {
    const DAY_MS: u64 = 86_400_000;
    let (days, ms) = (unix_ms / DAY_MS, unix_ms % DAY_MS);
    let (year, month, day) = date_of(days);
    let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
    let (second, milli) = (ms / 1_000 % 60, ms % 1_000);
    push(
        value,
        format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"),
    );
}

/// The Gregorian date of a day since 1970-01-01. Counted from 1 March of the year 0, leap days are
/// the last days of their years, so a day's place needs no table: months from March on have 153
/// days in each five.
fn date_of(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_BEFORE_1970: u64 = 719_468;
    const ERA_DAYS: u64 = 146_097;
    let days = days_since_1970 + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let (month, next_year) = match months_since_march {
        march_to_december @ 0..=9 => (march_to_december + 3, 0),
        january_on => (january_on - 9, 1),
    };
    (era * 400 + year_of_era + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: &[u8], start: u64, whole_bytes: Option<u64>) -> Line<'_> {
        Line {
            bytes,
            start,
            end: start + bytes.len() as u64 + 1,
            whole_bytes,
        }
    }

    #[test]
    fn a_plain_line_is_not_copied() {
        let shape = Shape::new(None, Format::Raw, "h", "/a");
        let bytes = b"\xff\0 any";
        let value = shape.value(&line(bytes, 9, None), || 0);
        assert!(matches!(value, Cow::Borrowed(same) if same.as_ptr() == bytes.as_ptr()));
    }

    #[test]
    fn another_encoding_becomes_utf8() {
        let shape = Shape::new(TextEncoding::named("gbk"), Format::Raw, "h", "/a");
        let (bytes, _, _) = encoding_rs::GBK.encode("日志 ok");
        assert_eq!(
            &*shape.value(&line(&bytes, 9, None), || 0),
            "日志 ok".as_bytes()
        );
    }

    #[test]
    fn the_envelope_is_json() {
        let shape = Shape::new(None, Format::Json, "192.168.56.1", "/var/log/\"日志\".log");
        let value = shape.value(&line(b"say \"hi\"\t\0", 4_096, None), || 1_795_554_309_250);
        let read: serde_json::Value = serde_json::from_slice(&value).unwrap();
        let want = serde_json::json!({
            "host": "192.168.56.1", "path": "/var/log/\"日志\".log", "offset": 4_096,
            "timestamp": "2026-11-24T21:05:09.250Z", "message": "say \"hi\"\t\0",
        });
        assert_eq!(read, want);
        let value = shape.value(&line(b"\xff", 0, Some(70)), || 0);
        let read: serde_json::Value = serde_json::from_slice(&value).unwrap();
        assert_eq!(read["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_eq!(
            (&read["message"], &read["invalid_utf8"]),
            (&"\u{fffd}".into(), &true.into())
        );
        assert_eq!(read["whole_bytes"], 70);
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = date_of(0);
        assert_eq!(last, (1970, 1, 1));
        for days in 1..150_000 {
            let (year, month, day) = date_of(days);
            let is_leap = (last.0.is_multiple_of(4) && !last.0.is_multiple_of(100))
                || last.0.is_multiple_of(400);
            let month_days = match last.1 {
                2 if is_leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let next = if last.2 < month_days {
                (last.0, last.1, last.2 + 1)
            } else if last.1 < 12 {
                (last.0, last.1 + 1, 1)
            } else {
                (last.0 + 1, 1, 1)
            };
            assert_eq!((year, month, day), next);
            last = next;
        }
    }
}
