//! What this agent was told at its start: flag over environment over file over default.
//!
//! Pure apart from reading the one YAML file and asking for the host's own names. Knows nothing of
//! the entries that the center sends: those are `remote` and the core's plan.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemas::agent::validate_topic;
use serde::Deserialize;

use crate::address;
use crate::flags::{Flags, Home};

pub const DEFAULT_KEY: &str = "/ningxin/backend/logagent/config/{ip}";
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:2379";
pub const DEFAULT_DATA_DIR: &str = "/var/lib/logagent";
pub const DEFAULT_ALLOW: &str = "/var/log";
const DEFAULT_STATUS_INTERVAL: Duration = Duration::from_secs(5);
const STATUS_INTERVAL_MIN: Duration = Duration::from_millis(100);
const STATUS_INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// Longest agent.yaml that is read; a larger one is a wrong path.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// The settings of one run, complete and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub etcd: EtcdSettings,
    pub config_key: String,
    /// Absent when the config key has no segment `config` and none was given: then nothing is
    /// reported.
    pub status_key: Option<String>,
    /// The last part of the config key: the name under which the center knows this host.
    pub host: String,
    pub hostname: String,
    pub kafka: BTreeMap<String, String>,
    /// Where lines go that Kafka refuses for good, or that are too long and asked to go there.
    pub dead_letter_topic: Option<String>,
    pub data_dir: PathBuf,
    pub allow: Vec<PathBuf>,
    pub status_interval: Duration,
    pub labels: BTreeMap<String, String>,
    /// Where /metrics and the health checks are served; nowhere unless it is asked for.
    pub listen: Option<SocketAddr>,
    pub sink: SinkChoice,
}

/// Where lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SinkChoice {
    #[default]
    Kafka,
    /// For trying out: every line on standard output.
    Stdout,
    /// For trying out: every line appended to this file; `{topic}` in its path is the entry's.
    File(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdSettings {
    pub endpoints: Vec<String>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: {message}", path = path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("{name}: {message}")]
    Value { name: &'static str, message: String },
}

/// The names of this machine that a key template may mention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNames {
    pub ip: String,
    pub hostname: String,
}

impl HostNames {
    pub fn of_this_machine() -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            ip: address::host_address().to_string(),
            hostname: hostname.trim().to_owned(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    etcd: EtcdFile,
    key: Option<String>,
    host: Option<String>,
    id: Option<String>,
    kafka: BTreeMap<String, Scalar>,
    dead_letter_topic: Option<String>,
    data_dir: Option<PathBuf>,
    allow: Option<Vec<PathBuf>>,
    status_key: Option<String>,
    status_interval: Option<String>,
    labels: BTreeMap<String, Scalar>,
    listen: Option<Scalar>,
    sink: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EtcdFile {
    endpoints: Option<Vec<String>>,
    username: Option<String>,
    password: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// `linger.ms: 5` and `linger.ms: "5"` mean the same.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => value,
        }
    }
}

/// Reads the file that the flags name and merges everything.
pub fn load(flags: &Flags, names: &HostNames) -> Result<Settings, SettingsError> {
    let file = match &flags.config {
        Some(path) => parse(path, &read(path)?)?,
        None => File::default(),
    };
    merge(flags, file, names)
}

fn read(path: &Path) -> Result<String, SettingsError> {
    let wrap = |source| SettingsError::Read {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(wrap)?.len() > FILE_MAX_BYTES {
        return Err(SettingsError::Syntax {
            path: path.to_owned(),
            message: format!("larger than {FILE_MAX_BYTES} bytes, this is no agent.yaml"),
        });
    }
    std::fs::read_to_string(path).map_err(wrap)
}

fn parse(path: &Path, text: &str) -> Result<File, SettingsError> {
    let blank = text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim().starts_with('#'));
    if blank {
        return Ok(File::default());
    }
    serde_yaml::from_str(text).map_err(|error| SettingsError::Syntax {
        path: path.to_owned(),
        message: error.to_string().replace('\n', " "),
    })
}

fn merge(flags: &Flags, file: File, names: &HostNames) -> Result<Settings, SettingsError> {
    let host_names = HostNames {
        ip: flags
            .host
            .clone()
            .or(file.host)
            .unwrap_or_else(|| names.ip.clone()),
        hostname: names.hostname.clone(),
    };
    let id = flags.id.clone().or(file.id);
    let template = flags
        .key
        .clone()
        .or(file.key)
        .unwrap_or_else(|| DEFAULT_KEY.to_owned());
    let config_key = expand("key", &template, &host_names, id.as_deref())?;
    let host = config_key
        .rsplit('/')
        .find(|part| !part.is_empty())
        .unwrap_or_default()
        .to_owned();
    let status_key = match flags.status_key.clone().or(file.status_key) {
        Some(template) => Some(expand("status_key", &template, &host_names, id.as_deref())?),
        None => status_key_of(&config_key),
    };
    if status_key.as_deref() == Some(config_key.as_str()) {
        return Err(value(
            "status_key",
            "is the config key itself: choose another one",
        ));
    }
    let status_interval = match flags.status_interval.clone().or(file.status_interval) {
        Some(text) => status_interval(&text)?,
        None => DEFAULT_STATUS_INTERVAL,
    };
    let sink = sink(flags.sink.as_deref().or(file.sink.as_deref()))?;
    let data_dir = flags
        .data_dir
        .clone()
        .or(file.data_dir)
        .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
    Ok(Settings {
        etcd: etcd(flags, file.etcd)?,
        config_key,
        status_key,
        host,
        hostname: host_names.hostname,
        kafka: kafka(flags, file.kafka, &sink)?,
        dead_letter_topic: dead_letter_topic(
            flags.dead_letter_topic.clone().or(file.dead_letter_topic),
        )?,
        data_dir: data_dir_of(&data_dir, &sink),
        allow: allow(flags.allow.clone().or(file.allow))?,
        status_interval,
        labels: pairs("label", file.labels, &flags.labels)?,
        listen: listen(flags.listen.clone().or(file.listen.map(Scalar::into_text)))?,
        sink,
    })
}

/// What a command that does not run the agent needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    pub data_dir: PathBuf,
    pub allow: Vec<PathBuf>,
}

