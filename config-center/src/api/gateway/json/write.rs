//! JSON going out.

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::{BASE64_SUFFIX, Notation};

/// A message as a JSON object, fields by number.
pub(super) struct Json<'a> {
    message: &'a DynamicMessage,
    notation: Notation,
}

impl<'a> Json<'a> {
    pub(super) fn new(message: &'a DynamicMessage, notation: Notation) -> Self {
        Self { message, notation }
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        let mut fields: Vec<(FieldDescriptor, &Value)> = self.message.fields().collect();
        fields.sort_by_key(|(field, _)| field.number());
        let mut object = target.serialize_map(Some(fields.len()))?;
        for (field, value) in fields {
            let kind = field.kind();
            let is_text = self.notation == Notation::Text && is_utf8(value);
            let element = Element {
                kind: &kind,
                value,
                notation: match kind {
                    Kind::Bytes if !is_text => Notation::Base64,
                    _ => self.notation,
                },
            };
            if self.notation == Notation::Text && kind == Kind::Bytes && !is_text {
                object.serialize_entry(&format!("{}{BASE64_SUFFIX}", field.name()), &element)?;
            } else {
                object.serialize_entry(field.name(), &element)?;
            }
        }
        object.end()
    }
}

fn is_utf8(value: &Value) -> bool {
    match value {
        Value::Bytes(bytes) => std::str::from_utf8(bytes).is_ok(),
        Value::List(values) => values.iter().all(is_utf8),
        _ => true,
    }
}

struct Element<'a> {
    kind: &'a Kind,
    value: &'a Value,
    notation: Notation,
}

impl Serialize for Element<'_> {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Bool(value) => target.serialize_bool(*value),
            Value::I32(value) => target.serialize_i32(*value),
            Value::U32(value) => target.serialize_u32(*value),
            Value::I64(value) => target.collect_str(value),
            Value::U64(value) => target.collect_str(value),
            Value::F32(value) => target.serialize_f32(*value),
            Value::F64(value) => target.serialize_f64(*value),
            Value::String(value) => target.serialize_str(value),
            Value::Bytes(value) => match (self.notation, std::str::from_utf8(value)) {
                (Notation::Text, Ok(text)) => target.serialize_str(text),
                _ => target.collect_str(&Base64Display::new(value, &STANDARD)),
            },
            Value::EnumNumber(number) => match self.kind {
                Kind::Enum(names) => match names.get_value(*number) {
                    Some(known) => target.serialize_str(known.name()),
                    None => target.serialize_i32(*number),
                },
                _ => target.serialize_i32(*number),
            },
            Value::Message(message) => Json::new(message, self.notation).serialize(target),
            Value::List(values) => target.collect_seq(values.iter().map(|value| Element {
                kind: self.kind,
                value,
                notation: self.notation,
            })),
            // No schema of etcd has one.
            Value::Map(_) => Err(serde::ser::Error::custom(format!(
                "a map in {}",
                self.kind
                    .as_message()
                    .map_or("a message", |m| m.full_name())
            ))),
        }
    }
}
