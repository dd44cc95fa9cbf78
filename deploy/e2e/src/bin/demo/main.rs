//! `cargo demo`: the whole product on one machine, step by step, with times and a verdict.
//!
//! Owns the command line, the work folder, Ctrl-C and the exit code; `story` is what happens.

mod report;
mod story;
mod traffic;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use e2e::{binaries, process, store};

use crate::report::Report;

/// Shows the way from an etcd put to a line in Kafka, and counts that no line is lost.
///
/// Builds and runs config-center, logagent, an embedded Kafka and a writer of nginx-format lines;
/// changes the configuration while they run, rotates a file, kills the center, and compares what
/// was written with what Kafka holds. Needs the Rust toolchain and a C compiler, nothing else.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo", version)]
struct Arguments {
    /// Use this Kafka instead of the embedded one.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Lines written to each of the two files.
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(1..=20_000))]
    lines_per_second: u64,
    /// Stay up after the verdict, with commands to try, until Ctrl-C.
    #[arg(long)]
    stay: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let report = Report::new();
    match run(&arguments, &report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report.failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, report: &Report) -> anyhow::Result<()> {
    report.title("config-center and logagent: from an etcd put to a line in Kafka");
    build(report)?;
    let work = tempfile::Builder::new()
        .prefix("logagent-demo-")
        .tempdir()?;
    let path = work.path().to_owned();
    store::runtime().spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            process::kill_all();
            // The folder is ours and temporary; what cannot be removed does no harm.
            std::fs::remove_dir_all(&path).unwrap_or_default();
            report::interrupted();
            std::process::exit(130);
        }
    });
    let outcome = story::tell(arguments, report, work.path());
    match &outcome {
        Ok(()) => work.close().context("remove the work folder")?,
        Err(_) => {
            let kept = work.keep();
            report.note(&format!("logs and data are kept in {}", kept.display()));
        }
    }
    outcome
}

/// Builds the two programs with cargo's own output, so that a first run is not silent.
fn build(report: &Report) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut command = binaries::build_command()?;
    let shown: Vec<_> = command
        .get_args()
        .map(|arg| arg.to_string_lossy())
        .collect();
    report.step("build", &format!("cargo {}", shown.join(" ")));
    if std::env::var_os("E2E_NO_BUILD").is_none() {
        let status = run_shown(&mut command)?;
        anyhow::ensure!(
            status.success(),
            "cargo build failed: see its messages above"
        );
    }
    report.result("built", started.elapsed());
    Ok(())
}

fn run_shown(command: &mut Command) -> anyhow::Result<std::process::ExitStatus> {
    command.status().with_context(|| format!("run {command:?}"))
}
