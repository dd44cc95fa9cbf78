//! Alarms, digests, downgrades and streamed ranges against config-center and against etcd 3.7.1:
//! the same calls, the same answers. And snapshots from both releases of etcdctl, restored.

use std::path::Path;
use std::process::Command;

use e2e::binaries;
use e2e::center::{self, Center};
use e2e::peer::{Peer, newest_etcdctl};
use e2e::process::Process;
use e2e::store::runtime;
use e2e::tools::run;
use e2e::{DEADLINE, Store, ports, wait_until};
use schemas::etcdserverpb as pb;
use schemas::etcdserverpb::alarm_request::AlarmAction;
use schemas::etcdserverpb::downgrade_request::DowngradeAction;
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::lease_client::LeaseClient;
use schemas::etcdserverpb::maintenance_client::MaintenanceClient;
use schemas::etcdserverpb::request_op::Request as OpRequest;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

const NOSPACE: i32 = pb::AlarmType::Nospace as i32;
const CORRUPT: i32 = pb::AlarmType::Corrupt as i32;

struct Scene {
    channel: Channel,
    told: Vec<String>,
}

impl Scene {
    fn tell<T>(
        &mut self,
        what: &str,
        outcome: Result<Response<T>, Status>,
        say: impl FnOnce(T) -> String,
    ) {
        self.told.push(match outcome {
            Ok(answer) => format!("{what}: {}", say(answer.into_inner())),
            Err(status) => format!("{what}: {:?} {:?}", status.code(), status.message()),
        });
    }

    async fn alarm(&mut self, action: i32, kind: i32, member_id: u64) {
        let request = pb::AlarmRequest {
            action,
            alarm: kind,
            member_id,
        };
        let answer = MaintenanceClient::new(self.channel.clone())
            .alarm(request)
            .await;
        self.tell(&format!("alarm {action} {kind} {member_id}"), answer, |a| {
            assert!(a.header.is_some());
            format!("{:?}", a.alarms)
        });
    }

    /// One of every kind of call, and what came of it.
    async fn try_everything(&mut self, when: &str) {
        let mut kv = KvClient::new(self.channel.clone());
        let mut leases = LeaseClient::new(self.channel.clone());
        let put = pb::PutRequest {
            key: "a".into(),
            value: "1".into(),
            ..Default::default()
        };
        let range = pb::RangeRequest {
            key: "a".into(),
            ..Default::default()
        };
        let delete = pb::DeleteRangeRequest {
            key: "nothing".into(),
            ..Default::default()
        };
        let txn = |request| pb::TxnRequest {
            failure: vec![pb::RequestOp {
                request: Some(request),
            }],
            ..Default::default()
        };
        let nested = txn(OpRequest::RequestPut(put.clone()));
        let grant = pb::LeaseGrantRequest { id: 0, ttl: 60 };
        let compaction = pb::CompactionRequest {
            revision: 1_000,
            physical: false,
        };
        let answer = kv.put(put.clone()).await;
        self.tell(&format!("{when}: put"), answer, |_| "done".into());
        let answer = kv.range(range.clone()).await;
        self.tell(&format!("{when}: range"), answer, |a| a.count.to_string());
        let answer = kv.delete_range(delete.clone()).await;
        self.tell(&format!("{when}: delete"), answer, |a| {
            a.deleted.to_string()
        });
        let answer = kv.txn(txn(OpRequest::RequestTxn(nested))).await;
        self.tell(&format!("{when}: txn that puts"), answer, |_| "done".into());
        let answer = kv.txn(txn(OpRequest::RequestDeleteRange(delete))).await;
        self.tell(&format!("{when}: txn that deletes"), answer, |_| {
            "done".into()
        });
        let answer = kv.txn(txn(OpRequest::RequestRange(range))).await;
        self.tell(&format!("{when}: txn that reads"), answer, |_| {
            "done".into()
        });
        let answer = kv.compact(compaction).await;
        self.tell(&format!("{when}: compact"), answer, |_| "done".into());
        let answer = leases.lease_grant(grant).await;
        self.tell(&format!("{when}: grant"), answer, |a| a.ttl.to_string());
        let answer = leases.lease_revoke(pb::LeaseRevokeRequest { id: 99 }).await;
        self.tell(&format!("{when}: revoke"), answer, |_| "done".into());
    }
}

