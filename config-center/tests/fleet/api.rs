//! `/api/v1` over HTTP, as the console and `curl` use it: on the client port of our own store, and
//! beside an etcd of somebody else.

use std::{fs, net::SocketAddr, path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Child,
};

use crate::{
    entry, group, hosts, on_both_stores,
    stand::{Agents, DEADLINE, Kind, Stand},
};

on_both_stores!(
    objects_are_written_with_preconditions,
    a_fleet_is_applied_and_taken_back,
    changes_are_streamed_and_resumed,
);

/// Whoever serves the API: the member itself, or a `config-center fleet`.
struct Service {
    address: SocketAddr,
    _process: Option<Child>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Service {
    async fn start(stand: &Stand, kind: Kind) -> Self {
        match kind {
            Kind::Own => Self {
                address: stand
                    .endpoint
                    .trim_start_matches("http://")
                    .parse()
                    .unwrap(),
                _process: None,
            },
            Kind::Etcd => Self::start_as(stand, &[]).await,
        }
    }

    async fn start_as(stand: &Stand, flags: &[&str]) -> Self {
        let mut command = stand.service();
        command.args(flags);
        let mut process = command
            .args(["--listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let looking = async {
            while let Some(line) = log.next_line().await.unwrap() {
                if let Some((_, address)) = line.split_once("ready to serve the API address=") {
                    return address.trim().parse().unwrap();
                }
            }
            panic!("the service ended before it was ready");
        };
        let address = tokio::time::timeout(DEADLINE, looking)
            .await
            .expect("the service comes up");
        // Somebody has to read the log, or the service would stop at a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self {
            address,
            _process: Some(process),
        }
    }

    async fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}",
            self.address
        );
        let mut answer = Vec::new();
        let mut stream = self.connect(&request).await;
        tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer))
            .await
            .expect("an answer")
            .unwrap();
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: serde_json::from_str(body).unwrap_or(Value::Null),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[("content-type", "application/yaml")], body)
            .await
    }
}

async fn objects_are_written_with_preconditions(kind: Kind) {
    let stand = Stand::start(kind).await;
    let service = Service::start(&stand, kind).await;
    let path = "/api/v1/objects/groups/web";
    let yaml = ("content-type", "application/yaml");
    let text = group("web", &hosts(2), "/a", "t");
    let made = service
        .send("PUT", path, &[yaml, ("if-none-match", "*")], &text)
        .await
        .is(201);
    assert_eq!(
        (&made.body["release"], &made.body["change"]["summary"]),
        (&json!(1), &json!("2 hosts · +1 path"))
    );
    assert_eq!(made.header("location"), Some("/api/v1/releases/1"));
    let again = service
        .send("PUT", path, &[yaml, ("if-none-match", "*")], &text)
        .await
        .is(412);
    assert_eq!(again.body["code"], "precondition_failed");
    assert_eq!(
        again.header("content-type"),
        Some("application/problem+json")
    );
    let read = service.get(path).await.is(200);
    assert_eq!(read.body["spec"]["logs"][0]["topic"], "t");
    let etag = read.header("etag").unwrap().to_owned();
    let other = group("web", &hosts(2), "/a", "u");
    service
        .send("PUT", path, &[yaml, ("if-match", &etag)], &other)
        .await
        .is(201);
    // Two publishers saw the same version: the second one is told, and nothing is lost.
    service
        .send("PUT", path, &[yaml, ("if-match", &etag)], &text)
        .await
        .is(412);
    // The same once more writes nothing.
    assert_eq!(
        service
            .send("PUT", path, &[yaml], &other)
            .await
            .is(200)
            .body["release"],
        Value::Null
    );

    let wrong = service
        .send("PUT", path, &[yaml], &group("db", &hosts(1), "/a", "t"))
        .await
        .is(422);
    assert!(
        wrong.body["detail"]
            .as_str()
            .unwrap()
            .contains("Group/db and not Group/web"),
        "{wrong:?}"
    );
    let faulty = service
        .send("PUT", path, &[yaml], &text.replace("topic", "tpoic"))
        .await
        .is(422);
    assert!(
        faulty.body["faults"][0]
            .as_str()
            .unwrap()
            .starts_with("body:5:"),
        "{faulty:?}"
    );
    service
        .send("PUT", path, &[("content-type", "text/plain")], &text)
        .await
        .is(415);
    let foreign = service
        .send(
            "PUT",
            path,
            &[yaml, ("origin", "http://evil.example")],
            &text,
        )
        .await
        .is(403);
    assert_eq!(foreign.body["code"], "foreign_origin");
    service.get("/api/v1/objects/pods/x").await.is(400);
    service.get("/api/v1/objects/Group/none").await.is(404);
    let page = service
        .get("/api/v1/objects?limit=1&kind=Group")
        .await
        .is(200);
    assert_eq!(
        (&page.body["total"], &page.body["items"][0]["id"]),
        (&json!(1), &json!("Group/web"))
    );
    assert_eq!(
        service.get("/api/v1/objects?limit=x").await.is(400).body["code"],
        "bad_request"
    );
    service
        .send("DELETE", path, &[("if-match", "\"1\"")], "")
        .await
        .is(412);
    service.send("DELETE", path, &[], "").await.is(201);
    service.send("DELETE", path, &[], "").await.is(404);
    stand.stop().await;
}

