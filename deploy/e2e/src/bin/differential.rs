//! Compares config-center with real etcds by generated operations, as long as asked for.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};
use e2e::differential::{Bounds, Kind, judged};
use e2e::{Center, Peer};

#[derive(Parser)]
#[command(about = "Sends the same generated operations to config-center and to real etcds")]
struct Arguments {
    /// What to compare; may be repeated. Without it everything, one after the other.
    #[arg(long, value_enum)]
    kind: Vec<Chosen>,
    /// Stop after so many operations of each kind.
    #[arg(long, default_value_t = 100_000)]
    operations: u64,
    /// Stop after so long with each kind.
    #[arg(long, default_value_t = 3_600)]
    seconds: u64,
    /// Repeats a run; without it the clock chooses.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Chosen {
    /// KV, Lease and Watch over gRPC, against etcd 3.7.1.
    V3,
    /// The same with users and rights, against etcd 3.7.1.
    Auth,
    /// The JSON gateway, against etcd 3.7.1.
    Gateway,
    /// `/v2/keys`, against etcd 3.4.23.
    V2,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    let kinds = match &arguments.kind[..] {
        [] => Kind::ALL.to_vec(),
        chosen => chosen.iter().map(|chosen| kind(*chosen)).collect(),
    };
    let bounds = Bounds {
        operations: arguments.operations,
        time: Duration::from_secs(arguments.seconds),
    };
    let work = tempfile::tempdir()?;
    for kind in kinds {
        let folder = work.path().join(format!("{kind:?}"));
        if let Err(error) = compare(kind, &folder, seed, bounds) {
            // What the servers have logged may say why.
            println!("the servers' folders are kept: {}", work.keep().display());
            return Err(error);
        }
    }
    Ok(())
}

fn kind(chosen: Chosen) -> Kind {
    match chosen {
        Chosen::V3 => Kind::V3,
        Chosen::Auth => Kind::Auth,
        Chosen::Gateway => Kind::Gateway,
        Chosen::V2 => Kind::V2,
    }
}

fn compare(kind: Kind, folder: &Path, seed: u64, bounds: Bounds) -> anyhow::Result<()> {
    std::fs::create_dir(folder)?;
    let center = Center::start_program(folder, judged::center()?)?;
    let etcd: Peer = judged::etcd(kind, folder)?;
    let began = Instant::now();
    println!("{kind:?}, seed {seed}");
    match kind.compare(&center.url(), &etcd.url, seed, bounds)? {
        Ok(compared) => {
            println!(
                "{kind:?}: {} operations in {} sequences ({} abandoned), {} s, no difference",
                compared.operations,
                compared.sequences,
                compared.abandoned,
                began.elapsed().as_secs()
            );
            Ok(())
        }
        Err(difference) => {
            println!("{kind:?} differs, {difference}");
            anyhow::bail!("config-center and etcd differ; repeat with --seed {seed}")
        }
    }
}
