//! A campaign of faults against real members: processes that are killed and stopped, a network that
//! is cut, disks that are full or slow, clocks that jump, members that are replaced. Clients read and
//! write through all members meanwhile, and what they were told is judged afterwards.
//!
//! ```text
//! main → enclosure (namespaces of its own) → campaign ── faults ──▶ members, network, disks
//!                                               │ workers, holders, watchers ──▶ recorded data
//!                                               └ check/* judge what was recorded → report
//! ```

mod calls;
mod campaign;
mod check;
mod clients;
mod dice;
mod disk;
mod enclosure;
mod faults;
mod history;
mod holders;
mod members;
mod network;
mod report;
mod watchers;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use e2e::binaries;

use crate::campaign::Plan;
use crate::faults::{ALL, Fault};

#[derive(Parser)]
#[command(about = "Real members under kills, pauses, partitions, bad disks and clocks (as root)")]
struct Arguments {
    /// Repeats the order of faults and requests; without it the clock chooses.
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=7))]
    members: u8,
    /// Only this fault, such as `KillLeader`; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Where the report goes, besides the standard output.
    #[arg(long)]
    report: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let only = arguments.only.iter().map(|name| named(name));
    let only = only.collect::<anyhow::Result<Vec<Fault>>>()?;
    if !enclosure::is_inside() {
        binaries::program("config-center")?;
        return Err(enclosure::enter());
    }
    enclosure::end_on_signals()?;
    enclosure::hide_shared_folders()?;
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let plan = Plan {
        seed: arguments.seed.unwrap_or(clock.as_secs()),
        members: usize::from(arguments.members),
        time: Duration::from_secs_f64(arguments.minutes * 60.0),
        only,
    };
    println!("seed {}", plan.seed);
    let work = tempfile::tempdir()?;
    let outcome = campaign::run(&plan, work.path());
    let is_good = outcome
        .as_ref()
        .is_ok_and(|report| report.violations.is_empty());
    if !is_good {
        let kept = work.keep();
        println!("the members' logs are in {}", kept.display());
    }
    let report =
        outcome.with_context(|| format!("the campaign with seed {} broke off", plan.seed))?;
    let text = report.markdown();
    print!("{text}");
    if let Some(path) = &arguments.report {
        std::fs::write(path, &text).with_context(|| format!("write {}", path.display()))?;
    }
    if plan.only.is_empty() && !report.missing().is_empty() {
        println!("time was too short for {:?}", report.missing());
    }
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn named(name: &str) -> anyhow::Result<Fault> {
    let fault = ALL.into_iter().find(|fault| format!("{fault:?}") == name);
    fault.with_context(|| format!("{name} is none of {ALL:?}"))
}