async fn a_fleet_is_applied_and_taken_back(kind: Kind) {
    let stand = Stand::start(kind).await;
    let _agents = Agents::start(&stand, hosts(3)).await;
    let service = Service::start(&stand, kind).await;
    let text = group("web", &hosts(3), "/a", "t");
    let dry = service
        .post("/api/v1/apply?dryRun=true", &text)
        .await
        .is(200);
    assert_eq!(dry.body["blast_radius"]["hosts"], 3);
    assert_eq!(
        service.get("/api/v1/releases").await.is(200).body["total"],
        0
    );
    service.post("/api/v1/apply", &text).await.is(201);
    stand
        .eventually("all hosts apply it", async || {
            let hosts = service.get("/api/v1/hosts?state=applied").await.is(200);
            hosts.body["total"] == 3
        })
        .await;
    stand
        .eventually("the rollout completes", async || {
            service
                .get("/api/v1/rollouts/0000000001")
                .await
                .is(200)
                .body["phase"]
                == "completed"
        })
        .await;
    let effective = service
        .get("/api/v1/hosts/10.0.0.1/effective")
        .await
        .is(200);
    assert_eq!(
        effective.body["entries"],
        json!([{ "path": "/a", "topic": "t" }])
    );

    // Edited by hand, seen, taken back.
    stand
        .put(
            stand.ns.config("10.0.0.1"),
            &format!("[{}]", entry("/a", "hand")),
        )
        .await;
    let host = service.get("/api/v1/hosts/10.0.0.1").await.is(200);
    assert_eq!(
        (
            &host.body["state"],
            &host.body["drift"]["changes"][0]["change"]
        ),
        (&json!("drifted"), &json!("changed"))
    );
    service
        .send("POST", "/api/v1/hosts/10.0.0.1/restore", &[], "")
        .await
        .is(200);
    assert_eq!(
        service
            .send("POST", "/api/v1/hosts/10.0.0.1/restore", &[], "")
            .await
            .is(409)
            .body["code"],
        "no_drift"
    );
    service
        .send("POST", "/api/v1/hosts/10.0.0.1/bless", &[], "")
        .await
        .is(404);

    // A request whose answer was lost may be sent again: it is carried out once.
    let key = [("idempotency-key", "k-1"), ("x-reason", "slip")];
    let undone = service
        .send("POST", "/api/v1/releases/1/rollback", &key, "")
        .await
        .is(201);
    let repeated = service
        .send("POST", "/api/v1/releases/1/rollback", &key, "")
        .await
        .is(201);
    assert_eq!(
        (&undone.body["release"], &repeated.body["release"]),
        (&json!(2), &json!(2))
    );
    stand
        .eventually("the keys are gone", async || {
            stand.config("10.0.0.3").await.is_none()
        })
        .await;
    assert_eq!(
        service.get("/api/v1/releases/2").await.is(200).body["reason"],
        "slip"
    );
    let restored = "/api/v1/releases/1/rollback?object=Group/web";
    service.send("POST", restored, &[], "").await.is(201);
    service
        .send("POST", "/api/v1/rollouts/0000000001/pause", &[], "")
        .await
        .is(409);
    let audit = service.get("/api/v1/audit?limit=1").await.is(200);
    assert_eq!(
        (
            &audit.body["holds"],
            &audit.body["items"][0]["event"]["action"]
        ),
        (&json!(true), &json!("publish"))
    );
    assert_eq!(audit.body["continue"], "1");
    stand.stop().await;
}

