//! Where the programs under test are, and how to build them.
//!
//! They lie next to the executable that asks: same target folder, same profile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Context;

/// The programs that the harness spawns.
const PROGRAMS: [&str; 3] = ["config-center", "configctl", "logagent"];

/// The root of the repository.
pub fn repository() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.parent()
            .and_then(Path::parent)
            .unwrap_or(here)
            .to_owned()
    })
}

/// The folder of the built programs, such as `target/debug`.
pub fn folder() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find the path of this executable")?;
    let folder = own.parent().context("an executable lies in a folder")?;
    // Tests lie one level deeper than programs.
    let is_test = folder.file_name().is_some_and(|name| name == "deps");
    let folder = if is_test {
        folder.parent()
    } else {
        Some(folder)
    };
    Ok(folder
        .context("an executable lies in a target folder")?
        .to_owned())
}

/// The command that builds the programs, for this executable's profile.
pub fn build_command() -> anyhow::Result<Command> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Selected by program and not by package: the features of the dependencies stay those of the
    // whole workspace, and nothing is compiled twice.
    command.current_dir(repository()).arg("build");
    for program in PROGRAMS {
        command.args(["--bin", program]);
    }
    match folder()?.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    Ok(command)
}

/// The path of a program, freshly built once per test run.
///
/// `E2E_NO_BUILD=1` takes what is there.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        if std::env::var_os("E2E_NO_BUILD").is_some() {
            return Ok(());
        }
        let mut command = build_command().map_err(|error| error.to_string())?;
        let output = command
            .arg("--quiet")
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "{command:?} failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        ))
    });
    built.clone().map_err(anyhow::Error::msg)?;
    existing(name)
}

/// The path of a program that must have been built already.
pub fn existing(name: &str) -> anyhow::Result<PathBuf> {
    let path = folder()?.join(name);
    anyhow::ensure!(
        path.is_file(),
        "{} is missing: run `cargo build`",
        path.display()
    );
    Ok(path)
}
