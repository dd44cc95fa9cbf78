//! Clients that mean no good, or cannot help it: too many, too slow, too large, too deep. The member
//! keeps serving others, and what such clients cost in memory has a bound.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use e2e::center::{Center, http_get};
use e2e::raw::Raw;
use e2e::store::{channel, runtime};
use e2e::{DEADLINE, binaries, http, wait_until};
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::watch_client::WatchClient;
use schemas::etcdserverpb::watch_request::RequestUnion;
use schemas::etcdserverpb::{
    PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

const MIB: u64 = 1 << 20;

/// What HTTP/2 begins with: the preface and an empty settings frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Resident memory of the member.
fn resident_bytes(center: &Center) -> u64 {
    let path = format!("/proc/{}/status", center.process.pid());
    let status = fs::read_to_string(path).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .expect("a size")
        * 1024
}

/// Asserts that the member has grown by no more than this since `before`, and says by how much.
fn assert_growth(what: &str, center: &Center, before: u64, most: u64) -> u64 {
    let growth = resident_bytes(center).saturating_sub(before);
    println!("{what}: {} KiB", growth / 1024);
    assert!(growth <= most, "{what}: {growth} bytes, more than {most}");
    growth
}

/// Somebody else is served meanwhile.
fn assert_serves(center: &Center) {
    let store = center.store().expect("a client");
    let revision = store.put("others", "1").expect("a put");
    let read = store.get("others").expect("a get").expect("the key");
    assert_eq!(read.mod_revision, revision);
    assert!(http_get(center.client_port, "/health").is_some());
}

fn connect(center: &Center) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", center.client_port)).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(90)))
        .expect("a timeout");
    stream
}

fn start(flags: &[&str]) -> (tempfile::TempDir, Center) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut program = Command::new(binaries::program("config-center").expect("built"));
    program.args(flags);
    let center = Center::start_program(folder.path(), program).expect("config-center");
    (folder, center)
}

fn watch_request(key: &str) -> WatchRequest {
    let create = WatchCreateRequest {
        key: key.to_owned().into(),
        ..WatchCreateRequest::default()
    };
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    }
}

/// A stream with one watcher, which has been announced. The client's side stays open as long as
/// this lives, as that of a real client.
struct Watching {
    _requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

async fn watch(channel: &Channel, key: &str) -> Watching {
    let (requests, outgoing) = mpsc::channel(1);
    requests.send(watch_request(key)).await.expect("room");
    let mut client = WatchClient::new(channel.clone());
    let outgoing = ReceiverStream::new(outgoing);
    let mut answers = client.watch(outgoing).await.expect("a stream").into_inner();
    let first = answers.message().await.expect("an answer").expect("one");
    assert!(first.created, "{first:?}");
    Watching {
        _requests: requests,
        answers,
    }
}

fn metric(center: &Center, name: &str) -> Option<String> {
    let page = http_get(center.client_port, "/metrics")?;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(str::to_owned)
}

const WATCH_STREAMS: &str = "etcd_debugging_mvcc_watch_stream_total";

#[test]
fn ten_thousand_idle_watchers_share_a_connection() {
    const WATCHERS: usize = 10_000;
    /// Of one stream with its watcher: what is measured is about half of it.
    const MOST_BYTES_EACH: u64 = 32 * 1024;
    let (_folder, center) = start(&[]);
    assert_serves(&center);
    let before = resident_bytes(&center);
    let shared = channel(&center.url()).expect("a channel");
    let mut streams = runtime().block_on(async {
        let mut streams = Vec::new();
        for number in 0..WATCHERS {
            streams.push(watch(&shared, &format!("idle/{number}")).await);
        }
        streams
    });
    let most = WATCHERS as u64 * MOST_BYTES_EACH;
    assert_growth(
        "10,000 idle watchers on one connection",
        &center,
        before,
        most,
    );
    assert_serves(&center);
    // They are all there: the last one hears what is meant for it.
    center
        .store()
        .expect("a client")
        .put("idle/9999", "1")
        .expect("a put");
    let told = runtime().block_on(streams[WATCHERS - 1].answers.message());
    assert_eq!(told.expect("an answer").expect("one").events.len(), 1);
    // And they go with their connection.
    drop((streams, shared));
    wait_until("the streams to be forgotten", DEADLINE, || {
        (metric(&center, WATCH_STREAMS)? == "0").then_some(())
    })
    .expect("no stream");
}

#[test]
fn watchers_that_never_read_cost_little_and_hold_up_nobody() {
    const SILENT: usize = 20;
    const WRITES: usize = 500;
    /// The HTTP/2 windows of one stream, its send buffer and one portion of history.
    const MOST_BYTES_EACH: u64 = 4 * MIB;
    let (_folder, center) = start(&[]);
    let store = center.store().expect("a client");
    let value = "x".repeat(64 * 1024);
    let write_all = || {
        let before = resident_bytes(&center);
        for _ in 0..WRITES {
            store.put("watched", &value).expect("a put");
        }
        resident_bytes(&center).saturating_sub(before)
    };
    // The history of the key itself stays in memory: it is measured without watchers first.
    let alone = write_all();
    let shared = channel(&center.url()).expect("a channel");
    let (silent, mut attentive) = runtime().block_on(async {
        let mut silent = Vec::new();
        for _ in 0..SILENT {
            // Each with a connection of its own: the window of a shared one would stop them all.
            let own = channel(&center.url()).expect("a channel");
            silent.push(watch(&own, "watched").await);
        }
        (silent, watch(&shared, "watched").await)
    });
    let before = resident_bytes(&center);
    let reader = runtime().spawn(async move {
        let mut seen = 0;
        while seen < WRITES {
            seen += attentive
                .answers
                .message()
                .await
                .expect("an answer")
                .expect("one")
                .events
                .len();
        }
    });
    write_all();
    runtime()
        .block_on(reader)
        .expect("the attentive watcher has seen everything");
    let most = alone + SILENT as u64 * MOST_BYTES_EACH;
    assert_growth(
        "20 watchers that never read, 31 MiB written",
        &center,
        before,
        most,
    );
    assert_serves(&center);
    drop(silent);
}

#[test]
fn clients_that_stop_in_the_middle_are_let_go() {
    const CLIENTS: usize = 100;
    let beginnings: [&[u8]; 5] = [
        b"",
        b"GET /version HTTP/1.1\r\nhost: x\r\nx-slow: ",
        b"POST /v3/kv/range HTTP/1.1\r\n",
        // Half a preface.
        b"PRI * HTTP/2.0\r\n",
        b"\x16\x03\x01",
    ];
    let (_folder, center) = start(&[]);
    assert_serves(&center);
    let before = resident_bytes(&center);
    let mut clients = Vec::new();
    for beginning in beginnings {
        for _ in 0..CLIENTS {
            let mut stream = connect(&center);
            stream.write_all(beginning).expect("a beginning");
            clients.push(stream);
        }
    }
    assert_serves(&center);
    assert_growth(
        "500 clients that stop in the middle",
        &center,
        before,
        32 * MIB,
    );
    // Nobody of them says more. Each is let go, and not one keeps its place.
    for stream in &mut clients {
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let timed_out = ended.as_ref().is_err_and(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            )
        });
        assert!(!timed_out, "a silent client is still connected");
    }
    assert_serves(&center);
}

