//! Starts config-center, etcd 3.7.1 and etcd 3.4.23 the same way, loads each in turn with the same
//! clients, and writes the table.
//!
//! Servers take turns within each row (A B C, A B C), so that a slow minute of the machine falls on
//! all of them. Sections may be run one by one: the report is written from all that were measured.

use std::path::PathBuf;

use clap::Parser;

mod facts;
mod failover;
mod growth;
mod results;
mod rows;
mod store;
mod table;
mod volume;

#[derive(Debug, Parser)]
struct Arguments {
    /// About a minute: fewer rows, shorter windows.
    #[arg(long)]
    quick: bool,
    /// Only these sections; without it all of them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<rows::Section>,
    #[arg(long)]
    center: PathBuf,
    #[arg(long)]
    etcd_37: PathBuf,
    #[arg(long)]
    etcd_34: PathBuf,
    #[arg(long)]
    floor: PathBuf,
    #[arg(long)]
    lean: PathBuf,
    #[arg(long)]
    go: PathBuf,
    /// Data folders; the servers' disk is the one that holds it.
    #[arg(long)]
    work: PathBuf,
    /// Where measured sections are kept as JSON.
    #[arg(long)]
    results: PathBuf,
    /// The table.
    #[arg(long)]
    report: PathBuf,
    /// The commit that is measured.
    #[arg(long)]
    commit: String,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let sections = rows::chosen(&arguments.only, arguments.quick);
    let mut results = results::Results::load(&arguments.results)?;
    for section in sections {
        eprintln!("== {}", section.name());
        let cells = match section {
            rows::Section::Million => volume::measure(&arguments)?,
            rows::Section::Failover => failover::measure(&arguments)?,
            rows::Section::Growth => growth::measure(&arguments)?,
            _ => rows::measure(&arguments, section)?,
        };
        results.replace(results::Measured {
            section: section.name().to_owned(),
            commit: arguments.commit.clone(),
            unix_s: facts::now_unix_s(),
            quick: arguments.quick,
            facts: facts::of_machine(&arguments.work)?,
            cells,
        });
        results.save(&arguments.results)?;
        std::fs::write(&arguments.report, table::render(&results))?;
    }
    Ok(())
}
