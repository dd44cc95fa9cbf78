//! Requests as JSON, in all the spellings that protobuf's JSON allows; and a body with a fault.

use proptest::prelude::*;
use proptest::sample::select;
use schemas::etcdserverpb::compare::TargetUnion;
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use serde_json::{Map, Value, json};

const SORT_ORDERS: &[&str] = &["NONE", "ASCEND", "DESCEND"];
const SORT_TARGETS: &[&str] = &["KEY", "VERSION", "CREATE", "MOD", "VALUE"];
const RESULTS: &[&str] = &["EQUAL", "GREATER", "LESS", "NOT_EQUAL"];
const TARGETS: &[&str] = &["VERSION", "CREATE", "MOD", "VALUE", "LEASE"];

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// How one client writes what all of them mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spelling {
    /// `rangeEnd` instead of `range_end`.
    camel: bool,
    /// `7` instead of `"7"`.
    numbers: bool,
    /// `2` instead of `"DESCEND"`.
    enum_numbers: bool,
    url_safe: bool,
    unpadded: bool,
    /// Fields that say nothing are written too.
    defaults: bool,
    /// A field that nobody knows.
    unknown: bool,
}

pub(super) fn spelling() -> impl Strategy<Value = Spelling> {
    (any::<[bool; 6]>(), 0..8_u8).prop_map(
        |([camel, numbers, enum_numbers, url_safe, unpadded, defaults], unknown)| Spelling {
            camel,
            numbers,
            enum_numbers,
            url_safe,
            unpadded,
            defaults,
            unknown: unknown == 7,
        },
    )
}

/// A fault in a body. Places count from its start and begin again at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    CutAt(usize),
    Remove(usize),
    Double(usize),
    Replace(usize, char),
}

pub(super) fn damage() -> impl Strategy<Value = Damage> {
    let place = || 0..400_usize;
    let other = select(
        &[
            '"', '{', '}', '[', ']', ':', ',', '\\', '=', '-', '1', '.', 'e', 'n', ' ', '\u{1}',
            'é',
        ][..],
    );
    prop_oneof![
        1 => place().prop_map(Damage::CutAt),
        2 => place().prop_map(Damage::Remove),
        2 => place().prop_map(Damage::Double),
        4 => (place(), other).prop_map(|(place, other)| Damage::Replace(place, other)),
    ]
}

impl Damage {
    pub(super) fn done_to(self, body: &str) -> String {
        let mut letters: Vec<char> = body.chars().collect();
        let at = |place: usize| place % body.chars().count().max(1);
        match self {
            Self::CutAt(place) => letters.truncate(at(place)),
            Self::Remove(place) => {
                letters.remove(at(place));
            }
            Self::Double(place) => letters.insert(at(place), letters[at(place)]),
            Self::Replace(place, other) => letters[at(place)] = other,
        }
        letters.into_iter().collect()
    }
}

/// An object under construction.
struct Object {
    spelling: Spelling,
    fields: Map<String, Value>,
}

impl Object {
    fn set(mut self, name: &str, value: Value, says_nothing: bool) -> Self {
        if !says_nothing || self.spelling.defaults {
            let name = if self.spelling.camel {
                camel(name)
            } else {
                name.to_owned()
            };
            self.fields.insert(name, value);
        }
        self
    }

    fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        let text = self.spelling.base64(bytes);
        self.set(name, json!(text), bytes.is_empty())
    }

    fn int(self, name: &str, value: i64) -> Self {
        let written = if self.spelling.numbers {
            json!(value)
        } else {
            json!(value.to_string())
        };
        self.set(name, written, value == 0)
    }

    fn flag(self, name: &str, value: bool) -> Self {
        self.set(name, json!(value), !value)
    }

    fn choice(self, name: &str, names: &[&str], value: i32) -> Self {
        let known = usize::try_from(value)
            .ok()
            .and_then(|value| names.get(value));
        let written = match known {
            Some(known) if !self.spelling.enum_numbers => json!(known),
            _ => json!(value),
        };
        self.set(name, written, value == 0)
    }

    fn list(self, name: &str, values: Vec<Value>) -> Self {
        let is_empty = values.is_empty();
        self.set(name, Value::Array(values), is_empty)
    }

    fn done(mut self) -> Value {
        if self.spelling.unknown {
            let value = json!({"a": [1, null, "x"]});
            self.fields.insert("nobody_knows".to_owned(), value);
        }
        Value::Object(self.fields)
    }
}

impl Spelling {
    fn object(self) -> Object {
        Object {
            spelling: self,
            fields: Map::new(),
        }
    }

