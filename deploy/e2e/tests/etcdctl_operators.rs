//! What operators do with etcdctl, of both releases, against config-center and against etcd 3.7.1: users
//! and roles, members and endpoints, alarms, checks, locks, elections, snapshots and mirrors. The same
//! is said by both, ids, sizes and times aside.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::peer::newest_etcdctl;
use e2e::process::Process;
use e2e::script::{Session, Step, behind_progress, differences};
use e2e::tools::run;
use e2e::{Center, DEADLINE, Peer, Store, wait_until};

use Step::{Follow, Grant, Run, Shape};

/// Members, endpoints and what keeps a store well.
const MAINTENANCE: &[Step] = &[
    Run(&["member", "list", "-w", "json"], ""),
    Shape(&["member", "list"]),
    Shape(&["member", "list", "-w", "fields"]),
    Shape(&["member", "list", "-w", "table"]),
    Run(&["member", "remove", "1234"], ""),
    Run(&["member", "remove", "not hex"], ""),
    Run(
        &["member", "update", "1234", "--peer-urls=http://127.0.0.1:1"],
        "",
    ),
    Run(&["member", "add", "x", "--peer-urls=no url"], ""),
    Run(&["member", "add", "x"], ""),
    Run(&["member", "promote", "1234"], ""),
    Run(&["put", "a", "1"], ""),
    Run(&["put", "a", "2"], ""),
    Run(&["put", "b", "3"], ""),
    Shape(&["endpoint", "status"]),
    Shape(&["endpoint", "status", "-w", "table"]),
    Shape(&["endpoint", "status", "-w", "fields"]),
    Shape(&["endpoint", "status", "--cluster", "-w", "table"]),
    Shape(&["endpoint", "health"]),
    Shape(&["endpoint", "health", "-w", "json"]),
    Shape(&["endpoint", "health", "-w", "table"]),
    Shape(&["endpoint", "health", "--cluster"]),
    Shape(&["endpoint", "hashkv"]),
    Shape(&["endpoint", "hashkv", "-w", "table"]),
    Shape(&["endpoint", "hashkv", "-w", "fields"]),
    Shape(&["endpoint", "hashkv", "-w", "json"]),
    Run(&["alarm", "list"], ""),
    Run(&["alarm", "list", "-w", "json"], ""),
    Run(&["alarm", "disarm"], ""),
    Run(&["compaction", "3"], ""),
    Run(&["compaction", "3"], ""),
    Run(&["compaction", "4000"], ""),
    Run(&["compaction", "4", "--physical"], ""),
    Run(&["compaction"], ""),
    Run(&["compaction", "x"], ""),
    Shape(&["defrag"]),
    Shape(&["defrag", "--cluster"]),
    Shape(&["snapshot", "save", "{dir}/saved.db"]),
    Run(&["snapshot", "save"], ""),
    Run(&["move-leader", "1234"], ""),
    Run(&["move-leader"], ""),
    Shape(&[
        "check",
        "datascale",
        "--load=s",
        "--auto-compact",
        "--auto-defrag",
    ]),
    Run(&["check", "datascale", "--load=unknown"], ""),
    Run(&["check", "perf", "--load=unknown"], ""),
    Run(&["get", "", "--prefix", "--keys-only", "-w", "json"], ""),
];

/// What only 3.7 has.
const NEWEST: &[Step] = &[
    Run(&["downgrade", "validate", "nonsense"], ""),
    Run(&["downgrade", "validate", "3.0"], ""),
    Run(&["downgrade", "enable", "9.9"], ""),
    Run(&["downgrade"], ""),
    Run(&["auth", "status"], ""),
    Run(&["auth", "status", "-w", "json"], ""),
    Run(&["auth", "status", "-w", "fields"], ""),
    Run(&["get", "a", "--min-mod-rev=3"], ""),
    Run(&["get", "a", "b", "--max-create-rev=2", "-w", "json"], ""),
    Run(&["put", "a", "1", "-w", "fields"], ""),
];

