//! The server's process: command line, log, signals and exit codes.
//!
//! Exit codes: 0 after a requested stop; 1 when it cannot start or can no longer serve; 2 for a
//! command line that is not accepted; 130 when a second signal cuts the stop short.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use config_center::flags::{self, Invocation, Settings};
use config_center::logging;
use config_center::server::Server;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A put makes some forty small allocations, many of which are freed by another thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CANNOT_SERVE: u8 = 1;
const BAD_FLAGS: u8 = 2;
const CUT_SHORT: i32 = 130;

pub(crate) fn main() -> ExitCode {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let arguments: Result<Vec<String>, _> = std::env::args_os()
        .skip(1)
        .map(std::ffi::OsString::into_string)
        .collect();
    let Ok(arguments) = arguments else {
        eprintln!("config-center: an argument is not valid UTF-8");
        return ExitCode::from(BAD_FLAGS);
    };
    if let [first, rest @ ..] = &arguments[..] {
        let rest = rest.iter().map(Into::into);
        match first.as_str() {
            "fleet" => return config_center::fleet::command::main(rest),
            "gateway" => return config_center::proxy::gateway(rest),
            "grpc-proxy" => return config_center::proxy::grpc_proxy(rest),
            _ => {}
        }
    }
    match flags::parse(arguments, environment) {
        Err(error) => {
            eprintln!("config-center: {error}");
            ExitCode::from(BAD_FLAGS)
        }
        Ok(Invocation::Version) => print(&flags::version_text()),
        Ok(Invocation::Help) => print(&flags::help_text()),
        Ok(Invocation::Serve(settings)) => {
            let log = &settings.log_outputs;
            if let Err(error) = logging::start(settings.log_level, settings.log_format, log) {
                eprintln!("config-center: {error}");
                return ExitCode::from(CANNOT_SERVE);
            }
            match run(&settings) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!("{error:#}");
                    ExitCode::from(CANNOT_SERVE)
                }
            }
        }
    }
}

/// A reader that has gone away (`| head -1`) is no fault.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(CANNOT_SERVE),
    }
}

fn run(settings: &Settings) -> anyhow::Result<()> {
    allow_many_connections();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime could not start")?;
    runtime.block_on(serve(settings))
}

/// Each agent is a connection, and a connection is an open file. As Go's runtime does for etcd, take
/// what the hard limit allows.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "open files stay limited to {:?}", limit.current);
    }
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("no SIGTERM can be received")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no SIGINT can be received")?;
    tracing::info!(
        name = settings.name,
        data_dir = %settings.data_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        etcd_api = flags::ETCD_VERSION,
        "starting config-center"
    );
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let server = tokio::select! {
        // The text is complete; its causes would only be said twice.
        started = Server::start(settings) => started.map_err(|error| anyhow::anyhow!("{error}"))?,
        name = asked_to_stop(&mut terminate, &mut interrupt) => {
            tracing::info!("{name} before the start was complete; stopping");
            return Ok(());
        }
    };
    for place in server.client_places() {
        tracing::info!(address = %place, "ready to serve client requests");
    }
    // Scripts around etcd, its own tests among them, wait for this line and for "published".
    let version = flags::ETCD_CLUSTER_VERSION;
    tracing::info!("enabled capabilities for version {version}");
    tokio::select! {
        name = asked_to_stop(&mut terminate, &mut interrupt) => {
            tracing::info!("{name}: finishing what is in flight, then stopping");
        }
        reason = server.failed() => {
            if server.node().is_removed() {
                tracing::info!("stopping: {reason}");
                server.shutdown().await;
                return Ok(());
            }
            anyhow::bail!("the member cannot go on: {reason}; acknowledged writes are on disk");
        }
    }
    tokio::select! {
        () = server.shutdown() => tracing::info!("stopped"),
        name = asked_to_stop(&mut terminate, &mut interrupt) => {
            tracing::warn!("{name} again: stopping at once; acknowledged writes are on disk");
            std::process::exit(CUT_SHORT);
        }
    }
    Ok(())
}

async fn asked_to_stop(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
