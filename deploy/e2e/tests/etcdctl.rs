//! The same script of etcdctl commands against config-center and against a real etcd: exit code,
//! standard output and standard error must be equal, once ids, sizes and versions are masked.

use std::path::Path;

use e2e::Center;
use e2e::script::{Session, Step, differences};
use e2e::tools::Etcd;

use Step::{Follow, Grant, Run};

const SCRIPT: &[Step] = &[
    // Put and get.
    Run(&["get", "a"], ""),
    Run(&["put", "a", "1"], ""),
    Run(&["put", "a", "2", "--prev-kv"], ""),
    Run(&["put", "b", "--prev-kv"], "value from stdin\n"),
    Run(&["put", "new", "x", "--prev-kv"], ""),
    Run(&["get", "a", "-w", "json"], ""),
    Run(&["get", "a", "-w", "fields"], ""),
    Run(&["get", "a", "--print-value-only"], ""),
    Run(&["get", "missing", "-w", "json"], ""),
    Run(&["put", "", "empty key"], ""),
    Run(&["get", ""], ""),
    Run(&["put", "a", "x", "--ignore-value"], ""),
    Run(&["put", "a", "--ignore-value"], ""),
    Run(&["put", "absent", "--ignore-value"], ""),
    Run(&["put", "absent", "x", "--ignore-lease"], ""),
    Run(&["put", "a", "x", "--lease=7777"], ""),
    // The keys of the job.
    Run(
        &[
            "put",
            "/ningxin/backend/logagent/config/192.168.56.1",
            "[{\"path\":\"/var/log/nginx/access.log\",\"topic\":\"nginx_log\"}]",
        ],
        "",
    ),
    Run(
        &["put", "/ningxin/backend/logagent/config/192.168.56.2", "[]"],
        "",
    ),
    Run(&["put", "/logagent/conf/", "sample_value"], ""),
    Run(
        &["get", "--prefix", "/ningxin/backend/logagent/config/"],
        "",
    ),
    Run(&["get", "--prefix", "/ningxin/", "--keys-only"], ""),
    Run(&["get", "--prefix", "/ningxin/", "--count-only"], ""),
    Run(
        &["get", "--prefix", "/ningxin/", "--count-only", "-w", "json"],
        "",
    ),
    Run(&["get", "/logagent/conf/", "-w", "json"], ""),
    // Ranges, order, limits, old revisions.
    Run(&["put", "k1", "3"], ""),
    Run(&["put", "k3", "2"], ""),
    Run(&["put", "k2", "1"], ""),
    Run(&["put", "k1", "33"], ""),
    Run(&["get", "k1", "k3"], ""),
    Run(&["get", "k3", "k1"], ""),
    Run(&["get", "k2", "--from-key"], ""),
    Run(&["get", "", "--prefix", "-w", "json"], ""),
    Run(&["get", "k", "--prefix", "--limit=2", "-w", "json"], ""),
    Run(
        &["get", "k", "--prefix", "--sort-by=VALUE", "--order=DESCEND"],
        "",
    ),
    Run(&["get", "k", "--prefix", "--sort-by=MODIFY"], ""),
    Run(
        &[
            "get",
            "k",
            "--prefix",
            "--sort-by=CREATE",
            "--order=DESCEND",
        ],
        "",
    ),
    Run(
        &[
            "get",
            "k",
            "--prefix",
            "--sort-by=VERSION",
            "--order=ASCEND",
        ],
        "",
    ),
    Run(
        &[
            "get",
            "k",
            "--prefix",
            "--sort-by=KEY",
            "--order=DESCEND",
            "--limit=1",
            "-w",
            "json",
        ],
        "",
    ),
    Run(&["get", "a", "--rev=2"], ""),
    Run(&["get", "a", "--rev=2", "-w", "json"], ""),
    Run(&["get", "a", "--rev=1000"], ""),
    Run(&["get", "k", "--prefix", "--consistency=s"], ""),
    Run(&["get", "a", "--hex"], ""),
    // Delete.
    Run(&["del", "missing"], ""),
    Run(&["del", "new", "--prev-kv"], ""),
    Run(&["get", "new", "--rev=4"], ""),
    Run(&["put", "d1", "1"], ""),
    Run(&["put", "d2", "2"], ""),
    Run(&["put", "d3", "3"], ""),
    Run(&["del", "d1", "d3"], ""),
    Run(&["del", "d", "--prefix", "--prev-kv"], ""),
    Run(&["put", "z1", "1"], ""),
    Run(&["del", "z", "--from-key", "-w", "json"], ""),
    Run(&["put", "new", "again"], ""),
    Run(&["get", "new", "-w", "json"], ""),
    // Txn.
    Run(
        &["txn"],
        "mod(\"a\") > \"0\"\n\nput t1 yes\nget a\n\nput t1 no\n\n",
    ),
    Run(
        &["txn"],
        "value(\"a\") = \"wrong\"\n\nput t1 yes\n\nput t1 no\nget t1\ndel t1\n\n",
    ),
    Run(
        &["txn", "-w", "json"],
        "ver(\"nothing\") = \"0\"\n\nput t2 made\nget t2\n\n\n",
    ),
    Run(
        &["txn"],
        "val(\"nothing\") != \"x\"\n\nput t3 yes\n\nput t3 no\n\n",
    ),
    Run(
        &["txn"],
        "create(\"t2\") < \"1\"\nver(\"a\") = \"2\"\n\n\nget t3\n\n",
    ),
    Run(
        &["txn", "-w", "json"],
        "mod(\"a\") < \"1000\"\n\nget a\nget k --prefix\n\n\n",
    ),
    Run(&["txn"], "\n\nput dup 1\nput dup 2\n\n\n"),
    Run(&["txn"], "\n\nput dup 1\ndel dup\n\n\n"),
    Run(&["txn"], "\n\n\n\n"),
    Run(&["get", "t", "--prefix"], ""),
    // Lease.
    Grant("one", "600"),
    Grant("two", "900"),
    Grant("short", "0"),
    Run(&["put", "leased/1", "x", "--lease={one}"], ""),
    Run(&["put", "leased/2", "y", "--lease={one}"], ""),
    Run(&["put", "leased/2", "z"], ""),
    Run(&["lease", "timetolive", "{one}"], ""),
    Run(&["lease", "timetolive", "{one}", "--keys"], ""),
    Run(&["lease", "timetolive", "{two}", "--keys"], ""),
    Run(&["lease", "timetolive", "1234"], ""),
    Run(&["lease", "keep-alive", "--once", "{one}"], ""),
    Run(&["lease", "keep-alive", "--once", "1234"], ""),
    Run(&["put", "leased/1", "again", "--ignore-lease"], ""),
    Run(&["get", "leased/1", "-w", "json"], ""),
    Run(
        &["txn"],
        "ver(\"leased/1\") = \"2\"\n\nget leased --prefix\n\n\n",
    ),
    Run(&["lease", "revoke", "{one}"], ""),
    Run(&["lease", "revoke", "{one}"], ""),
    Run(&["get", "leased/", "--prefix"], ""),
    Run(&["lease", "revoke", "{two}"], ""),
    Run(&["lease", "grant", "99999999999"], ""),
    Run(&["lease", "grant", "abc"], ""),
    // Watch: history, then live.
    Follow {
        args: &["watch", "k", "--prefix", "--rev=1"],
        lines: 12,
        then: &["put", "k4", "4"],
        more: 3,
    },
    Follow {
        args: &["watch", "k1", "--rev=1", "--prev-kv"],
        lines: 0,
        then: &["del", "k1"],
        more: 2,
    },
    Follow {
        args: &["watch", "new", "--rev=1"],
        lines: 9,
        then: &["put", "new", "live"],
        more: 3,
    },
    Follow {
        args: &["watch", "a", "b2", "--rev=2"],
        lines: 9,
        then: &["put", "b1", "in"],
        more: 3,
    },
    Follow {
        args: &["watch", "t", "--prefix", "--rev=1", "-w", "fields"],
        lines: 10,
        then: &["put", "t9", "9"],
        more: 5,
    },
    // Compaction.
    Run(&["compaction", "20"], ""),
    Run(&["compaction", "20"], ""),
    Run(&["compaction", "100000"], ""),
    Run(&["get", "a", "--rev=19"], ""),
    Run(&["get", "k", "--prefix", "--rev=20"], ""),
    Run(&["compaction", "30", "--physical"], ""),
    Run(&["watch", "a", "--rev=2"], ""),
    Run(&["get", "", "--prefix", "-w", "json"], ""),
    // The server.
    Run(&["endpoint", "health"], ""),
    Run(&["endpoint", "status", "-w", "json"], ""),
    Run(&["member", "list"], ""),
    Run(&["member", "list", "-w", "json"], ""),
    Run(&["check", "perf", "--load=nonsense"], ""),
    Run(&["nonsense"], ""),
];

#[test]
fn etcdctl_sees_no_difference() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let etcd = Etcd::start(work.path())?;
    let session = |name, port| Session::new(Path::new("etcdctl"), work.path(), name, port);
    // `E2E_ETCDCTL_ORACLE_ONLY=1` runs the script on two etcds: what differs then is the masks'.
    let oracle_only = std::env::var_os("E2E_ETCDCTL_ORACLE_ONLY").is_some();
    let (_center, _second, port) = if oracle_only {
        let folder = work.path().join("second");
        let second = Etcd::start(&folder)?;
        let port = second.client_port;
        (None, Some(second), port)
    } else {
        let center = Center::start(work.path())?;
        let port = center.client_port;
        (Some(center), None, port)
    };
    let mut oracle = session(("oracle", "default"), etcd.client_port)?;
    let mut ours = session(("ours", "default"), port)?;
    let differences = differences(SCRIPT, &mut oracle, &mut ours)?;
    assert!(differences.is_empty(), "{differences}");
    Ok(())
}