/// What only 3.4 has: later releases have `etcdutl` for it.
const OLDEST: &[Step] = &[
    Shape(&["snapshot", "status", "{dir}/saved.db"]),
    Shape(&["snapshot", "status", "{dir}/saved.db", "-w", "table"]),
    Shape(&["snapshot", "status", "{dir}/saved.db", "-w", "json"]),
    Run(&["snapshot", "status", "{dir}/missing.db"], ""),
    Shape(&[
        "snapshot",
        "restore",
        "{dir}/saved.db",
        "--data-dir={dir}/new",
    ]),
    Run(
        &[
            "snapshot",
            "restore",
            "{dir}/saved.db",
            "--data-dir={dir}/new",
        ],
        "",
    ),
];

/// Leases, locks, elections and transactions by hand.
const RECIPES: &[Step] = &[
    Run(&["lease", "list"], ""),
    Grant("one", "600"),
    Run(&["lease", "list"], ""),
    Shape(&["lease", "list", "-w", "json"]),
    Shape(&["lease", "grant", "60", "-w", "json"]),
    Shape(&["lease", "timetolive", "{one}", "-w", "json"]),
    Run(&["put", "leased", "x", "--lease={one}"], ""),
    Shape(&["lease", "timetolive", "{one}", "--keys", "-w", "json"]),
    Shape(&["lease", "timetolive", "{one}", "--keys", "-w", "fields"]),
    Run(&["lease", "keep-alive", "--once", "{one}"], ""),
    Run(&["lease", "keep-alive", "not hex"], ""),
    Run(&["lease", "revoke", "{one}"], ""),
    Run(&["get", "leased"], ""),
    Run(&["lock", "name", "echo", "held"], ""),
    Run(
        &[
            "lock",
            "name",
            "sh",
            "-c",
            "echo $ETCD_LOCK_REV | wc -w; exit 3",
        ],
        "",
    ),
    Run(&["lock"], ""),
    Follow {
        args: &["lock", "held"],
        lines: 1,
        then: &["get", "held", "--prefix", "--keys-only"],
        more: 0,
    },
    Follow {
        args: &["elect", "office", "me"],
        lines: 2,
        then: &["get", "office", "--prefix", "--print-value-only"],
        more: 0,
    },
    Run(&["elect", "office"], ""),
    Run(&["elect"], ""),
    Run(
        &["txn", "--interactive"],
        "ver(\"leased\") = \"0\"\n\nput leased again\nget leased\n\nget leased\n\n",
    ),
    Run(&["txn", "-i"], "ver(\"leased\") = 0\n\n\n\n"),
    Run(
        &["txn", "-i"],
        "mod(\"leased\") < \"2\"\n\nget leased\n\ndel leased --prev-kv\n\n",
    ),
    Run(&["txn", "-i", "-w", "fields"], "\n\nput x 1\n\n\n"),
    Run(&["txn"], "nonsense\n\n\n\n"),
    Run(&["txn"], "mod(\"a\") > \"x\"\n\n\n\n"),
    Run(&["watch", "-i"], "nonsense\n"),
    Run(&["watch"], ""),
];

