//! The programs that are compared, each with the same files, broker and producer settings.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use bench_agent::corpus::{Corpus, Kind};
use bench_agent::properties::{COMMON, record_key};

use crate::Arguments;
use crate::agent::{Gateway, HOST, Setup};

/// Modules of Debian's rsyslog that its package keeps apart.
const OMKAFKA: &str = "/usr/lib/x86_64-linux-gnu/rsyslog/omkafka.so";

/// How a record of several lines begins.
const RECORD_START: &str = "^[0-9]";

/// The files that are to be sent: all of a folder.
pub(crate) struct Input {
    pub(crate) corpus: Corpus,
    pub(crate) folder: PathBuf,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Logagent,
    Floor,
    KcatIdempotent,
    KcatPlain,
    Rsyslog,
    SyslogNg,
}

impl Subject {
    /// kcat sends one file; it and the bare loop know only lines.
    pub(crate) fn all(kind: Kind, files: u64) -> Vec<Self> {
        if kind == Kind::Trace {
            return Self::TAILING.to_vec();
        }
        let mut all = vec![Self::Logagent, Self::Floor];
        if files == 1 {
            all.extend([Self::KcatIdempotent, Self::KcatPlain]);
        }
        all.extend([Self::Rsyslog, Self::SyslogNg]);
        all
    }

    /// Those that wait for new lines.
    pub(crate) const TAILING: [Self; 3] = [Self::Logagent, Self::Rsyslog, Self::SyslogNg];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Logagent => "logagent",
            Self::Floor => "bare producer loop",
            Self::KcatIdempotent => "kcat idempotent",
            Self::KcatPlain => "kcat plain",
            Self::Rsyslog => "rsyslog",
            Self::SyslogNg => "syslog-ng",
        }
    }

    pub(crate) fn ends_by_itself(self) -> bool {
        !Self::TAILING.contains(&self)
    }

    pub(crate) fn command(
        self,
        arguments: &Arguments,
        input: &Input,
        topic: &str,
        compression: &str,
        folder: &Path,
    ) -> anyhow::Result<Command> {
        match self {
            Self::Logagent => logagent(arguments, input, topic, compression, folder),
            Self::Floor => {
                let mut command = Command::new(&arguments.floor);
                command.args(["--bootstrap", &arguments.bootstrap, "--topic", topic]);
                command.args(["--host", HOST, "--compression", compression]);
                command.arg("--file").args(&input.files);
                Ok(command)
            }
            Self::KcatIdempotent | Self::KcatPlain => {
                let file = input.files.first().context("one file")?;
                let key = record_key(HOST, &file.to_string_lossy());
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
            Self::Rsyslog => rsyslog(arguments, input, topic, compression, folder),
            Self::SyslogNg => syslog_ng(arguments, input, topic, compression, folder),
        }
    }
}

/// One entry: the file, or a pattern that means all of them.
fn logagent(
    arguments: &Arguments,
    input: &Input,
    topic: &str,
    compression: &str,
    folder: &Path,
) -> anyhow::Result<Command> {
    let path = match input.files.as_slice() {
        [file] => file.clone(),
        _ => input.folder.join("*.log"),
    };
    let setup = Setup {
        name: topic,
        compression,
        folder,
        allow: &input.folder,
    };
    let mut entry = serde_json::json!({ "path": path, "topic": topic });
    if input.corpus.kind == Kind::Trace {
        entry["multiline"] = serde_json::json!({ "start": RECORD_START });
    }
    let value = serde_json::Value::Array(vec![entry]).to_string();
    Gateway::connect(&arguments.etcd)?.put(&setup.config_key(), &value)?;
    setup.command(arguments)
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
    input: &Input,
    topic: &str,
    compression: &str,
    folder: &Path,
) -> anyhow::Result<Command> {
    anyhow::ensure!(
        omkafka().is_some(),
        "rsyslog is missing: apt-get install -y rsyslog rsyslog-kafka"
    );
    let mut properties = format!("\"compression.codec={compression}\"");
    for (name, value) in COMMON {
        write!(properties, ", \"{name}={value}\"")?;
    }
    let (files, work) = (input.folder.display(), folder.display());
    let records = match input.corpus.kind {
        Kind::Trace => {
            format!("startmsg.regex=\"{RECORD_START}\" readTimeout=\"1\" escapeLF=\"off\"")
        }
        _ => String::new(),
    };
    let config = format!(
        r#"global(workDirectory="{work}" maxMessageSize="64k")
module(load="imfile")
module(load="omkafka")
template(name="line" type="string" string="%msg%")
template(name="key" type="string" string="{HOST}:%$!metadata!filename%")
input(type="imfile" File="{files}/*.log" Tag="access" ruleset="kafka" addMetadata="on" reopenOnTruncate="on" {records})
ruleset(name="kafka" queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="4096") {{
  action(type="omkafka" broker=["{}"] topic="{topic}" template="line" dynaKey="on" key="key"
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

/// Debian's syslog-ng, unpacked beside the system because its package and rsyslog's refuse each other.
fn syslog_ng(
    arguments: &Arguments,
    input: &Input,
    topic: &str,
    compression: &str,
    folder: &Path,
) -> anyhow::Result<Command> {
    let mut properties = format!("compression.codec(\"{compression}\")");
    for (name, value) in COMMON {
        write!(properties, " {name}(\"{value}\")")?;
    }
    let files = input.folder.display();
    let records = match input.corpus.kind {
        Kind::Trace => format!(
            "multi-line-mode(regexp) multi-line-prefix(\"{RECORD_START}\") multi-line-timeout(1)"
        ),
        _ => String::new(),
    };
    let config = format!(
        r#"@version: 3.38
options {{ stats-freq(0); log-msg-size(65536); }};
source files {{
  wildcard-file(base-dir("{files}") filename-pattern("*.log") flags(no-parse) follow-freq(0.1)
    {records} max-files({max_files}) log-fetch-limit(1000) log-iw-size({window}));
}};
destination broker {{
  kafka-c(bootstrap-servers("{}") topic("{topic}") key("{HOST}:$FILE_NAME") message("$MSG")
    config({properties}));
}};
log {{ source(files); destination(broker); flags(flow-control); }};
"#,
        arguments.bootstrap,
        max_files = input.files.len() + 10,
        window = (input.files.len() + 10) * 1_000,
    );
    let path = folder.join("syslog-ng.conf");
    fs::write(&path, config)?;
    let root = arguments.syslog_ng.join("usr");
    let modules = root.join("lib/syslog-ng");
    let program = root.join("sbin/syslog-ng");
    anyhow::ensure!(
        program.is_file(),
        "{} is missing: deploy/peers/syslog-ng/syslog-ng.sh fetch",
        program.display()
    );
    let mut command = Command::new(program);
    command
        .env(
            "LD_LIBRARY_PATH",
            format!(
                "{}:{}",
                modules.display(),
                arguments.syslog_ng.join("libraries").display()
            ),
        )
        .arg("-F")
        .arg("--no-caps")
        .arg("-f")
        .arg(path)
        .arg(format!("--module-path={}", modules.join("3.38").display()))
        .arg("-p")
        .arg(folder.join("syslog-ng.pid"))
        .arg("-c")
        .arg(folder.join("syslog-ng.ctl"))
        .arg("-R")
        .arg(folder.join("syslog-ng.persist"));
    Ok(command)
}