async fn alarms(scene: &mut Scene) {
    let (get, raise, take_back) = (
        AlarmAction::Get as i32,
        AlarmAction::Activate as i32,
        AlarmAction::Deactivate as i32,
    );
    scene.try_everything("at first").await;
    scene.alarm(get, 0, 0).await;
    scene.alarm(take_back, NOSPACE, 7).await;
    scene.alarm(raise, 0, 7).await;
    scene.alarm(raise, NOSPACE, 7).await;
    scene.alarm(raise, NOSPACE, 7).await;
    scene.alarm(get, 0, 0).await;
    scene.alarm(get, NOSPACE, 0).await;
    scene.alarm(get, CORRUPT, 7).await;
    scene.try_everything("without space").await;
    scene.alarm(raise, CORRUPT, 8).await;
    scene.try_everything("corrupt").await;
    scene.alarm(take_back, NOSPACE, 0).await;
    scene.alarm(take_back, NOSPACE, 7).await;
    scene.try_everything("still corrupt").await;
    scene.alarm(take_back, CORRUPT, 8).await;
    scene.try_everything("at last").await;
}

async fn questions(scene: &mut Scene) {
    let mut maintenance = MaintenanceClient::new(scene.channel.clone());
    for (action, version) in [
        (DowngradeAction::Validate, ""),
        (DowngradeAction::Validate, "x"),
        (DowngradeAction::Validate, "2"),
        (DowngradeAction::Validate, "v3.6.0"),
        (DowngradeAction::Validate, "3.3.0"),
        (DowngradeAction::Validate, "9.9"),
        (DowngradeAction::Enable, "9.9.9"),
        (DowngradeAction::Validate, "3.6"),
        (DowngradeAction::Validate, "3.6.0"),
        (DowngradeAction::Cancel, ""),
    ] {
        let request = pb::DowngradeRequest {
            action: action as i32,
            version: version.to_owned(),
        };
        let answer = maintenance.downgrade(request).await;
        scene.tell(&format!("{action:?} {version}"), answer, |a| a.version);
    }
    scene.try_everything("first").await;
    for revision in [0, 1, 2, 99, -1] {
        let answer = maintenance.hash_kv(pb::HashKvRequest { revision }).await;
        scene.tell(&format!("hash at {revision}"), answer, |a| {
            let header = a.header.expect("a header");
            // A negative revision is nonsense that each answers in its own way.
            let hashed = if revision < 0 { 0 } else { a.hash_revision };
            format!("{} {hashed} {}", a.compact_revision, header.revision)
        });
    }
}

fn compare(play: impl AsyncFn(&mut Scene)) {
    let folder = tempfile::tempdir().expect("a folder");
    let center = Center::start(folder.path()).expect("config-center");
    let peer = Peer::start(folder.path(), &[]).expect("etcd");
    let tell = |url: &str| {
        runtime().block_on(async {
            let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
            let mut scene = Scene {
                channel: endpoint.connect_lazy(),
                told: Vec::new(),
            };
            play(&mut scene).await;
            scene.told
        })
    };
    let etcds = tell(&peer.url);
    let ours = tell(&center.url());
    assert!(etcds.len() > 10, "{etcds:?}");
    for (ours, etcds) in ours.iter().zip(&etcds) {
        assert_eq!(ours, etcds);
    }
    assert_eq!(ours.len(), etcds.len());
}

#[test]
fn alarms_are_etcds() {
    compare(alarms);
}

#[test]
fn downgrades_and_digests_are_etcds() {
    compare(questions);
}

/// `etcdctl get --stream` of 3.7.1: the same output from both.
#[test]
fn streamed_gets_are_etcds() {
    let folder = tempfile::tempdir().expect("a folder");
    let center = Center::start(folder.path()).expect("config-center");
    let peer = Peer::start(folder.path(), &[]).expect("etcd");
    for url in [&center.url(), &peer.url] {
        let store = Store::new(url).expect("a client");
        for n in 0..200 {
            store.put(&format!("k{n:03}"), "v".repeat(n)).expect("put");
        }
    }
    let etcdctl = newest_etcdctl().expect("etcdctl");
    let get = |url: &str, more: &[&str]| {
        let mut command = Command::new(&etcdctl);
        command.args(["--endpoints", url, "get", "--stream", "k"]);
        let output = run(command.args(more), "").expect("etcdctl runs");
        (output.code, output.stdout, mask(&output.stderr))
    };
    for more in [
        &["--prefix"][..],
        &["--prefix", "--limit=33"],
        &["--prefix", "--keys-only"],
        &["--prefix", "--count-only", "--write-out=fields"],
        &["--prefix", "--rev=50"],
        &["--prefix", "--rev=5000"],
        &["--prefix", "--sort-by=MODIFY", "--order=DESCEND"],
        &["--prefix", "--min-mod-rev=5"],
    ] {
        let (ours, etcds) = (get(&center.url(), more), get(&peer.url, more));
        if more.contains(&"--write-out=fields") {
            // Ids and terms differ.
            assert!(ours.1.contains("\"Count\" : 200") && etcds.1.contains("\"Count\" : 200"));
            continue;
        }
        assert_eq!(ours, etcds, "{more:?}");
    }
}

