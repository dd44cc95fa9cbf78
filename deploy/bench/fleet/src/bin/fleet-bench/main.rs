//! Publishes to simulated fleets of several sizes and takes the time until every agent has proved
//! that it runs what was published; what their heartbeats cost; how they come back after the loss of
//! a leader. Writes the table.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bench_fleet::{Fleet, Setup};
use clap::Parser;

mod cluster;
mod http;
mod measure;
mod table;

use cluster::Cluster;
use measure::{Heartbeats, Publishing, Storm};

/// Connections that a fleet opens in a second while it starts.
const STARTS_PER_S: f64 = 500.0;
/// A fleet that does not come up in this time is broken.
const START_TIME: Duration = Duration::from_secs(120);

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    server: PathBuf,
    #[arg(long)]
    work: PathBuf,
    #[arg(long)]
    report: PathBuf,
    #[arg(long)]
    commit: String,
    /// Numbers of hosts.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000,5000")]
    sizes: Vec<usize>,
    /// Numbers of members.
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    members: Vec<usize>,
    /// How long heartbeats are watched.
    #[arg(long, default_value_t = 30)]
    heartbeat_s: u64,
}

/// Everything that was measured on one number of members.
struct Part {
    members: usize,
    publishing: Vec<Publishing>,
    heartbeats: Option<Heartbeats>,
    storm: Option<Storm>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.work)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut parts = Vec::new();
    for members in &arguments.members {
        parts.push(runtime.block_on(part(&arguments, *members))?);
    }
    let text = table::render(&arguments.commit, &parts);
    std::fs::write(&arguments.report, text)?;
    Ok(())
}

async fn part(arguments: &Arguments, members: usize) -> anyhow::Result<Part> {
    let mut cluster = Cluster::start(&arguments.server, &arguments.work, members).await?;
    let mut publishing = Vec::new();
    let (mut heartbeats, mut storm) = (None, None);
    let largest = arguments.sizes.iter().copied().max().unwrap_or(0);
    for size in &arguments.sizes {
        let hosts = measure::hosts(*size);
        let setup = Setup {
            ramp: Duration::from_secs_f64(*size as f64 / STARTS_PER_S),
            ..Setup::new(&cluster.endpoints())
        };
        let fleet = Fleet::start(&setup, hosts.clone())?;
        measure::until("the fleet is up", START_TIME, || {
            fleet.members().all(|(_, member)| member.reports() > 0)
        })
        .await?;
        eprintln!("{members} members, {size} hosts are up");
        publishing.push(measure::publishing(&cluster, &fleet, &hosts, hosts.len()).await?);
        if *size == largest && largest > 1 {
            publishing.push(measure::publishing(&cluster, &fleet, &hosts[..1], *size).await?);
            let watched = Duration::from_secs(arguments.heartbeat_s);
            heartbeats = Some(measure::heartbeats(&cluster, &fleet, watched).await?);
            if members > 1 {
                storm = Some(measure::storm(&mut cluster, &fleet).await?);
            }
        }
        let ending = Instant::now();
        drop(fleet);
        // Their leases run out before the next fleet comes.
        measure::until_forgotten(&cluster, ending).await?;
    }
    Ok(Part {
        members,
        publishing,
        heartbeats,
        storm,
    })
}
