//! YAML and JSON as a tree in which every node knows its line and column.
//!
//! Messages about a fleet name the place that the operator has to look at, also when two files are
//! right by themselves and contradict each other. That needs positions that outlive decoding.
//! Input is bounded: by bytes, by depth, and by nodes, which are counted after aliases are copied.

use std::{collections::HashMap, fmt};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// A file larger than this is refused unread; it is the store's own limit for a value, and more.
pub const MAX_SOURCE_BYTES: usize = 8 << 20;
const MAX_DEPTH: usize = 64;
/// Enough for tens of thousands of entries. An alias counts for all that it stands for, so nested
/// aliases cannot blow up ("billion laughs").
const MAX_NODES: usize = 1_000_000;

/// A place in a text, both counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a text is no YAML that we read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    pub place: Place,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; keys are unique.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    pub place: Place,
    pub text: String,
}

impl Node {
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    pub(super) fn entry(&self, name: &str) -> Option<&(Key, Node)> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key.text == name),
            _ => None,
        }
    }

    pub fn item(&self, index: usize) -> Option<&Node> {
        match &self.value {
            Value::List(items) => items.get(index),
            _ => None,
        }
    }
}

/// The documents of a text; empty ones (a `---` with nothing behind it) are left out.
pub fn read(text: &str) -> Result<Vec<Node>, SourceError> {
    if text.len() > MAX_SOURCE_BYTES {
        return Err(SourceError {
            place: Place { line: 1, column: 1 },
            message: format!(
                "the text has {} bytes, more than the {MAX_SOURCE_BYTES} allowed",
                text.len()
            ),
        });
    }
    match Reader::default().read(text) {
        // JSON may write a character as two \u escapes, which YAML does not know.
        Err(error) => match serde_json::from_str::<serde_json::Value>(text) {
            Ok(json) => Ok(vec![Node::from(&json)]),
            Err(_) => Err(error),
        },
        read => read,
    }
}

/// A tree without places, for values that come from a store and not from a file.
impl From<&serde_json::Value> for Node {
    fn from(json: &serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(flag) => Value::Bool(*flag),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(integer), _) => Value::Integer(integer),
                (None, Some(unsigned)) => Value::Unsigned(unsigned),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Node::from).collect()),
            serde_json::Value::Object(fields) => {
                let entry = |(name, value): (&String, &serde_json::Value)| {
                    let key = Key {
                        place: Place::default(),
                        text: name.clone(),
                    };
                    (key, Node::from(value))
                };
                Value::Map(fields.iter().map(entry).collect())
            }
        };
        Self {
            place: Place::default(),
            value,
        }
    }
}

/// A list or a map that is not closed yet.
struct Open {
    place: Place,
    anchor: usize,
    collected: Collected,
}

enum Collected {
    Items(Vec<Node>),
    Fields {
        entries: Vec<(Key, Node)>,
        key: Option<Key>,
    },
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    /// The root of the document that is being read.
    root: Option<Node>,
    nodes: usize,
}

