//! One logagent process: its agent.yaml, its keys, its status document.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use schemas::fleet::AgentStatus;

use crate::binaries;
use crate::process::Process;
use crate::store::Store;
use crate::wait::{DEADLINE, wait_until};

/// The host whose agent the tests run, unless they need several.
pub const HOST: &str = "192.168.56.1";

/// What goes into agent.yaml.
#[derive(Debug, Clone)]
pub struct AgentSetup {
    pub host: String,
    pub etcd_endpoints: Vec<String>,
    pub kafka_bootstrap: String,
    /// The only folder that the agent may read.
    pub allow: PathBuf,
    /// Further librdkafka properties.
    pub kafka: Vec<(String, String)>,
}

impl AgentSetup {
    pub fn new(etcd: &str, kafka_bootstrap: &str, allow: &Path) -> Self {
        Self {
            host: HOST.to_owned(),
            etcd_endpoints: vec![etcd.to_owned()],
            kafka_bootstrap: kafka_bootstrap.to_owned(),
            allow: allow.to_owned(),
            kafka: Vec::new(),
        }
    }

    /// The text of agent.yaml. JSON strings are YAML strings, so quoting is JSON's.
    pub fn yaml(&self, data_dir: &Path) -> String {
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let endpoints: Vec<_> = self.etcd_endpoints.iter().map(|url| quote(url)).collect();
        let mut yaml = format!("etcd: {{ endpoints: [{}] }}\n", endpoints.join(", "));
        yaml.push_str("key: /ningxin/backend/logagent/config/{ip}\n");
        writeln!(yaml, "host: {}", quote(&self.host)).expect("writing to a String");
        yaml.push_str("kafka:\n");
        writeln!(
            yaml,
            "  bootstrap.servers: {}",
            quote(&self.kafka_bootstrap)
        )
        .expect("writing to a String");
        for (name, value) in &self.kafka {
            writeln!(yaml, "  {name}: {}", quote(value)).expect("writing to a String");
        }
        let data_dir = quote(&data_dir.to_string_lossy());
        let allow = quote(&self.allow.to_string_lossy());
        write!(yaml, "data_dir: {data_dir}\nallow: [{allow}]\n").expect("writing to a String");
        yaml
    }
}

/// An agent with a folder of its own; the process behind it may come and go.
#[derive(Debug)]
pub struct Agent {
    pub process: Process,
    pub host: String,
    pub data_dir: PathBuf,
    pub yaml: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Writes agent.yaml below `folder` and starts the agent, without waiting for anything.
    pub fn start(folder: &Path, setup: &AgentSetup) -> anyhow::Result<Self> {
        let data_dir = folder.join("agent.data");
        let yaml = folder.join("agent.yaml");
        fs::write(&yaml, setup.yaml(&data_dir))
            .with_context(|| format!("write {}", yaml.display()))?;
        let log = folder.join("logagent.log");
        let process = Process::spawn("logagent", command(&yaml)?, &log)?;
        Ok(Self {
            process,
            host: setup.host.clone(),
            data_dir,
            yaml,
            log,
        })
    }

    /// Starts the process again on the same agent.yaml and folder.
    pub fn respawn(&mut self) -> anyhow::Result<()> {
        self.process = Process::spawn("logagent", command(&self.yaml)?, &self.log)?;
        Ok(())
    }

    pub fn config_key(&self) -> String {
        config_key(&self.host)
    }

    pub fn status_key(&self) -> String {
        status_key(&self.host)
    }

    /// Waits until the status document satisfies the condition.
    pub fn wait_status(
        &self,
        store: &Store,
        what: &str,
        mut good: impl FnMut(&AgentStatus) -> bool,
    ) -> anyhow::Result<AgentStatus> {
        let key = self.status_key();
        let mut last = None;
        let found = wait_until(&format!("status with {what}"), DEADLINE, || {
            last = store.agent_status(&key);
            last.clone().filter(|status| good(status))
        });
        found.with_context(|| format!("last status seen: {last:#?}"))
    }

    /// Waits until the agent runs the configuration of this revision.
    pub fn wait_applied(&self, store: &Store, revision: i64) -> anyhow::Result<AgentStatus> {
        self.wait_status(store, &format!("revision {revision} running"), |status| {
            status
                .running
                .as_ref()
                .is_some_and(|running| running.revision == revision)
        })
    }
}

/// The command line of an agent.
pub fn command(yaml: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(binaries::program("logagent")?);
    command.arg("--config").arg(yaml);
    Ok(command)
}

pub fn config_key(host: &str) -> String {
    format!("/ningxin/backend/logagent/config/{host}")
}

pub fn status_key(host: &str) -> String {
    format!("/ningxin/backend/logagent/status/{host}")
}

/// The array that an operator puts: `[{"path":…,"topic":…},…]`.
pub fn entries(pairs: &[(&Path, &str)]) -> String {
    let entries: Vec<_> = pairs
        .iter()
        .map(|(path, topic)| serde_json::json!({ "path": path, "topic": topic }))
        .collect();
    serde_json::Value::from(entries).to_string()
}
