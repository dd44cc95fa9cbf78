//! Judges the given values together: URLs, ranges, what is refused, what only warns.

use std::path::PathBuf;
use std::time::Duration;

use config_center_core::auto_compaction::Retention;
use config_center_core::quota::DEFAULT_QUOTA_BYTES;

mod logs;
mod security;
mod urls;

use super::UsageError;
use super::command_line::{Given, duration_ms};
use super::definitions::{DEFINITIONS, Treatment, find};
use crate::api::http::{Access, Allowed, HttpRules};
use crate::fleet::keys::Namespace;
use crate::raft::{ClusterState, InitialMember, Reconfiguration};
use crate::tls::TlsSettings;

pub use logs::{LogFormat, LogLevel, LogOutput};
pub use security::TokenKind;
pub use urls::{ListenAt, ListenUrl};

use urls::{advertised_clients, initial_cluster, listen_urls, plain_urls};

/// Below this a progress notification would be traffic of its own.
const MIN_PROGRESS_NOTIFY_MS: u64 = 100;
/// etcd's ceiling of `--election-timeout`.
const MAX_ELECTION_MS: u64 = 50_000;
/// The largest `--max-request-bytes`; a message is held in memory several times on its way.
const MAX_REQUEST_BYTES: u64 = 64 << 20;

/// A larger quota is allowed, and warned of as in etcd.
const ADVISED_QUOTA_BYTES: i64 = 8 << 30;

/// What this member does for the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetSettings {
    /// The part of the key space that the fleet lives in.
    pub namespace: Namespace,
    /// The user of the store as whom rollouts are carried out while authentication is on.
    pub user: String,
}

/// What the process runs with; every value is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub name: String,
    pub data_dir: PathBuf,
    pub listen_client_urls: Vec<ListenUrl>,
    pub listen_metrics_urls: Vec<ListenUrl>,
    pub listen_peer_urls: Vec<ListenUrl>,
    pub advertise_client_urls: Vec<String>,
    pub advertise_peer_urls: Vec<String>,
    pub cluster_token: String,
    /// Empty when it was not given: this member alone.
    pub initial_cluster: Vec<InitialMember>,
    pub cluster_state: ClusterState,
    pub force_new_cluster: bool,
    pub reconfiguration: Reconfiguration,
    pub snapshot_count: u64,
    pub catchup_entries: u64,
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    pub max_txn_ops: usize,
    pub max_request_bytes: usize,
    pub max_concurrent_streams: u32,
    /// `--quota-backend-bytes`; `None`: no limit.
    pub quota_bytes: Option<i64>,
    /// Zero turns the server's pings off.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    /// Between two pings of a client.
    pub keepalive_min_time: Duration,
    pub watch_progress_interval: Duration,
    /// `None`: history grows until somebody compacts it.
    pub auto_compaction: Option<Retention>,
    pub http_rules: HttpRules,
    /// `None`: this member neither carries rollouts out nor serves `/api/v1`.
    pub fleet: Option<FleetSettings>,
    pub client_tls: TlsSettings,
    pub peer_tls: TlsSettings,
    pub token_kind: TokenKind,
    pub bcrypt_cost: u32,
    /// How long a simple token lives without being used.
    pub auth_token_ttl: Duration,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    pub log_outputs: Vec<LogOutput>,
    /// One line each, to be logged once at the start.
    pub warnings: Vec<String>,
}

