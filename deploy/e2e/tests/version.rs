//! What a client of etcd 3.6 or 3.7 looks at before it decides what to ask for: the version in all
//! its places, the status, the probes, and every call that the release knows. Ours and etcd 3.7.1's
//! must be equal, once sizes, ids and indexes are masked.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use bytes::{Buf, Bytes};
use e2e::center::{self, Center};
use e2e::http;
use e2e::peer::{self, Peer};
use e2e::raw::Raw;
use e2e::store::{channel, runtime};
use e2e::tools::run;
use e2e::{binaries, wait_until};
use serde_json::{Value, json};
use tonic::Request;
use tonic::transport::Channel;

/// What etcd 3.7.1 itself says that it answers; `deploy/peers/etcd/descriptors` prints it.
const SCHEMA: &str = "schemas/tests/etcd-3.7.1.txt";

const CALL: Duration = Duration::from_secs(20);

/// The message for a call: nothing, where nothing gets an answer.
fn message(method: &str) -> Bytes {
    Bytes::from_static(match method {
        // Create a watcher of "a".
        "Watch" => b"\x0a\x03\x0a\x01a",
        // Not the prefix that the campaign without a name holds.
        "Lock" => b"\x0a\x01l",
        // At 0 it would have etcd tell the digest of that revision from then on.
        "Compact" => b"\x08\x01",
        _ => b"",
    })
}

/// The first answer to a call, or how it was refused.
async fn call(channel: &Channel, service: &str, method: &str) -> String {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    if let Err(error) = grpc.ready().await {
        return format!("not reached: {error}");
    }
    let path = format!("/{service}/{method}");
    let Ok(path) = path.parse() else {
        return format!("{path} is no path");
    };
    let request = Request::new(tokio_stream::once(message(method)));
    let answered = tokio::time::timeout(CALL, async {
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        answers.message().await
    });
    match answered.await {
        Ok(Ok(Some(_))) if method == "Snapshot" => "a piece of a snapshot".to_owned(),
        Ok(Ok(Some(answer))) => format!("fields {:?}", fields(answer, true)),
        Ok(Ok(None)) => "nothing".to_owned(),
        Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
        Err(_) => "no answer in time".to_owned(),
    }
}

/// Numbers of the fields that are set; those of the header, which comes first, one level deeper.
fn fields(mut message: Bytes, has_header: bool) -> Vec<String> {
    let mut found = Vec::new();
    while message.has_remaining() {
        let tag = varint(&mut message);
        let (number, kind) = (tag >> 3, tag & 7);
        let payload = match kind {
            0 => {
                varint(&mut message);
                Bytes::new()
            }
            1 => message.split_to(8),
            2 => {
                let length = varint(&mut message);
                message.split_to(usize::try_from(length).expect("a length"))
            }
            5 => message.split_to(4),
            other => panic!("wire type {other}"),
        };
        found.push(if has_header && number == 1 && kind == 2 {
            format!("1{:?}", fields(payload, false))
        } else {
            number.to_string()
        });
    }
    found
}

fn varint(message: &mut Bytes) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = message.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// `package.Service` and method of everything in etcd's own list.
fn listed() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(binaries::repository().join(SCHEMA)).expect("the schema");
    let calls = text.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("rpc ")?.split_once(' ')?;
        let (service, method) = name.rsplit_once('.')?;
        Some((service.to_owned(), method.to_owned()))
    });
    calls.collect()
}

#[test]
fn every_call_of_etcd_3_7_is_answered_as_it_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let center = Center::start(folder.path()).expect("config-center");
    let etcd = Peer::start(folder.path(), &[]).expect("etcd");
    let calls = listed();
    assert!(calls.len() > 45, "{calls:?}");
    let answers = |url: &str| {
        let channel = channel(url).expect("a URL");
        runtime().block_on(async {
            let mut answers = BTreeMap::new();
            for (service, method) in &calls {
                let answer = call(&channel, service, method).await;
                answers.insert(format!("{service}/{method}"), answer);
            }
            answers
        })
    };
    let (ours, etcds) = (answers(&center.url()), answers(&etcd.url));
    let differing: Vec<_> = ours
        .iter()
        .filter(|(call, answer)| etcds[*call] != **answer)
        .map(|(call, answer)| format!("{call}\n  etcd: {}\n  ours: {answer}", etcds[call]))
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    // Otherwise two servers could agree upon nothing.
    let status = &etcds["etcdserverpb.Maintenance/Status"];
    assert!(status.starts_with("fields"), "{status}");
}

