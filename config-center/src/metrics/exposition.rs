//! The text that Prometheus scrapes.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use super::{Metrics, Operations, Rpc, process};

/// gRPC's names of its codes, as grpc_server_handled_total spells them.
const CODE_NAMES: [&str; super::CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// What only the running member knows, taken at the moment of the scrape.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub member_id: u64,
    pub leader_id: u64,
    pub raft_index: u64,
    pub applied_index: u64,
    pub pending_proposals: usize,
    pub db_size_bytes: i64,
    pub db_size_in_use_bytes: i64,
    pub revision: i64,
    pub compact_revision: i64,
    pub watchers: usize,
    pub watch_streams: usize,
    pub leases: usize,
    pub is_learner: bool,
    /// `None`: no limit.
    pub quota_bytes: Option<i64>,
}

/// How long the disk took.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub log_flush: Histogram,
    pub state_commit: Histogram,
}

/// Bytes on the connections that this member has made to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerTraffic {
    pub member_id: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// A histogram kept elsewhere: upper bounds in seconds with the count at or below each.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    pub buckets: Vec<(f64, u64)>,
    pub count: u64,
    pub sum_s: f64,
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        if labels.is_empty() {
            writeln!(self.0, "{name} {value}").ok();
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}").ok();
        }
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound_s, count) in &histogram.buckets {
            self.line(&bucket, &format!("le=\"{bound_s}\""), count);
        }
        self.line(&bucket, "le=\"+Inf\"", histogram.count);
        self.line(&format!("{name}_sum"), "", histogram.sum_s);
        self.line(&format!("{name}_count"), "", histogram.count);
    }
}

impl Metrics {
    /// The page for `/metrics`.
    #[must_use]
    pub fn render(
        &self,
        figures: &Figures,
        operations: &Operations,
        disk: &Disk,
        peers: &[PeerTraffic],
        version: Version<'_>,
    ) -> String {
        self.observe_leader(figures.leader_id);
        let mut page = Page::default();
        self.server(&mut page, figures, version);
        store(&mut page, figures, operations);
        page.histogram(
            "etcd_disk_wal_fsync_duration_seconds",
            "How long a group of log entries took to reach the disk.",
            &disk.log_flush,
        );
        page.histogram(
            "etcd_disk_backend_commit_duration_seconds",
            "How long a transaction of the state took.",
            &disk.state_commit,
        );
        network(&mut page, peers);
        self.calls(&mut page);
        self.process(&mut page);
        page.0
    }

    fn server(&self, page: &mut Page, figures: &Figures, version: Version<'_>) {
        let has_leader = u8::from(figures.leader_id != 0);
        let is_leader = u8::from(figures.leader_id != 0 && figures.leader_id == figures.member_id);
        page.single(
            "etcd_server_has_leader",
            "gauge",
            "1 if a leader is known.",
            has_leader,
        );
        page.single(
            "etcd_server_is_leader",
            "gauge",
            "1 if this member leads.",
            is_leader,
        );
        page.single(
            "etcd_server_is_learner",
            "gauge",
            "1 if this member is a learner.",
            u8::from(figures.is_learner),
        );
        page.single(
            "etcd_server_leader_changes_seen_total",
            "counter",
            "Leaders that this member has seen come.",
            self.leader_changes.load(Ordering::Relaxed),
        );
        page.single(
            "etcd_server_proposals_committed_total",
            "gauge",
            "Index of the last entry in the log, which a single member commits at once.",
            figures.raft_index,
        );
        page.single(
            "etcd_server_proposals_applied_total",
            "gauge",
            "Index of the last applied entry.",
            figures.applied_index,
        );
        page.single(
            "etcd_server_proposals_pending",
            "gauge",
            "Proposals that wait for their answer.",
            figures.pending_proposals,
        );
        page.single(
            "etcd_server_proposals_failed_total",
            "counter",
            "Proposals that were not answered by an apply.",
            self.proposals_failed.load(Ordering::Relaxed),
        );
        page.head(
            "etcd_server_version",
            "gauge",
            "The etcd version whose API is served.",
        );
        page.line(
            "etcd_server_version",
            &format!("server_version=\"{}\"", version.server),
            1,
        );
        page.head(
            "etcd_cluster_version",
            "gauge",
            "The etcd version that the cluster agrees on.",
        );
        page.line(
            "etcd_cluster_version",
            &format!("cluster_version=\"{}\"", version.cluster),
            1,
        );
        page.single(
            "etcd_server_quota_backend_bytes",
            "gauge",
            "The quota of the database; 0: none.",
            figures.quota_bytes.unwrap_or(0),
        );
        page.head(
            "etcd_server_id",
            "gauge",
            "This member's id in hexadecimal.",
        );
        page.line(
            "etcd_server_id",
            &format!("server_id=\"{:x}\"", figures.member_id),
            1,
        );
    }

