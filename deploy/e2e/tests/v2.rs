//! The same v2 requests to config-center and to etcd 3.4.23: status, body and headers must be equal,
//! once indexes are counted from the start of the script and ends of TTLs are masked.

use e2e::Center;
use e2e::http::{self, Answer};
use e2e::peer::Peer;
use e2e::tools::{self, Output};
use e2e::v2::{index_of, shown};

/// Method, target below `/v2`, and form. `{N}` stands for the Nth index of the script.
type Step = (&'static str, &'static str, &'static str);

const SCRIPT: &[Step] = &[
    ("GET", "/keys", ""),
    ("GET", "/keys/", ""),
    // Set, with all its answers. Indexes are those behind each write.
    ("PUT", "/keys/foo", "value=bar"),  // 1
    ("PUT", "/keys/foo", "value=bar2"), // 2
    ("GET", "/keys/foo", ""),
    ("HEAD", "/keys/foo", ""),
    (
        "GET",
        "/keys/foo?quorum=true&recursive=true&sorted=true",
        "",
    ),
    ("PUT", "/keys/foo?value=query", ""),           // 3
    ("PUT", "/keys/foo?value=query", "value=form"), // 4
    ("PUT", "/keys/empty", ""),                     // 5
    ("PUT", "/keys/a/b/c", "value=1"),              // 6
    ("PUT", "/keys/a/d", "value=2"),                // 7
    (
        "PUT",
        "/keys/quote",
        "value=%3C%22%26%27%5C%0A%09%01%E6%97%A5%3E",
    ), // 8
    ("GET", "/keys/quote", ""),
    ("PUT", "/keys/sp%20ace/%25", "value=a+b"), // 9
    ("GET", "/keys/sp%20ace?recursive=true", ""),
    ("GET", "/keys/a?sorted=true", ""),
    ("GET", "/keys/a?recursive=true&sorted=true", ""),
    ("GET", "/keys/?recursive=true&sorted=true", ""),
    ("GET", "/keys/none", ""),
    ("GET", "/keys/no/such/path", ""),
    ("GET", "/keys/foo/below", ""),
    ("PUT", "/keys/foo/below", "value=x"),
    ("PUT", "/keys/foo/below/deep", "value=x"),
    ("PUT", "/keys/a", "value=x"),
    ("PUT", "/keys/a", "dir=true"),
    ("PUT", "/keys/", "value=x"),
    ("PUT", "/keys/", "dir=true"),
    // Conditions.
    ("PUT", "/keys/foo?prevExist=false", "value=x"),
    ("PUT", "/keys/new?prevExist=true", "value=x"),
    ("PUT", "/keys/new?prevExist=false", "value=x"), // 10
    ("PUT", "/keys/new?prevExist=true", "value=y"),  // 11
    ("PUT", "/keys/new?prevValue=y", "value=z"),     // 12
    ("PUT", "/keys/new?prevValue=nope", "value=z"),
    ("PUT", "/keys/new?prevIndex={12}", "value=p"), // 13
    ("PUT", "/keys/new?prevIndex={12}", "value=p"),
    ("PUT", "/keys/new?prevValue=two&prevIndex={1}", "value=p"),
    ("PUT", "/keys/new?prevValue=p&prevIndex={13}", "value=q"), // 14
    ("PUT", "/keys/new?prevIndex=0", "value=r"),                // 15
    ("PUT", "/keys/new?prevExist=true&prevValue=r", "value=s"), // 16
    ("PUT", "/keys/none?prevValue=3", "value=4"),
    ("PUT", "/keys/a?prevValue=3", "value=4"),
    ("PUT", "/keys/new?prevValue=", "value=s"),
    ("PUT", "/keys/new?prevIndex=x", "value=s"),
    ("PUT", "/keys/new?prevIndex=-1", "value=s"),
    ("PUT", "/keys/new?prevExist=maybe", "value=s"),
    ("PUT", "/keys/new?prevExist", "value=s"),
    ("GET", "/keys/foo?recursive=maybe", ""),
    ("GET", "/keys/foo?sorted=maybe", ""),
    ("GET", "/keys/foo?quorum=2", ""),
    ("GET", "/keys/foo?wait=x", ""),
    ("GET", "/keys/foo?waitIndex=x", ""),
    ("GET", "/keys/foo?stream=x", ""),
    ("PUT", "/keys/foo?dir", ""),
    ("PUT", "/keys/foo?wait=true", "value=1"),
    ("PUT", "/keys/foo", "value=%zz"),
    ("PUT", "/keys/foo?a=%", ""),
    ("PUT", "/keys/foo?ttl=soon", "value=1"),
    ("PUT", "/keys/foo?ttl=-1", "value=1"),
    ("PUT", "/keys/foo?refresh=x", ""),
    ("PUT", "/keys/foo?refresh=true", "value=1"),
    ("PUT", "/keys/foo?refresh=true", ""),
    ("PUT", "/keys/none?refresh=true&ttl=50", ""),
    ("PUT", "/keys/foo?noValueOnSuccess=x", "value=1"),
    ("PUT", "/keys/foo?noValueOnSuccess=true", "value=1"), // 17
    (
        "PUT",
        "/keys/foo?noValueOnSuccess=true&prevExist=true",
        "value=2",
    ), // 18
    ("DELETE", "/keys/foo?noValueOnSuccess=true", ""),     // 19
    // Directories.
    ("PUT", "/keys/dir", "dir=true"), // 20
    ("PUT", "/keys/dir", "dir=true"),
    ("PUT", "/keys/dir?prevExist=true", "dir=true"), // 21
    ("PUT", "/keys/dir?prevExist=true", "value=x"),
    ("PUT", "/keys/dir?prevExist=false", "dir=true"),
    ("GET", "/keys/dir", ""),
    ("PUT", "/keys/dir/sub", "dir=true"),    // 22
    ("PUT", "/keys/dir/_hidden", "value=1"), // 23
    ("PUT", "/keys/_top/x", "value=1"),      // 24
    ("GET", "/keys/dir", ""),
    ("GET", "/keys/dir/_hidden", ""),
    ("GET", "/keys/_top", ""),
    ("DELETE", "/keys/dir", ""),
    ("DELETE", "/keys/dir?dir=true", ""),
    ("DELETE", "/keys/dir/sub?dir=true", ""),   // 25
    ("DELETE", "/keys/dir?recursive=true", ""), // 26
    ("DELETE", "/keys/none", ""),
    ("DELETE", "/keys/", ""),
    ("DELETE", "/keys/?recursive=true", ""),
    ("DELETE", "/keys/a/b/c", ""), // 27
    ("GET", "/keys/a?recursive=true&sorted=true", ""),
    ("DELETE", "/keys/a/b?dir=true", ""), // 28
    ("DELETE", "/keys/new?prevValue=nope", ""),
    ("DELETE", "/keys/new?prevIndex={1}&prevValue=nope", ""),
    ("DELETE", "/keys/a?prevIndex={1}", ""),
    ("DELETE", "/keys/none?prevIndex={1}", ""),
    ("DELETE", "/keys/new?prevValue=s&prevIndex={16}", ""), // 29
    ("DELETE", "/keys/empty", ""),                          // 30
    ("PUT", "/keys/file-to-dir", "value=1"),                // 31
    ("PUT", "/keys/file-to-dir", "dir=true"),               // 32
    ("GET", "/keys/file-to-dir", ""),
    // In order.
    ("POST", "/keys/queue", "value=1"),   // 33
    ("POST", "/keys/queue", "value=2"),   // 34
    ("POST", "/keys/queue?dir=true", ""), // 35
    ("GET", "/keys/queue?sorted=true", ""),
    ("POST", "/keys/quote", "value=2"),
    ("POST", "/keys/", "value=root"), // 36
    // TTL.
    ("PUT", "/keys/ttl", "value=1&ttl=500"), // 37
    ("GET", "/keys/ttl", ""),
    ("PUT", "/keys/ttl?refresh=true&ttl=900", ""), // 38
    ("PUT", "/keys/ttl?refresh=true&ttl=800&prevExist=true", ""), // 39
    ("PUT", "/keys/ttl?refresh=true&ttl=700&prevValue=1", ""), // 40
    ("PUT", "/keys/ttl?prevExist=true&ttl=", "value=2"), // 41
    ("GET", "/keys/ttl", ""),
    ("PUT", "/keys/ttl", "value=3&ttl=600"),   // 42
    ("PUT", "/keys/ttl", "value=4"),           // 43
    ("PUT", "/keys/tdir?ttl=400", "dir=true"), // 44
    ("PUT", "/keys/tdir?ttl=300&prevExist=true", "dir=true"), // 45
    ("GET", "/keys/tdir", ""),
    // History.
    ("GET", "/keys/foo?wait=true&waitIndex={1}", ""),
    ("GET", "/keys/foo?wait=true&waitIndex={2}", ""),
    ("GET", "/keys/foo?wait=true&waitIndex={18}", ""),
    ("GET", "/keys/new?wait=true&waitIndex={10}", ""),
    ("GET", "/keys/new?wait=true&waitIndex={11}", ""),
    ("GET", "/keys/new?wait=true&waitIndex={12}", ""),
    ("GET", "/keys/new?wait=true&waitIndex={17}", ""),
    ("GET", "/keys/dir?wait=true&waitIndex={20}", ""),
    ("GET", "/keys/dir?wait=true&waitIndex={21}", ""),
    ("GET", "/keys/dir?wait=true&waitIndex={22}", ""),
    (
        "GET",
        "/keys/dir?wait=true&recursive=true&waitIndex={22}",
        "",
    ),
    ("GET", "/keys/dir/sub?wait=true&waitIndex={26}", ""),
    ("GET", "/keys/a?wait=true&recursive=true&waitIndex={7}", ""),
    ("GET", "/keys/?wait=true&recursive=true&waitIndex={31}", ""),
    ("GET", "/keys/ttl?wait=true&waitIndex={38}", ""),
    (
        "GET",
        "/keys/queue?wait=true&recursive=true&waitIndex={34}",
        "",
    ),
    ("PUT", "/keys/quote?wait=true&waitIndex={1}", ""),
    // Methods and other paths.
    ("PATCH", "/keys/foo", ""),
    ("POST", "/machines", ""),
    ("GET", "/members/none", ""),
    ("GET", "/members", ""),
    ("GET", "/members/leader", ""),
    ("POST", "/members", "peerURLs=x"),
    ("DELETE", "/members/77", ""),
    ("DELETE", "/members/nonsense", ""),
    ("DELETE", "/members", ""),
    ("PATCH", "/members", ""),
    ("GET", "/auth/enable", ""),
    ("POST", "/stats/self", ""),
];

/// Indexes of the script, as shown in its comments.
const WRITES: i64 = 45;

#[test]
fn v2_answers_as_etcd_3_4_does() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let center = Center::start(folder.path())?;
    let etcd = Peer::start_3_4(folder.path(), &[])?;
    let (ours, theirs) = (center.client_port, etcd.client_port()?);
    let bases = [index_of(ours)?, index_of(theirs)?];
    let mut differences = Vec::new();
    for step in SCRIPT {
        let got = shown(&run(ours, step, bases[0])?, bases[0]);
        let expected = shown(&run(theirs, step, bases[1])?, bases[1]);
        if got != expected {
            differences.push(format!(
                "{} {} {}\n  etcd:          {expected}\n  config-center: {got}",
                step.0, step.1, step.2
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // Otherwise the comments lie, and with them the indexes of the conditions.
    assert_eq!(index_of(ours)? - bases[0], WRITES);
    Ok(())
}

fn run(port: u16, (verb, target, form): &Step, base: i64) -> anyhow::Result<Answer> {
    let mut target = format!("/v2{target}");
    while let Some((before, rest)) = target.split_once('{') {
        let (nth, after) = rest.split_once('}').unwrap_or((rest, ""));
        target = format!("{before}{}{after}", base + nth.parse::<i64>()?);
    }
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    http::exchange(port, verb, &target, &headers, form)
}

/// Commands of etcdctl 3.4 in its v2 mode.
const COMMANDS: &[&[&str]] = &[
    &["set", "test", "asdf"],
    &["get", "test"],
    &["get", "none"],
    &["-o", "extended", "get", "test"],
    &["mk", "test", "x"],
    &["mk", "made", "x"],
    &["mk", "--in-order", "queue", "x"],
    &["update", "made", "y"],
    &["update", "none", "y"],
    &["set", "--swap-with-value", "y", "made", "z"],
    &["set", "--swap-with-value", "nope", "made", "z"],
    &["mkdir", "dir"],
    &["mkdir", "dir"],
    &["setdir", "dir2"],
    &["updatedir", "dir2", "--ttl", "100"],
    &["set", "dir/a", "1"],
    &["set", "dir/b/c", "2", "--ttl", "100"],
    &["ls", "--sort"],
    &["ls", "--sort", "dir"],
    &["ls", "--sort", "-p", "--recursive", "dir"],
    &["get", "dir"],
    &["rmdir", "dir"],
    &["rm", "dir"],
    &["rm", "dir/a"],
    &["rm", "--with-value", "nope", "test"],
    &["rm", "--with-value", "asdf", "test"],
    &["rm", "--recursive", "dir"],
    &["rmdir", "dir2"],
    &["rm", "none"],
    &["cluster-health"],
    &["member", "list"],
];

#[test]
fn etcdctl_speaks_v2_as_with_etcd() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let center = Center::start(folder.path())?;
    let etcd = Peer::start_3_4(folder.path(), &[])?;
    let (ours, theirs) = (center.client_port, etcd.client_port()?);
    let bases = [index_of(ours)?, index_of(theirs)?];
    let mut differences = Vec::new();
    for command in COMMANDS {
        let got = masked(etcdctl(ours, command)?, bases[0]);
        let expected = masked(etcdctl(theirs, command)?, bases[1]);
        if got != expected {
            differences.push(format!(
                "etcdctl {command:?}\n  etcd:          {expected:?}\n  config-center: {got:?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));

    // A watcher of each, told by a write through v3.
    for port in [ours, theirs] {
        let url = format!("http://127.0.0.1:{port}");
        let mut watching = std::process::Command::new("etcdctl");
        watching
            .env("ETCDCTL_API", "2")
            // Without --recursive etcdctl 3.4 runs nothing, against etcd neither.
            .args(["--endpoints", &url, "exec-watch", "--recursive", "watched"])
            .arg("--")
            .args([
                "sh",
                "-c",
                "echo \"$ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE\"",
            ]);
        let log = folder.path().join(format!("watch-{port}.log"));
        let watcher = e2e::Process::spawn("etcdctl exec-watch", watching, &log)?;
        // It may not be there yet, so the write is repeated until it is seen.
        e2e::wait_until("exec-watch to see a write", e2e::DEADLINE, || {
            etcdctl(port, &["set", "watched/seen", "value"]).ok()?;
            watcher
                .log_text()
                .contains("set /watched/seen value")
                .then_some(())
        })?;
    }
    Ok(())
}

fn etcdctl(port: u16, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = std::process::Command::new("etcdctl");
    command
        .env("ETCDCTL_API", "2")
        .args(["--endpoints", &format!("http://127.0.0.1:{port}")])
        .args(arguments);
    tools::run(&mut command, "")
}

/// Ids, ports and indexes are each server's own.
fn masked(output: Output, base: i64) -> (Option<i32>, String, String) {
    let counted = |digits: &str| {
        digits
            .parse::<i64>()
            .map(|index| format!("#{}", index - base))
    };
    let line = |line: &str| {
        if let Some((before, index)) = line.split_once("Index: ") {
            return format!("{before}Index: {}", counted(index).unwrap_or_default());
        }
        // The index behind an error.
        if let Some((before, index)) = line.rsplit_once(" [")
            && let Ok(index) = counted(index.trim_end_matches(']'))
        {
            return format!("{before} [{index}]");
        }
        let words = line.split_inclusive([' ', ',']).map(|word| {
            let bare = word.trim_end_matches([' ', ',', ':']);
            if bare.contains("127.0.0.1") || bare.contains("localhost") {
                return word.replace(bare, "URL");
            }
            if bare.len() >= 12 && bare.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return word.replace(bare, "ID");
            }
            match bare.strip_prefix("name=") {
                Some(name) => word.replace(name, "NAME"),
                None => word.to_owned(),
            }
        });
        words.collect::<String>()
    };
    let mask = |text: &str| text.lines().map(line).collect::<Vec<_>>().join("\n");
    (output.code, mask(&output.stdout), mask(&output.stderr))
}
