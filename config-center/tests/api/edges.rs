//! Bad input and limits: oversized, malformed and unexpected requests must be answered or cut off,
//! and must not disturb anybody else.

use http::uri::PathAndQuery;
use schemas::etcdserverpb::{PutResponse, WatchResponse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Request, Status};

use crate::fixture::{Fixture, assert_status, put, range, watch_key, within};

/// A unary call with a body of our own choice.
async fn call(fixture: &Fixture, path: &'static str, body: Vec<u8>) -> Result<(), Status> {
    let mut grpc = Grpc::new(fixture.channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static(path);
    let codec = tonic_prost::ProstCodec::<RawMessage, PutResponse>::default();
    grpc.unary(Request::new(RawMessage(body)), path, codec)
        .await
        .map(|_| ())
}

/// Bytes that are sent as they are.
#[derive(Debug, Default)]
struct RawMessage(Vec<u8>);

impl prost::Message for RawMessage {
    fn encode_raw(&self, buf: &mut impl bytes::BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        unreachable!("only encoded")
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[tokio::test]
async fn oversized_requests_are_refused_in_two_steps() {
    let fixture = Fixture::start().await;
    // Above the limit of a request, below the limit of a message.
    assert_status(
        fixture.kv().put(put("k", &"x".repeat(1_600_000))).await,
        Code::InvalidArgument,
        "etcdserver: request is too large",
    );
    // Above the limit of a message: 5 MB and what encoding adds.
    let status = fixture
        .kv()
        .put(put("k", &"x".repeat(5_000_000)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(
        status.message(),
        "grpc: received message larger than max (5000008 vs. 2097152)"
    );
    assert_eq!(fixture.put("k", &"x".repeat(1_500_000)).await, 2);
    fixture.stop().await;
}

#[tokio::test]
async fn an_oversized_message_ends_a_stream_with_the_same_words() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch.create(watch_key(&"x".repeat(3_000_000))).await;
    let status: Result<Option<WatchResponse>, Status> =
        within("refusal", watch.responses.message()).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status
            .message()
            .starts_with("grpc: received message larger than max (")
    );
    fixture.stop().await;
}

#[tokio::test]
async fn malformed_messages_are_answered_and_harm_nobody() {
    let fixture = Fixture::start().await;
    for path in [
        "/etcdserverpb.KV/Put",
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.Lease/LeaseGrant",
    ] {
        let status = call(&fixture, path, vec![0xff; 64]).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{path}: {status:?}");
    }
    assert_eq!(fixture.put("k", "v").await, 2);
    fixture.stop().await;
}

#[tokio::test]
async fn unknown_services_and_methods_are_unimplemented() {
    let fixture = Fixture::start().await;
    for path in ["/etcdserverpb.KV/Nope", "/nope.Nope/Nope", "/nope"] {
        let status = call(&fixture, path, vec![]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
        assert!(
            status.message().starts_with("unknown "),
            "{path}: {status:?}"
        );
    }
    fixture.stop().await;
}

#[tokio::test]
async fn metadata_is_looked_at() {
    let fixture = Fixture::start().await;
    let mut request = Request::new(range("a"));
    request
        .metadata_mut()
        .insert("hasleader", AsciiMetadataValue::from_static("true"));
    request.metadata_mut().insert(
        "client-api-version",
        AsciiMetadataValue::from_static("3.5.0"),
    );
    assert!(fixture.kv().range(request).await.is_ok());
    fixture.stop().await;
}

#[tokio::test]
async fn garbage_on_the_port_is_cut_off() {
    let fixture = Fixture::start().await;
    for garbage in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\x00\x00\x00\x00".repeat(100),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        // The beginning is HTTP/2's, the rest is not.
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            vec![0xff; 200],
        ]
        .concat(),
        [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; 200_000]].concat(),
    ] {
        let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
        // The server may close before it has read everything.
        let written = stream.write_all(&garbage).await;
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        let read = within("close", stream.read_to_end(&mut answer)).await;
        assert!(written.is_err() || read.is_ok() || answer.is_empty());
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }
    assert_eq!(fixture.put("k", "v").await, 2);
    fixture.stop().await;
}

#[tokio::test]
async fn hundreds_of_streams_share_one_connection() {
    let fixture = Fixture::start().await;
    let mut watches = Vec::new();
    for _ in 0..300 {
        let mut watch = within("stream", fixture.watch()).await;
        watch.created(watch_key("k")).await;
        watches.push(watch);
    }
    fixture.put("k", "v").await;
    for watch in &mut watches {
        assert_eq!(watch.next().await.events.len(), 1);
    }
    fixture.stop().await;
}

/// What etcdctl 3.4 sends for `endpoint status`: the whole URL as authority, first as a literal,
/// then as a reference into the compression table.
#[tokio::test]
async fn a_url_as_authority_is_accepted() {
    let fixture = Fixture::start().await;
    let first = "8386459760a924882d9dcb6571afa066a925a87510ac6e48d36a3f418f9d29aee30c044eae05c0b86e\
                 09975f5f8b1d75d0620d263d4c4d65647a8a9acac8b4c7602b89c5c140027465864d833505b11f";
    let again = "8386c2c1c0bfbe";
    let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(4, 0, 0, &[]));
    for (id, block) in [(1, first), (3, again)] {
        sent.extend(frame(1, 4, id, &unhex(block)));
        sent.extend(frame(0, 1, id, &[0; 5]));
    }
    stream.write_all(&sent).await.unwrap();
    let mut answered = Vec::new();
    while answered.len() < 2 {
        let mut head = [0; 9];
        within("frame", stream.read_exact(&mut head)).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        within("payload", stream.read_exact(&mut payload))
            .await
            .unwrap();
        let (kind, id) = (head[3], head[8]);
        assert!(
            kind != 3 && kind != 7,
            "stream {id} was reset or the connection closed"
        );
        if kind == 0 && !payload.is_empty() {
            answered.push(id);
        }
    }
    assert_eq!(answered, [1, 3]);
    fixture.stop().await;
}

fn frame(kind: u8, flags: u8, id: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [
        &[length[1], length[2], length[3], kind, flags, 0, 0, 0, id],
        payload,
    ]
    .concat()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