    fn calls(&self, page: &mut Page) {
        let labels = |rpc: Rpc| {
            let (service, method, kind) = rpc.labels();
            format!("grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"")
        };
        page.head(
            "grpc_server_started_total",
            "counter",
            "Calls that were started.",
        );
        for rpc in Rpc::ALL {
            let count = self.started[*rpc as usize].load(Ordering::Relaxed);
            page.line("grpc_server_started_total", &labels(*rpc), count);
        }
        page.head(
            "grpc_server_handled_total",
            "counter",
            "Calls that ended, by their code.",
        );
        for rpc in Rpc::ALL {
            for (code, name) in CODE_NAMES.iter().enumerate() {
                let count = self.handled[*rpc as usize][code].load(Ordering::Relaxed);
                if count > 0 {
                    let labels = format!("grpc_code=\"{name}\",{}", labels(*rpc));
                    page.line("grpc_server_handled_total", &labels, count);
                }
            }
        }
        page.single(
            "config_center_client_connections",
            "gauge",
            "Open client connections.",
            self.connections.load(Ordering::Relaxed),
        );
    }

    fn process(&self, page: &mut Page) {
        page.single(
            "process_cpu_seconds_total",
            "counter",
            "User and system CPU time.",
            process::cpu_seconds(),
        );
        if let Some(bytes) = process::resident_bytes() {
            page.single(
                "process_resident_memory_bytes",
                "gauge",
                "Resident memory.",
                bytes,
            );
        }
        if let Some(files) = process::open_files() {
            page.single("process_open_fds", "gauge", "Open file descriptors.", files);
        }
        let started = self
            .process_started
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        page.single(
            "process_start_time_seconds",
            "gauge",
            "Start of the process since the Unix epoch.",
            started.as_secs_f64(),
        );
    }
}

/// Which etcd this is like.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    pub server: &'a str,
    /// Without the last number.
    pub cluster: &'a str,
}

fn network(page: &mut Page, peers: &[PeerTraffic]) {
    let name = "etcd_network_peer_sent_bytes_total";
    page.head(
        name,
        "counter",
        "Bytes sent to a member on connections made here.",
    );
    for peer in peers {
        let to = format!("To=\"{:x}\"", peer.member_id);
        page.line(name, &to, peer.sent_bytes);
    }
    let name = "etcd_network_peer_received_bytes_total";
    page.head(
        name,
        "counter",
        "Bytes received from a member on connections made here.",
    );
    for peer in peers {
        let from = format!("From=\"{:x}\"", peer.member_id);
        page.line(name, &from, peer.received_bytes);
    }
}

fn store(page: &mut Page, figures: &Figures, operations: &Operations) {
    page.single(
        "etcd_debugging_mvcc_keys_total",
        "gauge",
        "Keys that exist.",
        operations.keys.load(Ordering::Relaxed),
    );
    for (name, help, count) in [
        ("etcd_mvcc_put_total", "Puts carried out.", &operations.puts),
        (
            "etcd_mvcc_delete_total",
            "Deletions carried out.",
            &operations.deletes,
        ),
        (
            "etcd_mvcc_txn_total",
            "Transactions carried out.",
            &operations.txns,
        ),
        (
            "etcd_mvcc_range_total",
            "Reads served here, and those in transactions.",
            &operations.ranges,
        ),
    ] {
        page.single(name, "counter", help, count.load(Ordering::Relaxed));
    }
    page.single(
        "etcd_mvcc_db_total_size_in_bytes",
        "gauge",
        "Size of the database files.",
        figures.db_size_bytes,
    );
    page.single(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "gauge",
        "Size of the database files without their free pages.",
        figures.db_size_in_use_bytes,
    );
    page.single(
        "etcd_debugging_mvcc_current_revision",
        "gauge",
        "The store's revision.",
        figures.revision,
    );
    page.single(
        "etcd_debugging_mvcc_compact_revision",
        "gauge",
        "The last compacted revision.",
        figures.compact_revision.max(0),
    );
    page.single(
        "etcd_debugging_mvcc_watcher_total",
        "gauge",
        "Watchers.",
        figures.watchers,
    );
    page.single(
        "etcd_debugging_mvcc_watch_stream_total",
        "gauge",
        "Watch streams with a watcher.",
        figures.watch_streams,
    );
    page.single("config_center_leases", "gauge", "Leases.", figures.leases);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_well_formed_and_counts() {
        let metrics = Metrics::default();
        metrics.started(Rpc::Put);
        metrics.handled(Rpc::Put, 0);
        metrics.handled(Rpc::Put, 8);
        metrics.handled(Rpc::Put, 99);
        let figures = Figures {
            member_id: 7,
            leader_id: 7,
            ..Figures::default()
        };
        let histogram = Histogram {
            buckets: vec![(0.001, 2)],
            count: 3,
            sum_s: 0.5,
        };
        let disk = Disk {
            log_flush: histogram,
            ..Disk::default()
        };
        let peers = [PeerTraffic {
            member_id: 255,
            sent_bytes: 3,
            received_bytes: 4,
        }];
        let version = Version {
            server: "3.7.1",
            cluster: "3.7",
        };
        let page = metrics.render(&figures, &Operations::default(), &disk, &peers, version);
        for line in [
            "etcd_server_has_leader 1",
            "etcd_server_is_leader 1",
            "etcd_server_leader_changes_seen_total 1",
            "etcd_server_version{server_version=\"3.7.1\"} 1",
            "etcd_cluster_version{cluster_version=\"3.7\"} 1",
            "etcd_network_peer_sent_bytes_total{To=\"ff\"} 3",
            "etcd_network_peer_received_bytes_total{From=\"ff\"} 4",
            "etcd_mvcc_put_total 0",
            "etcd_disk_backend_commit_duration_seconds_count 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 2",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 3",
            "grpc_server_handled_total{grpc_code=\"ResourceExhausted\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
            "grpc_server_started_total{grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 0",
        ] {
            assert!(
                page.lines().any(|found| found == line),
                "{line} is missing in\n{page}"
            );
        }
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
