//! Snapshots are etcd's: both releases of etcd's tools read ours, a real etcd goes on with it, and
//! what a real etcd saved becomes a config-center. At every step the same keys, revisions, leases
//! and users.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use e2e::center::{self, Center};
use e2e::cluster::{Cluster, Seat};
use e2e::peer::{Peer, newest_etcdctl, program};
use e2e::process::Process;
use e2e::store::{channel, runtime};
use e2e::tools::{Output, run};
use e2e::{DEADLINE, binaries, ports, wait_until};
use schemas::authpb::{Permission, permission::Type};
use schemas::etcdserverpb as pb;
use schemas::etcdserverpb::auth_client::AuthClient;
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::lease_client::LeaseClient;
use schemas::etcdserverpb::maintenance_client::MaintenanceClient;
use schemas::etcdserverpb::request_op::Request as OpRequest;
use serde_json::Value;
use tonic::transport::Channel;

const LEASE: i64 = 0x1234;

/// Keys that are written, so that the tree of revisions has branches.
const MANY: usize = 1_200;

async fn put(kv: &mut KvClient<Channel>, key: &str, value: Vec<u8>, lease: i64) {
    let request = pb::PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: value.into(),
        lease,
        ..Default::default()
    };
    kv.put(request).await.expect("put");
}

/// The same writes everywhere: what they leave is the same, revision by revision.
async fn write_everything(channel: Channel) {
    let mut kv = KvClient::new(channel.clone());
    let mut leases = LeaseClient::new(channel.clone());
    let grant = |id| pb::LeaseGrantRequest { id, ttl: 6_000 };
    leases.lease_grant(grant(LEASE)).await.expect("granted");
    leases.lease_grant(grant(LEASE + 1)).await.expect("granted");
    for n in 0..MANY {
        put(&mut kv, &format!("k{:04}", n % 900), vec![b'v'; n % 70], 0).await;
    }
    put(&mut kv, "large", vec![b'l'; 1_000_000], 0).await;
    put(&mut kv, "leased", b"1".to_vec(), LEASE).await;
    put(&mut kv, "leased too", b"2".to_vec(), LEASE).await;
    put(&mut kv, "leased too", b"no more".to_vec(), 0).await;
    // A revision that a lease's end wrote, and one of several keys.
    put(&mut kv, "ends", b"x".to_vec(), LEASE + 1).await;
    let revoke = pb::LeaseRevokeRequest { id: LEASE + 1 };
    leases.lease_revoke(revoke).await.expect("revoked");
    let op = |key: &str| pb::RequestOp {
        request: Some(OpRequest::RequestPut(pb::PutRequest {
            key: key.as_bytes().to_vec().into(),
            value: vec![0, 255, 128].into(),
            ..Default::default()
        })),
    };
    let delete = pb::DeleteRangeRequest {
        key: "k000".into(),
        range_end: "k001".into(),
        ..Default::default()
    };
    let txn = pb::TxnRequest {
        success: vec![
            op("t1"),
            pb::RequestOp {
                request: Some(OpRequest::RequestDeleteRange(delete)),
            },
            op("t2"),
        ],
        ..Default::default()
    };
    kv.txn(txn).await.expect("txn");
    let compaction = pb::CompactionRequest {
        revision: 700,
        physical: true,
    };
    kv.compact(compaction).await.expect("compacted");
    put(&mut kv, "t1", b"after".to_vec(), 0).await;
    write_users(channel).await;
}

async fn write_users(channel: Channel) {
    let mut auth = AuthClient::new(channel);
    for name in ["root", "alice"] {
        let user = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: format!("{name}'s password"),
            ..Default::default()
        };
        auth.user_add(user).await.expect("user");
    }
    for role in ["root", "reader"] {
        let role = pb::AuthRoleAddRequest {
            name: role.to_owned(),
        };
        auth.role_add(role).await.expect("role");
    }
    let permission = pb::AuthRoleGrantPermissionRequest {
        name: "reader".to_owned(),
        perm: Some(Permission {
            perm_type: Type::Read as i32,
            key: "k".into(),
            range_end: "l".into(),
        }),
    };
    auth.role_grant_permission(permission)
        .await
        .expect("permission");
    for (user, role) in [("root", "root"), ("alice", "reader")] {
        let grant = pb::AuthUserGrantRoleRequest {
            user: user.to_owned(),
            role: role.to_owned(),
        };
        auth.user_grant_role(grant).await.expect("granted");
    }
}

