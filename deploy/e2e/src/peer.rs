//! A real etcd, started by `deploy/peers/etcd/etcd.sh`: the oracle of the differential tests. The
//! newest release judges the v3 API, Debian's 3.4 (with `--enable-v2`) the v2 API.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::tools::run;
use crate::{binaries, ports};

/// A running member; gone, data included, with this value or with the test's process.
#[derive(Debug)]
pub struct Peer {
    folder: PathBuf,
    pub url: String,
}

impl Peer {
    /// Starts etcd 3.7.1 with its data below `folder` and these flags of its own.
    pub fn start(folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_release("3.7", folder, flags)
    }

    /// The same for Debian's etcd 3.4.23, with the v2 API on.
    pub fn start_3_4(folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_release("3.4", folder, flags)
    }

    fn start_release(release: &str, folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let folder = folder.join(format!("etcd-{release}"));
        Self::start_in(release, folder, 0, flags)
    }

    fn start_in(
        release: &str,
        folder: PathBuf,
        peer_port: u16,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = script();
        command.args(["start", "--release", release, "--port", "0", "--dir"]);
        command.arg(&folder);
        command.args(["--peer-port", &peer_port.to_string()]);
        command.args(["--owner", &std::process::id().to_string(), "--"]);
        command.args(flags);
        let output = command.output().context("run etcd.sh")?;
        anyhow::ensure!(
            output.status.success(),
            "etcd.sh start: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let url = String::from_utf8(output.stdout)?.trim().to_owned();
        Ok(Self { folder, url })
    }

    /// Restores this snapshot with the release's own tool and starts etcd on what comes of it.
    pub fn restore(release: &str, folder: &Path, snapshot: &Path) -> anyhow::Result<Self> {
        let folder = folder.join(format!("restored-{release}"));
        std::fs::create_dir_all(&folder)?;
        let peer_port = ports::free_port();
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let tool = if release == "3.7" {
            "etcdutl"
        } else {
            "etcdctl"
        };
        let mut command = Command::new(program(release, tool)?);
        command.env("ETCDCTL_API", "3");
        command.args(["snapshot", "restore"]).arg(snapshot);
        // What etcd.sh starts.
        command.arg("--data-dir").arg(folder.join("data"));
        command.args(["--name", "peer", "--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("peer={peer_url}")]);
        run(&mut command, "")?
            .ok()
            .context("etcd's tool restores a snapshot")?;
        Self::start_in(release, folder, peer_port, &[])
    }

    /// Stops the process; the data stays for as long as this value lives.
    pub fn stop(&self) -> anyhow::Result<()> {
        let stopped = script().arg("stop").arg("--dir").arg(&self.folder).output();
        anyhow::ensure!(stopped?.status.success(), "etcd.sh stop failed");
        Ok(())
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The database file of the member.
    pub fn database(&self) -> PathBuf {
        self.data_dir().join("member/snap/db")
    }

    pub fn client_port(&self) -> anyhow::Result<u16> {
        let port = self.url.rsplit(':').next().unwrap_or_default();
        port.parse().context("the port in etcd's address")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let wiped = script().arg("wipe").arg("--dir").arg(&self.folder).output();
        if let Err(error) = wiped {
            eprintln!("etcd.sh wipe: {error}");
        }
    }
}

/// The path of etcdctl 3.7.1; built when it is not there yet.
pub fn newest_etcdctl() -> anyhow::Result<PathBuf> {
    program("3.7", "etcdctl")
}

/// The path of one of a release's programs.
pub fn program(release: &str, name: &str) -> anyhow::Result<PathBuf> {
    let output = script()
        .args(["path", "--release", release, "--program", name])
        .output()
        .context("run etcd.sh")?;
    anyhow::ensure!(output.status.success(), "etcd.sh path failed");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

fn script() -> Command {
    Command::new(binaries::repository().join("deploy/peers/etcd/etcd.sh"))
}
