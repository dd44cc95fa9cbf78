//! JSON ↔ protobuf by descriptor, by the rules of Go's protojson as etcd sets it up: field names as
//! in the schema going out, either spelling coming in; 64-bit numbers as strings going out; zero
//! values left out; unknown fields and unknown enum names ignored; a field given twice refused.
//!
//! Knows no message in particular and nothing of HTTP.

mod read;
mod split;
mod write;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};

pub(super) use split::{SplitError, ValueSplitter};

/// How `bytes` fields are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    /// As etcd does: base64, also in its URL-safe alphabet and without padding coming in.
    Base64,
    /// For people with curl: plain text. What is not UTF-8 comes out, and may come in, as base64
    /// under the field's name with `_base64` behind it.
    Text,
}

/// What a field is called in [`Notation::Text`] when its bytes are not text.
const BASE64_SUFFIX: &str = "_base64";

/// The first JSON value of `json` as an encoded message. Nothing but white space is the empty
/// message, and what follows the value is not looked at, as in etcd.
pub(super) fn to_protobuf(
    json: &[u8],
    message: &MessageDescriptor,
    notation: Notation,
) -> Result<Bytes, serde_json::Error> {
    if json.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::new());
    }
    let mut source = serde_json::Deserializer::from_slice(json);
    let message = read::message(message, notation, &mut source)?;
    let mut encoded = BytesMut::with_capacity(message.encoded_len());
    message
        .encode(&mut encoded)
        .map_err(<serde_json::Error as serde::de::Error>::custom)?;
    Ok(encoded.freeze())
}

/// Appends an encoded message as JSON.
pub(super) fn from_protobuf(
    encoded: Bytes,
    message: &MessageDescriptor,
    notation: Notation,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    let message = DynamicMessage::decode(message.clone(), encoded)
        .map_err(<serde_json::Error as serde::ser::Error>::custom)?;
    serde_json::to_writer(out, &write::Json::new(&message, notation))
}

#[cfg(test)]
mod tests;
