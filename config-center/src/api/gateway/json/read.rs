//! JSON coming in.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value,
};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{BASE64_SUFFIX, Notation};

const PADDED: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
const UNPADDED: GeneralPurposeConfig =
    PADDED.with_decode_padding_mode(DecodePaddingMode::RequireNone);
/// Without padding and with it.
static STANDARD: [GeneralPurpose; 2] = [
    GeneralPurpose::new(&alphabet::STANDARD, UNPADDED),
    GeneralPurpose::new(&alphabet::STANDARD, PADDED),
];
static URL_SAFE: [GeneralPurpose; 2] = [
    GeneralPurpose::new(&alphabet::URL_SAFE, UNPADDED),
    GeneralPurpose::new(&alphabet::URL_SAFE, PADDED),
];

/// Reads one message, which must be a JSON object.
pub(super) fn message<'de, D: Deserializer<'de>>(
    descriptor: &MessageDescriptor,
    notation: Notation,
    source: D,
) -> Result<DynamicMessage, D::Error> {
    source.deserialize_map(MessageVisitor {
        descriptor,
        notation,
    })
}

#[derive(Clone, Copy)]
struct MessageVisitor<'a> {
    descriptor: &'a MessageDescriptor,
    notation: Notation,
}

impl<'a> MessageVisitor<'a> {
    fn find(&self, name: &str) -> Option<(FieldDescriptor, Notation)> {
        let known = |name: &str| {
            self.descriptor
                .get_field_by_json_name(name)
                .or_else(|| self.descriptor.get_field_by_name(name))
        };
        if let Some(field) = known(name) {
            return Some((field, self.notation));
        }
        let text =
            (self.notation == Notation::Text).then(|| name.strip_suffix(BASE64_SUFFIX))??;
        let field = known(text).filter(|field| field.kind() == Kind::Bytes)?;
        Some((field, Notation::Base64))
    }
}

impl<'de> Visitor<'de> for MessageVisitor<'_> {
    type Value = DynamicMessage;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DynamicMessage, A::Error> {
        let mut message = DynamicMessage::new(self.descriptor.clone());
        let mut seen: Vec<u32> = Vec::new();
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            let Some((field, notation)) = self.find(&name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen.contains(&field.number()) {
                return Err(A::Error::custom(format!("duplicate field {name:?}")));
            }
            seen.push(field.number());
            let given = map.next_value_seed(FieldSeed {
                field: &field,
                notation,
            })?;
            let Some(value) = given else {
                continue;
            };
            if let Some(oneof) = field.containing_oneof()
                && oneof.fields().any(|other| message.has_field(&other))
            {
                return Err(A::Error::custom(format!(
                    "error parsing {name:?}, oneof {} is already set",
                    oneof.full_name()
                )));
            }
            message
                .try_set_field(&field, value)
                .map_err(A::Error::custom)?;
        }
        Ok(message)
    }
}

/// A field's value; `None` for `null` and for the name of an unknown enum value.
struct FieldSeed<'a> {
    field: &'a FieldDescriptor,
    notation: Notation,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        source.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for the field {}", self.field.name())
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        let kind = self.field.kind();
        let element = ElementSeed {
            name: self.field.name(),
            kind: &kind,
            notation: self.notation,
        };
        if self.field.is_list() {
            source.deserialize_seq(ListVisitor(element)).map(Some)
        } else {
            element.deserialize(source)
        }
    }
}

struct ListVisitor<'a>(ElementSeed<'a>);

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list for the field {}", self.0.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.0)? {
            values.extend(value);
        }
        Ok(Value::List(values))
    }
}

#[derive(Clone, Copy)]
struct ElementSeed<'a> {
    name: &'a str,
    kind: &'a Kind,
    notation: Notation,
}

impl<'de> DeserializeSeed<'de> for ElementSeed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        match self.kind {
            Kind::Message(descriptor) => {
                message(descriptor, self.notation, source).map(|m| Some(Value::Message(m)))
            }
            _ => source.deserialize_any(self),
        }
    }
}