/// What a client can see of it all.
#[derive(Debug)]
struct Seen {
    revision: i64,
    /// At revisions from the compacted one to the newest.
    ranges: Vec<(i64, Vec<schemas::mvccpb::KeyValue>)>,
    leases: Vec<(i64, i64, Vec<String>)>,
    users: Vec<(String, Vec<String>)>,
    roles: Vec<(String, Vec<Permission>)>,
}

async fn look(channel: Channel) -> Seen {
    let mut kv = KvClient::new(channel.clone());
    let everything = |revision| pb::RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        revision,
        ..Default::default()
    };
    let now = kv.range(everything(0)).await.expect("range").into_inner();
    let revision = now.header.expect("a header").revision;
    let mut ranges = vec![(0, now.kvs)];
    for at in [700, 701, 850, 1_201, 1_205, revision - 1, revision] {
        let then = kv.range(everything(at)).await.expect("range").into_inner();
        ranges.push((at, then.kvs));
    }
    let too_old = kv.range(everything(699)).await.expect_err("compacted");
    assert!(too_old.message().contains("has been compacted"));
    let mut leases = LeaseClient::new(channel.clone());
    let ids = leases
        .lease_leases(pb::LeaseLeasesRequest {})
        .await
        .expect("leases");
    let mut seen_leases = Vec::new();
    for lease in ids.into_inner().leases {
        let request = pb::LeaseTimeToLiveRequest {
            id: lease.id,
            keys: true,
        };
        let told = leases.lease_time_to_live(request).await.expect("lease");
        let told = told.into_inner();
        let keys = told.keys.iter().map(|k| String::from_utf8_lossy(k).into());
        seen_leases.push((told.id, told.granted_ttl, keys.collect()));
    }
    let mut auth = AuthClient::new(channel);
    let (mut users, mut roles) = (Vec::new(), Vec::new());
    let names = auth.user_list(pb::AuthUserListRequest {}).await;
    for name in names.expect("users").into_inner().users {
        let request = pb::AuthUserGetRequest { name: name.clone() };
        let user = auth.user_get(request).await.expect("user").into_inner();
        users.push((name, user.roles));
    }
    let names = auth.role_list(pb::AuthRoleListRequest {}).await;
    for role in names.expect("roles").into_inner().roles {
        let request = pb::AuthRoleGetRequest { role: role.clone() };
        let told = auth.role_get(request).await.expect("role").into_inner();
        // Of the role that may do everything, 3.4 shows nothing.
        let shown = if role == "root" {
            Vec::new()
        } else {
            told.perm
        };
        roles.push((role, shown));
    }
    Seen {
        revision,
        ranges,
        leases: seen_leases,
        users,
        roles,
    }
}

/// Thousands of pairs differ unreadably: the first that does is told.
fn same(got: &Seen, expected: &Seen, what: &str) {
    for ((at, got), (_, expected)) in got.ranges.iter().zip(&expected.ranges) {
        for (got, expected) in got.iter().zip(expected) {
            assert_eq!(got, expected, "{what}, at {at}");
        }
        assert_eq!(got.len(), expected.len(), "{what}, pairs at {at}");
    }
    assert_eq!(got.revision, expected.revision, "{what}");
    assert_eq!(got.leases, expected.leases, "{what}");
    assert_eq!(got.users, expected.users, "{what}");
    assert_eq!(got.roles, expected.roles, "{what}");
}

fn seen(url: &str) -> anyhow::Result<Seen> {
    Ok(runtime().block_on(look(channel(url)?)))
}

fn hash_kv(url: &str, revision: i64) -> anyhow::Result<u32> {
    let mut client = MaintenanceClient::new(channel(url)?);
    let request = pb::HashKvRequest { revision };
    Ok(runtime()
        .block_on(client.hash_kv(request))?
        .into_inner()
        .hash)
}

