//! The command line of `config-center fleet`: etcdctl's connection flags, and a log.

use std::{ffi::OsString, io::IsTerminal as _, net::SocketAddr, process::ExitCode};

use clap::{Parser as _, error::ErrorKind};
use schemas_client::Client;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::{
    api::{self, Api},
    service::serve,
};
use crate::configctl::Connection;

const CANNOT_SERVE: u8 = 1;
const BAD_FLAGS: u8 = 2;

/// Carry rollouts out for a store that runs elsewhere: config-center or any etcd 3.4 or later.
///
/// Several may run at once; whoever is left goes on where the others stopped.
#[derive(Debug, clap::Parser)]
#[command(name = "config-center fleet")]
struct Flags {
    #[command(flatten)]
    connection: Connection,
    /// Serve the HTTP API (/api/v1, /openapi.json) on this address
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

/// Runs until SIGTERM or SIGINT.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let name = OsString::from("config-center fleet");
    let flags = match Flags::try_parse_from(std::iter::once(name).chain(arguments)) {
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
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .compact()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    // What libraries tell above errors is written for their own developers.
    let speakers = Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target("config_center", LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(lines)
        .with(speakers)
        .init();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!("{reason}");
            ExitCode::from(CANNOT_SERVE)
        }
    }
}

fn run(flags: &Flags) -> Result<(), String> {
    let options = flags.connection.connect_options()?;
    let api = Api::remote(options.clone(), flags.connection.namespace());
    let client = Client::new(options).map_err(|error| error.to_string())?;
    let ns = flags.connection.namespace();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime could not start: {error}"))?;
    runtime.block_on(async {
        let broken = |error| format!("no signal can be received: {error}");
        let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
        // Stopping between two steps or within one is the same: a step is a transaction.
        let listening = async {
            let Some(address) = flags.listen else {
                return std::future::pending().await;
            };
            let listener = TcpListener::bind(address)
                .await
                .map_err(|error| format!("cannot listen on {address}: {error}"))?;
            let address = listener.local_addr().map_err(|error| error.to_string())?;
            tracing::info!(%address, "ready to serve the API");
            if !address.ip().is_loopback() {
                tracing::warn!("the API is served without TLS: put a proxy in front of it");
            }
            api::serve(listener, api).await;
            Ok(())
        };
        tokio::select! {
            () = serve(client, ns) => Ok(()),
            ended = listening => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}
