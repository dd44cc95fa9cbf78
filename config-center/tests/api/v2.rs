//! The v2 API beside v3 on one keyspace, over the network: watches across the two, ends of TTLs,
//! restarts, and what is left behind.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, get, told, watch_letter, within};

async fn ask(fixture: &Fixture, verb: &str, target: &str, form: &str) -> (u16, Value) {
    let request = format!(
        "{verb} /v2{target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    );
    let answer = fixture.raw(&request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head[9..12].parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A `?wait=true` that is being read.
struct Waiting(TcpStream, String);

impl Waiting {
    async fn open(fixture: &Fixture, target: &str) -> Self {
        let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
        let request = get(&format!("/v2/keys{target}"));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut waiting = Self(stream, String::new());
        // The headers come at once.
        let head = waiting.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("x-etcd-index: "), "{head}");
        waiting
    }

    async fn until(&mut self, end: &str) -> String {
        let mut bytes = [0; 1];
        while !self.1.contains(end) {
            let read = within(end, self.0.read(&mut bytes)).await.unwrap();
            assert_eq!(read, 1, "the answer ended: {:?}", self.1);
            self.1.push(char::from(bytes[0]));
        }
        std::mem::take(&mut self.1)
    }

    async fn event(&mut self) -> Value {
        let text = self.until("}\n").await;
        let line = text.lines().find(|line| line.starts_with('{')).unwrap();
        serde_json::from_str(line).unwrap()
    }
}

#[tokio::test]
async fn a_v2_set_is_a_v3_event_and_the_other_way_round() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch.created(watch_letter('/')).await;
    let (status, set) = ask(&fixture, "PUT", "/keys/a/b", "value=1").await;
    assert_eq!(
        (status, &set["node"]["modifiedIndex"]),
        (201, &Value::from(2))
    );
    assert_eq!(told(&watch.next().await), ["2 /a/b=1"]);

    let mut waiting = Waiting::open(&fixture, "/a?wait=true&recursive=true&stream=true").await;
    fixture.put("/a/c", "2").await;
    let event = waiting.event().await;
    assert_eq!(
        (&event["action"], &event["node"]["key"]),
        (&"set".into(), &"/a/c".into())
    );
    fixture.delete("/a/c").await;
    let event = waiting.event().await;
    assert_eq!(
        (&event["action"], &event["prevNode"]["value"]),
        (&"delete".into(), &"2".into())
    );
    // A directory is no key: v3 hears nothing of it, v2 does.
    ask(&fixture, "PUT", "/keys/a/d", "dir=true").await;
    let event = waiting.event().await;
    assert_eq!(
        (&event["action"], &event["node"]["dir"]),
        (&"set".into(), &true.into())
    );
    ask(&fixture, "DELETE", "/keys/a?recursive=true", "").await;
    assert_eq!(waiting.event().await["action"], "delete");
    assert_eq!(told(&watch.next().await), ["3 /a/c=2"]);
    assert_eq!(told(&watch.next().await), ["4 /a/c -"]);
    assert_eq!(told(&watch.next().await), ["6 /a/b -"]);
    fixture.stop().await;
}

#[tokio::test]
async fn a_wait_ends_with_its_event_and_a_stream_with_its_client() {
    let fixture = Fixture::start().await;
    let mut once = Waiting::open(&fixture, "/k?wait=true").await;
    let stream = Waiting::open(&fixture, "/k?wait=true&stream=true").await;
    fixture
        .metric_becomes("etcd_debugging_mvcc_watcher_total 2")
        .await;
    fixture.put("/k", "1").await;
    assert_eq!(once.event().await["node"]["value"], "1");
    let mut rest = String::new();
    within("end", once.0.read_to_string(&mut rest))
        .await
        .unwrap();
    fixture
        .metric_becomes("etcd_debugging_mvcc_watcher_total 1")
        .await;
    drop(stream);
    fixture
        .metric_becomes("etcd_debugging_mvcc_watcher_total 0")
        .await;
    fixture.stop().await;
}

#[tokio::test]
async fn ttls_run_out_for_v2_and_v3() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch.created(watch_letter('/')).await;
    let mut waiting = Waiting::open(&fixture, "/?wait=true&recursive=true&stream=true").await;
    ask(&fixture, "PUT", "/keys/t", "value=1&ttl=1").await;
    ask(&fixture, "PUT", "/keys/d", "dir=true&ttl=1").await;
    for expected in ["set", "set", "expire", "expire"] {
        assert_eq!(waiting.event().await["action"], expected);
    }
    assert_eq!(told(&watch.next().await), ["2 /t=1"]);
    assert_eq!(told(&watch.next().await), ["4 /t -"]);
    assert_eq!(
        ask(&fixture, "GET", "/keys/t", "").await.1["errorCode"],
        100
    );
    assert_eq!(
        ask(&fixture, "GET", "/keys/d", "").await.1["errorCode"],
        100
    );
    fixture.stop().await;
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let mut fixture = Fixture::start().await;
    ask(&fixture, "PUT", "/keys/f", "value=1").await;
    ask(&fixture, "PUT", "/keys/f?prevExist=true", "value=2&ttl=500").await;
    ask(&fixture, "PUT", "/keys/empty", "dir=true").await;
    ask(&fixture, "PUT", "/keys/gone", "value=1").await;
    ask(&fixture, "DELETE", "/keys/gone", "").await;
    let before = ask(&fixture, "GET", "/keys/?recursive=true", "").await.1;
    fixture.restart().await;
    let after = ask(&fixture, "GET", "/keys/?recursive=true", "").await.1;
    let nodes = |listing: &Value| {
        let mut listing = listing["node"]["nodes"].clone();
        for node in listing.as_array_mut().unwrap() {
            node.as_object_mut().unwrap().remove("ttl");
        }
        listing
    };
    assert_eq!(nodes(&before), nodes(&after));
    assert_eq!(nodes(&after)[1]["createdIndex"], 2);
    for (index, action) in [(2, "set"), (3, "update")] {
        let target = format!("/keys/f?wait=true&waitIndex={index}");
        let mut waiting = Waiting::open(&fixture, &target["/keys".len()..]).await;
        let event = waiting.event().await;
        assert_eq!(
            (&event["action"], &event["node"]["modifiedIndex"]),
            (&action.into(), &index.into())
        );
    }
    let (_, set) = ask(&fixture, "PUT", "/keys/next", "").await;
    assert_eq!(set["node"]["modifiedIndex"], 7);
    fixture.stop().await;
}

#[tokio::test]
async fn it_can_be_turned_off() {
    let fixture = Fixture::start_with(&["--enable-v2=false"]).await;
    assert_eq!(ask(&fixture, "GET", "/keys/", "").await.0, 404);
    assert_eq!(ask(&fixture, "GET", "/members", "").await.0, 404);
    fixture.stop().await;
}

#[tokio::test]
async fn oversized_forms_and_values_are_refused() {
    let fixture = Fixture::start().await;
    let value = format!("value={}", "x".repeat(1_600_000));
    let (status, refused) = ask(&fixture, "PUT", "/keys/k", &value).await;
    assert_eq!((status, &refused["errorCode"]), (500, &300.into()));
    assert_eq!(refused["cause"], "etcdserver: request is too large");
    let value = format!("value={}", "x".repeat(6_000_000));
    let (status, refused) = ask(&fixture, "PUT", "/keys/k", &value).await;
    assert_eq!((status, &refused["errorCode"]), (400, &210.into()));
    assert_eq!(ask(&fixture, "GET", "/keys/k", "").await.0, 404);
    fixture.stop().await;
}
