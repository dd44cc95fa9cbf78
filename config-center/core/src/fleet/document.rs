//! A host's document, edited as text: what an edit does not name keeps its bytes.
//!
//! Values are written by many hands: pretty-printed, with fields that this version does not know,
//! in any order. Parsing into values and printing them again would rewrite all of it, so the parser
//! only finds where each entry lies and edits cut and paste. Knows nothing of stores.

use std::{fmt, ops::Range};

use schemas::agent::LogEntry;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Why a value is not a host's document. Such a value is never overwritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    #[error("the value is empty")]
    Empty,
    #[error("the value is not UTF-8 text")]
    NotUtf8,
    #[error("the value is not JSON: {0}")]
    NotJson(String),
    #[error("the value is {found}, not a JSON array of {{\"path\",\"topic\"}} objects")]
    NotArray { found: &'static str },
    #[error("element {index} of the array is {found}, not an object with \"path\" and \"topic\"")]
    NotObject { index: usize, found: &'static str },
}

/// One element of the array. `path` and `topic` are absent when they are no strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: Option<String>,
    pub topic: Option<String>,
    place: Range<usize>,
    path_place: Option<Range<usize>>,
    topic_place: Option<Range<usize>>,
}

/// A JSON array of objects and where each of them lies in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    text: String,
    entries: Vec<Entry>,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            text: "[]".into(),
            entries: Vec::new(),
        }
    }
}

impl Document {
    pub fn parse(value: &[u8]) -> Result<Self, DocumentError> {
        let text = std::str::from_utf8(value).map_err(|_| DocumentError::NotUtf8)?;
        if text.trim().is_empty() {
            return Err(DocumentError::Empty);
        }
        let not_json = |error: serde_json::Error| DocumentError::NotJson(error.to_string());
        let whole: &RawValue = serde_json::from_str(text).map_err(not_json)?;
        if !whole.get().starts_with('[') {
            return Err(DocumentError::NotArray {
                found: kind(whole.get()),
            });
        }
        let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(not_json)?;
        let entries = elements
            .into_iter()
            .enumerate()
            .map(|(index, element)| entry(text, index, element))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            text: text.to_owned(),
            entries,
        })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry's own bytes.
    pub fn entry_text(&self, index: usize) -> &str {
        &self.text[self.entries[index].place.clone()]
    }

    /// True when every entry has a path and paths ascend: an order that inserting keeps up.
    pub fn is_sorted(&self) -> bool {
        self.entries.iter().all(|entry| entry.path.is_some())
            && self.entries.is_sorted_by_key(|entry| entry.path.as_deref())
    }

    /// Puts a new entry before the one at `index`, or at the end.
    pub fn insert(&self, index: usize, new: &LogEntry) -> Self {
        let written = format!(
            "{{\"path\":{},\"topic\":{}}}",
            quoted(&new.path),
            quoted(&new.topic)
        );
        let Some(last) = self.entries.last() else {
            // Only blanks can lie between the brackets of an empty array.
            let (open, close) = self.brackets();
            return self.replaced(open + 1..close, &written);
        };
        let separator = self.separator();
        match self.entries.get(index) {
            Some(next) => self.replaced(
                next.place.start..next.place.start,
                &format!("{written}{separator}"),
            ),
            None => self.replaced(
                last.place.end..last.place.end,
                &format!("{separator}{written}"),
            ),
        }
    }

    pub fn remove(&self, index: usize) -> Self {
        let gone = &self.entries[index].place;
        let cut = match (self.entries.get(index + 1), index.checked_sub(1)) {
            (Some(next), _) => gone.start..next.place.start,
            (None, Some(before)) => self.entries[before].place.end..gone.end,
            (None, None) => {
                let (open, close) = self.brackets();
                open + 1..close
            }
        };
        self.replaced(cut, "")
    }

    /// Gives the entry at `index` another topic; its other fields keep their bytes.
    pub fn set_topic(&self, index: usize, topic: &str) -> Self {
        let entry = &self.entries[index];
        match (&entry.topic_place, &entry.path_place) {
            (Some(place), _) => self.replaced(place.clone(), &quoted(topic)),
            (None, Some(path)) => {
                self.replaced(path.end..path.end, &format!(",\"topic\":{}", quoted(topic)))
            }
            // Entries are found by their path, so one without a path is never asked for.
            (None, None) => self.clone(),
        }
    }

    /// What the writer of this document put between two entries.
    fn separator(&self) -> String {
        match &self.entries[..] {
            [first, second, ..] => self.text[first.place.end..second.place.start].to_owned(),
            [only] => {
                let (open, _) = self.brackets();
                let indent = &self.text[open + 1..only.place.start];
                format!(",{indent}")
            }
            [] => ",".into(),
        }
    }

    fn brackets(&self) -> (usize, usize) {
        let open = self.text.find('[').unwrap_or(0);
        let close = self.text.rfind(']').unwrap_or(open + 1);
        (open, close)
    }

    fn replaced(&self, place: Range<usize>, by: &str) -> Self {
        let mut text = self.text.clone();
        text.replace_range(place, by);
        Self::parse(text.as_bytes())
            .expect("cutting at element borders keeps the array well formed")
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn entry(text: &str, index: usize, element: &RawValue) -> Result<Entry, DocumentError> {
    let json = element.get();
    if !json.starts_with('{') {
        return Err(DocumentError::NotObject {
            index,
            found: kind(json),
        });
    }
    let fields: Fields<'_> =
        serde_json::from_str(json).map_err(|error| DocumentError::NotJson(error.to_string()))?;
    // A name given twice counts as its last value, as most JSON parsers have it.
    let field = |name: &str| {
        fields
            .0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, v)| *v)
    };
    let string = |value: Option<&RawValue>| value.and_then(|v| serde_json::from_str(v.get()).ok());
    let (path, topic) = (field("path"), field("topic"));
    Ok(Entry {
        path: string(path),
        topic: string(topic),
        place: place(text, json),
        path_place: path.map(|value| place(text, value.get())),
        topic_place: topic.map(|value| place(text, value.get())),
    })
}

