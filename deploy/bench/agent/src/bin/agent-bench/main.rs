//! Sends one file through logagent, kcat, rsyslog and the bare producer loop into the same warm Kafka,
//! taking turns, checks that every line arrived once, and writes the table.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use bench_agent::corpus;
use clap::Parser;

mod broker;
mod subject;
mod table;
mod watched;

use subject::Subject;
use watched::Sample;

/// A run that takes longer is broken.
const DEADLINE: Duration = Duration::from_secs(180);

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1_000_000)]
    lines: u64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Compressions to compare with, each its own table.
    #[arg(long, value_delimiter = ',', default_value = "lz4,none")]
    compressions: Vec<String>,
    #[arg(long)]
    bootstrap: String,
    /// The store that holds the agent's configuration.
    #[arg(long)]
    etcd: String,
    #[arg(long)]
    etcdctl: PathBuf,
    #[arg(long)]
    logagent: PathBuf,
    #[arg(long)]
    floor: PathBuf,
    #[arg(long)]
    work: PathBuf,
    #[arg(long)]
    report: PathBuf,
    #[arg(long)]
    commit: String,
}

/// One run of one program.
#[derive(Debug, Clone)]
struct Run {
    compression: String,
    subject: Subject,
    seconds: f64,
    cost: Sample,
    duplicated: u64,
    out_of_order: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.work)?;
    let file = arguments.work.join("access.log");
    let bytes = corpus::write_file(&file, arguments.lines)?;
    eprintln!("{} lines, {bytes} bytes", arguments.lines);
    let subjects = Subject::available()?;
    warm_up(&arguments, &file)?;
    let mut runs = Vec::new();
    for compression in &arguments.compressions {
        for round in 0..arguments.rounds {
            for subject in &subjects {
                let run = measure(&arguments, &file, compression, *subject, round)
                    .with_context(|| format!("{} with {compression}", subject.name()))?;
                eprintln!(
                    "{compression}, {}: {:.1} MB/s, {:.2} CPU-s/GB, {} MiB",
                    subject.name(),
                    bytes as f64 / 1e6 / run.seconds,
                    run.cost.cpu_ms as f64 / 1e3 / (bytes as f64 / 1e9),
                    run.cost.peak_rss_kib / 1024
                );
                runs.push(run);
            }
        }
    }
    let text = table::render(&runs, bytes, arguments.lines, &arguments.commit)?;
    std::fs::write(&arguments.report, text)?;
    Ok(())
}

/// The broker's first gigabytes are slow: its code is interpreted until it is hot.
fn warm_up(arguments: &Arguments, file: &std::path::Path) -> anyhow::Result<()> {
    for round in 0..2 {
        measure(arguments, file, "none", Subject::Floor, 1_000 + round)?;
    }
    Ok(())
}

fn measure(
    arguments: &Arguments,
    file: &std::path::Path,
    compression: &str,
    subject: Subject,
    round: usize,
) -> anyhow::Result<Run> {
    let topic = format!(
        "bench-{}-{compression}-{round}-{}",
        subject.name().replace(' ', "-"),
        std::process::id()
    );
    broker::create_topic(&arguments.bootstrap, &topic)?;
    let mut probe = broker::Probe::new(&arguments.bootstrap, &topic)?;
    let folder = arguments.work.join(&topic);
    std::fs::create_dir_all(&folder)?;
    let command = subject.command(arguments, file, &topic, compression, &folder)?;
    let since = Instant::now();
    let mut process = watched::Watched::spawn(command, &folder.join("log"))?;
    let mut arrived = 0;
    while arrived < arguments.lines {
        arrived = probe.high_watermark()?;
        process.sample()?;
        anyhow::ensure!(
            since.elapsed() < DEADLINE,
            "{arrived} of {} lines after {} s; its log is {}",
            arguments.lines,
            DEADLINE.as_secs(),
            folder.join("log").display()
        );
        process.must_go_on(arrived, arguments.lines)?;
    }
    let seconds = since.elapsed().as_secs_f64();
    let cost = process.finish(subject.ends_by_itself())?;
    let tally = broker::read_back(&arguments.bootstrap, &topic, arguments.lines)?;
    anyhow::ensure!(
        tally.lost() == 0 && tally.altered == 0,
        "{} lines lost, {} altered",
        tally.lost(),
        tally.altered
    );
    broker::delete_topic(&arguments.bootstrap, &topic)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(Run {
        compression: compression.to_owned(),
        subject,
        seconds,
        cost,
        duplicated: tally.duplicated,
        out_of_order: tally.out_of_order,
    })
}