#[test]
fn versions_status_and_probes_are_etcds() {
    let folder = tempfile::tempdir().expect("a folder");
    let center = Center::start(folder.path()).expect("config-center");
    let etcd = Peer::start(folder.path(), &[]).expect("etcd");
    let etcd_port = etcd.client_port().expect("a port");

    let first_line = |mut command: Command| {
        let text = run(command.arg("--version"), "")
            .and_then(|output| output.ok())
            .expect("a version");
        text.lines().next().unwrap_or_default().to_owned()
    };
    let ours = Command::new(binaries::program("config-center").expect("built"));
    let etcds = Command::new(peer::program("3.7", "etcd").expect("etcd"));
    assert_eq!(first_line(ours), first_line(etcds));

    for path in [
        "/version",
        // Without parameters, /health has the form of 3.4: docs/compatibility.md.
        "/health?serializable=true",
        "/health?exclude=NOSPACE",
        "/livez",
        "/livez?verbose",
        "/livez/serializable_read",
        "/readyz",
        "/readyz?verbose",
        "/readyz?verbose&exclude=linearizable_read",
        "/readyz?verbose&exclude=nonsense",
        "/readyz/data_corruption",
        "/readyz/serializable_read",
        "/readyz/linearizable_read",
        "/readyz/non_learner",
    ] {
        let ask = |port| {
            let answer = http::exchange(port, "GET", path, &[], "").expect("an answer");
            // etcd tells the checks in any order.
            let mut lines: Vec<String> = answer.body.lines().map(str::to_owned).collect();
            lines.sort();
            (answer.status, lines)
        };
        let asked = wait_until("both to be ready", e2e::DEADLINE, || {
            let (ours, etcds) = (ask(center.client_port), ask(etcd_port));
            // The first seconds of a cluster know no version yet.
            (!etcds.1.concat().contains("not_decided")).then_some((ours, etcds))
        });
        let (ours, etcds) = asked.expect("answers");
        assert_eq!(ours, etcds, "{path}");
    }

    let etcdctl = peer::newest_etcdctl().expect("etcdctl");
    let status = |url: &str, command: &[&str]| -> Value {
        let mut etcdctl = Command::new(&etcdctl);
        etcdctl.args(["--endpoints", url, "--write-out=json"]);
        let output = run(etcdctl.args(command), "").expect("etcdctl runs");
        let mut value = serde_json::from_str(&output.ok().expect("an answer")).expect("JSON");
        mask(&mut value);
        value
    };
    for command in [
        &["endpoint", "status"][..],
        &["endpoint", "hashkv"],
        &["member", "list"],
        &["downgrade", "validate", "3.6"],
        &["downgrade", "cancel"],
    ] {
        let (ours, etcds) = (status(&center.url(), command), status(&etcd.url, command));
        assert_eq!(ours, etcds, "{command:?}");
    }
    let shown = status(&center.url(), &["endpoint", "status"]);
    assert_eq!(shown[0]["Status"]["version"], "3.7.1");

    // Dashboards and operators read it here.
    let line = "etcd_server_version{server_version=\"3.7.1\"} 1";
    for port in [center.client_port, etcd_port] {
        let page = center::http_get(port, "/metrics").expect("metrics");
        assert!(page.lines().any(|found| found == line), "{page}");
    }
}

/// What no two servers share. That it is there is compared.
fn mask(value: &mut Value) {
    const OWN: [&str; 17] = [
        "Endpoint",
        "ID",
        "clientURLs",
        "cluster_id",
        "dbSize",
        "dbSizeInUse",
        "hash",
        "leader",
        "member_id",
        "name",
        "peerURLs",
        "raftAppliedIndex",
        "raftIndex",
        "raftTerm",
        "raft_term",
        "revision",
        "hash_revision",
    ];
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if OWN.contains(&&name[..]) {
                    *field = json!("masked");
                } else {
                    mask(field);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}
