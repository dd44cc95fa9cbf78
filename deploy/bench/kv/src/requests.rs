//! The requests that the generator sends, encoded once and then only given another key.

use clap::ValueEnum;
use prost::Message as _;
use schemas::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};

pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const TXN: &str = "/etcdserverpb.KV/Txn";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// What a client asks for in a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Operation {
    /// A put on a random key.
    Put,
    /// Puts on keys 0, 1, 2, … without repeating one.
    Fill,
    /// A linearizable read of one key.
    Range,
    /// The same, served locally.
    SerializableRange,
    /// If the key exists, put it and read it, else put it.
    Txn,
    /// Four linearizable reads, then a put.
    Mixed,
}

/// A key is always this long, so that a template can be patched.
pub const KEY_BYTES: usize = 16;

/// The key of a number, as both clients write it.
pub fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"bench/0000000000";
    let mut rest = number;
    for digit in key[6..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// One encoded request with the places of its key.
#[derive(Debug, Clone)]
pub struct Template {
    pub path: &'static str,
    message: Vec<u8>,
    keys_at: Vec<usize>,
}

impl Template {
    fn new(path: &'static str, message: Vec<u8>) -> Self {
        let placeholder = key(0);
        let keys_at = message
            .windows(KEY_BYTES)
            .enumerate()
            .filter(|(_, window)| **window == placeholder)
            .map(|(at, _)| at)
            .collect();
        Self {
            path,
            message,
            keys_at,
        }
    }

    /// The request for this key.
    pub fn for_key(&mut self, number: u64) -> &[u8] {
        let key = key(number);
        for at in &self.keys_at {
            self.message[*at..*at + KEY_BYTES].copy_from_slice(&key);
        }
        &self.message
    }

    pub fn message_bytes(&self) -> usize {
        self.message.len()
    }
}

fn put(value_bytes: usize) -> PutRequest {
    PutRequest {
        key: key(0).to_vec().into(),
        // Not the digit zero, so that no key is found inside a value.
        value: vec![b'v'; value_bytes].into(),
        ..PutRequest::default()
    }
}

fn range(serializable: bool) -> RangeRequest {
    RangeRequest {
        key: key(0).to_vec().into(),
        serializable,
        ..RangeRequest::default()
    }
}

fn txn(value_bytes: usize) -> TxnRequest {
    let op = |request| RequestOp {
        request: Some(request),
    };
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Version.into(),
            key: key(0).to_vec().into(),
            target_union: Some(TargetUnion::Version(0)),
            ..Compare::default()
        }],
        success: vec![
            op(Request::RequestPut(put(value_bytes))),
            op(Request::RequestRange(range(false))),
        ],
        failure: vec![op(Request::RequestPut(put(value_bytes)))],
    }
}

/// The requests of an operation, in the order in which a client repeats them.
pub fn templates(operation: Operation, value_bytes: usize) -> Vec<Template> {
    let put = || Template::new(PUT, put(value_bytes).encode_to_vec());
    let range = |serializable| Template::new(RANGE, range(serializable).encode_to_vec());
    match operation {
        Operation::Put | Operation::Fill => vec![put()],
        Operation::Range => vec![range(false)],
        Operation::SerializableRange => vec![range(true)],
        Operation::Txn => vec![Template::new(TXN, txn(value_bytes).encode_to_vec())],
        Operation::Mixed => {
            let read = range(false);
            vec![read.clone(), read.clone(), read.clone(), read, put()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_the_request_of_its_key() {
        let mut templates = templates(Operation::Txn, 32);
        let message = templates[0].for_key(1_234_567).to_vec();
        let request = TxnRequest::decode(message.as_slice()).unwrap();
        let wanted = b"bench/0001234567";
        assert_eq!(&request.compare[0].key[..], wanted);
        let ops = request.success.iter().chain(&request.failure);
        let keys: Vec<_> = ops
            .map(|op| match op.request.clone().unwrap() {
                Request::RequestPut(put) => put.key,
                Request::RequestRange(range) => range.key,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(keys.len(), 3);
        assert!(keys.iter().all(|key| &key[..] == wanted), "{keys:?}");
    }
}
