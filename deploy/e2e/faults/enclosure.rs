//! Puts the campaign into namespaces of its own before it does anything: its network, its mounts and
//! its processes end with it, whatever way it ends.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context;
use e2e::store::runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Set for the process inside.
const INSIDE: &str = "FAULTS_INSIDE";

/// What the campaign is made with, and the Debian package of each.
const TOOLS: [(&str, &str); 7] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("fsfreeze", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("mkfs.ext4", "e2fsprogs"),
    ("faketime", "faketime"),
];

pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Becomes the campaign inside; returns only with the reason why that is impossible.
pub(crate) fn enter() -> anyhow::Error {
    match missing() {
        Some(error) => error,
        None => become_inside(),
    }
}

fn missing() -> Option<anyhow::Error> {
    for (tool, package) in TOOLS {
        let found = Command::new(tool).arg("--version").output();
        // mkfs and ip have other words for it; that they start is enough.
        if found.is_err() {
            return Some(anyhow::anyhow!(
                "{tool} is missing; run as root: apt-get install -y {package}"
            ));
        }
    }
    if !rustix::process::geteuid().is_root() {
        let own: Vec<String> = std::env::args().collect();
        return Some(anyhow::anyhow!(
            "namespaces and mounts need root; run: sudo {}",
            own.join(" ")
        ));
    }
    None
}

fn become_inside() -> anyhow::Error {
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return error.into(),
    };
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
        .arg("--mount-proc")
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        // Programs were built outside, where there is a network.
        .env("E2E_NO_BUILD", "1");
    let error = command.exec();
    anyhow::Error::new(error).context("run unshare")
}

/// The first process of a namespace is deaf to signals that it does not ask for.
pub(crate) fn end_on_signals() -> anyhow::Result<()> {
    let _inside = runtime().enter();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    runtime().spawn(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        // Whatever else runs in here ends with this process.
        std::process::exit(130);
    });
    Ok(())
}

/// Folders that programs share by name with the rest of the machine become empty and private.
pub(crate) fn hide_shared_folders() -> anyhow::Result<()> {
    std::fs::create_dir_all("/run/netns")?;
    for folder in ["/run/netns", "/dev/shm"] {
        run("mount", &["-t", "tmpfs", "none", folder])?;
    }
    Ok(())
}

/// Runs a tool that has to succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("run {program}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
