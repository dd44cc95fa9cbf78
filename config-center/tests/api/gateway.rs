//! The JSON gateway over real HTTP: unary calls, streams, websockets, refusals, and what is left
//! behind when a client goes.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, get, within};

/// One answer: its status, its head in lower case, its body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\
         content-length: {length}\r\n\r\n{body}"
    )
}

async fn exchange(fixture: &Fixture, request: &str) -> Answer {
    let text = fixture.raw(request).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    Answer {
        status: head[9..12].parse().unwrap(),
        body: if head.contains("transfer-encoding: chunked") {
            unchunked(body)
        } else {
            body.to_owned()
        },
        head,
    }
}

async fn call(fixture: &Fixture, path: &str, body: &str) -> Answer {
    exchange(fixture, &post(path, "", body)).await
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}

#[tokio::test]
async fn every_service_is_called_in_json() {
    let fixture = Fixture::start().await;
    let put = call(&fixture, "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#).await;
    assert_eq!(put.status, 200);
    assert!(
        put.head.contains("content-type: application/json"),
        "{}",
        put.head
    );
    assert_eq!(put.json()["header"]["revision"], "2");
    for path in ["/v3/kv/range", "/v3beta/kv/range"] {
        let range = call(&fixture, path, r#"{"key":"Zm9v"}"#).await;
        assert_eq!(range.json()["count"], "1");
        assert_eq!(range.json()["kvs"][0]["value"], "YmFy");
    }
    let granted = call(&fixture, "/v3/lease/grant", r#"{"TTL":"60","ID":7}"#).await;
    assert_eq!(granted.json()["TTL"], "60");
    for path in ["/v3/lease/leases", "/v3/kv/lease/leases"] {
        let leases = call(&fixture, path, "{}").await;
        assert_eq!(leases.json()["leases"], json!([{"ID": "7"}]));
    }
    let members = call(&fixture, "/v3/cluster/member/list", "").await;
    assert_eq!(members.json()["members"].as_array().unwrap().len(), 1);
    let txn = r#"{"success":[{"requestPut":{"key":"Zm9v","value":"YmF6"}}]}"#;
    let txn = call(&fixture, "/v3/kv/txn", txn).await.json();
    assert_eq!(txn["succeeded"], true);
    assert_eq!(
        txn["responses"][0]["response_put"]["header"],
        json!({"revision": "3"})
    );
    fixture.stop().await;
}

#[tokio::test]
async fn refusals_have_etcds_codes_in_both_shapes() {
    let fixture = Fixture::start().await;
    for (path, body, status, code, text) in [
        (
            "/v3/kv/range",
            "",
            400,
            3,
            "etcdserver: key is not provided",
        ),
        (
            "/v3/lease/revoke",
            r#"{"ID":"7"}"#,
            404,
            5,
            "etcdserver: requested lease not found",
        ),
        (
            "/v3/kv/range",
            r#"{"key":"YQ==","revision":"99"}"#,
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        ("/v3/nope", "{}", 404, 5, "Not Found"),
        ("/v3/kv/range/", "{}", 404, 5, "Not Found"),
    ] {
        let refused = call(&fixture, path, body).await;
        let expected = format!(r#"{{"error":"{text}","message":"{text}","code":{code}}}"#);
        assert_eq!(
            (refused.status, refused.body),
            (status, expected),
            "{path} {body}"
        );
    }
    for body in [
        "{",
        "null",
        "[]",
        "7",
        r#"{"key":"%%"}"#,
        r#"{"key":"YQ==","key":"YQ=="}"#,
    ] {
        let refused = call(&fixture, "/v3/kv/range", body).await;
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (400, &json!(3)),
            "{body}"
        );
    }
    for verb in ["GET", "PUT", "DELETE"] {
        let request = get("/v3/kv/range").replacen("GET", verb, 1);
        let refused = exchange(&fixture, &request).await;
        assert_eq!(refused.status, 501);
        assert_eq!(refused.json()["message"], "Method Not Allowed");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn oversized_bodies_are_refused_in_three_steps() {
    let fixture = Fixture::start().await;
    let put = |bytes: usize| {
        format!(
            r#"{{"key":"YQ==","value":"{}"}}"#,
            "A".repeat(bytes / 3 * 4)
        )
    };
    for (bytes, status, text) in [
        (1_600_000, 400, "etcdserver: request is too large"),
        (
            2_400_000,
            429,
            "grpc: received message larger than max (2400",
        ),
        (
            4_000_000,
            429,
            "the request is larger than 4194304 bytes of JSON",
        ),
    ] {
        let refused = call(&fixture, "/v3/kv/put", &put(bytes)).await;
        assert_eq!(refused.status, status, "{}", refused.body);
        assert!(refused.body.contains(text), "{}", refused.body);
    }
    // Above the size that is translated elsewhere.
    let stored = call(&fixture, "/v3/kv/put", &put(1_200_000)).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    let read = call(&fixture, "/v3/kv/range", r#"{"key":"YQ=="}"#).await;
    assert_eq!(
        read.json()["kvs"][0]["value"].as_str().unwrap().len(),
        1_600_000
    );
    fixture.stop().await;
}

#[tokio::test]
async fn deep_nesting_is_a_refusal() {
    let fixture = Fixture::start().await;
    let depth = 50_000;
    let body = format!(
        "{}{}",
        r#"{"success":[{"request_txn":"#.repeat(depth),
        "}]}".repeat(depth)
    );
    assert_eq!(call(&fixture, "/v3/kv/txn", &body).await.status, 400);
    fixture.stop().await;
}

/// A stream that is being read line by line.
struct Lines(BufReader<TcpStream>);

impl Lines {
    async fn open(fixture: &Fixture, path: &str, body: &str) -> Self {
        let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
        stream
            .write_all(post(path, "", body).as_bytes())
            .await
            .unwrap();
        let mut lines = Self(BufReader::new(stream));
        let status = lines.text().await;
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        while !lines.text().await.is_empty() {}
        lines
    }

    async fn text(&mut self) -> String {
        let mut line = String::new();
        within("a line", self.0.read_line(&mut line)).await.unwrap();
        assert!(line.ends_with('\n'), "the stream ended");
        line.trim_end().to_owned()
    }

    /// The next chunk, which holds one line of JSON.
    async fn json(&mut self) -> Value {
        let size = self.text().await;
        let line = self.text().await;
        assert_eq!(usize::from_str_radix(&size, 16).unwrap(), line.len() + 1);
        assert_eq!(self.text().await, "");
        serde_json::from_str(&line).unwrap()
    }
}

#[tokio::test]
async fn a_watch_sends_each_event_as_it_happens() {
    let fixture = Fixture::start().await;
    fixture.put("foo", "1").await;
    let create = r#"{"create_request":{"key":"Zm9v","start_revision":"1"}}"#;
    let mut watch = Lines::open(&fixture, "/v3/watch", create).await;
    let created = watch.json().await;
    assert_eq!(created["result"]["created"], true);
    assert_eq!(created["result"].get("watch_id"), None);
    assert_eq!(
        watch.json().await["result"]["events"][0]["kv"]["value"],
        "MQ=="
    );
    fixture.put("foo", "2").await;
    assert_eq!(
        watch.json().await["result"]["events"][0]["kv"]["value"],
        "Mg=="
    );
    fixture.delete("foo").await;
    let deleted = watch.json().await;
    assert_eq!(deleted["result"]["events"][0]["type"], "DELETE");
    fixture.stop().await;
}

#[tokio::test]
async fn several_requests_in_one_body_are_all_heard() {
    let fixture = Fixture::start().await;
    let both = r#"{"create_request":{"key":"YQ==","watch_id":"5"}} {"create_request":{"key":"Yg==","watch_id":"6"}}"#;
    let mut watch = Lines::open(&fixture, "/v3/watch", both).await;
    assert_eq!(watch.json().await["result"]["watch_id"], "5");
    assert_eq!(watch.json().await["result"]["watch_id"], "6");
    let alive = call(&fixture, "/v3/lease/keepalive", r#"{"ID":"7"}{"ID":"8"}"#).await;
    let ids: Vec<Value> = alive
        .body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&ids[0]["result"]["ID"], &ids[1]["result"]["ID"]),
        (&json!("7"), &json!("8"))
    );
    assert_eq!((ids.len(), &ids[0]["result"].get("TTL")), (2, &None));
    let nothing = call(&fixture, "/v3/lease/keepalive", "").await;
    assert_eq!((nothing.status, &nothing.body[..]), (200, ""));
    fixture.stop().await;
}

#[tokio::test]
async fn a_stream_that_begins_badly_has_a_status_of_its_own() {
    let fixture = Fixture::start().await;
    for body in [r#"{"create_request":{"key":"%%"}}"#, "{", "nonsense"] {
        let refused = call(&fixture, "/v3/watch", body).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.body);
        assert_eq!(refused.json()["error"]["grpc_code"], 3, "{}", refused.body);
        assert_eq!(refused.json()["error"]["http_status"], "Bad Request");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_leaves_no_watcher() {
    let fixture = Fixture::start().await;
    let create = r#"{"create_request":{"key":"Zm9v"}}"#;
    let mut watches = Vec::new();
    for _ in 0..20 {
        let mut watch = Lines::open(&fixture, "/v3/watch", create).await;
        watch.json().await;
        watches.push(watch);
    }
    fixture
        .metric_becomes("etcd_debugging_mvcc_watcher_total 20")
        .await;
    drop(watches);
    // No event is needed to find out.
    fixture
        .metric_becomes("etcd_debugging_mvcc_watcher_total 0")
        .await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_watch_ends_with_the_server() {
    let fixture = Fixture::start().await;
    let mut watch = Lines::open(
        &fixture,
        "/v3/watch",
        r#"{"create_request":{"key":"Zm9v"}}"#,
    )
    .await;
    watch.json().await;
    let (last, ()) = tokio::join!(watch.json(), fixture.stop());
    assert_eq!(last["error"]["grpc_code"], 14);
    assert_eq!(last["error"]["message"], "etcdserver: server stopped");
}

#[tokio::test]
async fn text_spares_base64() {
    let fixture = Fixture::start().await;
    let put = r#"{"key":"/日志","value":"[{\"path\":\"/var/log\"}]"}"#;
    assert_eq!(call(&fixture, "/v3/kv/put?text", put).await.status, 200);
    let range = call(&fixture, "/v3/kv/range?text", r#"{"key":"/日志"}"#)
        .await
        .json();
    assert_eq!(range["kvs"][0]["key"], "/日志");
    assert_eq!(range["kvs"][0]["value"], r#"[{"path":"/var/log"}]"#);
    let create = r#"{"create_request":{"key":"/日志","start_revision":"2"}}"#;
    let mut watch = Lines::open(&fixture, "/v3/watch?text", create).await;
    watch.json().await;
    assert_eq!(
        watch.json().await["result"]["events"][0]["kv"]["key"],
        "/日志"
    );
    fixture.stop().await;
}

/// Frames of a websocket, as a browser sends and reads them.
struct Socket(TcpStream);

impl Socket {
    async fn open(fixture: &Fixture, path: &str) -> Self {
        let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: Bearer, token.1\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within("upgrade", stream.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(
            head.contains("sec-websocket-protocol: bearer\r\n"),
            "{head}"
        );
        Self(stream)
    }

    async fn say(&mut self, text: &str) {
        let length = u8::try_from(text.len()).unwrap();
        assert!(length < 126);
        // A mask of zeros changes nothing.
        let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next frame's kind and text.
    async fn hear(&mut self) -> (u8, String) {
        let reading = async {
            let kind = self.0.read_u8().await.unwrap() & 0xf;
            let mut length = usize::from(self.0.read_u8().await.unwrap());
            if length == 126 {
                length = usize::from(self.0.read_u16().await.unwrap());
            }
            let mut text = vec![0; length];
            self.0.read_exact(&mut text).await.unwrap();
            (kind, String::from_utf8(text).unwrap())
        };
        within("a frame", reading).await
    }

    async fn json(&mut self) -> Value {
        let (kind, text) = self.hear().await;
        assert_eq!(kind, 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

#[tokio::test]
async fn a_websocket_watches_and_leaves_nothing_behind() {
    let fixture = Fixture::start().await;
    let mut socket = Socket::open(&fixture, "/v3/watch").await;
    socket.say(r#"{"create_request":{"key":"YQ=="}}"#).await;
    assert_eq!(socket.json().await["result"]["created"], true);
    fixture.put("a", "1").await;
    assert_eq!(
        socket.json().await["result"]["events"][0]["kv"]["value"],
        "MQ=="
    );
    socket
        .say(r#"{"create_request":{"key":"Yg==","watch_id":"9"}}"#)
        .await;
    assert_eq!(socket.json().await["result"]["watch_id"], "9");
    socket.say(r#"{"cancel_request":{"watch_id":"9"}}"#).await;
    assert_eq!(socket.json().await["result"]["canceled"], true);
    drop(socket);
    fixture
        .metric_becomes("etcd_debugging_mvcc_watcher_total 0")
        .await;

    let mut socket = Socket::open(&fixture, "/v3/kv/range").await;
    socket.say(r#"{"key":"YQ=="}"#).await;
    assert_eq!(socket.json().await["result"]["count"], "1");
    assert_eq!(
        socket.hear().await.0,
        8,
        "a unary call closes when it is answered"
    );

    let mut socket = Socket::open(&fixture, "/v3/watch").await;
    socket.say("nonsense").await;
    assert_eq!(socket.json().await["error"]["code"], 3);
    assert_eq!(socket.hear().await.0, 8);
    fixture.stop().await;
}

#[tokio::test]
async fn browsers_and_hosts_are_judged_by_the_flags() {
    let open = Fixture::start().await;
    let options = get("/v3/kv/range").replacen("GET", "OPTIONS", 1);
    let preflight = exchange(&open, &options).await;
    assert_eq!(preflight.status, 200);
    for header in [
        "access-control-allow-origin: *",
        "access-control-allow-methods: post, get, options, put, delete",
        "access-control-allow-headers: accept, content-type, authorization",
    ] {
        assert!(preflight.head.contains(header), "{}", preflight.head);
    }
    open.stop().await;

    let flags = ["--cors=https://a.example", "--host-whitelist=x,127.0.0.1"];
    let strict = Fixture::start_with(&flags).await;
    for (origin, allowed) in [("https://a.example", true), ("https://b.example", false)] {
        let request = get("/version").replace("host: x", &format!("host: x\r\norigin: {origin}"));
        let answer = exchange(&strict, &request).await;
        assert_eq!(answer.status, 200);
        let sent = answer
            .head
            .contains(&format!("access-control-allow-origin: {origin}"));
        assert_eq!(sent, allowed, "{}", answer.head);
    }
    for (host, status) in [("x:2379", 200), ("127.0.0.1", 200), ("evil.example", 421)] {
        let request = get("/health").replace("host: x", &format!("host: {host}"));
        assert_eq!(exchange(&strict, &request).await.status, status, "{host}");
    }
    strict.stop().await;

    let without = Fixture::start_with(&["--enable-grpc-gateway=false"]).await;
    assert_eq!(call(&without, "/v3/kv/range", "{}").await.status, 404);
    without.stop().await;
}
