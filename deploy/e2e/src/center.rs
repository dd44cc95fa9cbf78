//! One config-center process: flags, readiness, restart on the same folder and ports.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::store::Store;
use crate::wait::{DEADLINE, wait_until};
use crate::{binaries, ports};

/// A member on fixed ports; the process behind it may come and go.
#[derive(Debug)]
pub struct Center {
    pub process: Process,
    pub client_port: u16,
    pub peer_port: u16,
    pub data_dir: PathBuf,
    log: PathBuf,
}

impl Center {
    /// Starts a member with its data below `folder` and waits until it is healthy.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        Self::start_on(folder, ports::free_port())
    }

    pub fn start_on(folder: &Path, client_port: u16) -> anyhow::Result<Self> {
        let program = Command::new(binaries::program("config-center")?);
        Self::spawn(folder, program, client_port)
    }

    /// Starts this program, which takes the same flags; a restart would start the real one.
    pub fn start_program(folder: &Path, program: Command) -> anyhow::Result<Self> {
        Self::spawn(folder, program, ports::free_port())
    }

    fn spawn(folder: &Path, program: Command, client_port: u16) -> anyhow::Result<Self> {
        let peer_port = ports::free_port();
        let data_dir = folder.join("center.data");
        let log = folder.join("config-center.log");
        let command = with_flags(program, &data_dir, client_port, peer_port);
        let process = Process::spawn("config-center", command, &log)?;
        let mut center = Self {
            process,
            client_port,
            peer_port,
            data_dir,
            log,
        };
        center.wait_ready()?;
        Ok(center)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    pub fn store(&self) -> anyhow::Result<Store> {
        Store::new(&self.url())
    }

    /// Starts the process again on the same folder and ports, without waiting.
    pub fn respawn(&mut self) -> anyhow::Result<()> {
        let command = command(&self.data_dir, self.client_port, self.peer_port)?;
        self.process = Process::spawn("config-center", command, &self.log)?;
        Ok(())
    }

    /// Starts the process again and waits until it is healthy.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.respawn()?;
        self.wait_ready()
    }

    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let port = self.client_port;
        let process = &mut self.process;
        let state = wait_until("config-center to be healthy", DEADLINE, || {
            if let Some(status) = process.exit_status() {
                return Some(Err(status));
            }
            http_get(port, "/health")
                .filter(|a| a.contains("\"true\""))
                .map(|_| Ok(()))
        })?;
        state.map_err(|status| {
            anyhow::anyhow!(
                "config-center ended with {status}:\n{}",
                self.process.log_text()
            )
        })
    }
}

/// The command line of a member, in etcd's flags.
pub fn command(data_dir: &Path, client_port: u16, peer_port: u16) -> anyhow::Result<Command> {
    let program = Command::new(binaries::program("config-center")?);
    Ok(with_flags(program, data_dir, client_port, peer_port))
}

fn with_flags(mut command: Command, data_dir: &Path, client_port: u16, peer_port: u16) -> Command {
    let client = format!("http://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    // Flags of the developer's own shell are not part of a test.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
    command
        .args(["--name", "default"])
        .arg("--data-dir")
        .arg(data_dir)
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
    command
}

/// The body of `GET path` when the answer is 200.
pub fn http_get(port: u16, path: &str) -> Option<String> {
    let address = ([127, 0, 0, 1], port).into();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}