fn told(program: impl AsRef<std::ffi::OsStr>, args: &[&str], file: &Path) -> anyhow::Result<Value> {
    let mut command = Command::new(program);
    command.env("ETCDCTL_API", "3").args(args).arg(file);
    let output = run(&mut command, "")?.ok()?;
    serde_json::from_str(&output).with_context(|| output.clone())
}

fn save(etcdctl: impl AsRef<std::ffi::OsStr>, url: &str, file: &Path) -> anyhow::Result<()> {
    let endpoint = url.trim_start_matches("http://");
    let mut command = Command::new(etcdctl);
    command.env("ETCDCTL_API", "3");
    command.args(["--endpoints", endpoint, "snapshot", "save"]);
    run(command.arg(file), "")?.ok()?;
    Ok(())
}

/// `configctl cluster snapshot restore` for a member on this port.
fn restore(file: &Path, data_dir: &Path, peer_port: u16, more: &[&str]) -> anyhow::Result<Output> {
    let peer = format!("http://127.0.0.1:{peer_port}");
    let mut command = Command::new(binaries::program("configctl")?);
    command.args(["cluster", "snapshot", "restore"]).arg(file);
    command.arg("--data-dir").arg(data_dir).args(more);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    command.args(["--initial-advertise-peer-urls", &peer]);
    run(&mut command, "")
}

/// A config-center that goes on from a snapshot.
struct Restored {
    _process: Process,
    url: String,
}

fn center_from(file: &Path, folder: &Path, name: &str, more: &[&str]) -> anyhow::Result<Restored> {
    let (client_port, peer_port) = (ports::free_port(), ports::free_port());
    let data_dir = folder.join(name);
    restore(file, &data_dir, peer_port, more)?.ok()?;
    let command = center::command(&data_dir, client_port, peer_port)?;
    let log = folder.join(format!("{name}.log"));
    let mut process = Process::spawn("config-center", command, &log)?;
    wait_until("the restored member to be healthy", DEADLINE, || {
        assert!(process.is_running(), "{}", process.log_text());
        center::http_get(client_port, "/health").filter(|a| a.contains("\"true\""))
    })?;
    Ok(Restored {
        _process: process,
        url: format!("http://127.0.0.1:{client_port}"),
    })
}

#[test]
fn a_snapshot_goes_to_etcd_and_back() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let folder = work.path();
    let center = Center::start(folder)?;
    let oracle = Peer::start(folder, &[])?;
    for url in [&center.url(), &oracle.url] {
        runtime().block_on(write_everything(channel(url)?));
    }
    let expected = seen(&center.url())?;
    same(&expected, &seen(&oracle.url)?, "before anything is saved");

    let (etcdctl, etcdutl) = (newest_etcdctl()?, program("3.7", "etcdutl")?);
    let (old, new) = (folder.join("by-3.4.db"), folder.join("by-3.7.db"));
    save("etcdctl", &center.url(), &old)?;
    save(&etcdctl, &center.url(), &new)?;
    what_is_in_it(&etcdutl, &[&old, &new], expected.revision)?;

    for (release, file) in [("3.4", &old), ("3.7", &new)] {
        let etcd = Peer::restore(release, folder, file)?;
        same(
            &seen(&etcd.url)?,
            &expected,
            &format!("etcd {release} from ours"),
        );
        if release == "3.7" {
            // Its digest covers every byte of the pairs: ours are the ones that it writes itself.
            for revision in [700, 1_000, expected.revision] {
                let (ours, its) = (
                    hash_kv(&etcd.url, revision)?,
                    hash_kv(&oracle.url, revision)?,
                );
                assert_eq!(ours, its, "at {revision}");
            }
        }
        let back = folder.join(format!("back-from-{release}.db"));
        save(&etcdctl, &etcd.url, &back)?;
        let again = center_from(&back, folder, &format!("again-{release}"), &[])?;
        same(
            &seen(&again.url)?,
            &expected,
            &format!("ours from etcd {release}"),
        );
        for revision in [700, 1_000, expected.revision] {
            let (before, after) = (
                hash_kv(&center.url(), revision)?,
                hash_kv(&again.url, revision)?,
            );
            assert_eq!(before, after, "etcd {release}, at {revision}");
        }
        it_goes_on(&etcd.url, "etcd", expected.revision)?;
        it_goes_on(&again.url, "config-center", expected.revision)?;
        etcd.stop()?;
        database_of_a_member(&etcd.database(), folder, release)?;
    }
    Ok(())
}

