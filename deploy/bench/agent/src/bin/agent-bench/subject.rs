//! The programs that are compared, each with the same file, key, broker and producer settings.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use bench_agent::properties::{COMMON, record_key};

use crate::Arguments;

const HOST: &str = "192.168.56.1";
/// Modules of Debian's rsyslog that its package keeps apart.
const OMKAFKA: &str = "/usr/lib/x86_64-linux-gnu/rsyslog/omkafka.so";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Logagent,
    Floor,
    KcatIdempotent,
    KcatPlain,
    Rsyslog,
}

impl Subject {
    /// All of them, or what has to be installed.
    pub(crate) fn available() -> anyhow::Result<Vec<Self>> {
        let found = |name: &str| {
            ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
                .iter()
                .any(|folder| Path::new(folder).join(name).is_file())
        };
        anyhow::ensure!(found("kcat"), "kcat is missing: apt-get install -y kcat");
        anyhow::ensure!(
            found("rsyslogd") && omkafka().is_some(),
            "rsyslog is missing: apt-get install -y rsyslog rsyslog-kafka"
        );
        Ok(vec![
            Self::Logagent,
            Self::Floor,
            Self::KcatIdempotent,
            Self::KcatPlain,
            Self::Rsyslog,
        ])
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Logagent => "logagent",
            Self::Floor => "bare producer loop",
            Self::KcatIdempotent => "kcat idempotent",
            Self::KcatPlain => "kcat plain",
            Self::Rsyslog => "rsyslog",
        }
    }

    pub(crate) fn ends_by_itself(self) -> bool {
        !matches!(self, Self::Logagent | Self::Rsyslog)
    }

    pub(crate) fn command(
        self,
        arguments: &Arguments,
        file: &Path,
        topic: &str,
        compression: &str,
        folder: &Path,
    ) -> anyhow::Result<Command> {
        let key = record_key(HOST, &file.to_string_lossy());
        match self {
            Self::Logagent => logagent(arguments, file, topic, compression, folder),
            Self::Floor => {
                let mut command = Command::new(&arguments.floor);
                command.args(["--bootstrap", &arguments.bootstrap, "--topic", topic]);
                command.args(["--key", &key, "--compression", compression]);
                command.arg("--file").arg(file);
                Ok(command)
            }
            Self::KcatIdempotent | Self::KcatPlain => {
                let mut command = Command::new("kcat");
                command.args(["-P", "-b", &arguments.bootstrap, "-t", topic, "-k", &key]);
                command.args(["-X", &format!("compression.codec={compression}")]);
                for (name, value) in COMMON {
                    let value = match (self, name) {
                        (Self::KcatPlain, "enable.idempotence") => "false",
                        _ => value,
                    };
                    command.args(["-X", &format!("{name}={value}")]);
                }
                command.arg("-l").arg(file);
                Ok(command)
            }
            Self::Rsyslog => rsyslog(arguments, file, topic, compression, folder, &key),
        }
    }
}

/// An agent.yaml and, under a key of its own, the one entry that it collects.
fn logagent(
    arguments: &Arguments,
    file: &Path,
    topic: &str,
    compression: &str,
    folder: &Path,
) -> anyhow::Result<Command> {
    let config_key = format!("/bench/{topic}/{HOST}");
    let entry = serde_json::json!([{ "path": file, "topic": topic }]);
    let output = Command::new(&arguments.etcdctl)
        .args(["--endpoints", &arguments.etcd, "put", &config_key])
        .arg(entry.to_string())
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "etcdctl put: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let quote = |text: &Path| serde_json::Value::from(text.to_string_lossy()).to_string();
    let mut yaml = format!(
        "etcd: {{ endpoints: [\"{}\"] }}\nkey: /bench/{topic}/{{ip}}\nhost: {HOST}\nkafka:\n  \
         bootstrap.servers: \"{}\"\n  compression.codec: \"{compression}\"\n",
        arguments.etcd, arguments.bootstrap
    );
    for (name, value) in COMMON {
        writeln!(yaml, "  {name}: \"{value}\"")?;
    }
    let allow = file.parent().context("the corpus lies in a folder")?;
    writeln!(yaml, "data_dir: {}", quote(&folder.join("data")))?;
    writeln!(yaml, "allow: [{}]", quote(allow))?;
    let path = folder.join("agent.yaml");
    fs::write(&path, yaml)?;
    let mut command = Command::new(&arguments.logagent);
    command.arg("--config").arg(path);
    Ok(command)
}

fn omkafka() -> Option<PathBuf> {
    let fixed = PathBuf::from(OMKAFKA);
    if fixed.is_file() {
        return Some(fixed);
    }
    // Other architectures have another folder name.
    let folders = fs::read_dir("/usr/lib").ok()?;
    folders
        .filter_map(|entry| Some(entry.ok()?.path().join("rsyslog/omkafka.so")))
        .find(|path| path.is_file())
}

fn rsyslog(
    arguments: &Arguments,
    file: &Path,
    topic: &str,
    compression: &str,
    folder: &Path,
    key: &str,
) -> anyhow::Result<Command> {
    let mut properties = format!("\"compression.codec={compression}\"");
    for (name, value) in COMMON {
        write!(properties, ", \"{name}={value}\"")?;
    }
    let (file, work) = (file.display(), folder.display());
    let config = format!(
        r#"global(workDirectory="{work}" maxMessageSize="64k")
module(load="imfile")
module(load="omkafka")
template(name="line" type="string" string="%msg%")
template(name="key" type="string" string="{key}")
input(type="imfile" File="{file}" Tag="access" ruleset="kafka" reopenOnTruncate="on")
ruleset(name="kafka" queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="4096") {{
  action(type="omkafka" broker=["{}"] topic="{topic}" template="line" key="{key}"
    confParam=[{properties}] action.resumeRetryCount="-1" resubmitOnFailure="on")
}}
"#,
        arguments.bootstrap
    );
    let path = folder.join("rsyslog.conf");
    fs::write(&path, config)?;
    let mut command = Command::new("rsyslogd");
    command.arg("-n").arg("-f").arg(path);
    command.arg("-i").arg(folder.join("rsyslog.pid"));
    Ok(command)
}
