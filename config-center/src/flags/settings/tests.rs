//! The command line as a table: what is typed, and what comes of it.

use std::path::Path;
use std::time::Duration;

use config_center_core::auto_compaction::Retention;

use crate::flags::{
    Invocation, ListenAt, LogFormat, LogLevel, LogOutput, Settings, UsageError, help_text, parse,
    version_text,
};
use crate::raft::ClusterState;

fn invoke(line: &str, environment: &[(&str, &str)]) -> Result<Invocation, UsageError> {
    parse(
        line.split_whitespace().map(str::to_owned),
        environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

fn settings(line: &str) -> Settings {
    match invoke(line, &[]) {
        Ok(Invocation::Serve(settings)) => *settings,
        other => panic!("{line}: {other:?}"),
    }
}

fn fault(line: &str) -> String {
    invoke(line, &[])
        .err()
        .unwrap_or_else(|| panic!("{line} was accepted"))
        .to_string()
}

fn tcp(host: &str, port: u16) -> ListenAt {
    let host = host.to_owned();
    ListenAt::Tcp { host, port }
}

#[test]
fn a_log_may_go_to_several_places() {
    let outputs = |line: &str| settings(line).log_outputs;
    assert_eq!(outputs(""), [LogOutput::Stderr]);
    assert_eq!(
        outputs("--logger capnslog --log-outputs stdout,/var/log/c.log,stdout"),
        [LogOutput::Stdout, LogOutput::File("/var/log/c.log".into())]
    );
    assert!(fault("--log-outputs systemd/journal").contains("in the journal already"));
    assert!(fault("--logger log4j").contains("zap or capnslog"));
}

#[test]
fn a_unix_socket_is_a_file() {
    let settings = settings(
        "--listen-client-urls unix:///run/c.sock,http://127.0.0.1:1 \
         --advertise-client-urls http://127.0.0.1:1 --listen-peer-urls unix://p.sock:1 \
         --initial-advertise-peer-urls unix://p.sock:1 --initial-cluster default=unix://p.sock:1",
    );
    let unix = |path: &str| ListenAt::Unix(path.into());
    assert_eq!(settings.listen_client_urls[0].at, unix("/run/c.sock"));
    assert_eq!(settings.listen_client_urls[0].host(), None);
    assert_eq!(settings.listen_peer_urls[0].at, unix("p.sock:1"));
    assert_eq!(settings.advertise_peer_urls, ["unix://p.sock:1"]);
    assert!(fault("--listen-client-urls unix://").contains("needs a file"));
    let advertised = fault("--initial-advertise-peer-urls unix:///run/p.sock");
    assert!(advertised.contains("without a path"), "{advertised}");
    assert!(fault("--listen-client-urls unixs://c").contains("needs --cert-file"));
}

#[test]
fn defaults_are_those_of_etcd() {
    let settings = settings("");
    assert_eq!(settings.name, "default");
    assert_eq!(settings.data_dir, Path::new("default.etcd"));
    assert_eq!(settings.listen_client_urls[0].at, tcp("localhost", 2379));
    assert_eq!(settings.advertise_client_urls, ["http://localhost:2379"]);
    assert_eq!(settings.advertise_peer_urls, ["http://localhost:2380"]);
    assert_eq!(settings.cluster_token, "etcd-cluster");
    assert_eq!((settings.heartbeat_ms, settings.election_ms), (100, 1000));
    assert_eq!(
        (settings.max_txn_ops, settings.max_request_bytes),
        (128, 1_572_864)
    );
    assert_eq!(settings.max_concurrent_streams, u32::MAX);
    assert_eq!(settings.watch_progress_interval, Duration::from_secs(600));
    assert_eq!(settings.keepalive_interval, Duration::from_secs(7200));
    assert_eq!(
        (settings.log_level, settings.log_format),
        (LogLevel::Info, LogFormat::Console)
    );
    assert_eq!(settings.warnings, Vec::<String>::new());
}

#[test]
fn every_spelling_of_gos_flag_package_is_read() {
    for line in ["--name n1", "--name=n1", "-name n1", "-name=n1"] {
        assert_eq!(settings(line).name, "n1", "{line}");
    }
    for line in [
        "--enable-v2",
        "-enable-v2",
        "--enable-v2=true",
        "--enable-v2=1",
        "--enable-v2=T",
    ] {
        assert!(settings(line).http_rules.v2, "{line}");
    }
    for line in ["--enable-v2=false", "--enable-v2=0", "-enable-v2=F"] {
        assert!(!settings(line).http_rules.v2, "{line}");
    }
    for (line, warnings) in [("--enable-pprof", 1), ("--client-cert-auth=false", 0)] {
        assert_eq!(settings(line).warnings.len(), warnings, "{line}");
    }
    // The last one counts, and an equals sign may be part of the value.
    assert_eq!(settings("--name a --name b").name, "b");
    assert_eq!(settings("--initial-cluster-token=a=b").cluster_token, "a=b");
}

#[test]
fn a_unit_file_of_etcd_is_accepted() {
    let settings = settings(
        "--name infra0 --data-dir /var/lib/etcd \
         --listen-client-urls http://127.0.0.1:2379,http://[::1]:2379 \
         --advertise-client-urls http://10.0.0.1:2379 \
         --initial-advertise-peer-urls http://10.0.0.1:2380 \
         --initial-cluster infra0=http://10.0.0.1:2380 --initial-cluster-state new \
         --initial-cluster-token t1 --logger=zap --log-outputs=stderr --log-level=debug \
         --log-format json --quota-backend-bytes -1 --max-concurrent-streams 7 \
         --heartbeat-interval 50 --election-timeout 500 \
         --experimental-watch-progress-notify-interval=1m30s",
    );
    assert_eq!(settings.data_dir, Path::new("/var/lib/etcd"));
    assert_eq!(settings.listen_client_urls[1].host(), Some("::1"));
    assert_eq!(settings.advertise_client_urls, ["http://10.0.0.1:2379"]);
    assert_eq!(settings.watch_progress_interval, Duration::from_secs(90));
    assert_eq!(settings.max_concurrent_streams, 7);
    assert_eq!(
        (settings.log_level, settings.log_format),
        (LogLevel::Debug, LogFormat::Json)
    );
    assert_eq!(settings.warnings, Vec::<String>::new());
}

#[test]
fn variables_fill_in_what_flags_leave_out() {
    let environment = [
        ("ETCD_NAME", "e"),
        ("ETCD_DATA_DIR", "/d"),
        ("ETCD_ELECTION_TIMEOUT", ""),
        ("PATH", "x"),
    ];
    let Ok(Invocation::Serve(settings)) = invoke("--name f", &environment) else {
        panic!("not accepted")
    };
    assert_eq!(
        (settings.name.as_str(), settings.data_dir.as_path()),
        ("f", Path::new("/d"))
    );
    assert_eq!(settings.warnings, ["ETCD_NAME is overridden by --name"]);
    let unknown = invoke("", &[("ETCD_NOPE", "1")]);
    let Ok(Invocation::Serve(settings)) = unknown else {
        panic!("{unknown:?}")
    };
    assert_eq!(
        settings.warnings,
        ["unknown environment variable ETCD_NOPE is ignored"]
    );
    let refused = invoke("", &[("ETCD_WAL_DIR", "/c")])
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with("ETCD_WAL_DIR is not supported yet"),
        "{refused}"
    );
}

#[test]
fn what_would_be_unsafe_to_ignore_is_refused() {
    for line in ["--discovery http://d", "--wal-dir a"] {
        let fault = fault(line);
        assert!(fault.contains("not supported yet"), "{line}: {fault}");
        assert!(!fault.contains('\n'), "{line}: {fault}");
    }
}

/// Half of a setting about security must not pass for the whole.
#[test]
fn half_given_security_is_refused() {
    for (line, expected) in [
        ("--cert-file a", "it needs --key-file as well"),
        ("--key-file a", "it needs --cert-file as well"),
        ("--peer-cert-file a", "it needs --peer-key-file as well"),
        (
            "--client-cert-auth",
            "certificates can only be checked with --trusted-ca-file",
        ),
        (
            "--peer-cert-allowed-cn a",
            "certificates can only be checked with --peer-trusted-ca-file",
        ),
        (
            "--client-cert-allowed-cn a --client-cert-allowed-hostname b",
            "names and hostnames cannot both be given",
        ),
        (
            "--listen-peer-urls https://127.0.0.1:1",
            "or --peer-auto-tls",
        ),
        ("--auth-token jwt", "sign-method is missing"),
        (
            "--auth-token jwt,ttl=soon,sign-method=RS256",
            "is not a duration",
        ),
        ("--auth-token none", "it is simple or jwt"),
    ] {
        let fault = fault(line);
        assert!(fault.contains(expected), "{line}: {fault}");
        assert!(!fault.contains('\n'), "{line}: {fault}");
    }
}

#[test]
fn automatic_compaction_is_read_as_etcd_reads_it() {
    for (line, expected) in [
        ("", None),
        ("--auto-compaction-retention=0", None),
        ("--auto-compaction-retention=", None),
        (
            "--auto-compaction-retention=5",
            Some(Retention::Period { ms: 18_000_000 }),
        ),
        (
            "--auto-compaction-retention=90m --auto-compaction-mode=periodic",
            Some(Retention::Period { ms: 5_400_000 }),
        ),
        (
            "--auto-compaction-mode=revision --auto-compaction-retention=1000",
            Some(Retention::Revisions(1000)),
        ),
        ("--auto-compaction-mode=revision", None),
    ] {
        assert_eq!(settings(line).auto_compaction, expected, "{line}");
    }
    for line in [
        "--auto-compaction-retention=x",
        "--auto-compaction-retention=-1",
        "--auto-compaction-mode=revision --auto-compaction-retention=5m",
        "--auto-compaction-mode=weekly",
    ] {
        assert!(fault(line).contains("invalid value"), "{line}");
    }
}

#[test]
fn bad_values_name_the_flag_and_the_fault() {
    for (line, expected) in [
        (
            "--nmae x",
            "unknown flag --nmae, did you mean --name?; see --help",
        ),
        (
            "--listen-client-url x",
            "unknown flag --listen-client-url, did you mean --listen-client-urls?; see --help",
        ),
        ("--xyzzy", "unknown flag --xyzzy; see --help"),
        ("serve", "\"serve\" is not a flag; see --help"),
        ("--name", "--name needs a value"),
        (
            "--heartbeat-interval abc",
            "invalid value \"abc\" for --heartbeat-interval: it is not a whole number",
        ),
        (
            "--enable-v2=maybe",
            "invalid value \"maybe\" for --enable-v2: it is not true or false",
        ),
        (
            "--heartbeat-interval 300",
            "invalid value \"1000\" for --election-timeout: it must be at least 5 times --heartbeat-interval (300)",
        ),
        (
            "--max-txn-ops 0",
            "invalid value \"0\" for --max-txn-ops: it must be between 1 and 4294967295",
        ),
        (
            "--listen-client-urls 127.0.0.1:1",
            "invalid value \"127.0.0.1:1\" for --listen-client-urls: the URL must begin with http://, https://, unix:// or unixs://",
        ),
        (
            "--listen-client-urls http://127.0.0.1",
            "invalid value \"http://127.0.0.1\" for --listen-client-urls: it needs a host and a port",
        ),
        (
            "--listen-client-urls http://example.com:1",
            "invalid value \"http://example.com:1\" for --listen-client-urls: listening needs an IP address or localhost, not a host name",
        ),
        (
            "--listen-client-urls https://127.0.0.1:1",
            "invalid value \"https://127.0.0.1:1\" for --listen-client-urls: https needs --cert-file and --key-file, or --auto-tls",
        ),
        (
            "--listen-client-urls http://0.0.0.0:1",
            "invalid value \"http://0.0.0.0:1\" for --listen-client-urls: clients cannot be told a wildcard address, set --advertise-client-urls as well",
        ),
        (
            "--initial-cluster a",
            "invalid value \"a\" for --initial-cluster: it is name=http://host:port",
        ),
        (
            "--initial-cluster a=http://localhost",
            "invalid value \"http://localhost\" for --initial-cluster: it needs a host and a port",
        ),
        (
            "--initial-cluster-state old",
            "invalid value \"old\" for --initial-cluster-state: it is new or existing",
        ),
        (
            "--log-level loud",
            "invalid value \"loud\" for --log-level: it is debug, info, warn or error",
        ),
        (
            "--watch-progress-notify-interval 5",
            "invalid value \"5\" for --watch-progress-notify-interval: it is not a duration such as 500ms, 10m or 1h30m",
        ),
    ] {
        assert_eq!(fault(line), expected);
    }
}

#[test]
fn a_cluster_of_several_members_is_read_name_by_name() {
    let settings = settings(
        "--name b --initial-cluster a=http://10.0.0.1:2380,b=http://10.0.0.2:2380/,a=http://10.1.0.1:2380 \
         --initial-cluster-state existing --listen-peer-urls http://127.0.0.1:1,http://[::1]:2",
    );
    let members: Vec<(&str, Vec<&str>)> = settings
        .initial_cluster
        .iter()
        .map(|member| {
            let urls = member.peer_urls.iter().map(String::as_str).collect();
            (member.name.as_str(), urls)
        })
        .collect();
    assert_eq!(
        members,
        [
            ("a", vec!["http://10.0.0.1:2380", "http://10.1.0.1:2380"]),
            ("b", vec!["http://10.0.0.2:2380"]),
        ]
    );
    assert_eq!(settings.cluster_state, ClusterState::Existing);
    assert_eq!(settings.listen_peer_urls.len(), 2);
    assert_eq!(settings.warnings, Vec::<String>::new());
}

#[test]
fn a_short_progress_interval_is_raised() {
    let settings = settings("--watch-progress-notify-interval=5ms");
    assert_eq!(settings.watch_progress_interval, Duration::from_millis(100));
    assert_eq!(
        settings.warnings,
        ["--watch-progress-notify-interval is raised to 100ms"]
    );
}

#[test]
fn version_and_help_come_before_judgement() {
    assert!(matches!(
        invoke("--version --cert-file x", &[]),
        Ok(Invocation::Version)
    ));
    assert!(matches!(invoke("-h", &[]), Ok(Invocation::Help)));
    assert!(version_text().starts_with("etcd Version: 3.7.1\n"));
    assert!(help_text().contains("--listen-client-urls 'http://localhost:2379'"));
}

fn from_file(content: &str) -> Result<Invocation, UsageError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("etcd.conf.yml");
    std::fs::write(&path, content).unwrap();
    let line = format!("--name beside --config-file {}", path.display());
    invoke(&line, &[("ETCD_DATA_DIR", "/beside")])
}

