//! Other people's programs: Debian's etcdctl and etcd.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::process::Process;
use crate::wait::{DEADLINE, wait_until};
use crate::{center, ports};

/// What a tool printed, and its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The standard output of a tool that had to succeed.
    pub fn ok(self) -> anyhow::Result<String> {
        anyhow::ensure!(
            self.code == Some(0),
            "exit code {:?}: {}",
            self.code,
            self.stderr
        );
        Ok(self.stdout)
    }
}

/// Runs a command to its end with this standard input.
pub fn run(command: &mut Command, stdin: &str) -> anyhow::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let mut input = child.stdin.take().context("stdin is piped")?;
    // A tool that does not read its input may have closed it already.
    input.write_all(stdin.as_bytes()).unwrap_or_default();
    drop(input);
    let output = child.wait_with_output()?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Debian's etcdctl (package `etcd-client`) speaking v3 to one endpoint.
pub fn etcdctl(client_port: u16) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3");
    // Without a scheme: with one, this etcdctl sends the whole URL as :authority in the status
    // call, which the HTTP/2 library refuses as malformed.
    command.arg(format!("--endpoints=127.0.0.1:{client_port}"));
    command
}

/// Runs etcdctl with these arguments.
pub fn run_etcdctl(client_port: u16, arguments: &[&str], stdin: &str) -> anyhow::Result<Output> {
    run(etcdctl(client_port).args(arguments), stdin)
}

/// A real etcd (Debian package `etcd-server`), the oracle of differential tests.
#[derive(Debug)]
pub struct Etcd {
    pub process: Process,
    pub client_port: u16,
}

impl Etcd {
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let (client_port, peer_port) = (ports::free_port(), ports::free_port());
        let client = format!("http://127.0.0.1:{client_port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        let mut command = Command::new("etcd");
        command
            .args([
                "--name",
                "default",
                "--logger",
                "zap",
                "--log-outputs",
                "stderr",
            ])
            .arg("--data-dir")
            .arg(folder.join("etcd.data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")]);
        let process = Process::spawn("etcd", command, &folder.join("etcd.log"))?;
        wait_until("etcd to be healthy", DEADLINE, || {
            center::http_get(client_port, "/health").filter(|body| body.contains("\"true\""))
        })?;
        Ok(Self {
            process,
            client_port,
        })
    }
}
