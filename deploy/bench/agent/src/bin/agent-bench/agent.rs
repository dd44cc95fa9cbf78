//! logagent as it is started here: an agent.yaml, and its configuration under a key of its own.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bench_agent::properties::COMMON;

use crate::Arguments;

pub(crate) const HOST: &str = "192.168.56.1";

/// What one agent is about.
pub(crate) struct Setup<'a> {
    /// Of its config key.
    pub(crate) name: &'a str,
    pub(crate) compression: &'a str,
    /// For its yaml and data.
    pub(crate) folder: &'a Path,
    /// What it may read.
    pub(crate) allow: &'a Path,
}

impl Setup<'_> {
    pub(crate) fn config_key(&self) -> String {
        format!("/bench/{}/{HOST}", self.name)
    }

    pub(crate) fn command(&self, arguments: &Arguments) -> anyhow::Result<Command> {
        let path = self.write_yaml(arguments)?;
        let mut command = Command::new(&arguments.logagent);
        command.arg("--config").arg(path);
        Ok(command)
    }

    /// The same under a limit of descriptors.
    pub(crate) fn limited_command(
        &self,
        arguments: &Arguments,
        descriptors: u64,
    ) -> anyhow::Result<Command> {
        let path = self.write_yaml(arguments)?;
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -n \"$1\"; shift; exec \"$@\"", "sh"])
            .arg(descriptors.to_string())
            .arg(&arguments.logagent)
            .arg("--config")
            .arg(path);
        Ok(command)
    }

    fn write_yaml(&self, arguments: &Arguments) -> anyhow::Result<std::path::PathBuf> {
        fs::create_dir_all(self.folder)?;
        let quote = |text: &Path| serde_json::Value::from(text.to_string_lossy()).to_string();
        let mut yaml = format!(
            "etcd: {{ endpoints: [\"{}\"] }}\nkey: /bench/{}/{{ip}}\nhost: {HOST}\nkafka:\n  \
             bootstrap.servers: \"{}\"\n  compression.codec: \"{}\"\n",
            arguments.etcd, self.name, arguments.bootstrap, self.compression
        );
        for (name, value) in COMMON {
            writeln!(yaml, "  {name}: \"{value}\"")?;
        }
        writeln!(yaml, "data_dir: {}", quote(&self.folder.join("data")))?;
        writeln!(yaml, "allow: [{}]", quote(self.allow))?;
        let path = self.folder.join("agent.yaml");
        fs::write(&path, yaml)?;
        Ok(path)
    }
}

/// A connection to etcd's JSON gateway, kept open so that a put is one round trip.
pub(crate) struct Gateway {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Gateway {
    pub(crate) fn connect(etcd: &str) -> anyhow::Result<Self> {
        let host = etcd.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host).with_context(|| format!("connect to {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            host,
        })
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        let body = serde_json::json!({
            "key": STANDARD.encode(key),
            "value": STANDARD.encode(value),
        })
        .to_string();
        let request = format!(
            "POST /v3/kv/put HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut first = String::new();
        self.stream.read_line(&mut first)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        anyhow::ensure!(
            first.contains(" 200 "),
            "put {key}: {} {}",
            first.trim(),
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    }
}
