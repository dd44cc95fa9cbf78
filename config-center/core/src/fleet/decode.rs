//! From a tree with places to typed values, with errors that say where and what was meant.
//!
//! A serde deserializer of our own because serde hands an unknown field and the known ones to the
//! error type as data: the suggestion is made from them and not from the text of a message.

use std::fmt;

use serde::{
    Deserialize,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess,
        SeqAccess, VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};

use super::source::{Key, Node, Place, Value};

/// Why a document is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    pub place: Place,
    /// Where in the document, such as `spec.logs[1].topic`.
    pub path: String,
    pub message: String,
    is_placed: bool,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

impl std::error::Error for DecodeError {}

pub fn decode<T: DeserializeOwned>(node: &Node) -> Result<T, DecodeError> {
    T::deserialize(node).map_err(|error| error.at(node.place))
}

/// The one of `known` that was probably meant.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let near = |name: &&str| {
        let distance = strsim::osa_distance(&given, &name.to_lowercase());
        // Short words allow fewer slips: else everything is like everything.
        (distance <= 1 + given.chars().count() / 4).then_some(distance)
    };
    known
        .into_iter()
        .filter_map(|name| near(&name).map(|distance| (distance, name)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// "did you mean …?" or the list of what there is.
pub(super) fn suggestion(given: &str, known: &[&str]) -> String {
    match (did_you_mean(given, known.iter().copied()), known) {
        (Some(name), _) => format!("did you mean {name:?}?"),
        (None, []) => "there is none".into(),
        (None, known) => format!("known are {}", known.join(", ")),
    }
}

impl DecodeError {
    fn new(message: String) -> Self {
        Self {
            place: Place::default(),
            path: String::new(),
            message,
            is_placed: false,
        }
    }

    pub(super) fn placed(place: Place, message: String) -> Self {
        Self::new(message).at(place)
    }

    /// The innermost place is the best one, so only the first counts.
    fn at(mut self, place: Place) -> Self {
        if !self.is_placed {
            self.place = place;
            self.is_placed = true;
        }
        self
    }

    fn within(mut self, step: &str) -> Self {
        let separator = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{step}{separator}{}", self.path);
        self
    }
}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!(
            "unknown field {field:?}: {}",
            suggestion(field, expected)
        ))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!(
            "{variant:?} is not known here: {}",
            suggestion(variant, expected)
        ))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("{field} is missing"))
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("found {found}, expected {expected}"))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("found {found}, expected {expected}"))
    }
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let visited = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Unsigned(number) => visitor.visit_u64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Map(entries) => visitor.visit_map(Fields { entries, next: 0 }),
        };
        visited.map_err(|error| error.at(self.place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    /// A list is no struct, though serde's derived visitors would take one.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.value {
            Value::List(_) => {
                let error: DecodeError = de::Error::custom("found a list, expected fields");
                Err(error.at(self.place))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let visited = match &self.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Map(entries) => match &entries[..] {
                [(key, value)] => visitor.visit_enum(Variant { key, value }),
                _ => Err(de::Error::custom("exactly one field is expected here")),
            },
            _ => self.deserialize_any(visitor),
        };
        visited.map_err(|error| error.at(self.place))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'de> {
    items: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let index = self.next;
        let Some(item) = self.items.get(index) else {
            return Ok(None);
        };
        self.next += 1;
        let element = seed.deserialize(item);
        element
            .map(Some)
            .map_err(|error| error.at(item.place).within(&format!("[{index}]")))
    }
}

struct Fields<'de> {
    entries: &'de [(Key, Node)],
    next: usize,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, _)) = self.entries.get(self.next) else {
            return Ok(None);
        };
        let name: de::value::BorrowedStrDeserializer<'de, DecodeError> =
            de::value::BorrowedStrDeserializer::new(&key.text);
        seed.deserialize(name)
            .map(Some)
            .map_err(|error| error.at(key.place))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let (key, value) = &self.entries[self.next];
        self.next += 1;
        seed.deserialize(value)
            .map_err(|error| error.at(value.place).within(&key.text))
    }
}