#[test]
fn a_config_file_of_etcd_stands_for_all_flags() {
    let content = "\
# As etcd.conf.yml.sample has it.
name: 'infra1'
data-dir: /var/lib/etcd
snapshot-count: 5000
heartbeat-interval: 50
election-timeout: 500
quota-backend-bytes: 1000000
listen-client-urls: http://127.0.0.1:12379,http://127.0.0.1:14001
advertise-client-urls: http://127.0.0.1:12379
max-txn-ops: 7
watch-progress-notify-interval: 90000000000
grpc-keepalive-min-time: 7s
auto-compaction-mode: revision
auto-compaction-retention: \"1000\"
client-transport-security:
  cert-file:
  client-cert-auth: false
peer-transport-security:
log-level: warn
log-outputs: [stderr]
wal-dir:
";
    let Ok(Invocation::Serve(settings)) = from_file(content) else {
        panic!("{:?}", from_file(content));
    };
    assert_eq!(settings.name, "infra1");
    assert_eq!(settings.data_dir, Path::new("/var/lib/etcd"));
    assert_eq!((settings.heartbeat_ms, settings.election_ms), (50, 500));
    assert_eq!(settings.listen_client_urls[1].at, tcp("127.0.0.1", 14001));
    assert_eq!(settings.quota_bytes, Some(1_000_000));
    assert_eq!(settings.max_txn_ops, 7);
    assert_eq!(settings.watch_progress_interval, Duration::from_secs(90));
    assert_eq!(settings.keepalive_min_time, Duration::from_secs(7));
    assert_eq!(settings.auto_compaction, Some(Retention::Revisions(1000)));
    assert_eq!(settings.log_level, LogLevel::Warn);
    assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
    assert!(settings.warnings[0].contains("beside it are ignored"));
}

