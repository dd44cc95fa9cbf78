//! Every flag name that etcd 3.4 to 3.7 takes, its kind, its default and what this version does
//! with it. Knows names only; what the values mean together is decided in `settings`.

/// What a flag's text must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--x`, `--x=true`, `--x=false`; never takes the next argument, as in Go.
    Switch,
    Text,
    Number,
    /// Go's notation: `10m`, `1h30m`, `500ms`.
    Duration,
}

/// What happens to a value that is given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Treatment {
    Used,
    /// Accepted with one warning at the start, because leaving it out harms nobody's data.
    NoEffect(&'static str),
    /// Ignoring it would make the member less safe than its operator believes.
    Refused(&'static str),
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The value when nothing is given; giving exactly this one is always accepted.
    pub(super) default: &'static str,
    pub(super) treatment: Treatment,
}

const fn used(name: &'static str, kind: Kind, default: &'static str) -> Definition {
    Definition {
        name,
        kind,
        default,
        treatment: Treatment::Used,
    }
}

const fn idle(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    note: &'static str,
) -> Definition {
    Definition {
        name,
        kind,
        default,
        treatment: Treatment::NoEffect(note),
    }
}

const fn refused(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    note: &'static str,
) -> Definition {
    Definition {
        name,
        kind,
        default,
        treatment: Treatment::Refused(note),
    }
}

const PEER_TIMES: &str = "connections between members have deadlines of their own";
const NO_DISCOVERY: &str = "discovery is not supported yet";
const PROXY: &str = "the v2 proxy is not supported";
const ALONE: &str = "members are compared with `etcdctl endpoint hashkv`, not by themselves";
const BBOLT: &str = "it tunes a storage engine that config-center does not use";
const ROTATION: &str = "let logrotate copy and truncate the file";
const NO_TRACING: &str = "distributed tracing is not exported";

use crate::fleet::keys;
use Kind::{Duration, Number, Switch, Text};

/// The whole table, in the order of the help text.
pub(super) const DEFINITIONS: &[Definition] = &[
    used("name", Text, "default"),
    used("data-dir", Text, ""),
    used("listen-client-urls", Text, "http://localhost:2379"),
    used("advertise-client-urls", Text, "http://localhost:2379"),
    used("listen-metrics-urls", Text, ""),
    used("listen-peer-urls", Text, "http://localhost:2380"),
    used("initial-advertise-peer-urls", Text, "http://localhost:2380"),
    used("initial-cluster", Text, ""),
    used("initial-cluster-state", Text, "new"),
    used("initial-cluster-token", Text, "etcd-cluster"),
    used("force-new-cluster", Switch, "false"),
    used("strict-reconfig-check", Switch, "true"),
    used("max-learners", Number, "1"),
    used("snapshot-count", Number, "100000"),
    // etcd's default is 5000; a member that was away for seconds of full load needs more.
    used("snapshot-catchup-entries", Number, "20000"),
    used("experimental-snapshot-catchup-entries", Number, "20000"),
    used("heartbeat-interval", Number, "100"),
    used("election-timeout", Number, "1000"),
    used("auto-compaction-mode", Text, "periodic"),
    used("auto-compaction-retention", Text, "0"),
    used("quota-backend-bytes", Text, "0"),
    used("max-txn-ops", Number, "128"),
    used("max-request-bytes", Number, "1572864"),
    used("max-concurrent-streams", Number, "4294967295"),
    used("grpc-keepalive-min-time", Duration, "5s"),
    used("grpc-keepalive-interval", Duration, "2h"),
    used("grpc-keepalive-timeout", Duration, "20s"),
    used("watch-progress-notify-interval", Duration, "10m"),
    used(
        "experimental-watch-progress-notify-interval",
        Duration,
        "10m",
    ),
    used("bcrypt-cost", Number, "10"),
    used("auth-token-ttl", Number, "300"),
    used("enable-grpc-gateway", Switch, "true"),
    // etcd's default is false; here v2 is a view of the same keys, not a second store to guard.
    used("enable-v2", Switch, "true"),
    // The fleet is ours: etcd has no such flags.
    used("fleet", Switch, "true"),
    used("fleet-namespace", Text, keys::DEFAULT_NAMESPACE),
    used("fleet-user", Text, "root"),
    used("cors", Text, "*"),
    used("host-whitelist", Text, "*"),
    used("cert-file", Text, ""),
    used("key-file", Text, ""),
    used("trusted-ca-file", Text, ""),
    used("client-cert-file", Text, ""),
    used("client-key-file", Text, ""),
    used("client-cert-auth", Switch, "false"),
    used("client-crl-file", Text, ""),
    used("client-cert-allowed-hostname", Text, ""),
    used("auto-tls", Switch, "false"),
    used("peer-cert-file", Text, ""),
    used("peer-key-file", Text, ""),
    used("peer-trusted-ca-file", Text, ""),
    used("peer-client-cert-file", Text, ""),
    used("peer-client-key-file", Text, ""),
    used("peer-client-cert-auth", Switch, "false"),
    used("peer-crl-file", Text, ""),
    used("peer-cert-allowed-cn", Text, ""),
    used("peer-cert-allowed-hostname", Text, ""),
    used("peer-auto-tls", Switch, "false"),
    used("peer-skip-client-san-verification", Switch, "false"),
    used(
        "experimental-peer-skip-client-san-verification",
        Switch,
        "false",
    ),
    used("cipher-suites", Text, ""),
    used("tls-min-version", Text, ""),
    used("tls-max-version", Text, ""),
    used("client-cert-allowed-cn", Text, ""),
    used("self-signed-cert-validity", Number, "1"),
    used("auth-token", Text, "simple"),
    used("log-level", Text, "info"),
    used("log-format", Text, "console"),
    used("log-outputs", Text, "default"),
    // Both are names of libraries; the lines are the same.
    used("logger", Text, "zap"),
    used("config-file", Text, ""),
    used("version", Switch, "false"),
    used("help", Switch, "false"),
    used("h", Switch, "false"),
    // Accepted, without effect in this version.
    idle("log-package-levels", Text, "", "use --log-level"),
    idle("debug", Switch, "false", "use --log-level=debug"),
    idle("enable-log-rotation", Switch, "false", ROTATION),
    idle("log-rotation-config-json", Text, "", ROTATION),
    idle(
        "metrics",
        Text,
        "basic",
        "the same metrics are served at every level",
    ),
    idle(
        "enable-pprof",
        Switch,
        "false",
        "there is no Go runtime to profile",
    ),
    idle(
        "initial-election-tick-advance",
        Switch,
        "true",
        "elections are not tuned this way",
    ),
    idle("pre-vote", Switch, "true", "pre-vote is always on"),
    idle("max-snapshots", Number, "5", BBOLT),
    idle("max-wals", Number, "5", BBOLT),
    idle("backend-batch-interval", Duration, "", BBOLT),
    idle("backend-batch-limit", Number, "0", BBOLT),
    idle("backend-bbolt-freelist-type", Text, "", BBOLT),
    idle("experimental-backend-bbolt-freelist-type", Text, "", BBOLT),
    idle("bootstrap-defrag-threshold-megabytes", Number, "0", BBOLT),
    idle(
        "experimental-bootstrap-defrag-threshold-megabytes",
        Number,
        "0",
        BBOLT,
    ),
    idle("compaction-batch-limit", Number, "1000", BBOLT),
    idle("experimental-compaction-batch-limit", Number, "1000", BBOLT),
    idle("compaction-sleep-interval", Duration, "10ms", BBOLT),
    idle(
        "experimental-compaction-sleep-interval",
        Duration,
        "10ms",
        BBOLT,
    ),
    idle(
        "unsafe-no-fsync",
        Switch,
        "false",
        "every write is still synced to disk",
    ),
    idle("memory-mlock", Switch, "false", BBOLT),
    idle("experimental-memory-mlock", Switch, "false", BBOLT),
    idle(
        "warning-apply-duration",
        Duration,
        "100ms",
        "slow applies are not logged",
    ),
    idle(
        "experimental-warning-apply-duration",
        Duration,
        "100ms",
        "slow applies are not logged",
    ),
    idle(
        "warning-unary-request-duration",
        Duration,
        "300ms",
        "slow requests are not logged",
    ),
    idle(
        "experimental-warning-unary-request-duration",
        Duration,
        "300ms",
        "slow requests are not logged",
    ),
    idle(
        "downgrade-check-time",
        Duration,
        "5s",
        "there is nothing to downgrade to",
    ),
    idle(
        "experimental-downgrade-check-time",
        Duration,
        "5s",
        "there is nothing to downgrade to",
    ),
    idle("initial-corrupt-check", Switch, "false", ALONE),
    idle("experimental-initial-corrupt-check", Switch, "false", ALONE),
    idle("corrupt-check-time", Duration, "0s", ALONE),
    idle("experimental-corrupt-check-time", Duration, "0s", ALONE),
    idle("compact-hash-check-enabled", Switch, "false", ALONE),
    idle(
        "experimental-compact-hash-check-enabled",
        Switch,
        "false",
        ALONE,
    ),
    idle("compact-hash-check-time", Duration, "1m", ALONE),
    idle(
        "experimental-compact-hash-check-time",
        Duration,
        "1m",
        ALONE,
    ),
    idle(
        "enable-lease-checkpoint",
        Switch,
        "false",
        "what is left of a long lease is always written down",
    ),
    idle(
        "experimental-enable-lease-checkpoint",
        Switch,
        "false",
        "what is left of a long lease is always written down",
    ),
    idle(
        "experimental-enable-lease-checkpoint-persist",
        Switch,
        "false",
        "what is left of a long lease is always written down",
    ),
    idle(
        "experimental-stop-grpc-service-on-defrag",
        Switch,
        "false",
        "reads go on while the database is defragmented",
    ),
    idle(
        "experimental-txn-mode-write-with-shared-buffer",
        Switch,
        "true",
        BBOLT,
    ),
    idle(
        "experimental-wait-cluster-ready-timeout",
        Duration,
        "5s",
        "the member serves as soon as it is ready",
    ),
    idle(
        "feature-gates",
        Text,
        "",
        "there are no feature gates; lease checkpoints are always on",
    ),
    idle(
        "v2-deprecation",
        Text,
        "",
        "the /v2 API is a view of the v3 keys; turn it off with --enable-v2=false",
    ),
    idle("raft-read-timeout", Duration, "5s", PEER_TIMES),
    idle("raft-write-timeout", Duration, "5s", PEER_TIMES),
    idle("enable-distributed-tracing", Switch, "false", NO_TRACING),
    idle(
        "distributed-tracing-address",
        Text,
        "localhost:4317",
        NO_TRACING,
    ),
    idle("distributed-tracing-service-name", Text, "etcd", NO_TRACING),
    idle("distributed-tracing-instance-id", Text, "", NO_TRACING),
    idle("distributed-tracing-sampling-rate", Number, "0", NO_TRACING),
    idle(
        "experimental-enable-distributed-tracing",
        Switch,
        "false",
        NO_TRACING,
    ),
    idle(
        "socket-reuse-port",
        Switch,
        "false",
        "a port is held by one process",
    ),
    idle(
        "socket-reuse-address",
        Switch,
        "false",
        "addresses are reused as the system does",
    ),
    idle("discovery-fallback", Text, "proxy", NO_DISCOVERY),
    idle("discovery-dial-timeout", Duration, "2s", NO_DISCOVERY),
    idle("discovery-request-timeout", Duration, "5s", NO_DISCOVERY),
    idle("discovery-keepalive-time", Duration, "2s", NO_DISCOVERY),
    idle("discovery-keepalive-timeout", Duration, "6s", NO_DISCOVERY),
    idle("discovery-insecure-transport", Switch, "true", NO_DISCOVERY),
    idle(
        "discovery-insecure-skip-tls-verify",
        Switch,
        "false",
        NO_DISCOVERY,
    ),
    idle("proxy-failure-wait", Number, "5000", PROXY),
    idle("proxy-refresh-interval", Number, "30000", PROXY),
    idle("proxy-dial-timeout", Number, "1000", PROXY),
    idle("proxy-write-timeout", Number, "5000", PROXY),
    idle("proxy-read-timeout", Number, "0", PROXY),
    // Refused: to ignore these would change what the operator may rely on.
    refused(
        "listen-client-http-urls",
        Text,
        "",
        "gRPC and HTTP share --listen-client-urls",
    ),
    refused("wal-dir", Text, "", "the log lies in --data-dir"),
    refused("discovery", Text, "", NO_DISCOVERY),
    refused("discovery-proxy", Text, "", NO_DISCOVERY),
    refused("discovery-srv", Text, "", NO_DISCOVERY),
    refused("discovery-srv-name", Text, "", NO_DISCOVERY),
    refused("discovery-token", Text, "", NO_DISCOVERY),
    refused("discovery-endpoints", Text, "", NO_DISCOVERY),
    refused("discovery-cert", Text, "", NO_DISCOVERY),
    refused("discovery-key", Text, "", NO_DISCOVERY),
    refused("discovery-cacert", Text, "", NO_DISCOVERY),
    refused("discovery-user", Text, "", NO_DISCOVERY),
    refused("discovery-password", Text, "", NO_DISCOVERY),
    refused("proxy", Text, "off", PROXY),
    refused(
        "experimental-enable-v2v3",
        Text,
        "",
        "the /v2 API always shows the v3 keys, without a prefix",
    ),
];

/// Looks a flag up by its name without dashes.
pub(super) fn find(name: &str) -> Option<&'static Definition> {
    DEFINITIONS
        .iter()
        .find(|definition| definition.name == name)
}

/// The known flag that a mistyped one most likely meant.
pub(super) fn closest(name: &str) -> Option<&'static str> {
    DEFINITIONS
        .iter()
        .filter(|definition| definition.name.len() > 2)
        .map(|definition| (edits(name, definition.name), definition.name))
        .filter(|(distance, known)| *distance <= 2 + known.len() / 12)
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein's distance; flag names are ASCII, so bytes are letters.
fn edits(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
