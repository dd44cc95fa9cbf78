//! A real agent process with its folders, and a writer of its files.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use schemas::fleet::AgentStatus;
use tempfile::TempDir;

use super::broker::Broker;
use super::center::Center;
use super::{wait_for, wait_until};

pub(crate) const HOST: &str = "192.168.56.1";
pub(crate) const CONFIG_KEY: &str = "/ningxin/backend/logagent/config/192.168.56.1";

/// The folders of one agent and what its agent.yaml says.
pub(crate) struct Home {
    folder: TempDir,
    pub(crate) yaml: String,
}

impl Home {
    pub(crate) fn new(center: &Center, broker: &Broker) -> Self {
        Self::with(&center.url(), &broker.address())
    }

    pub(crate) fn with(center: &str, broker: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("log")).unwrap();
        let yaml = format!(
            "etcd: {{ endpoints: [\"{center}\"] }}\nhost: {HOST}\n\
             kafka: {{ bootstrap.servers: \"{broker}\", reconnect.backoff.max.ms: 200 }}\n\
             data_dir: {data}\nallow: [{log}]\nstatus_interval: 200ms\n",
            data = folder.path().join("data").display(),
            log = folder.path().join("log").display(),
        );
        Self { folder, yaml }
    }

    /// A file in the directory that the agent may read.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join("log").join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    /// The config value for pairs of file name and topic.
    pub(crate) fn config(&self, entries: &[(&str, &str)]) -> String {
        let entries: Vec<_> = entries
            .iter()
            .map(|(name, topic)| serde_json::json!({ "path": self.log(name), "topic": topic }))
            .collect();
        serde_json::Value::from(entries).to_string()
    }

    fn command(&self) -> Command {
        let yaml = self.folder.path().join("agent.yaml");
        std::fs::write(&yaml, &self.yaml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_logagent"));
        command
            .arg("--config")
            .arg(yaml)
            .env("LOGAGENT_LOG", "info,logagent=debug");
        command
    }

    pub(crate) fn start(&self) -> Agent {
        self.spawn(self.command())
    }

    /// With so many descriptors at most.
    pub(crate) fn start_limited(&self, descriptors: u32) -> Agent {
        let agent = self.command();
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -n \"$1\"; shift; exec \"$@\"", "sh"])
            .arg(descriptors.to_string())
            .arg(agent.get_program())
            .args(agent.get_args())
            .env("LOGAGENT_LOG", "info");
        self.spawn(command)
    }

    fn spawn(&self, mut command: Command) -> Agent {
        let log_path = self.folder.path().join("agent.log");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .unwrap();
        let child = command
            .stderr(log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Agent { child, log_path }
    }

    /// Runs a command that asks about this agent.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        let yaml = self.folder.path().join("agent.yaml");
        std::fs::write(&yaml, &self.yaml).unwrap();
        Command::new(env!("CARGO_BIN_EXE_logagent"))
            .args(arguments)
            .arg("--config")
            .arg(yaml)
            .output()
            .unwrap()
    }

    /// Runs a command that is about no agent.
    pub(crate) fn run_to_end_bare(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_logagent"))
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Runs an agent that is expected to end by itself.
    pub(crate) fn run_to_end(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }
}

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    log_path: PathBuf,
}

impl Agent {
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn wait_log(&self, words: &str) {
        wait_until(&format!("{words:?} in the agent's log"), || {
            self.log_text().contains(words)
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM; the exit code.
    #[track_caller]
    pub(crate) fn terminate(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        let status = wait_for("the agent's end", || self.child.try_wait().unwrap());
        status.code()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- agent's log ---\n{}", self.log_text());
        }
        // Both fail when the agent has ended, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits for a status that satisfies the condition.
#[track_caller]
pub(crate) fn wait_status(
    center: &Center,
    what: &str,
    holds: impl Fn(&AgentStatus) -> bool,
) -> AgentStatus {
    let mut last = None;
    let deadline = std::time::Instant::now() + super::DEADLINE;
    loop {
        last = center.status(HOST).or(last);
        if let Some(status) = last.as_ref().filter(|status| holds(status)) {
            return status.clone();
        }
        assert!(
            std::time::Instant::now() < deadline,
            "no status with {what}; last: {last:#?}"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Waits until the configuration of this revision runs.
#[track_caller]
pub(crate) fn wait_running(center: &Center, revision: i64) -> AgentStatus {
    wait_status(center, &format!("running revision {revision}"), |status| {
        status
            .running
            .as_ref()
            .is_some_and(|running| running.revision == revision)
    })
}

pub(crate) fn append(path: &Path, text: impl AsRef<[u8]>) {
    appender(path).write_all(text.as_ref()).unwrap();
}

pub(crate) fn appender(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
}

pub(crate) fn numbered(prefix: &str, range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("{prefix} {number}")).collect()
}

pub(crate) fn text_of(lines: &[String]) -> String {
    lines
        .iter()
        .flat_map(|line| [line.as_str(), "\n"])
        .collect()
}