/// Where `part`, a borrowed piece of `text`, lies in it.
fn place(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.len()
}

/// The fields of an object in their order, values unparsed.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    fields.push((name, map.next_value::<&RawValue>()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Document {
        Document::parse(text.as_bytes()).unwrap()
    }

    fn new(path: &str, topic: &str) -> LogEntry {
        LogEntry {
            path: path.into(),
            topic: topic.into(),
        }
    }

    #[test]
    fn what_is_no_array_of_objects_is_named() {
        let table: [(&[u8], &str); 9] = [
            (b"", "the value is empty"),
            (b" \n", "the value is empty"),
            (b"sample_value", "the value is not JSON"),
            (b"{", "the value is not JSON"),
            (b"\xff", "not UTF-8"),
            (br#"{"path":"x"}"#, "the value is an object, not"),
            (b"\"x\"", "the value is a string, not"),
            (b"[null]", "element 0 of the array is null"),
            (b"[{},3]", "element 1 of the array is a number"),
        ];
        for (value, words) in table {
            let error = Document::parse(value).unwrap_err().to_string();
            assert!(error.contains(words), "{value:?}: {error}");
        }
    }

    #[test]
    fn inserting_keeps_the_writers_layout() {
        let table = [
            ("[]", 0, r#"[{"path":"/n","topic":"t"}]"#),
            (" [ \n ] ", 0, r#" [{"path":"/n","topic":"t"}] "#),
            (
                r#"[{"path":"/a"}]"#,
                1,
                r#"[{"path":"/a"},{"path":"/n","topic":"t"}]"#,
            ),
            (
                r#"[{"path":"/a"}]"#,
                0,
                r#"[{"path":"/n","topic":"t"},{"path":"/a"}]"#,
            ),
            (
                "[\n  {\"path\": \"/a\"}\n]\n",
                1,
                "[\n  {\"path\": \"/a\"},\n  {\"path\":\"/n\",\"topic\":\"t\"}\n]\n",
            ),
            (
                "[{\"path\":\"/a\"} , {\"path\":\"/z\"}]",
                1,
                "[{\"path\":\"/a\"} , {\"path\":\"/n\",\"topic\":\"t\"} , {\"path\":\"/z\"}]",
            ),
        ];
        for (before, index, after) in table {
            assert_eq!(
                parse(before).insert(index, &new("/n", "t")).text(),
                after,
                "{before}"
            );
        }
    }

    #[test]
    fn removing_leaves_the_others() {
        let three = r#"[{"a":1}, {"b":2},  {"c":3}]"#;
        assert_eq!(parse(three).remove(0).text(), r#"[{"b":2},  {"c":3}]"#);
        assert_eq!(parse(three).remove(1).text(), r#"[{"a":1}, {"c":3}]"#);
        assert_eq!(parse(three).remove(2).text(), r#"[{"a":1}, {"b":2}]"#);
        assert_eq!(parse("[ {\"a\":1} ]").remove(0).text(), "[]");
    }

    #[test]
    fn a_topic_changes_in_place() {
        let table = [
            (
                r#"[{ "topic" : "a", "x": [1], "path":"/p" }]"#,
                r#"[{ "topic" : "b", "x": [1], "path":"/p" }]"#,
            ),
            (
                r#"[{"path":"/p","topic":3}]"#,
                r#"[{"path":"/p","topic":"b"}]"#,
            ),
            (r#"[{"path":"/p"}]"#, r#"[{"path":"/p","topic":"b"}]"#),
            (
                r#"[{"path":"/p","z":0}]"#,
                r#"[{"path":"/p","topic":"b","z":0}]"#,
            ),
        ];
        for (before, after) in table {
            assert_eq!(parse(before).set_topic(0, "b").text(), after, "{before}");
        }
    }

    #[test]
    fn strings_are_read_through_their_escapes() {
        let document = parse(r#"[{"path":"/\u65e5/a\"b","topic":"t"}]"#);
        assert_eq!(document.entries()[0].path.as_deref(), Some("/日/a\"b"));
    }
}
