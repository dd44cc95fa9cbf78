//! The same script of etcdctl commands against config-center and against a real etcd: exit code,
//! standard output and standard error must be equal, once ids, sizes and versions are masked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::tools::{Etcd, etcdctl, run};
use e2e::{Center, DEADLINE, Process, wait_until};
use serde_json::Value;

/// One server under the script, with the lease ids that it has given.
struct Session {
    client_port: u16,
    folder: PathBuf,
    leases: BTreeMap<&'static str, String>,
    watchers: usize,
}

/// One command of the script.
enum Step {
    /// Arguments and standard input. `{name}` stands for a lease granted under that name.
    Run(&'static [&'static str], &'static str),
    /// `lease grant TTL`, remembered under a name.
    Grant(&'static str, &'static str),
    /// A command that does not end by itself: wait for this many lines, then run the next
    /// command, wait for as many lines again as given, and end it.
    Follow {
        args: &'static [&'static str],
        lines: usize,
        then: &'static [&'static str],
        more: usize,
    },
}

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

impl Session {
    fn arguments(&self, args: &[&str]) -> Vec<String> {
        let fill = |arg: &&str| {
            let mut arg = (*arg).to_owned();
            for (name, id) in &self.leases {
                arg = arg.replace(&format!("{{{name}}}"), id);
            }
            arg
        };
        args.iter().map(fill).collect()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = etcdctl(self.client_port);
        command.args(self.arguments(args));
        command
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<String> {
        match step {
            Run(args, stdin) => {
                let output = run(&mut self.command(args), stdin)?;
                Ok(self.masked(output.code, &output.stdout, &output.stderr))
            }
            Grant(name, ttl) => {
                let output = run(&mut self.command(&["lease", "grant", ttl]), "")?;
                let id = output.stdout.split(' ').nth(1).unwrap_or_default();
                self.leases.insert(name, id.to_owned());
                Ok(self.masked(output.code, &output.stdout, &output.stderr))
            }
            Follow {
                args,
                lines,
                then,
                more,
            } => {
                self.watchers += 1;
                let log = self.folder.join(format!("watch-{}.log", self.watchers));
                let watcher = Process::spawn("etcdctl watch", self.command(args), &log)?;
                let grown = |lines: usize| {
                    let what = format!("{lines} lines of etcdctl {args:?}");
                    wait_until(&what, DEADLINE, || {
                        let text = watcher.log_text();
                        (text.lines().count() >= lines).then_some(text)
                    })
                };
                let history = grown(*lines)?.lines().count();
                run(&mut self.command(then), "")?.ok()?;
                let text = grown(history + more)?;
                Ok(self.masked(None, &text, ""))
            }
        }
    }

    fn masked(&self, code: Option<i32>, stdout: &str, stderr: &str) -> String {
        let mask = |text: &str| {
            let lines: Vec<_> = text.lines().map(|line| self.masked_line(line)).collect();
            lines.join("\n")
        };
        format!("exit {code:?}\n{}\n--\n{}", mask(stdout), mask(stderr))
    }

    /// Hides what may differ between two servers that behave alike.
    fn masked_line(&self, line: &str) -> String {
        if let Ok(mut json) = serde_json::from_str::<Value>(line)
            && (json.is_object() || json.is_array())
        {
            mask_json(&mut json);
            return self.masked_text(&json.to_string());
        }
        self.masked_text(line)
    }

    fn masked_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, id) in &self.leases {
            text = text.replace(id, &format!("<lease {name}>"));
            if let Ok(number) = i64::from_str_radix(id, 16) {
                text = text.replace(&number.to_string(), &format!("<lease {name}>"));
            }
        }
        text = text.replace(&format!("127.0.0.1:{}", self.client_port), "<client>");
        for (before, after) in [
            ("remaining(", "s)"),
            ("took = ", "\n"),
            ("successfully committed proposal: took", "\n"),
            ("\"ClusterID\" : ", "\n"),
            ("\"MemberID\" : ", "\n"),
            ("\"RaftTerm\" : ", "\n"),
            ("http://127.0.0.1:", ","),
        ] {
            if let Some(at) = text.find(before) {
                let from = at + before.len();
                let to = text[from..]
                    .find(after)
                    .map_or(text.len(), |end| from + end);
                text.replace_range(from..to, "<masked>");
            }
        }
        mask_hex_ids(&text)
    }
}

/// Ids, terms, log positions, sizes and versions; presence and type stay visible.
const MASKED_FIELDS: &[&str] = &[
    "cluster_id",
    "member_id",
    "raft_term",
    "leader",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
    "dbSize",
    "dbSizeInUse",
    "version",
    "ID",
    "Endpoint",
    "peerURLs",
    "clientURLs",
];
/// Fields of etcdctl's own log lines that tell when and where, not what.
const DROPPED_FIELDS: &[&str] = &["ts", "target", "caller", "attempt"];

fn mask_json(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let is_log = fields.contains_key("caller");
            fields.retain(|name, _| !(is_log && DROPPED_FIELDS.contains(&name.as_str())));
            for (name, field) in fields.iter_mut() {
                // A key-value pair has a "version" too, and that one must be equal.
                if MASKED_FIELDS.contains(&name.as_str()) && !(name == "version" && field.is_i64())
                {
                    *field = match field {
                        Value::Number(_) => "<number>".into(),
                        Value::String(_) => "<text>".into(),
                        Value::Array(items) => format!("<{} items>", items.len()).into(),
                        _ => "<other>".into(),
                    };
                } else {
                    mask_json(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_json),
        _ => {}
    }
}

/// Words of 15 or 16 hexadecimal digits are member and cluster ids.
fn mask_hex_ids(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    let mut masked = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_word(c)).unwrap_or(from.len()));
        let is_id = matches!(word.len(), 15 | 16)
            && word
                .chars()
                .all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
        masked.push_str(before);
        masked.push_str(if is_id { "<id>" } else { word });
        rest = after;
    }
    masked + rest
}

fn session(folder: &Path, name: &str, client_port: u16) -> anyhow::Result<Session> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    Ok(Session {
        client_port,
        folder,
        leases: BTreeMap::new(),
        watchers: 0,
    })
}

#[test]
fn etcdctl_sees_no_difference() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let etcd = Etcd::start(work.path())?;
    let mut oracle = session(work.path(), "oracle", etcd.client_port)?;
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
    let mut ours = session(work.path(), "ours", port)?;
    let mut differences = String::new();
    for (number, step) in SCRIPT.iter().enumerate() {
        let (wanted, got) = (oracle.step(step)?, ours.step(step)?);
        if oracle_only {
            println!("step {number}: {wanted}\n");
        }
        if wanted != got {
            let command = match step {
                Run(args, stdin) => format!("{args:?} {stdin:?}"),
                Grant(_, ttl) => format!("lease grant {ttl}"),
                Follow { args, then, .. } => format!("{args:?} and {then:?}"),
            };
            differences.push_str(&format!(
                "step {number}: etcdctl {command}\n=== etcd\n{wanted}\n=== ours\n{got}\n\n"
            ));
        }
    }
    assert!(differences.is_empty(), "{differences}");
    Ok(())
}