impl Settings {
    pub(super) fn judge(given: Given) -> Result<Self, UsageError> {
        let mut warnings = given.warnings.clone();
        refuse_and_warn(&given, &mut warnings)?;

        let name = text(&given, "name").to_owned();
        let data_dir = match given.text("data-dir") {
            None | Some("") => format!("{name}.etcd"),
            Some(folder) => folder.to_owned(),
        };
        let listen_client_urls = listen_urls(&given, "listen-client-urls")?;
        let advertise_client_urls = advertised_clients(&given, &listen_client_urls)?;
        let listen_metrics_urls = match text(&given, "listen-metrics-urls") {
            "" => Vec::new(),
            _ => listen_urls(&given, "listen-metrics-urls")?,
        };
        let listen_peer_urls = listen_urls(&given, "listen-peer-urls")?;
        let client_tls = security::client_tls(&given)?;
        let peer_tls = security::peer_tls(&given)?;
        for (name, urls, tls, side) in [
            ("listen-client-urls", &listen_client_urls, &client_tls, ""),
            ("listen-metrics-urls", &listen_metrics_urls, &client_tls, ""),
            ("listen-peer-urls", &listen_peer_urls, &peer_tls, "peer-"),
        ] {
            security::check_schemes(&given, name, urls, tls, side, &mut warnings)?;
        }
        let advertise_peer_urls = plain_urls(&given, "initial-advertise-peer-urls")?;
        let initial_cluster = initial_cluster(&given)?;
        let cluster_state = cluster_state(&given)?;

        let heartbeat_ms = number(&given, "heartbeat-interval", 1, MAX_ELECTION_MS)?;
        let election_ms = number(&given, "election-timeout", 1, MAX_ELECTION_MS)?;
        if election_ms < 5 * heartbeat_ms {
            return Err(UsageError::invalid(
                &given.spelled("election-timeout"),
                &election_ms.to_string(),
                format!("it must be at least 5 times --heartbeat-interval ({heartbeat_ms})"),
            ));
        }
        let most = u64::from(u32::MAX);
        let max_concurrent_streams = number(&given, "max-concurrent-streams", 1, most)?;
        let max_concurrent_streams = u32::try_from(max_concurrent_streams).unwrap_or(u32::MAX);
        Ok(Self {
            data_dir: PathBuf::from(data_dir),
            listen_client_urls,
            listen_metrics_urls,
            listen_peer_urls,
            advertise_client_urls,
            advertise_peer_urls,
            cluster_token: text(&given, "initial-cluster-token").to_owned(),
            initial_cluster,
            cluster_state,
            force_new_cluster: given.switch("force-new-cluster"),
            reconfiguration: Reconfiguration {
                is_strict: strict_reconfig_check(&given),
                max_learners: as_usize(number(&given, "max-learners", 1, u64::from(u32::MAX))?),
            },
            snapshot_count: number(&given, "snapshot-count", 1, u64::MAX)?,
            catchup_entries: catchup_entries(&given)?,
            heartbeat_ms,
            election_ms,
            max_txn_ops: as_usize(number(&given, "max-txn-ops", 1, u64::from(u32::MAX))?),
            max_request_bytes: as_usize(number(&given, "max-request-bytes", 1, MAX_REQUEST_BYTES)?),
            max_concurrent_streams,
            quota_bytes: quota_bytes(&given, &mut warnings)?,
            keepalive_interval: interval(&given, "grpc-keepalive-interval"),
            keepalive_timeout: interval(&given, "grpc-keepalive-timeout"),
            keepalive_min_time: keepalive_min_time(&given),
            watch_progress_interval: progress_interval(&given, &mut warnings),
            auto_compaction: auto_compaction(&given)?,
            http_rules: HttpRules {
                access: Access {
                    origins: names(&given, "cors"),
                    hosts: names(&given, "host-whitelist"),
                },
                json_gateway: switch(&given, "enable-grpc-gateway"),
                v2: switch(&given, "enable-v2"),
                max_concurrent_streams,
            },
            fleet: fleet(&given)?,
            client_tls,
            peer_tls,
            token_kind: security::token_kind(&given, &mut warnings)?,
            bcrypt_cost: bcrypt_cost(&given, &mut warnings)?,
            auth_token_ttl: token_ttl(&given)?,
            log_level: logs::level(&given)?,
            log_format: logs::format(&given)?,
            log_outputs: logs::outputs(&given)?,
            name,
            warnings,
        })
    }
}

fn fleet(given: &Given) -> Result<Option<FleetSettings>, UsageError> {
    let namespace = text(given, "fleet-namespace");
    if !namespace.starts_with('/') {
        return Err(UsageError::invalid(
            &given.spelled("fleet-namespace"),
            namespace,
            "it begins with /, such as /ningxin/backend",
        ));
    }
    Ok(switch(given, "fleet").then(|| FleetSettings {
        namespace: Namespace::new(namespace),
        user: text(given, "fleet-user").to_owned(),
    }))
}

/// The given text, or the default.
fn text<'a>(given: &'a Given, name: &str) -> &'a str {
    given
        .text(name)
        .unwrap_or_else(|| find(name).map_or("", |definition| definition.default))
}

/// The given switch, or the default.
fn switch(given: &Given, name: &str) -> bool {
    match given.text(name) {
        Some(_) => given.switch(name),
        None => find(name).is_some_and(|definition| definition.default == "true"),
    }
}

/// Comma-separated names, `*` for any; nothing at all means any as well, as in etcd.
fn names(given: &Given, name: &str) -> Allowed {
    let names = text(given, name).split(',').map(str::trim);
    Allowed::new(names.filter(|name| !name.is_empty()))
}

fn refuse_and_warn(given: &Given, warnings: &mut Vec<String>) -> Result<(), UsageError> {
    for definition in DEFINITIONS {
        let Some(value) = given.text(definition.name) else {
            continue;
        };
        let spelled = given.spelled(definition.name);
        let harmless = value == definition.default
            || (definition.kind == super::definitions::Kind::Switch
                && given.switch(definition.name).to_string() == definition.default);
        match definition.treatment {
            Treatment::Used => {}
            _ if harmless => {}
            Treatment::NoEffect(note) => {
                warnings.push(format!("{spelled} has no effect yet: {note}"));
            }
            Treatment::Refused(note) => return Err(UsageError::NotSupported { spelled, note }),
        }
    }
    Ok(())
}

fn number(given: &Given, name: &str, least: u64, most: u64) -> Result<u64, UsageError> {
    let value = text(given, name);
    match value.parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(UsageError::invalid(
            &given.spelled(name),
            value,
            format!("it must be between {least} and {most}"),
        )),
    }
}

fn as_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn interval(given: &Given, name: &str) -> Duration {
    Duration::from_millis(duration_ms(text(given, name)).unwrap_or(0))
}