async fn changes_are_streamed_and_resumed(kind: Kind) {
    let stand = Stand::start(kind).await;
    let service = Service::start(&stand, kind).await;
    let listen = |headers: &str| format!("GET /api/v1/events HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    let mut stream = BufReader::new(service.connect(&listen("")).await).lines();
    let mut until = async |wanted: &str| {
        let reading = async {
            loop {
                let line = stream.next_line().await.unwrap().expect("an open stream");
                if line.contains(wanted) {
                    return line;
                }
            }
        };
        tokio::time::timeout(DEADLINE, reading)
            .await
            .unwrap_or_else(|_| panic!("{wanted} does not come"))
    };
    until("text/event-stream").await;
    stand.put(stand.ns.config("10.0.0.1"), "[]").await;
    let id = until("id: ").await;
    let id: i64 = id.trim_start_matches("id: ").parse().unwrap();
    assert_eq!(id, stand.revision().await);
    drop(stream);
    stand.put(stand.ns.config("10.0.0.2"), "[]").await;
    let headers = format!("last-event-id: {id}\r\n");
    let mut stream = BufReader::new(service.connect(&listen(&headers)).await).lines();
    let reading = async {
        loop {
            let line = stream.next_line().await.unwrap().expect("an open stream");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str::<Value>(data).unwrap();
            }
        }
    };
    let data = tokio::time::timeout(DEADLINE, reading)
        .await
        .expect("the missed change");
    let expected = json!([{ "what": "config", "name": "10.0.0.2", "deleted": false }]);
    assert_eq!(
        (&data["revision"], &data["changes"]),
        (&json!(id + 1), &expected)
    );
    let wrong = service
        .send("GET", "/api/v1/events", &[("last-event-id", "x")], "")
        .await;
    assert_eq!(wrong.status, 400);
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_route_exists_and_no_other() {
    let stand = Stand::start(Kind::Own).await;
    let service = Service::start(&stand, Kind::Own).await;
    let document = service.get("/openapi.json").await.is(200).body;
    assert_eq!(
        document,
        config_center::fleet::api::openapi_document().unwrap()
    );
    let mut seen = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{number}", "1")
            .replace("{kind}", "Group")
            .replace(['{', '}'], "");
        if path.ends_with("/events") {
            continue;
        }
        for method in ["get", "put", "post", "delete", "patch"] {
            let answer = service.send(&method.to_uppercase(), &path, &[], "").await;
            let code = answer.body["code"].as_str().unwrap_or_default().to_owned();
            assert_ne!(code, "no_route", "{method} {path}");
            let is_there = code != "no_method";
            assert_eq!(
                is_there,
                operations.get(method).is_some(),
                "{method} {path}: {answer:?}"
            );
            seen += usize::from(is_there);
        }
    }
    assert!(seen >= 17, "{seen}");
    assert_eq!(
        service.get("/api/v2/objects").await.is(404).body["code"],
        "no_route"
    );
    stand.stop().await;
}

/// The server judges the corpus as the CLI and the schemas do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_corpus_is_judged_alike() {
    let stand = Stand::start(Kind::Own).await;
    let service = Service::start(&stand, Kind::Own).await;
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("core/tests/fleet-corpus");
    for (folder, status, code) in [
        ("accept", 200, 0),
        ("reject", 422, 3),
        ("reject-by-meaning", 422, 3),
    ] {
        let mut judged = 0;
        for file in fs::read_dir(corpus.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let answer = service.post("/api/v1/validate", &text).await;
            assert_eq!(answer.status, status, "{}: {answer:?}", path.display());
            if judged % 8 == 0 {
                stand
                    .configctl(&["validate", "-f", path.to_str().unwrap()])
                    .await
                    .exits(code);
            }
            judged += 1;
        }
        assert!(judged > 10, "{folder}");
    }
    stand.stop().await;
}

/// The API has no rights of its own: etcd's users and roles decide, also when the service itself
/// runs as root.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_decides_who_may() {
    let stand = Stand::start(Kind::Etcd).await;
    stand
        .configctl(&["kv", "put", "/ningxin/backend/logagent/config/h", "[]"])
        .await
        .exits(0);
    for arguments in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "reader"],
        &[
            "role",
            "grant-permission",
            "reader",
            "--prefix=true",
            "read",
            "/ningxin/backend/logagent/",
        ],
        &["user", "add", "bob:bob"],
        &["user", "grant-role", "bob", "reader"],
        &["auth", "enable"],
    ] {
        let mut command = tokio::process::Command::new("etcdctl");
        let endpoint = stand.endpoint.trim_start_matches("http://");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", endpoint])
            .args(arguments);
        let output = command
            .output()
            .await
            .expect("the etcdctl program is needed: install etcd-client");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let service = Service::start_as(&stand, &["--user", "root:secret"]).await;
    let root = ("authorization", "Basic cm9vdDpzZWNyZXQ=");
    let bob = ("authorization", "Basic Ym9iOmJvYg==");
    let text = group("web", &hosts(1), "/a", "t");
    let yaml = ("content-type", "application/yaml");
    for path in [
        "/api/v1/objects",
        "/api/v1/hosts",
        "/api/v1/releases",
        "/api/v1/rollouts",
        "/api/v1/audit",
        "/api/v1/events",
    ] {
        let nobody = service.get(path).await.is(401);
        assert_eq!(nobody.body["code"], "unauthenticated", "{path}");
        service
            .send(
                "GET",
                path,
                &[("authorization", "Basic cm9vdDp3cm9uZw==")],
                "",
            )
            .await
            .is(401);
        service
            .send("GET", path, &[("authorization", "Bearer x")], "")
            .await
            .is(401);
        assert_eq!(
            service.send("GET", path, &[bob], "").await.is(403).body["code"],
            "denied",
            "{path}"
        );
    }
    service.post("/api/v1/apply", &text).await.is(401);
    service
        .send("POST", "/api/v1/apply", &[yaml, bob], &text)
        .await
        .is(403);
    service
        .send("POST", "/api/v1/apply", &[yaml, root], &text)
        .await
        .is(201);
    let audit = service
        .send("GET", "/api/v1/audit", &[root], "")
        .await
        .is(200);
    assert_eq!(audit.body["items"][0]["event"]["actor"], "root");
    stand.stop().await;
}
