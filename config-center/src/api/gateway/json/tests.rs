use prost_reflect::{DescriptorPool, MessageDescriptor};
use schemas::etcdserverpb::compare::TargetUnion;
use schemas::etcdserverpb::request_op::Request as Op;
use schemas::etcdserverpb::{
    LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse, ResponseHeader, TxnRequest,
    TxnResponse,
};
use schemas::mvccpb::KeyValue;

use super::*;

fn descriptor(name: &str) -> MessageDescriptor {
    let pool = DescriptorPool::decode(schemas::DESCRIPTORS).unwrap();
    pool.get_message_by_name(&format!("etcdserverpb.{name}"))
        .unwrap()
}

fn read<M: prost::Message + Default>(name: &str, json: &str) -> Result<M, String> {
    read_as(name, json, Notation::Base64)
}

fn read_as<M: prost::Message + Default>(
    name: &str,
    json: &str,
    notation: Notation,
) -> Result<M, String> {
    let encoded = to_protobuf(json.as_bytes(), &descriptor(name), notation)
        .map_err(|error| error.to_string())?;
    Ok(M::decode(encoded).unwrap())
}

fn written(name: &str, message: &impl prost::Message, notation: Notation) -> String {
    let mut out = Vec::new();
    let encoded = Bytes::from(message.encode_to_vec());
    from_protobuf(encoded, &descriptor(name), notation, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn base64_comes_in_every_spelling() {
    for (text, bytes) in [
        ("Zm9v", &b"foo"[..]),
        ("Zm8=", b"fo"),
        ("Zm8", b"fo"),
        ("+/8=", &[0xfb, 0xff]),
        ("-_8=", &[0xfb, 0xff]),
        ("-_8", &[0xfb, 0xff]),
        ("", b""),
    ] {
        let put: PutRequest = read("PutRequest", &format!(r#"{{"key":"{text}"}}"#)).unwrap();
        assert_eq!(put.key, bytes, "{text}");
    }
    for bad in ["%%", "Z", "Zm9v!", "Zm9v\\n", "Zg=", "Zm8==", "Zm9v="] {
        let refused = read::<PutRequest>("PutRequest", &format!(r#"{{"key":"{bad}"}}"#));
        assert!(refused.unwrap_err().contains("key"), "{bad}");
    }
}

#[test]
fn numbers_come_as_numbers_and_as_strings() {
    for given in [
        "7", "\"7\"", "7.0", "\"7.0\"", "0.7e1", "\"7e0\"", "\"7}1\"",
    ] {
        let grant: LeaseGrantRequest =
            read("LeaseGrantRequest", &format!(r#"{{"TTL":{given}}}"#)).unwrap();
        assert_eq!(grant.ttl, 7, "{given}");
    }
    let exact = r#"{"ID":"-9223372036854775808","TTL":9223372036854775807}"#;
    let grant: LeaseGrantRequest = read("LeaseGrantRequest", exact).unwrap();
    assert_eq!((grant.id, grant.ttl), (i64::MIN, i64::MAX));
    for bad in [
        "7.5",
        "\"\"",
        "\"seven\"",
        "\" 7\"",
        "\"+7\"",
        "true",
        "[7]",
        "{}",
        "9223372036854775808",
        "\"1e30\"",
        "\"00\"",
        "\"1.\"",
        "\"1 \"",
        "\"NaN\"",
    ] {
        let refused =
            read::<LeaseGrantRequest>("LeaseGrantRequest", &format!(r#"{{"TTL":{bad}}}"#));
        assert!(refused.is_err(), "{bad}");
    }
}

#[test]
fn fields_have_two_names_and_unknown_ones_are_ignored() {
    let expected = RangeRequest {
        key: "a".into(),
        range_end: "b".into(),
        keys_only: true,
        sort_order: 2,
        ..RangeRequest::default()
    };
    for json in [
        r#"{"key":"YQ==","range_end":"Yg==","keys_only":true,"sort_order":"DESCEND"}"#,
        r#"{"key":"YQ==","rangeEnd":"Yg==","keysOnly":true,"sortOrder":2}"#,
        r#"{"key":"YQ==","rangeEnd":"Yg==","nope":{"x":[1,{}]},"keysOnly":true,"sortOrder":"DESCEND","limit":null}"#,
        r#"{"key":"YQ==","rangeEnd":"Yg==","keysOnly":true,"sortOrder":2,"sort_target":"NOPE"} trailing"#,
    ] {
        assert_eq!(
            read::<RangeRequest>("RangeRequest", json).unwrap(),
            expected
        );
    }
    for (bad, why) in [
        (r#"{"key":"YQ==","key":"YQ=="}"#, "duplicate field"),
        (
            r#"{"range_end":"YQ==","rangeEnd":"YQ=="}"#,
            "duplicate field",
        ),
        (r#"{"key":"#, "EOF"),
        (r#"{"key":7}"#, "key"),
        (r#"{"keys_only":"true"}"#, "keys_only"),
        ("null", "an object"),
        ("[]", "an object"),
        ("{\"key\":\"\u{1}\"}", "control character"),
    ] {
        let error = read::<RangeRequest>("RangeRequest", bad).unwrap_err();
        assert!(error.contains(why), "{bad}: {error}");
    }
    assert_eq!(
        read::<RangeRequest>("RangeRequest", " \n").unwrap(),
        RangeRequest::default()
    );
}

#[test]
fn a_transaction_keeps_its_choices_and_their_zeros() {
    let json = r#"{"compare":[{"target":"VERSION","result":"EQUAL","key":"YQ==","version":"0"}],
        "success":[{"requestPut":{"key":"YQ==","value":"MQ=="}}],
        "failure":[{"request_txn":{"success":[{"request_range":{"key":"YQ=="}}]}},{}]}"#;
    let txn: TxnRequest = read("TxnRequest", json).unwrap();
    assert_eq!(txn.compare[0].target_union, Some(TargetUnion::Version(0)));
    assert!(matches!(&txn.success[0].request, Some(Op::RequestPut(put)) if put.value == "1"));
    assert!(
        matches!(&txn.failure[0].request, Some(Op::RequestTxn(inner)) if inner.success.len() == 1)
    );
    assert_eq!(txn.failure[1].request, None);
    let both = r#"{"success":[{"requestPut":{},"request_range":{}}]}"#;
    let error = read::<TxnRequest>("TxnRequest", both).unwrap_err();
    assert!(error.contains("already set"), "{error}");
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    let depth = 5_000;
    let json = format!(
        "{}{}",
        r#"{"success":[{"request_txn":"#.repeat(depth),
        "}]}".repeat(depth)
    );
    let error = read::<TxnRequest>("TxnRequest", &json).unwrap_err();
    assert!(error.contains("recursion"), "{error}");
}

#[test]
fn zero_values_are_left_out_and_64_bits_are_strings() {
    let header = ResponseHeader {
        cluster_id: u64::MAX,
        revision: 2,
        ..ResponseHeader::default()
    };
    let answer = RangeResponse {
        header: Some(header),
        kvs: vec![KeyValue {
            key: "a".into(),
            mod_revision: 2,
            value: vec![0xff, 0].into(),
            ..KeyValue::default()
        }],
        more: false,
        count: 1,
    };
    assert_eq!(
        written("RangeResponse", &answer, Notation::Base64),
        r#"{"header":{"cluster_id":"18446744073709551615","revision":"2"},"kvs":[{"key":"YQ==","mod_revision":"2","value":"/wA="}],"count":"1"}"#
    );
    assert_eq!(
        written("RangeResponse", &answer, Notation::Text),
        r#"{"header":{"cluster_id":"18446744073709551615","revision":"2"},"kvs":[{"key":"a","mod_revision":"2","value_base64":"/wA="}],"count":"1"}"#
    );
    // What etcd's own test of its gateway looks for.
    let txn = TxnResponse {
        header: None,
        succeeded: true,
        responses: vec![schemas::etcdserverpb::ResponseOp {
            response: Some(schemas::etcdserverpb::response_op::Response::ResponsePut(
                schemas::etcdserverpb::PutResponse {
                    header: Some(ResponseHeader {
                        revision: 2,
                        ..ResponseHeader::default()
                    }),
                    prev_kv: None,
                },
            )),
        }],
    };
    assert_eq!(
        written("TxnResponse", &txn, Notation::Base64),
        r#"{"succeeded":true,"responses":[{"response_put":{"header":{"revision":"2"}}}]}"#
    );
}

#[test]
fn text_goes_in_as_it_is_or_as_base64_by_name() {
    for (json, value) in [
        (r#"{"key":"k","value":"Zm9v"}"#, &b"Zm9v"[..]),
        (r#"{"key":"k","value_base64":"Zm9v"}"#, b"foo"),
        (r#"{"key":"k","value":"日志"}"#, "日志".as_bytes()),
    ] {
        let put: PutRequest = read_as("PutRequest", json, Notation::Text).unwrap();
        assert_eq!((&put.key[..], &put.value[..]), (&b"k"[..], value), "{json}");
    }
    let twice = r#"{"value":"a","value_base64":"YQ=="}"#;
    assert!(read_as::<PutRequest>("PutRequest", twice, Notation::Text).is_err());
    // Not a field of bytes: an unknown name like any other.
    let lease = r#"{"lease_base64":"YQ=="}"#;
    let put: PutRequest = read_as("PutRequest", lease, Notation::Text).unwrap();
    assert_eq!(put, PutRequest::default());
}

#[test]
fn what_is_written_can_be_read() {
    let put = PutRequest {
        key: "k\"\\\u{7}".into(),
        value: vec![0, 159, 146, 150].into(),
        lease: -1,
        prev_kv: true,
        ..PutRequest::default()
    };
    for notation in [Notation::Base64, Notation::Text] {
        let json = written("PutRequest", &put, notation);
        assert_eq!(
            read_as::<PutRequest>("PutRequest", &json, notation).unwrap(),
            put
        );
    }
}

#[test]
fn a_stream_is_cut_between_objects_wherever_the_pieces_end() {
    let stream = br#" {"a":"}\"{","b":[{}]}
        {} {"c":{}}"#;
    for piece in 1..stream.len() {
        let mut splitter = ValueSplitter::new(100);
        let mut found = Vec::new();
        for bytes in stream.chunks(piece) {
            splitter.push(bytes);
            while let Some(value) = splitter.next().unwrap() {
                found.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
        splitter.finish().unwrap();
        assert_eq!(found, [r#"{"a":"}\"{","b":[{}]}"#, "{}", r#"{"c":{}}"#]);
    }
}

#[test]
fn a_stream_of_something_else_is_refused() {
    for (stream, error) in [
        (&b"[]"[..], SplitError::NotAnObject('[')),
        (b"{} x", SplitError::NotAnObject('x')),
        (b"}", SplitError::NotAnObject('}')),
        (b"{\"a\":\"0123456789\"", SplitError::TooLarge(10)),
    ] {
        let mut splitter = ValueSplitter::new(10);
        splitter.push(stream);
        let outcome = loop {
            match splitter.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{stream:?} was accepted"),
                Err(error) => break error,
            }
        };
        assert_eq!(outcome, error);
    }
    let mut splitter = ValueSplitter::new(10);
    splitter.push(b"{\"a\":");
    assert_eq!(splitter.next(), Ok(None));
    assert_eq!(splitter.finish(), Err(SplitError::UnexpectedEnd));
}