#[test]
fn a_client_that_answers_no_ping_is_let_go() {
    let flags = [
        "--grpc-keepalive-interval=1s",
        "--grpc-keepalive-timeout=1s",
    ];
    let (_folder, center) = start(&flags);
    let mut gone = connect(&center);
    gone.write_all(HTTP2).expect("a beginning");
    let mut told = Vec::new();
    let ended = gone.read_to_end(&mut told);
    assert!(
        !ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
        "a client that is gone is still connected"
    );
    // A client whose library answers pings stays, however long it says nothing else.
    let shared = channel(&center.url()).expect("a channel");
    let mut idle = runtime().block_on(watch(&shared, "late"));
    let mut second = connect(&center);
    second.write_all(HTTP2).expect("a beginning");
    // Longer than a ping and its deadline.
    second.read_to_end(&mut told).unwrap_or_default();
    center
        .store()
        .expect("a client")
        .put("late", "1")
        .expect("a put");
    let answer = runtime()
        .block_on(idle.answers.message())
        .expect("an answer");
    assert_eq!(answer.expect("one").events.len(), 1);
}

#[test]
fn what_is_too_large_is_refused_before_it_costs_memory() {
    const BODY_BYTES: usize = 64 << 20;
    let (_folder, center) = start(&["--enable-v2"]);
    assert_serves(&center);
    let before = resident_bytes(&center);
    // Bodies, announced and sent for real.
    for (path, kind) in [
        ("/v3/kv/put", "application/json"),
        ("/v2/keys/large", "application/x-www-form-urlencoded"),
        ("/v2/members", "application/json"),
    ] {
        let verb = if path.starts_with("/v2/keys") {
            "PUT"
        } else {
            "POST"
        };
        let mut stream = connect(&center);
        let head = format!(
            "{verb} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n\
             content-length: {BODY_BYTES}\r\n\r\nvalue="
        );
        stream.write_all(head.as_bytes()).expect("a head");
        let piece = vec![b'x'; 1 << 20];
        // The server may answer and hang up in the middle.
        while stream.write_all(&piece).is_ok() {
            if resident_bytes(&center) > before + 64 * MIB {
                break;
            }
        }
        assert_growth(
            &format!("a body of 64 MiB to {path}"),
            &center,
            before,
            32 * MIB,
        );
        assert_serves(&center);
    }
    // Without an announcement.
    let mut stream = connect(&center);
    let head = "POST /v3/kv/put HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("a head");
    let chunk = [
        b"100000\r\n".to_vec(),
        vec![b'x'; 1 << 20],
        b"\r\n".to_vec(),
    ]
    .concat();
    for _ in 0..64 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    assert_growth("chunks without end", &center, before, 32 * MIB);
    // Headers: of HTTP/1, and of a call.
    let long = "x".repeat(200_000);
    let answer = http::exchange(
        center.client_port,
        "GET",
        "/version",
        &[("x-long", &long)],
        "",
    );
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 431));
    let shared = channel(&center.url()).expect("a channel");
    let outcome = runtime().block_on(async {
        let mut request = Request::new(RangeRequest {
            key: "a".into(),
            ..RangeRequest::default()
        });
        request
            .metadata_mut()
            .insert("x-long", long.parse().expect("a header"));
        KvClient::new(shared.clone()).range(request).await
    });
    assert!(outcome.is_err(), "a header of 200,000 bytes was taken");
    assert_serves(&center);
}