    fn base64(self, bytes: &[u8]) -> String {
        let letters = if self.url_safe { URL_SAFE } else { STANDARD };
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let mut bits = 0_u32;
            for at in 0..3 {
                bits = bits << 8 | u32::from(three.get(at).copied().unwrap_or(0));
            }
            for at in 0..4 {
                if at <= three.len() {
                    let letter = bits >> (18 - 6 * at) & 63;
                    text.push(char::from(letters[letter as usize]));
                } else if !self.unpadded {
                    text.push('=');
                }
            }
        }
        text
    }

    /// An object of numbers only.
    pub(super) fn ints(self, fields: &[(&str, i64)], flags: &[(&str, bool)]) -> Value {
        let object = fields.iter().fold(self.object(), |object, (name, value)| {
            object.int(name, *value)
        });
        flags
            .iter()
            .fold(object, |object, (name, value)| object.flag(name, *value))
            .done()
    }

    pub(super) fn put(self, put: &PutRequest) -> Value {
        self.object()
            .bytes("key", &put.key)
            .bytes("value", &put.value)
            .int("lease", put.lease)
            .flag("prev_kv", put.prev_kv)
            .flag("ignore_value", put.ignore_value)
            .flag("ignore_lease", put.ignore_lease)
            .done()
    }

    pub(super) fn range(self, range: &RangeRequest) -> Value {
        self.object()
            .bytes("key", &range.key)
            .bytes("range_end", &range.range_end)
            .int("limit", range.limit)
            .int("revision", range.revision)
            .choice("sort_order", SORT_ORDERS, range.sort_order)
            .choice("sort_target", SORT_TARGETS, range.sort_target)
            .flag("serializable", range.serializable)
            .flag("keys_only", range.keys_only)
            .flag("count_only", range.count_only)
            .int("min_mod_revision", range.min_mod_revision)
            .int("max_mod_revision", range.max_mod_revision)
            .int("min_create_revision", range.min_create_revision)
            .int("max_create_revision", range.max_create_revision)
            .done()
    }

    pub(super) fn delete(self, delete: &DeleteRangeRequest) -> Value {
        self.object()
            .bytes("key", &delete.key)
            .bytes("range_end", &delete.range_end)
            .flag("prev_kv", delete.prev_kv)
            .done()
    }

    pub(super) fn txn(self, txn: &TxnRequest) -> Value {
        let list =
            |operations: &[RequestOp]| operations.iter().map(|one| self.operation(one)).collect();
        self.object()
            .list(
                "compare",
                txn.compare.iter().map(|one| self.compare(one)).collect(),
            )
            .list("success", list(&txn.success))
            .list("failure", list(&txn.failure))
            .done()
    }

    fn operation(self, operation: &RequestOp) -> Value {
        let (name, value) = match &operation.request {
            Some(Request::RequestPut(put)) => ("request_put", self.put(put)),
            Some(Request::RequestRange(range)) => ("request_range", self.range(range)),
            Some(Request::RequestDeleteRange(delete)) => {
                ("request_delete_range", self.delete(delete))
            }
            Some(Request::RequestTxn(txn)) => ("request_txn", self.txn(txn)),
            None => return self.object().done(),
        };
        self.object().set(name, value, false).done()
    }

    fn compare(self, compare: &Compare) -> Value {
        let object = self
            .object()
            .choice("result", RESULTS, compare.result)
            .choice("target", TARGETS, compare.target)
            .bytes("key", &compare.key)
            .bytes("range_end", &compare.range_end);
        // What is compared with is written even when it is zero: which one it is says something.
        let number = |name: &str, value: i64| (name.to_owned(), json!(value.to_string()));
        let (name, value) = match &compare.target_union {
            Some(TargetUnion::Version(version)) => number("version", *version),
            Some(TargetUnion::CreateRevision(revision)) => number("create_revision", *revision),
            Some(TargetUnion::ModRevision(revision)) => number("mod_revision", *revision),
            Some(TargetUnion::Value(value)) => ("value".to_owned(), json!(self.base64(value))),
            Some(TargetUnion::Lease(lease)) => number("lease", *lease),
            None => return object.done(),
        };
        object.set(&name, value, false).done()
    }
}

/// `range_end` is `rangeEnd`.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut text, word| {
        let mut letters = word.chars();
        text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        text.push_str(letters.as_str());
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Spelling = Spelling {
        camel: false,
        numbers: false,
        enum_numbers: false,
        url_safe: false,
        unpadded: false,
        defaults: false,
        unknown: false,
    };

    #[test]
    fn base64_is_the_known_one() {
        let pairs: [(&[u8], &str); 5] = [
            (b"", ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"\xff\xfe", "//4="),
        ];
        for (bytes, text) in pairs {
            assert_eq!(PLAIN.base64(bytes), text);
        }
        let other = Spelling {
            url_safe: true,
            unpadded: true,
            ..PLAIN
        };
        assert_eq!(other.base64(b"\xff\xfe"), "__4");
    }

    #[test]
    fn spellings_mean_the_same() {
        let range = RangeRequest {
            key: "a".into(),
            range_end: "b".into(),
            limit: 2,
            sort_order: 2,
            ..RangeRequest::default()
        };
        let plain =
            json!({"key": "YQ==", "range_end": "Yg==", "limit": "2", "sort_order": "DESCEND"});
        assert_eq!(PLAIN.range(&range), plain);
        let other = Spelling {
            camel: true,
            numbers: true,
            enum_numbers: true,
            ..PLAIN
        };
        let written = json!({"key": "YQ==", "rangeEnd": "Yg==", "limit": 2, "sortOrder": 2});
        assert_eq!(other.range(&range), written);
    }
}