/// Users, roles and what they may do.
const USERS: &[Step] = &[
    Run(&["user", "list"], ""),
    Run(&["role", "list"], ""),
    Run(&["auth", "enable"], ""),
    Run(&["user", "add", "root:secret"], ""),
    Run(&["user", "add", "root:secret"], ""),
    Run(&["user", "add", ":"], ""),
    Run(&["user", "add", "alice", "--interactive=false"], "alices\n"),
    Run(&["user", "add", "carol", "--no-password"], ""),
    Run(&["user", "add"], ""),
    Run(&["user", "list"], ""),
    Run(&["user", "list", "-w", "json"], ""),
    Run(&["user", "get", "nobody"], ""),
    Run(&["user", "get", "alice"], ""),
    Run(&["user", "grant-role", "alice", "reader"], ""),
    Run(&["user", "grant-role", "nobody", "root"], ""),
    Run(&["role", "add", "reader"], ""),
    Run(&["role", "add", "reader"], ""),
    Run(&["role", "add", "writer"], ""),
    Run(&["role", "add"], ""),
    Run(&["role", "get", "reader"], ""),
    Run(&["role", "get", "nothing"], ""),
    Run(
        &[
            "role",
            "grant-permission",
            "reader",
            "read",
            "k",
            "--prefix",
        ],
        "",
    ),
    Run(
        &["role", "grant-permission", "reader", "read", "a", "c"],
        "",
    ),
    Run(
        &["role", "grant-permission", "reader", "readwrite", "own"],
        "",
    ),
    Run(
        &[
            "role",
            "grant-permission",
            "writer",
            "write",
            "k",
            "--from-key",
        ],
        "",
    ),
    Run(
        &["role", "grant-permission", "writer", "write", "z", "b"],
        "",
    ),
    Run(
        &["role", "grant-permission", "writer", "everything", "k"],
        "",
    ),
    Run(&["role", "grant-permission", "nothing", "read", "k"], ""),
    Run(
        &["role", "grant-permission", "writer", "read", "", "--prefix"],
        "",
    ),
    Run(&["role", "get", "reader"], ""),
    Run(&["role", "get", "writer"], ""),
    Run(&["role", "get", "reader", "-w", "json"], ""),
    Run(
        &["role", "revoke-permission", "writer", "k", "--from-key"],
        "",
    ),
    Run(
        &["role", "revoke-permission", "writer", "k", "--from-key"],
        "",
    ),
    Run(&["role", "grant-permission", "writer", "write", "k1"], ""),
    Run(&["role", "list"], ""),
    Run(&["user", "grant-role", "alice", "reader"], ""),
    Run(&["user", "grant-role", "alice", "reader"], ""),
    Run(&["user", "grant-role", "carol", "writer"], ""),
    Run(&["user", "get", "alice", "--detail"], ""),
    Run(&["user", "get", "alice", "-w", "json"], ""),
    Run(&["user", "get", "carol", "--detail"], ""),
    Run(&["user", "revoke-role", "alice", "writer"], ""),
    Run(&["put", "k1", "one"], ""),
    Run(&["put", "z", "last"], ""),
    Run(&["auth", "enable"], ""),
    Run(&["user", "grant-role", "root", "root"], ""),
    Run(&["auth", "enable"], ""),
    // From here on a name is needed.
    Run(&["auth", "enable"], ""),
    Run(&["get", "k1"], ""),
    Run(&["put", "k1", "x"], ""),
    Run(&["user", "list"], ""),
    Run(&["get", "k1", "--user=root:secret"], ""),
    Run(&["get", "k1", "--user=root:wrong"], ""),
    Run(&["get", "k1", "--user=nobody:x"], ""),
    Run(&["get", "k1", "--user=carol:x"], ""),
    Run(&["get", "k1", "--user=alice:alices"], ""),
    Run(&["get", "k", "--prefix", "--user=alice:alices"], ""),
    Run(&["get", "z", "--user=alice:alices"], ""),
    Run(&["get", "", "--prefix", "--user=alice:alices"], ""),
    Run(&["put", "k1", "x", "--user=alice:alices"], ""),
    Run(&["put", "own", "x", "--user=alice:alices"], ""),
    Run(&["del", "own", "--prev-kv", "--user=alice:alices"], ""),
    Run(&["del", "k1", "--user=alice:alices"], ""),
    Run(
        &["txn", "--user=alice:alices"],
        "mod(\"k1\") > \"0\"\n\nget k1\n\nput z x\n\n",
    ),
    Run(
        &["txn", "--user=alice:alices"],
        "mod(\"k1\") > \"0\"\n\nget k1\nput own y\n\nget own\n\n",
    ),
    Run(&["watch", "z", "--user=alice:alices"], ""),
    Follow {
        args: &["watch", "k1", "--rev=1", "--user=alice:alices"],
        lines: 3,
        then: &["put", "k1", "seen", "--user=root:secret"],
        more: 3,
    },
    Run(&["user", "list", "--user=alice:alices"], ""),
    Run(&["user", "get", "alice", "--user=alice:alices"], ""),
    Run(&["user", "get", "root", "--user=alice:alices"], ""),
    Run(&["role", "get", "reader", "--user=alice:alices"], ""),
    Run(&["role", "get", "writer", "--user=alice:alices"], ""),
    Run(&["role", "add", "x", "--user=alice:alices"], ""),
    Run(&["compaction", "2", "--user=alice:alices"], ""),
    Run(
        &["snapshot", "save", "{dir}/denied.db", "--user=alice:alices"],
        "",
    ),
    Run(&["alarm", "disarm", "--user=alice:alices"], ""),
    Run(
        &[
            "lease",
            "grant",
            "60",
            "--user=alice:alices",
            "-w",
            "nonsense",
        ],
        "",
    ),
    Shape(&["lease", "grant", "60", "--user=alice:alices"]),
    Run(&["auth", "disable", "--user=alice:alices"], ""),
    Run(
        &[
            "user",
            "passwd",
            "alice",
            "--interactive=false",
            "--user=root:secret",
        ],
        "other\n",
    ),
    Run(&["get", "k1", "--user=alice:alices"], ""),
    Run(&["get", "k1", "--user=alice:other"], ""),
    Run(&["user", "delete", "root", "--user=root:secret"], ""),
    Run(
        &["user", "revoke-role", "root", "root", "--user=root:secret"],
        "",
    ),
    Run(&["role", "delete", "root", "--user=root:secret"], ""),
    Run(&["role", "delete", "reader", "--user=root:secret"], ""),
    Run(&["role", "delete", "reader", "--user=root:secret"], ""),
    Run(&["get", "k1", "--user=alice:other"], ""),
    Run(&["user", "delete", "alice", "--user=root:secret"], ""),
    Run(&["user", "delete", "alice", "--user=root:secret"], ""),
    Run(&["role", "get", "root", "--user=root:secret"], ""),
    Run(
        &["user", "get", "root", "--detail", "--user=root:secret"],
        "",
    ),
    Run(&["auth", "disable", "--user=root:secret"], ""),
    Run(&["auth", "disable"], ""),
    Run(&["get", "k1"], ""),
];

