//! The lean client of the benchmark: prints one line of JSON.

use std::net::SocketAddr;
use std::time::Duration;

use bench_kv::load::{self, Plan};
use bench_kv::requests::Operation;
use bench_kv::watch_load::{self, WatchPlan};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(
    about = "Loads an etcd-speaking server at little cost to itself; prints one line of JSON"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Clients in a closed loop.
    Run(RunArguments),
    /// Many watchers on one key, one put at a time.
    Watch(WatchArguments),
}

#[derive(Args)]
struct Common {
    /// One of each member that is to be loaded.
    #[arg(long, value_delimiter = ',', required = true)]
    endpoint: Vec<SocketAddr>,
    #[arg(long, default_value_t = 50)]
    connections: usize,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Whose processor time to report.
    #[arg(long, value_delimiter = ',')]
    server_pid: Vec<u32>,
}

#[derive(Args)]
struct RunArguments {
    #[command(flatten)]
    common: Common,
    #[arg(long, value_enum, default_value = "put")]
    op: Operation,
    #[arg(long, default_value_t = 500)]
    clients: usize,
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    #[arg(long, default_value_t = 500)]
    warmup_ms: u64,
    #[arg(long, default_value_t = 3_000)]
    window_ms: u64,
    /// Ends after so many answers instead.
    #[arg(long)]
    count: Option<u64>,
}

#[derive(Args)]
struct WatchArguments {
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 10_000)]
    watchers: usize,
    #[arg(long, default_value_t = 20)]
    puts: usize,
}

fn main() -> anyhow::Result<()> {
    let outcome = match Arguments::parse().command {
        Command::Run(run) => load::run(&Plan {
            endpoints: run.common.endpoint,
            operation: run.op,
            clients: run.clients,
            connections: run.common.connections.min(run.clients),
            value_bytes: run.common.value_bytes,
            keys: run.keys,
            warmup: Duration::from_millis(run.warmup_ms),
            window: Duration::from_millis(run.window_ms),
            count: run.count,
            server_pids: run.common.server_pid,
        })?,
        Command::Watch(watch) => watch_load::run(&WatchPlan {
            // Watchers of several members would be served by as many processors.
            endpoint: watch.common.endpoint[0],
            watchers: watch.watchers,
            connections: watch.common.connections.min(watch.watchers),
            value_bytes: watch.common.value_bytes,
            puts: watch.puts,
            server_pids: watch.common.server_pid,
        })?,
    };
    print(&outcome)
}

#[expect(clippy::print_stdout, reason = "the one line that this program is for")]
fn print(outcome: &bench_kv::latency::Outcome) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(outcome)?);
    Ok(())
}