impl Reader {
    fn read(mut self, text: &str) -> Result<Vec<Node>, SourceError> {
        let mut documents = Vec::new();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| SourceError {
                place: Place {
                    line: error.marker().line(),
                    column: error.marker().col() + 1,
                },
                message: format!("this is not YAML: {}", error.info()),
            })?;
            let place = place(span);
            match event {
                Event::Scalar(text, style, anchor, tag) => {
                    let is_text = style != ScalarStyle::Plain
                        || tag.as_ref().is_some_and(|tag| tag.suffix == "str");
                    let value = if is_text {
                        Value::Text(text.into_owned())
                    } else {
                        plain(&text)
                    };
                    self.add(Node { place, value }, anchor, 1)?;
                }
                Event::SequenceStart(anchor, _) => {
                    self.begin(place, anchor, Collected::Items(Vec::new()))?;
                }
                Event::MappingStart(anchor, _) => {
                    let fields = Collected::Fields {
                        entries: Vec::new(),
                        key: None,
                    };
                    self.begin(place, anchor, fields)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.end()?,
                Event::Alias(anchor) => {
                    let (node, size) = self.anchors.get(&anchor).cloned().ok_or(SourceError {
                        place,
                        message: "this alias stands for nothing that is complete here".into(),
                    })?;
                    // The copy keeps the places of the original: that is what has to be edited.
                    self.add(node, 0, size)?;
                }
                Event::DocumentEnd => {
                    documents.extend(self.root.take().filter(|root| root.value != Value::Null));
                    self.anchors.clear();
                }
                Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_) => {}
            }
        }
        Ok(documents)
    }

    fn begin(
        &mut self,
        place: Place,
        anchor: usize,
        collected: Collected,
    ) -> Result<(), SourceError> {
        if self.open.len() == MAX_DEPTH {
            return Err(SourceError {
                place,
                message: format!("nested deeper than {MAX_DEPTH} levels"),
            });
        }
        self.open.push(Open {
            place,
            anchor,
            collected,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), SourceError> {
        let Some(Open {
            place,
            anchor,
            collected,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let value = match collected {
            Collected::Items(items) => Value::List(items),
            Collected::Fields { entries, .. } => Value::Map(entries),
        };
        self.add(Node { place, value }, anchor, 1)
    }

    /// `size` is how many nodes this one adds to the tree.
    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), SourceError> {
        self.nodes += size;
        if self.nodes > MAX_NODES {
            return Err(SourceError {
                place: node.place,
                message: format!("more than {MAX_NODES} values, aliases counted in full"),
            });
        }
        if anchor != 0 {
            let size = count(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|open| &mut open.collected) {
            None => self.root = Some(node),
            Some(Collected::Items(items)) => items.push(node),
            Some(Collected::Fields { entries, key }) => match key.take() {
                Some(name) => entries.push((name, node)),
                None => *key = Some(new_key(node, entries)?),
            },
        }
        Ok(())
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|(_, node)| 1 + count(node)).sum(),
        _ => 0,
    }
}

fn new_key(node: Node, entries: &[(Key, Node)]) -> Result<Key, SourceError> {
    let place = node.place;
    let text = match node.value {
        Value::Text(text) => text,
        Value::Bool(flag) => flag.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Unsigned(number) => number.to_string(),
        _ => {
            return Err(SourceError {
                place,
                message: "the name of a field must be text".into(),
            });
        }
    };
    if let Some((first, _)) = entries.iter().find(|(key, _)| key.text == text) {
        return Err(SourceError {
            place,
            message: format!("field {text:?} is written twice, first at {}", first.place),
        });
    }
    Ok(Key { place, text })
}

fn place(span: Span) -> Place {
    Place {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

/// A scalar without quotes, by YAML 1.2's core schema: `yes` and `on` are text.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let radix = |prefix, radix| {
        let digits = text.strip_prefix(prefix)?;
        i64::from_str_radix(digits, radix).ok().map(Value::Integer)
    };
    if let Some(value) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return value;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return match (text.parse(), text.parse()) {
            (Ok(integer), _) => Value::Integer(integer),
            (_, Ok(unsigned)) => Value::Unsigned(unsigned),
            _ => text
                .parse()
                .map_or_else(|_| Value::Text(text.into()), Value::Float),
        };
    }
    let begins_as_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    match text.parse() {
        Ok(float) if begins_as_number && digits.chars().all(numeric) => Value::Float(float),
        _ => Value::Text(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        let mut documents = read(text).unwrap();
        assert_eq!(documents.len(), 1, "{text}");
        documents.remove(0)
    }

    fn error(text: &str) -> (usize, usize, String) {
        let error = read(text).unwrap_err();
        (error.place.line, error.place.column, error.message)
    }

    #[test]
    fn every_node_knows_its_place() {
        let root = one("a: 1\nlist:\n  - x\n  - {k: v}\n");
        let list = root.field("list").unwrap();
        assert_eq!(root.field("a").unwrap().place, Place { line: 1, column: 4 });
        assert_eq!(list.item(0).unwrap().place, Place { line: 3, column: 5 });
        let (key, value) = list.item(1).unwrap().entry("k").unwrap();
        assert_eq!(
            (key.place, value.place),
            (Place { line: 4, column: 6 }, Place { line: 4, column: 9 })
        );
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let table = [
            ("yes", Value::Text("yes".into())),
            ("'1'", Value::Text("1".into())),
            ("!!str 1", Value::Text("1".into())),
            ("12", Value::Integer(12)),
            ("-3", Value::Integer(-3)),
            ("0x10", Value::Integer(16)),
            ("18446744073709551615", Value::Unsigned(u64::MAX)),
            ("1.5", Value::Float(1.5)),
            ("1e3", Value::Float(1000.0)),
            ("192.168.56.1", Value::Text("192.168.56.1".into())),
            ("30s", Value::Text("30s".into())),
            ("infinity", Value::Text("infinity".into())),
            (
                "-",
                Value::List(vec![Node {
                    place: Place { line: 1, column: 2 },
                    value: Value::Null,
                }]),
            ),
            ("True", Value::Bool(true)),
        ];
        for (text, expected) in table {
            let got = one(text).value;
            match expected {
                Value::List(_) => assert!(matches!(got, Value::List(_)), "{text}"),
                expected => assert_eq!(got, expected, "{text}"),
            }
        }
    }

    #[test]
    fn documents_are_told_apart_and_empty_ones_left_out() {
        assert_eq!(
            read("---\na: 1\n---\n# nothing\n---\nb: 2\n...\n")
                .unwrap()
                .len(),
            2
        );
        assert!(read("").unwrap().is_empty());
        assert!(read("# only a comment\n").unwrap().is_empty());
    }

    #[test]
    fn json_is_read_too() {
        let root = one("{\"a\":\n  \"\\u65e5\", \"b\": [1, true, null]}");
        assert_eq!(root.field("a").unwrap().value, Value::Text("日".into()));
        assert_eq!(root.field("a").unwrap().place.line, 2);
        // Two escapes for one character are JSON only.
        assert_eq!(
            one("{\"a\":\"\\ud83d\\ude00\"}").field("a").unwrap().value,
            Value::Text("😀".into())
        );
    }

    #[test]
    fn faults_name_their_place() {
        let (line, _, message) = error("a: 1\nb: [1\nc: 2\n");
        assert!(
            line >= 2 && message.contains("not YAML"),
            "{line} {message}"
        );
        assert_eq!(
            error("a: 1\nb: 2\na: 3\n"),
            (3, 1, "field \"a\" is written twice, first at 1:1".into())
        );
        assert!(error("? [a]\n: 1\n").2.contains("must be text"));
        assert!(error("a: *nothing\n").2.contains("not YAML"));
        assert!(
            error(&"[".repeat(MAX_DEPTH + 1))
                .2
                .contains("nested deeper")
        );
        assert!(error(&" ".repeat(MAX_SOURCE_BYTES + 1)).2.contains("bytes"));
    }

    #[test]
    fn aliases_are_copies_and_are_counted() {
        let root = one("a: &x {k: v}\nb: *x\n");
        assert_eq!(root.field("a").unwrap(), root.field("b").unwrap());
        let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..9 {
            let before = level - 1;
            let items = vec![format!("*a{before}"); 10].join(",");
            laughs.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(error(&laughs).2.contains("aliases counted in full"));
    }
}