/// Both stores, and the etcdctl that speaks to them.
struct Stand {
    work: tempfile::TempDir,
    center: Center,
    etcd: Peer,
    etcdctl: PathBuf,
}

impl Stand {
    fn new(etcdctl: PathBuf) -> anyhow::Result<Self> {
        let work = tempfile::tempdir()?;
        Ok(Self {
            center: Center::start(work.path())?,
            etcd: Peer::start(work.path(), &[])?,
            etcdctl,
            work,
        })
    }

    fn play(&self, scripts: &[&[Step]]) -> anyhow::Result<()> {
        let session = |name, port| Session::new(&self.etcdctl, self.work.path(), name, port);
        let mut oracle = session(("oracle", "peer"), self.etcd.client_port()?)?;
        let mut ours = session(("ours", "default"), self.center.client_port)?;
        let mut told = String::new();
        for script in scripts {
            told.push_str(&differences(script, &mut oracle, &mut ours)?);
        }
        assert!(told.is_empty(), "{told}");
        Ok(())
    }
}

fn oldest_etcdctl() -> PathBuf {
    PathBuf::from("etcdctl")
}

#[test]
fn maintenance_with_the_newest_etcdctl() -> anyhow::Result<()> {
    Stand::new(newest_etcdctl()?)?.play(&[MAINTENANCE, NEWEST])
}

#[test]
fn maintenance_with_the_oldest_etcdctl() -> anyhow::Result<()> {
    Stand::new(oldest_etcdctl())?.play(&[MAINTENANCE, OLDEST])
}

#[test]
fn recipes_and_users_with_the_newest_etcdctl() -> anyhow::Result<()> {
    Stand::new(newest_etcdctl()?)?.play(&[RECIPES, USERS])
}

#[test]
fn recipes_and_users_with_the_oldest_etcdctl() -> anyhow::Result<()> {
    Stand::new(oldest_etcdctl())?.play(&[RECIPES, USERS])
}