#[test]
fn a_faulty_config_file_names_its_fault() {
    for (content, expected) in [
        ("nmae: x", "unknown key \"nmae\", did you mean \"name\"?"),
        ("config-file: x", "unknown key \"config-file\""),
        ("name: {a: 1}", "the value of \"name\" is not a plain one"),
        ("max-txn-ops: many", "max-txn-ops"),
        (
            "client-transport-security: {cret-file: x}",
            "unknown key \"client-transport-security.cret-file\"",
        ),
        ("- name", "it is not a list of `key: value` lines"),
        ("name: [", "cannot be used as --config-file"),
    ] {
        let fault = from_file(content).unwrap_err().to_string();
        assert!(fault.contains(expected), "{content}: {fault}");
    }
    let fault = invoke("--config-file /nowhere/etcd.yml", &[]).unwrap_err();
    assert!(fault.to_string().contains("/nowhere/etcd.yml"));
}

#[test]
fn the_quota_is_etcds_default_unless_it_is_given() {
    for (line, expected) in [
        ("", Some(2 << 30)),
        ("--quota-backend-bytes=0", Some(2 << 30)),
        ("--quota-backend-bytes=-1", None),
        ("--quota-backend-bytes=53248", Some(53_248)),
    ] {
        assert_eq!(settings(line).quota_bytes, expected, "{line}");
    }
    let large = settings("--quota-backend-bytes=9000000000");
    assert!(large.warnings[0].contains("8 GiB"));
}
