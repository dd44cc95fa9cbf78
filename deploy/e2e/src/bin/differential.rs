//! Compares config-center with a real etcd 3.7.1 by generated operations, as long as asked for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use e2e::differential::{Bounds, Pair};
use e2e::{Center, Peer};

#[derive(Parser)]
#[command(about = "Sends the same generated operations to config-center and to etcd 3.7.1")]
struct Arguments {
    /// Stop after so many operations.
    #[arg(long, default_value_t = 100_000)]
    operations: u64,
    /// Stop after so long.
    #[arg(long, default_value_t = 3_600)]
    seconds: u64,
    /// Repeats a run; without it the clock chooses.
    #[arg(long)]
    seed: Option<u64>,
    /// URL of a server to compare instead of a fresh config-center.
    #[arg(long)]
    ours: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    let work = tempfile::tempdir()?;
    let center = match arguments.ours {
        Some(_) => None,
        None => Some(Center::start(work.path())?),
    };
    let ours = arguments
        .ours
        .or_else(|| center.as_ref().map(Center::url))
        .context("one of the two is there")?;
    let etcd = Peer::start(work.path(), &[])?;
    let mut pair = Pair::connect(&ours, &etcd.url)?;
    let bounds = Bounds {
        operations: arguments.operations,
        time: Duration::from_secs(arguments.seconds),
    };
    println!("seed {seed}");
    match pair.compare(seed, bounds)? {
        Ok(compared) => {
            println!(
                "{} operations in {} sequences, no difference",
                compared.operations, compared.sequences
            );
            Ok(())
        }
        Err(difference) => {
            println!("{difference}");
            anyhow::bail!("config-center and etcd differ; repeat with --seed {seed}")
        }
    }
}