/// The status that every tool shows is the same.
fn what_is_in_it(etcdutl: &Path, files: &[&PathBuf], revision: i64) -> anyhow::Result<()> {
    for file in files {
        let status = ["snapshot", "status", "-w", "json"];
        let by_34 = told("etcdctl", &status, file)?;
        let by_37 = told(etcdutl, &status, file)?;
        let configctl = binaries::program("configctl")?;
        let ours = told(
            configctl,
            &["-o", "json", "cluster", "snapshot", "status"],
            file,
        )?;
        assert_eq!(by_34["revision"], revision);
        assert_eq!(by_37["revision"], revision);
        assert_eq!(ours["revision"], revision);
        assert_eq!(by_34["hash"], by_37["hash"]);
        let hash = by_37["hash"].as_u64().context("a hash")?;
        assert_eq!(ours["hash"], format!("{hash:08x}"));
        for field in ["totalSize", "version"] {
            assert_eq!(ours[field], by_37[field], "{field}");
        }
        assert_eq!(ours["totalKeys"], by_37["totalKey"]);
    }
    Ok(())
}

/// Writes find the next revision, and passwords still open the door.
fn it_goes_on(url: &str, who: &str, revision: i64) -> anyhow::Result<()> {
    let store = e2e::Store::new(url)?;
    assert_eq!(store.put("next", who)?, revision + 1, "{who}");
    let channel = channel(url)?;
    runtime().block_on(async {
        let mut auth = AuthClient::new(channel);
        auth.auth_enable(pb::AuthEnableRequest {}).await?;
        let login = |name: &str| pb::AuthenticateRequest {
            name: name.to_owned(),
            password: format!("{name}'s password"),
        };
        for name in ["root", "alice"] {
            auth.authenticate(login(name)).await?;
        }
        anyhow::Ok(())
    })
}

/// The file of a stopped member has no digest, and everything that it has applied; users are on.
fn database_of_a_member(database: &Path, folder: &Path, release: &str) -> anyhow::Result<()> {
    let refused = restore(database, &folder.join("never"), 1, &[])?;
    assert!(refused.stderr.contains("--skip-hash-check"), "{refused:?}");
    assert!(!folder.join("never").exists());
    let name = format!("moved-{release}");
    let moved = center_from(database, folder, &name, &["--skip-hash-check"])?;
    let etcdctl = newest_etcdctl()?;
    let get = |user: &str, key: &str| {
        let mut command = Command::new(&etcdctl);
        command.args(["--endpoints", &moved.url, "--user"]);
        command.arg(format!("{user}:{user}'s password"));
        run(command.args(["get", "--print-value-only", key]), "")
    };
    assert_eq!(get("root", "next")?.ok()?.trim(), "etcd");
    assert_eq!(get("alice", "k0899")?.ok()?.trim(), "v".repeat(899 % 70));
    let denied = get("alice", "next")?;
    assert!(denied.stderr.contains("permission denied"), "{denied:?}");
    Ok(())
}

/// A snapshot of each release of etcd, and etcdutl's own way to raise the revision.
#[test]
fn an_etcd_moves_over() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let folder = work.path();
    for (release, etcd) in [
        ("3.4", Peer::start_3_4(folder, &[])?),
        ("3.7", Peer::start(folder, &[])?),
    ] {
        runtime().block_on(write_everything(channel(&etcd.url)?));
        let expected = seen(&etcd.url)?;
        let file = folder.join(format!("{release}.db"));
        save(program(release, "etcdctl")?, &etcd.url, &file)?;
        let ours = center_from(&file, folder, &format!("from-{release}"), &[])?;
        same(
            &seen(&ours.url)?,
            &expected,
            &format!("from etcd {release}"),
        );
        let bump = ["--bump-revision", "1000000", "--mark-compacted"];
        let bumped = center_from(&file, folder, &format!("bumped-{release}"), &bump)?;
        let store = e2e::Store::new(&bumped.url)?;
        let (pairs, revision) = store.get_from("\0")?;
        assert_eq!(revision, expected.revision + 1_000_000);
        assert_eq!(pairs, expected.ranges[0].1);
        binaries_are_swapped(&etcd, &file, folder, release)?;
    }
    let alone = restore(
        &folder.join("3.7.db"),
        &folder.join("x"),
        1,
        &["--mark-compacted"],
    )?;
    assert_ne!(alone.code, Some(0));
    assert!(alone.stderr.contains("--bump-revision"), "{alone:?}");
    Ok(())
}