#[test]
fn what_is_too_deep_is_refused() {
    const DEPTH: usize = 100_000;
    let (_folder, center) = start(&[]);
    let headers = [("content-type", "application/json")];
    for (opening, closing) in [
        ("[", "]"),
        ("{\"a\":", "}"),
        ("{\"success\":[{\"request_txn\":", "}]}"),
    ] {
        // Within the size of a request.
        let depth = DEPTH.min(1_000_000 / (opening.len() + closing.len()));
        let inner = format!("{}1{}", opening.repeat(depth), closing.repeat(depth));
        for body in [inner.clone(), format!("{{\"unknown\":{inner}}}")] {
            let answer = http::exchange(center.client_port, "POST", "/v3/kv/txn", &headers, &body);
            let answer = answer.expect("an answer");
            // What nobody knows is skipped, however deep it is.
            let is_skipped =
                answer.status == 200 && (body.contains("unknown") || body.starts_with("{\"a\""));
            assert!(answer.status == 400 || is_skipped, "{answer:?}");
        }
    }
    // As deep in protobuf: transactions in transactions.
    let mut message: Vec<u8> = Vec::new();
    for _ in 0..10_000 {
        // TxnRequest.success (2) of RequestOp.request_txn (4).
        let operation = [field(4, message.len()), std::mem::take(&mut message)].concat();
        message = [field(2, operation.len()), operation].concat();
    }
    let shared = channel(&center.url()).expect("a channel");
    let outcome = runtime().block_on(async {
        let mut grpc = tonic::client::Grpc::new(shared);
        grpc.ready().await.expect("a connection");
        let path = "/etcdserverpb.KV/Txn".parse().expect("a path");
        let request = Request::new(tokio_stream::once(message.into()));
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        answers.message().await
    });
    let status = outcome.expect_err("transactions without end");
    assert!(
        matches!(status.code(), Code::Internal | Code::InvalidArgument),
        "{status:?}"
    );
    assert_serves(&center);
}

/// The head of a field with this many bytes.
fn field(number: u8, length: usize) -> Vec<u8> {
    let mut head = vec![number << 3 | 2];
    let mut left = length;
    loop {
        let low = (left & 0x7f) as u8;
        left >>= 7;
        head.push(if left == 0 { low } else { low | 0x80 });
        if left == 0 {
            return head;
        }
    }
}

#[test]
fn clients_that_vanish_leave_nothing() {
    let (_folder, center) = start(&[]);
    assert_serves(&center);
    let before = resident_bytes(&center);
    for _ in 0..20 {
        runtime().block_on(async {
            let own = channel(&center.url()).expect("a channel");
            let mut streams = Vec::new();
            for number in 0..20 {
                streams.push(watch(&own, &format!("gone/{number}")).await);
            }
        });
        // An endless answer over HTTP/1 whose reader goes away.
        let mut stream = connect(&center);
        let body = r#"{"create_request":{"key":"YQ=="}}"#;
        let request = format!(
            "POST /v3/watch HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("a request");
        let mut first = [0; 64];
        stream
            .read_exact(&mut first)
            .expect("the head of an answer");
    }
    wait_until("the streams to be forgotten", DEADLINE, || {
        (metric(&center, WATCH_STREAMS)? == "0").then_some(())
    })
    .expect("no stream");
    assert_growth("400 watchers that vanished", &center, before, 32 * MIB);
    // A put that nobody waits for any more is carried out all the same, or not at all.
    let put = PutRequest {
        key: "a".into(),
        value: "1".into(),
        ..PutRequest::default()
    };
    runtime().block_on(async {
        let own = channel(&center.url()).expect("a channel");
        let mut kv = KvClient::new(own);
        drop(tokio::time::timeout(Duration::ZERO, kv.put(put)).await);
    });
    assert_serves(&center);
}