/// Reads them as `load` does, and asks for nothing else.
pub fn whereabouts(home: &Home) -> Result<Whereabouts, SettingsError> {
    let file = match &home.config {
        Some(path) => parse(path, &read(path)?)?,
        None => File::default(),
    };
    let sink = sink(home.sink.as_deref().or(file.sink.as_deref()))?;
    let data_dir = home
        .data_dir
        .clone()
        .or(file.data_dir)
        .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
    Ok(Whereabouts {
        data_dir: data_dir_of(&data_dir, &sink),
        allow: allow(home.allow.clone().or(file.allow))?,
    })
}

/// What was only tried out must not count as delivered to Kafka: it has checkpoints of its own.
fn data_dir_of(data_dir: &Path, sink: &SinkChoice) -> PathBuf {
    match sink {
        SinkChoice::Kafka => data_dir.to_owned(),
        SinkChoice::Stdout => data_dir.join("tried-on-stdout"),
        SinkChoice::File(_) => data_dir.join("tried-on-file"),
    }
}

fn sink(text: Option<&str>) -> Result<SinkChoice, SettingsError> {
    match text {
        None | Some("kafka") => Ok(SinkChoice::Kafka),
        Some("stdout") => Ok(SinkChoice::Stdout),
        Some(other) => match other.strip_prefix("file:") {
            Some(path) if path.starts_with('/') => Ok(SinkChoice::File(path.to_owned())),
            _ => Err(value(
                "sink",
                format!("{other:?} is unknown: write kafka, stdout or file:/ABSOLUTE/PATH"),
            )),
        },
    }
}

/// `5066`, `127.0.0.1:5066` or `[::1]:5066`; a port alone is one of the loopback.
fn listen(text: Option<String>) -> Result<Option<SocketAddr>, SettingsError> {
    let Some(text) = text.filter(|text| !text.is_empty() && text != "off" && text != "false")
    else {
        return Ok(None);
    };
    let port = text.trim_start_matches(':').parse::<u16>();
    let address = match port {
        Ok(port) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        Err(_) => text.parse(),
    };
    address.map(Some).map_err(|_| {
        value(
            "listen",
            format!("{text:?} is no address: write 127.0.0.1:5066, or a port of the loopback"),
        )
    })
}

fn value(name: &'static str, message: impl Into<String>) -> SettingsError {
    SettingsError::Value {
        name,
        message: message.into(),
    }
}

fn expand(
    name: &'static str,
    template: &str,
    names: &HostNames,
    id: Option<&str>,
) -> Result<String, SettingsError> {
    let mut key = template.replace("%s", &names.ip).replace("{ip}", &names.ip);
    if key.contains("{hostname}") {
        if names.hostname.is_empty() {
            return Err(value(
                name,
                "mentions {hostname}, but this machine has no name",
            ));
        }
        key = key.replace("{hostname}", &names.hostname);
    }
    if key.contains("{id}") {
        let id = id.ok_or_else(|| value(name, "mentions {id}, but `id` is not set"))?;
        key = key.replace("{id}", id);
    }
    if let Some(start) = key.find('{') {
        let unknown = key[start..].split_inclusive('}').next().unwrap_or_default();
        let message = format!("{unknown} is unknown: use %s, {{ip}}, {{hostname}} or {{id}}");
        return Err(value(name, message));
    }
    if key.trim_matches('/').is_empty() {
        return Err(value(name, "is empty"));
    }
    Ok(key)
}