/// A variant that carries a value: `{hosts: 1}`.
struct Variant<'de> {
    key: &'de Key,
    value: &'de Node,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), DecodeError> {
        let name: de::value::BorrowedStrDeserializer<'de, DecodeError> =
            de::value::BorrowedStrDeserializer::new(&self.key.text);
        let variant = seed
            .deserialize(name)
            .map_err(|error| error.at(self.key.place))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        let error: DecodeError = de::Error::custom("no value is expected here");
        Err(error.at(self.value.place).within(&self.key.text))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, DecodeError> {
        seed.deserialize(self.value)
            .map_err(|error| error.at(self.value.place).within(&self.key.text))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_any(self.value, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_any(self.value, visitor)
    }
}

/// The first fields of every object: which type to decode into. The other fields are not looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    #[serde(rename = "apiVersion")]
    pub(super) api_version: Option<serde_json::Value>,
    pub(super) kind: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::source::read;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Sample {
        #[serde(default)]
        max_failures: u32,
        #[serde(default)]
        items: Vec<Item>,
        #[serde(default)]
        choice: Option<Choice>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Item {
        name: String,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Choice {
        Pause,
        Hosts(u32),
    }

    #[track_caller]
    fn check(text: &str, place: &str, words: &str) {
        let documents = read(text).unwrap();
        let error = decode::<Sample>(&documents[0]).unwrap_err();
        assert_eq!(error.place.to_string(), place, "{error}");
        assert_eq!(error.to_string(), words);
    }

    #[test]
    fn unknown_names_are_answered_with_what_was_meant() {
        check(
            "maxFailure: 1",
            "1:1",
            "unknown field \"maxFailure\": did you mean \"maxFailures\"?",
        );
        check(
            "items:\n- name: a\n- nmae: b",
            "3:3",
            "items[1]: unknown field \"nmae\": did you mean \"name\"?",
        );
        check(
            "colour: red",
            "1:1",
            "unknown field \"colour\": known are maxFailures, items, choice",
        );
        check(
            "choice: puase",
            "1:9",
            "choice: \"puase\" is not known here: did you mean \"pause\"?",
        );
        check(
            "choice: {host: 1}",
            "1:10",
            "choice: \"host\" is not known here: did you mean \"hosts\"?",
        );
    }

    #[test]
    fn wrong_values_are_placed() {
        check(
            "maxFailures: many",
            "1:14",
            "maxFailures: found string \"many\", expected u32",
        );
        check(
            "maxFailures: -1",
            "1:14",
            "maxFailures: found integer `-1`, expected u32",
        );
        check("items:\n  - {}", "2:5", "items[0]: name is missing");
        check(
            "items: 3",
            "1:8",
            "items: found integer `3`, expected a sequence",
        );
        check(
            "choice:\n  hosts: x",
            "2:10",
            "choice.hosts: found string \"x\", expected u32",
        );
        check(
            "choice: {hosts: 1, pause: 2}",
            "1:9",
            "choice: exactly one field is expected here",
        );
        check("[]", "1:1", "found a list, expected fields");
    }

    #[test]
    fn right_values_are_read() {
        let documents = read("maxFailures: 2\nitems: [{name: a}]\nchoice: {hosts: 3}").unwrap();
        let expected = Sample {
            max_failures: 2,
            items: vec![Item { name: "a".into() }],
            choice: Some(Choice::Hosts(3)),
        };
        assert_eq!(decode::<Sample>(&documents[0]).unwrap(), expected);
        let null = read("choice: null").unwrap();
        assert_eq!(decode::<Sample>(&null[0]).unwrap().choice, None);
    }

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["path", "topic", "max_line_bytes"];
        let table = [
            ("pth", Some("path")),
            ("Topic", Some("topic")),
            ("tpoic", Some("topic")),
            ("max_lines_byte", Some("max_line_bytes")),
            ("x", None),
            ("colour", None),
        ];
        for (given, expected) in table {
            assert_eq!(did_you_mean(given, known), expected, "{given}");
        }
    }
}
