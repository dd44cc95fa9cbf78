//! The status document as Prometheus metrics. Names and meanings are listed in docs/operating.md.
//!
//! A registry is filled for each scrape from one document, so that all values are of one moment and
//! what is gone disappears.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use schemas::fleet::{
    AgentStatus, AttemptResult, ConfigSource, EntryState, EntryStatus, FileStatus, Watching,
};

type Labels = Vec<(&'static str, String)>;

/// The exposition, OpenMetrics 1.0.
pub(super) fn text(status: &AgentStatus) -> String {
    let mut registry = Registry::default();
    let ours = registry.sub_registry_with_prefix("logagent");
    agent(ours, status);
    entries(ours, &status.entries);
    files(ours, &status.files);
    process(registry.sub_registry_with_prefix("process"), status);
    let mut text = String::new();
    // Writing into a String cannot fail.
    let written = encode(&mut text, &registry);
    debug_assert!(written.is_ok());
    text
}

fn agent(registry: &mut Registry, status: &AgentStatus) {
    let labels = vec![
        ("version", status.agent_version.clone()),
        ("host", status.host.clone()),
    ];
    gauges(
        registry,
        "build_info",
        "The agent's version and name",
        [(labels, 1)],
    );
    let totals = &status.totals;
    for (name, help, value) in [
        ("lines_read", "Lines handed to the sink", totals.lines_read),
        (
            "lines_acked",
            "Lines acknowledged by Kafka",
            totals.lines_acked,
        ),
        (
            "acked_bytes",
            "Bytes of acknowledged lines",
            totals.bytes_acked,
        ),
        (
            "delivery_errors",
            "Blocks that Kafka refused and that are sent again",
            totals.delivery_errors,
        ),
        (
            "lost_bytes",
            "Bytes in the loss ledger, over all starts",
            totals.lost_bytes,
        ),
    ] {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    let attempt_failed = status
        .last_attempt
        .as_ref()
        .is_some_and(|attempt| attempt.result != AttemptResult::Applied);
    let revision = |revision: Option<i64>| revision.unwrap_or(0);
    for (name, help, value) in [
        (
            "in_flight_bytes",
            "Bytes read and not acknowledged, with their bookkeeping",
            status.in_flight.bytes as i64,
        ),
        (
            "in_flight_limit_bytes",
            "Reading pauses when this much is in flight",
            status.in_flight.max_bytes as i64,
        ),
        (
            "paused_files",
            "Files that may not read on because of that",
            status.in_flight.paused_files as i64,
        ),
        (
            "config_seen_revision",
            "Revision of the newest configuration received",
            revision(status.desired_seen.as_ref().map(|seen| seen.revision)),
        ),
        (
            "config_running_revision",
            "Revision of the configuration that runs",
            revision(status.running.as_ref().map(|running| running.revision)),
        ),
        (
            "config_failed",
            "1 when the last configuration was refused in whole or in part",
            i64::from(attempt_failed),
        ),
        (
            "config_from_cache",
            "1 when the running configuration came from the disk",
            i64::from(status.config_source == ConfigSource::Cache),
        ),
        (
            "polling",
            "1 when the file system gives no notifications",
            i64::from(status.watching == Watching::Polling),
        ),
        (
            "conflict",
            "1 while another agent reports under the same key",
            i64::from(status.conflict.is_some()),
        ),
        (
            "warnings",
            "Warnings in the status document",
            status.warnings.len() as i64,
        ),
    ] {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    let count = |wanted: EntryState| {
        let with = |entry: &&EntryStatus| entry.state == wanted;
        status.entries.iter().filter(with).count() as i64
    };
    let states = [
        ("waiting", EntryState::Waiting),
        ("running", EntryState::Running),
        ("failing", EntryState::Failing),
        ("rejected", EntryState::Rejected),
    ];
    gauges(
        registry,
        "entries",
        "Entries of the running configuration by state",
        states.map(|(name, state)| (vec![("state", name.to_owned())], count(state))),
    );
}

fn entries(registry: &mut Registry, entries: &[EntryStatus]) {
    let labels =
        |entry: &EntryStatus| vec![("path", entry.path.clone()), ("topic", entry.topic.clone())];
    let is_failing = |entry: &EntryStatus| {
        i64::from(matches!(
            entry.state,
            EntryState::Failing | EntryState::Rejected
        ))
    };
    type Value = fn(&EntryStatus) -> i64;
    let gauge: [(&str, &str, Value); 3] = [
        (
            "entry_failing",
            "1 when the entry cannot be collected or delivered",
            is_failing,
        ),
        ("entry_files", "Open files of the entry", |entry| {
            entry.files as i64
        }),
        ("entry_lag_bytes", "Written and not acknowledged", |entry| {
            entry.lag_bytes as i64
        }),
    ];
    for (name, help, value) in gauge {
        gauges(
            registry,
            name,
            help,
            entries.iter().map(|entry| (labels(entry), value(entry))),
        );
    }
    type Count = fn(&EntryStatus) -> u64;
    let counters: [(&str, &str, Count); 2] = [
        (
            "entry_lines_acked",
            "Acknowledged lines of the entry",
            |entry| entry.lines_acked,
        ),
        (
            "entry_acked_bytes",
            "Acknowledged bytes of the entry",
            |entry| entry.bytes_acked,
        ),
    ];
    for (name, help, value) in counters {
        let family = Family::<Labels, Counter>::default();
        for entry in entries {
            family.get_or_create(&labels(entry)).inc_by(value(entry));
        }
        registry.register(name, help, family);
    }
}

fn files(registry: &mut Registry, files: &[FileStatus]) {
    let labels = |file: &FileStatus| {
        vec![
            ("path", file.path.clone()),
            ("topic", file.topic.clone()),
            ("file", file.identity.clone()),
        ]
    };
    type Value = fn(&FileStatus) -> i64;
    let all: [(&str, &str, Value); 3] = [
        ("file_size_bytes", "Size of the file", |file| {
            file.size_bytes as i64
        }),
        (
            "file_acked_offset_bytes",
            "Everything before it is acknowledged",
            |file| file.acked_offset as i64,
        ),
        ("file_lag_bytes", "Written and not acknowledged", |file| {
            file.lag_bytes as i64
        }),
    ];
    for (name, help, value) in all {
        gauges(
            registry,
            name,
            help,
            files.iter().map(|file| (labels(file), value(file))),
        );
    }
    let acked = files.iter().filter_map(|file| {
        let at_s = file.last_ack_ms? as f64 / 1_000.0;
        Some((labels(file), at_s))
    });
    let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
    for (labels, at_s) in acked {
        family.get_or_create(&labels).set(at_s);
    }
    registry.register(
        "file_last_ack_timestamp_seconds",
        "When Kafka last acknowledged something of the file",
        family,
    );
}

fn gauges(
    registry: &mut Registry,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (Labels, i64)>,
) {
    let family = Family::<Labels, Gauge>::default();
    for (labels, value) in rows {
        // One path with several spellings of an option is one series.
        family.get_or_create(&labels).inc_by(value);
    }
    registry.register(name, help, family);
}

/// The names that every Prometheus client library uses.
fn process(registry: &mut Registry, status: &AgentStatus) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let number = |at: usize| -> f64 {
        fields
            .get(at)
            .and_then(|field| field.parse().ok())
            .unwrap_or(0.0)
    };
    let cpu = Counter::<f64, AtomicU64>::default();
    cpu.inc_by((number(11) + number(12)) / TICKS_PER_S);
    registry.register_with_unit("cpu", "Processor time", Unit::Seconds, cpu);
    let memory = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident_kib: f64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0.0);
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    for (name, help, value) in [
        (
            "resident_memory_bytes",
            "Resident memory",
            resident_kib * 1_024.0,
        ),
        ("open_fds", "Open descriptors", open as f64),
        (
            "max_fds",
            "Limit of open descriptors",
            limit.current.map_or(f64::INFINITY, |max| max as f64),
        ),
        (
            "start_time_seconds",
            "When the agent started",
            status.started_at_ms as f64 / 1_000.0,
        ),
    ] {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
}

/// The unit of /proc/PID/stat, the same on every Linux that Rust's standard library supports.
const TICKS_PER_S: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_one_end() {
        let status = AgentStatus {
            entries: vec![EntryStatus {
                path: "/var/log/\"a\".log".to_owned(),
                topic: "t".to_owned(),
                state: EntryState::Failing,
                lag_bytes: 7,
                ..EntryStatus::default()
            }],
            files: vec![FileStatus {
                path: "/p".to_owned(),
                topic: "t".to_owned(),
                identity: "1:2".to_owned(),
                acked_offset: 5,
                last_ack_ms: Some(1_500),
                ..FileStatus::default()
            }],
            ..AgentStatus::default()
        };
        let text = text(&status);
        for line in [
            "logagent_lines_acked_total 0",
            "logagent_entries{state=\"failing\"} 1",
            "logagent_entry_lag_bytes{path=\"/var/log/\\\"a\\\".log\",topic=\"t\"} 7",
            "logagent_file_acked_offset_bytes{path=\"/p\",topic=\"t\",file=\"1:2\"} 5",
            "logagent_file_last_ack_timestamp_seconds{path=\"/p\",topic=\"t\",file=\"1:2\"} 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
        assert!(text.ends_with("# EOF\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(
                line.starts_with("logagent_") || line.starts_with("process_"),
                "{line}"
            );
        }
    }
}
