//! `config-center gateway` and `config-center grpc-proxy`: the two proxies that etcd ships, with
//! etcd's flags. Neither keeps anything: they pass on what clients say, and need no data folder.
//!
//! The gateway passes bytes on and does not look at them. The gRPC proxy ends the client's TLS and
//! passes each call on. Neither rewrites keys, merges watches or caches: the options that ask for
//! it are refused.

mod gateway;
mod grpc;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::flags::{LogFormat, LogLevel, LogOutput, duration_ms};
use crate::logging;

const CANNOT_SERVE: u8 = 1;
const BAD_FLAGS: u8 = 2;
/// Until an endpoint that does not answer is given up.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Pause after the system refused a connection (too many open files), so as not to spin.
const ACCEPT_RETRY_TIME: Duration = Duration::from_millis(50);
/// Clients that are served at the same time; further ones wait to be accepted.
const MAX_CLIENTS: usize = 10_000;

/// Runs `config-center gateway` until it is asked to stop.
pub fn gateway(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    run("config-center gateway", arguments, gateway::run)
}

/// Runs `config-center grpc-proxy` until it is asked to stop.
pub fn grpc_proxy(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    run("config-center grpc-proxy", arguments, grpc::run)
}

fn run<F: Parser, Running: Future<Output = Result<(), String>>>(
    name: &str,
    arguments: impl IntoIterator<Item = OsString>,
    serve: impl FnOnce(F) -> Running,
) -> ExitCode {
    let flags = match F::try_parse_from(std::iter::once(name.into()).chain(arguments)) {
        Ok(flags) => flags,
        Err(error) => {
            let asked_for = error.kind() == ErrorKind::DisplayHelp;
            // Whether the text could be printed changes nothing about the answer.
            drop(error.print());
            return if asked_for {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(BAD_FLAGS)
            };
        }
    };
    let outputs = [LogOutput::Stderr];
    if let Err(error) = logging::start(LogLevel::Info, LogFormat::Console, &outputs) {
        eprintln!("{name}: {error}");
        return ExitCode::from(CANNOT_SERVE);
    }
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime could not start: {error}"))
        .and_then(|runtime| runtime.block_on(until_stopped(serve(flags))));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!("{reason}");
            ExitCode::from(CANNOT_SERVE)
        }
    }
}

async fn until_stopped(serving: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let broken = |error| format!("no signal can be received: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    tokio::select! {
        ended = serving => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// What both take.
#[derive(Debug, clap::Args)]
struct Common {
    /// Listen address
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:23790"
    )]
    listen_addr: String,
    /// Comma-separated endpoints
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:2379"
    )]
    endpoints: Vec<String>,
    #[arg(long, global = true, hide = true, default_value = "")]
    discovery_srv: String,
    #[arg(long, global = true, hide = true, default_value = "")]
    discovery_srv_name: String,
    #[arg(long, global = true, hide = true)]
    insecure_discovery: bool,
}

/// The only thing there is to do, as in etcd.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start it
    Start,
}

impl Common {
    fn refuse_discovery(&self) -> Result<(), String> {
        refuse(
            "discovery-srv",
            &self.discovery_srv,
            "endpoints are not looked up in DNS; give --endpoints",
        )
    }

    /// Listens; it must not be an endpoint of its own.
    async fn listen(&self) -> Result<(TcpListener, SocketAddr), String> {
        let asked = &self.listen_addr;
        let fault =
            |error| format!("cannot listen on {asked}: {error}; choose another --listen-addr");
        let listener = TcpListener::bind(asked).await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        for endpoint in &self.endpoints {
            let host_and_port = without_scheme(endpoint);
            let resolved = tokio::net::lookup_host(host_and_port)
                .await
                .map_err(|error| format!("the endpoint {endpoint} cannot be used: {error}"))?;
            if resolved.into_iter().any(|found| found == address) {
                return Err(format!(
                    "the endpoint {endpoint} is the address that is listened on"
                ));
            }
        }
        Ok((listener, address))
    }
}

/// `http://a:1` and `a:1` are the same place.
fn without_scheme(endpoint: &str) -> &str {
    let (_, place) = endpoint.split_once("://").unwrap_or(("", endpoint));
    place.trim_end_matches('/')
}

fn refuse(flag: &str, value: &str, why: &str) -> Result<(), String> {
    if value.is_empty() {
        Ok(())
    } else {
        Err(format!("--{flag} is not supported: {why}"))
    }
}

/// Go's notation: `1m`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let ms = duration_ms(text).ok_or("it is not a duration such as 1m or 500ms")?;
    Ok(Duration::from_millis(ms))
}