/// Scalars only: messages never come here.
impl Visitor<'_> for ElementSeed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            Kind::Bool => "true or false",
            Kind::String => "a string",
            Kind::Bytes if self.notation == Notation::Base64 => "bytes in base64",
            Kind::Bytes => "text",
            Kind::Enum(_) => "a name or a number",
            _ => "a number",
        };
        write!(f, "{what} for the field {}", self.name)
    }

    fn visit_bool<E: Error>(self, given: bool) -> Result<Self::Value, E> {
        match self.kind {
            Kind::Bool => Ok(Some(Value::Bool(given))),
            _ => Err(E::invalid_type(serde::de::Unexpected::Bool(given), &self)),
        }
    }

    fn visit_i64<E: Error>(self, given: i64) -> Result<Self::Value, E> {
        self.number(i128::from(given))
    }

    fn visit_u64<E: Error>(self, given: u64) -> Result<Self::Value, E> {
        self.number(i128::from(given))
    }

    fn visit_f64<E: Error>(self, given: f64) -> Result<Self::Value, E> {
        match (self.kind, whole(given)) {
            (Kind::Double, _) => Ok(Some(Value::F64(given))),
            (_, Some(number)) => self.number(number),
            (_, None) => Err(self.invalid(given)),
        }
    }

    fn visit_str<E: Error>(self, given: &str) -> Result<Self::Value, E> {
        match self.kind {
            Kind::String => Ok(Some(Value::String(given.to_owned()))),
            Kind::Bytes => match self.notation {
                Notation::Text => Ok(Some(Value::Bytes(Bytes::copy_from_slice(given.as_bytes())))),
                Notation::Base64 => decode(given)
                    .map(|bytes| Some(Value::Bytes(bytes)))
                    .ok_or_else(|| self.invalid(format!("{given:?}"))),
            },
            Kind::Enum(descriptor) => Ok(enum_number(descriptor, given)),
            Kind::Bool | Kind::Message(_) => {
                Err(E::invalid_type(serde::de::Unexpected::Str(given), &self))
            }
            _ => match number_in(given) {
                Some(number) => self.number(number),
                None => Err(self.invalid(format!("{given:?}"))),
            },
        }
    }
}

impl ElementSeed<'_> {
    fn number<E: Error>(self, given: i128) -> Result<Option<Value>, E> {
        let value = match self.kind {
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                i32::try_from(given).ok().map(Value::I32)
            }
            Kind::Enum(_) => i32::try_from(given).ok().map(Value::EnumNumber),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                i64::try_from(given).ok().map(Value::I64)
            }
            Kind::Uint32 | Kind::Fixed32 => u32::try_from(given).ok().map(Value::U32),
            Kind::Uint64 | Kind::Fixed64 => u64::try_from(given).ok().map(Value::U64),
            Kind::Double => Some(Value::F64(given as f64)),
            // The schema has no float; bool, string and bytes are never numbers.
            _ => None,
        };
        value.map(Some).ok_or_else(|| self.invalid(given))
    }

    fn invalid<E: Error>(self, given: impl fmt::Display) -> E {
        E::custom(format!(
            "invalid value for the field {}: {given}",
            self.name
        ))
    }
}

/// As Go reads it: either alphabet; padded to the full length, or not at all.
fn decode(text: &str) -> Option<Bytes> {
    let engines = match text.contains(['-', '_']) {
        true => &URL_SAFE,
        false => &STANDARD,
    };
    let is_full = text.len().is_multiple_of(4);
    let decoded = engines[usize::from(is_full)].decode(text);
    decoded.ok().map(Bytes::from)
}

fn enum_number(descriptor: &EnumDescriptor, name: &str) -> Option<Value> {
    descriptor
        .get_value_by_name(name)
        .map(|value| Value::EnumNumber(value.number()))
}

/// A number in a string, in JSON's notation; `1e3` counts as whole. As Go reads it: without blanks
/// around, and what comes behind the number, as in `7}1`, is not looked at.
fn number_in(text: &str) -> Option<i128> {
    if text.trim() != text {
        return None;
    }
    let goes_on = |letter: char| letter.is_ascii_alphanumeric() || "-+._".contains(letter);
    let end = text.find(|letter| !goes_on(letter)).unwrap_or(text.len());
    let number = &text[..end];
    // Neither `+1` nor `01` nor `1.` is JSON, though Rust reads them as numbers.
    serde_json::from_str::<serde_json::Number>(number).ok()?;
    match number.parse::<i128>() {
        Ok(number) => Some(number),
        Err(_) => whole(number.parse().ok()?),
    }
}

/// Beyond 2^63 a float is no exact 64-bit number any more, but may still fit `uint64`.
fn whole(number: f64) -> Option<i128> {
    (number.fract() == 0.0 && number.abs() < 1e20).then_some(number as i128)
}