/// Takes a minute by itself, at 150 puts a second: what it says of the store, not how much.
#[test]
fn a_performance_check_says_the_same() -> anyhow::Result<()> {
    let stand = Stand::new(newest_etcdctl()?)?;
    let check = |url: String| {
        let mut command = Command::new(&stand.etcdctl);
        command.args(["--endpoints", &url, "check", "perf", "--load=s"]);
        std::thread::spawn(move || run(&mut command, ""))
    };
    let both = [check(stand.center.url()), check(stand.etcd.url.clone())];
    let mut told = Vec::new();
    for checking in both {
        let output = checking.join().expect("etcdctl runs")?;
        // Whether a check is passed depends on the machine; which checks there are does not.
        let checks = output.stdout.lines().map(behind_progress).map(|line| {
            let line = line.strip_prefix("PASS: ").unwrap_or(line);
            let line = line.strip_prefix("FAIL: ").unwrap_or(line);
            match line.split(' ').next() {
                Some("PASS" | "FAIL") => "verdict".to_owned(),
                word => word.unwrap_or_default().to_owned(),
            }
        });
        told.push(checks.collect::<Vec<_>>());
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], ["Throughput", "Slowest", "Stddev", "verdict"]);
    Ok(())
}

/// `make-mirror` from either store into the other: what is there before, and what comes and goes later.
#[test]
fn mirrors_go_both_ways() -> anyhow::Result<()> {
    let stand = Stand::new(newest_etcdctl()?)?;
    for etcdctl in [newest_etcdctl()?, oldest_etcdctl()] {
        let urls = [stand.center.url(), stand.etcd.url.clone()];
        for (from, into) in [(&urls[0], &urls[1]), (&urls[1], &urls[0])] {
            mirror(&stand, &etcdctl, from, into)?;
        }
    }
    Ok(())
}

fn mirror(stand: &Stand, etcdctl: &Path, from: &str, into: &str) -> anyhow::Result<()> {
    let (source, target) = (Store::new(from)?, Store::new(into)?);
    let label = format!("{}-{}", etcdctl.display(), from.len()).replace('/', "_");
    let prefix = format!(
        "source-{}-{label}/",
        from.rsplit(':').next().unwrap_or_default()
    );
    let copied = format!("copy-of-{prefix}");
    for n in 0..30 {
        source.put(&format!("{prefix}{n:02}"), format!("value {n}"))?;
    }
    let bare = |url: &str| url.trim_start_matches("http://").to_owned();
    let mut command = Command::new(etcdctl);
    if etcdctl == Path::new("etcdctl") {
        command.env("ETCDCTL_API", "3");
    }
    command.args(["--endpoints", &bare(from), "make-mirror"]);
    command.args(["--prefix", &prefix, "--dest-prefix", &copied, &bare(into)]);
    let log = stand
        .work
        .path()
        .join(format!("mirror-{prefix}.log").replace('/', "-"));
    let mirroring = Process::spawn("etcdctl make-mirror", command, &log)?;
    let same = || {
        let pairs = |store: &Store, prefix: &str| -> Option<Vec<(String, Vec<u8>)>> {
            let (pairs, _) = store.get_from(prefix).ok()?;
            let own = pairs.into_iter().filter_map(|pair| {
                let key = String::from_utf8_lossy(&pair.key).into_owned();
                let name = key.strip_prefix(prefix)?.to_owned();
                Some((name, pair.value.to_vec()))
            });
            Some(own.collect())
        };
        let (wanted, got) = (pairs(&source, &prefix)?, pairs(&target, &copied)?);
        (wanted == got && !wanted.is_empty()).then_some(())
    };
    wait_until("the mirror to hold what was there", DEADLINE, same)?;
    source.put(&format!("{prefix}later"), "x")?;
    source.put(&format!("{prefix}00"), "changed")?;
    source.delete(&format!("{prefix}01"))?;
    wait_until("the mirror to follow", DEADLINE, same)?;
    drop(mirroring);
    Ok(())
}