/// 0 leaves it to gRPC, which then allows a ping every five minutes.
fn keepalive_min_time(given: &Given) -> Duration {
    match interval(given, "grpc-keepalive-min-time") {
        Duration::ZERO => Duration::from_secs(300),
        asked => asked,
    }
}

/// 0 means the default, a negative number no limit.
fn quota_bytes(given: &Given, warnings: &mut Vec<String>) -> Result<Option<i64>, UsageError> {
    const FLAG: &str = "quota-backend-bytes";
    let value = text(given, FLAG);
    match value.parse::<i64>() {
        Ok(..0) => Ok(None),
        Ok(0) => Ok(Some(DEFAULT_QUOTA_BYTES)),
        Ok(limit) => {
            if limit > ADVISED_QUOTA_BYTES {
                warnings.push(format!(
                    "{} is above 8 GiB: starts and snapshots will take long",
                    given.spelled(FLAG)
                ));
            }
            Ok(Some(limit))
        }
        Err(_) => Err(UsageError::invalid(
            &given.spelled(FLAG),
            value,
            "it is not a whole number",
        )),
    }
}

/// A whole number counts hours or revisions, by the mode; hours may also be a duration.
fn auto_compaction(given: &Given) -> Result<Option<Retention>, UsageError> {
    const MODE: &str = "auto-compaction-mode";
    const RETENTION: &str = "auto-compaction-retention";
    let invalid = |name, value: &str, fault: &str| {
        Err(UsageError::invalid(&given.spelled(name), value, fault))
    };
    let retention = text(given, RETENTION);
    let kept = match text(given, MODE) {
        "periodic" => {
            let ms = match retention.parse::<u64>() {
                _ if retention.is_empty() => Some(0),
                Ok(hours) => hours.checked_mul(3_600_000),
                Err(_) => duration_ms(retention),
            };
            match ms {
                Some(ms) => Retention::Period { ms },
                None => {
                    return invalid(
                        RETENTION,
                        retention,
                        "it is neither a number of hours nor a duration such as 30m",
                    );
                }
            }
        }
        "revision" => match retention.parse() {
            Ok(count @ 0..) => Retention::Revisions(count),
            _ => return invalid(RETENTION, retention, "it is not a number of revisions"),
        },
        other => return invalid(MODE, other, "it is periodic or revision"),
    };
    let is_off = matches!(kept, Retention::Period { ms: 0 } | Retention::Revisions(0));
    Ok((!is_off).then_some(kept))
}

fn progress_interval(given: &Given, warnings: &mut Vec<String>) -> Duration {
    const NEW: &str = "watch-progress-notify-interval";
    const OLD: &str = "experimental-watch-progress-notify-interval";
    let name = if given.text(NEW).is_none() { OLD } else { NEW };
    let asked_ms = duration_ms(text(given, name)).unwrap_or(0);
    match asked_ms {
        // Go's zero value means "not set".
        0 => Duration::from_secs(600),
        1..MIN_PROGRESS_NOTIFY_MS => {
            warnings.push(format!("{} is raised to 100ms", given.spelled(name)));
            Duration::from_millis(MIN_PROGRESS_NOTIFY_MS)
        }
        _ => Duration::from_millis(asked_ms),
    }
}

/// bcrypt's own limits; outside of them etcd takes its default, and so does this, aloud.
fn bcrypt_cost(given: &Given, warnings: &mut Vec<String>) -> Result<u32, UsageError> {
    let cost = number(given, "bcrypt-cost", 0, u64::from(u32::MAX))?;
    match u32::try_from(cost) {
        Ok(cost @ 4..=31) => Ok(cost),
        _ => {
            warnings.push(format!(
                "{} {cost} is not between 4 and 31; 10 is used",
                given.spelled("bcrypt-cost")
            ));
            Ok(10)
        }
    }
}

fn token_ttl(given: &Given) -> Result<Duration, UsageError> {
    Ok(
        match number(given, "auth-token-ttl", 0, u64::from(u32::MAX))? {
            // Go's zero value means "not set".
            0 => Duration::from_secs(300),
            seconds => Duration::from_secs(seconds),
        },
    )
}

/// The newer of the flag's two names wins.
fn catchup_entries(given: &Given) -> Result<u64, UsageError> {
    const NEW: &str = "snapshot-catchup-entries";
    const OLD: &str = "experimental-snapshot-catchup-entries";
    let name = if given.text(NEW).is_none() { OLD } else { NEW };
    number(given, name, 1, u64::from(u32::MAX))
}

/// On unless it is turned off.
fn strict_reconfig_check(given: &Given) -> bool {
    given.text("strict-reconfig-check").is_none() || given.switch("strict-reconfig-check")
}

fn cluster_state(given: &Given) -> Result<ClusterState, UsageError> {
    match text(given, "initial-cluster-state") {
        "new" => Ok(ClusterState::New),
        "existing" => Ok(ClusterState::Existing),
        other => {
            let spelled = given.spelled("initial-cluster-state");
            Err(UsageError::invalid(
                &spelled,
                other,
                "it is new or existing",
            ))
        }
    }
}

#[cfg(test)]
mod tests;
