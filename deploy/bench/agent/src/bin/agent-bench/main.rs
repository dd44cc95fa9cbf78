//! logagent next to kcat, rsyslog, syslog-ng and a bare producer loop, all into the same warm Kafka.
//!
//! Each section measures one thing and keeps its results in a JSON file, so that one can be repeated
//! without the others. The report is written from that file.

use std::path::PathBuf;

use clap::Parser;

mod agent;
mod broker;
mod idle;
mod latency;
mod outage;
mod reload;
mod results;
mod subject;
mod table;
mod throughput;
mod watched;

use results::Results;

/// The sections in their order.
const SECTIONS: [&str; 8] = [
    "nginx", "none", "files", "long", "latency", "reload", "idle", "outage",
];

#[derive(Debug, Parser)]
struct Arguments {
    /// Small sizes and one round, to see that it works
    #[arg(long)]
    quick: bool,
    /// Corpora of a fraction of their size, for tuning: 5 is a fifth
    #[arg(long, default_value_t = 1)]
    divide: u64,
    /// Leaves the other programs out, for tuning; names as in the report
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,
    /// Measures only these and keeps what is known of the others
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[arg(long)]
    bootstrap: String,
    /// Starts and stops the broker, for the outage
    #[arg(long)]
    kafka_script: PathBuf,
    #[arg(long)]
    kafka_dir: PathBuf,
    /// The store that holds the agent's configuration
    #[arg(long)]
    etcd: String,
    #[arg(long)]
    logagent: PathBuf,
    #[arg(long)]
    floor: PathBuf,
    /// The folder into which syslog-ng was unpacked
    #[arg(long)]
    syslog_ng: PathBuf,
    #[arg(long)]
    work: PathBuf,
    #[arg(long)]
    results: PathBuf,
    #[arg(long)]
    report: PathBuf,
    #[arg(long)]
    commit: String,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    for name in &arguments.only {
        anyhow::ensure!(
            SECTIONS.contains(&name.as_str()),
            "no section {name}: there are {}",
            SECTIONS.join(", ")
        );
    }
    std::fs::create_dir_all(&arguments.work)?;
    let mut results = Results::load(&arguments.results)?;
    throughput::warm_up(&arguments)?;
    for section in SECTIONS {
        let is_wanted = arguments.only.is_empty() || arguments.only.iter().any(|n| n == section);
        if !is_wanted {
            continue;
        }
        eprintln!("--- {section}");
        match section {
            "latency" => results.latency = Some(latency::measure(&arguments)?),
            "reload" => results.reload = Some(reload::measure(&arguments)?),
            "idle" => results.idle = Some(idle::measure(&arguments)?),
            "outage" => results.outage = Some(outage::measure(&arguments)?),
            _ => {
                for table in throughput::measure(&arguments, section)? {
                    results.put(table);
                }
            }
        }
        // What has been measured stays, whatever happens to the next section.
        results.store(&arguments.results)?;
        std::fs::write(&arguments.report, table::render(&results)?)?;
    }
    Ok(())
}