/// Every member from the same file, and one that is added later is sent a copy.
#[test]
fn three_members_come_from_one_snapshot() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let folder = work.path();
    let etcd = Peer::start(folder, &[])?;
    runtime().block_on(write_everything(channel(&etcd.url)?));
    let expected = seen(&etcd.url)?;
    let file = folder.join("saved.db");
    save(newest_etcdctl()?, &etcd.url, &file)?;
    let mut cluster = Cluster::restore(folder, 3, &file)?;
    let url = |seat: &Seat| format!("http://127.0.0.1:{}", seat.client_port);
    for seat in &cluster.seats {
        same(&seen(&url(seat))?, &expected, &seat.name);
    }
    let revision = cluster.seats[1].store()?.put("next", "x")?;
    assert_eq!(revision, expected.revision + 1);
    cluster.grow(0)?;
    cluster.wait_healthy()?;
    let hash = hash_kv(&url(&cluster.seats[0]), revision)?;
    for seat in &cluster.seats {
        // A read through the member brings it up to date.
        assert!(seat.store()?.get("next")?.is_some(), "{}", seat.name);
        assert_eq!(hash_kv(&url(seat), revision)?, hash, "{}", seat.name);
    }
    Ok(())
}

/// config-center starts on the folder that etcd has left, as the member that etcd was.
fn binaries_are_swapped(
    etcd: &Peer,
    earlier: &Path,
    folder: &Path,
    release: &str,
) -> anyhow::Result<()> {
    e2e::Store::new(&etcd.url)?.put("late", "but there")?;
    let expected = seen(&etcd.url)?;
    let member_id = member_id(&etcd.url)?;
    let start = |data_dir: &Path| {
        let port = ports::free_port();
        let command = center::command(data_dir, port, ports::free_port())?;
        let log = folder.join(format!("swapped-{release}-{port}.log"));
        anyhow::Ok((Process::spawn("config-center", command, &log)?, port))
    };
    // Not under a running etcd.
    let (mut process, _) = start(&etcd.data_dir())?;
    assert!(!process.wait_exit(DEADLINE)?.success());
    assert!(process.log_text().contains("held by another process"));
    etcd.stop()?;

    // A database that has not seen all of its log is not everything.
    let behind = folder.join(format!("behind-{release}"));
    copy_folder(&etcd.data_dir(), &behind)?;
    let mut database = fs::read(earlier)?;
    database.truncate(database.len() - 32);
    fs::write(behind.join("member/snap/db"), database)?;
    let (mut process, _) = start(&behind)?;
    assert!(!process.wait_exit(DEADLINE)?.success());
    let text = process.log_text();
    assert!(
        text.contains("its write-ahead log goes on to entry"),
        "{text}"
    );

    for _ in 0..2 {
        let (mut process, port) = start(&etcd.data_dir())?;
        wait_until("the swapped member to be healthy", DEADLINE, || {
            assert!(process.is_running(), "{}", process.log_text());
            center::http_get(port, "/health").filter(|a| a.contains("\"true\""))
        })?;
        let url = format!("http://127.0.0.1:{port}");
        same(
            &seen(&url)?,
            &expected,
            &format!("swapped for etcd {release}"),
        );
        assert_eq!(self::member_id(&url)?, member_id);
        process.terminate()?;
    }
    Ok(())
}

fn member_id(url: &str) -> anyhow::Result<u64> {
    let mut client = MaintenanceClient::new(channel(url)?);
    let status = runtime().block_on(client.status(pb::StatusRequest {}))?;
    Ok(status.into_inner().header.context("a header")?.member_id)
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