/// `…/logagent/config/H` → `…/logagent/status/H`; the last segment is the host's and stays.
fn status_key_of(config_key: &str) -> Option<String> {
    let mut parts: Vec<&str> = config_key.split('/').collect();
    let before_host = parts.len().checked_sub(1)?;
    let at = parts[..before_host]
        .iter()
        .rposition(|part| *part == "config")?;
    parts[at] = "status";
    Some(parts.join("/"))
}

fn etcd(flags: &Flags, file: EtcdFile) -> Result<EtcdSettings, SettingsError> {
    let endpoints = flags
        .etcd_endpoints
        .clone()
        .or(file.endpoints)
        .unwrap_or_else(|| vec![DEFAULT_ENDPOINT.to_owned()]);
    if endpoints.is_empty() {
        return Err(value(
            "etcd.endpoints",
            "is empty: name at least one, such as 127.0.0.1:2379",
        ));
    }
    let settings = EtcdSettings {
        endpoints,
        username: flags.etcd_username.clone().or(file.username),
        password: flags.etcd_password.clone().or(file.password),
        ca: flags.etcd_ca.clone().or(file.ca),
        cert: flags.etcd_cert.clone().or(file.cert),
        key: flags.etcd_key.clone().or(file.key),
    };
    if settings.username.is_some() != settings.password.is_some() {
        return Err(value(
            "etcd.username",
            "and etcd.password go together: set both or none",
        ));
    }
    if settings.cert.is_some() != settings.key.is_some() {
        return Err(value(
            "etcd.cert",
            "and etcd.key go together: set both or none",
        ));
    }
    Ok(settings)
}

fn kafka(
    flags: &Flags,
    file: BTreeMap<String, Scalar>,
    sink: &SinkChoice,
) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut properties = pairs("kafka", file, &flags.kafka)?;
    if let Some(servers) = &flags.bootstrap_servers {
        properties.insert("bootstrap.servers".to_owned(), servers.clone());
    }
    let named = [
        "bootstrap.servers",
        "metadata.broker.list",
        "test.mock.num.brokers",
    ];
    let is_named = named
        .iter()
        .any(|name| properties.get(*name).is_some_and(|value| !value.is_empty()));
    if *sink == SinkChoice::Kafka && !is_named {
        return Err(value(
            "kafka",
            "bootstrap.servers is missing: name a broker, HOST:PORT",
        ));
    }
    Ok(properties)
}

fn dead_letter_topic(given: Option<String>) -> Result<Option<String>, SettingsError> {
    if let Some(topic) = &given {
        validate_topic(topic).map_err(|why| value("dead_letter_topic", why))?;
    }
    Ok(given)
}

fn pairs(
    name: &'static str,
    file: BTreeMap<String, Scalar>,
    flags: &[String],
) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut merged: BTreeMap<String, String> = file
        .into_iter()
        .map(|(name, value)| (name, value.into_text()))
        .collect();
    for pair in flags {
        let Some((key, text)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(value(name, format!("{pair:?} is not NAME=VALUE")));
        };
        merged.insert(key.to_owned(), text.to_owned());
    }
    Ok(merged)
}

fn allow(given: Option<Vec<PathBuf>>) -> Result<Vec<PathBuf>, SettingsError> {
    let directories = given.unwrap_or_else(|| vec![PathBuf::from(DEFAULT_ALLOW)]);
    if directories.is_empty() {
        return Err(value("allow", "is empty: nothing could ever be read"));
    }
    if let Some(relative) = directories
        .iter()
        .find(|directory| !directory.is_absolute())
    {
        return Err(value(
            "allow",
            format!("{relative:?} is not an absolute directory"),
        ));
    }
    Ok(directories)
}

fn status_interval(text: &str) -> Result<Duration, SettingsError> {
    let interval = duration(text).ok_or_else(|| {
        value(
            "status_interval",
            format!("{text:?} is no duration: write 5s, 500ms or 1m"),
        )
    })?;
    if !(STATUS_INTERVAL_MIN..=STATUS_INTERVAL_MAX).contains(&interval) {
        return Err(value(
            "status_interval",
            format!("{text} is not between 100ms and 1h"),
        ));
    }
    Ok(interval)
}

fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..unit_at].parse().ok()?;
    let unit_ms = match &text[unit_at..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(unit_ms)?))
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