/// Log lines of etcdctl tell when and where.
fn mask(stderr: &str) -> String {
    let last = stderr.lines().filter(|line| !line.starts_with('{'));
    last.collect::<Vec<_>>().join("\n")
}

/// Both etcdctl releases save a snapshot that configctl restores, and the restored member goes on
/// where the snapshot was taken.
#[test]
fn saved_snapshots_are_restored() {
    let folder = tempfile::tempdir().expect("a folder");
    let center = Center::start(folder.path()).expect("config-center");
    let store = center.store().expect("a client");
    for n in 0..300 {
        store
            .put(&format!("k{}", n % 100), format!("v{n}"))
            .expect("put");
    }
    store.delete("k0").expect("deleted");
    let old = folder.path().join("by-3.4.db");
    let new = folder.path().join("by-3.7.db");
    let own = folder.path().join("by-configctl.db");
    let configctl = binaries::program("configctl").expect("configctl");
    let mut etcdctl34 = Command::new("etcdctl");
    etcdctl34.env("ETCDCTL_API", "3");
    for (mut command, file) in [
        (etcdctl34, &old),
        (Command::new(newest_etcdctl().expect("etcdctl")), &new),
    ] {
        command.args(["--endpoints", &center.url(), "snapshot", "save"]);
        run(command.arg(file), "")
            .and_then(|o| o.ok())
            .expect("saved");
    }
    let mut command = Command::new(&configctl);
    command.args(["--endpoints", &center.url(), "cluster", "snapshot", "save"]);
    run(command.arg(&own), "")
        .and_then(|o| o.ok())
        .expect("saved");
    for (number, file) in [&old, &new, &own].into_iter().enumerate() {
        let mut command = Command::new(&configctl);
        command.args(["-o", "json", "cluster", "snapshot", "status"]);
        let status = run(command.arg(file), "")
            .and_then(|o| o.ok())
            .expect("status");
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(status["revision"], 302, "{status}");
        assert_eq!(
            (&status["totalKeys"], &status["verified"]),
            (&99.into(), &true.into())
        );
        let data_dir = folder.path().join(format!("restored-{number}"));
        restored_member_goes_on(&configctl, file, &data_dir, &folder.path().join("logs"));
        // A second restore into the same folder is refused.
        let again = restore(&configctl, file, &data_dir, 1);
        assert_eq!(again.code, Some(3), "{again:?}");
        assert!(again.stderr.contains("is not empty"), "{again:?}");
    }
    // One changed byte is found.
    let mut bytes = std::fs::read(&own).expect("the file");
    bytes[5_000] ^= 1;
    let damaged = folder.path().join("damaged.db");
    std::fs::write(&damaged, bytes).expect("written");
    let refused = restore(&configctl, &damaged, &folder.path().join("never"), 1);
    assert!(
        refused.stderr.contains("digest does not match"),
        "{refused:?}"
    );
    assert!(!folder.path().join("never").exists());
}

fn restore(configctl: &Path, file: &Path, data_dir: &Path, peer_port: u16) -> e2e::tools::Output {
    let peer = format!("http://127.0.0.1:{peer_port}");
    let mut command = Command::new(configctl);
    command.args(["cluster", "snapshot", "restore"]).arg(file);
    command.arg("--data-dir").arg(data_dir);
    command.args(["--name", "default", "--initial-cluster-token", "restored"]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    command.args(["--initial-advertise-peer-urls", &peer]);
    run(&mut command, "").expect("configctl runs")
}

fn restored_member_goes_on(configctl: &Path, file: &Path, data_dir: &Path, logs: &Path) {
    let (client_port, peer_port) = (ports::free_port(), ports::free_port());
    restore(configctl, file, data_dir, peer_port)
        .ok()
        .expect("restored");
    let mut command = center::command(data_dir, client_port, peer_port).expect("a command");
    command.args(["--initial-cluster-token", "restored"]);
    let log = logs.join(format!("{client_port}.log"));
    let mut process = Process::spawn("config-center", command, &log).expect("started");
    wait_until("the restored member to be healthy", DEADLINE, || {
        assert!(process.is_running(), "{}", process.log_text());
        center::http_get(client_port, "/health").filter(|a| a.contains("\"true\""))
    })
    .expect("healthy");
    let store = Store::new(&format!("http://127.0.0.1:{client_port}")).expect("a client");
    let kv = store.get("k7").expect("read").expect("there");
    assert_eq!((&kv.value[..], kv.version), (&b"v207"[..], 3));
    assert_eq!(store.get("k0").expect("read"), None);
    assert_eq!(store.put("after", "1").expect("put"), 303);
    process.terminate().expect("stopped");
}
