//! How fast and at what cost each program sends a corpus; programs take turns.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use bench_agent::corpus::{Corpus, Kind};

use crate::results::{Run, Throughput};
use crate::subject::{Input, Subject};
use crate::{Arguments, broker, watched};

/// A run that takes longer is broken.
const DEADLINE: Duration = Duration::from_secs(300);

struct Plan {
    corpus: &'static str,
    kind: Kind,
    lines: u64,
    files: u64,
    compression: &'static str,
    rounds: usize,
}

const fn nginx(lines: u64, files: u64, rounds: usize) -> Plan {
    Plan {
        corpus: "nginx lines",
        kind: Kind::Access,
        lines,
        files,
        compression: "lz4",
        rounds,
    }
}

fn plans(section: &str, arguments: &Arguments) -> Vec<Plan> {
    let mut plans = match section {
        "nginx" => vec![nginx(5_000_000, 1, 3)],
        "none" => vec![Plan {
            compression: "none",
            ..nginx(5_000_000, 1, 2)
        }],
        "files" => vec![nginx(2_500_000, 10, 2), nginx(2_500_000, 1_000, 2)],
        _ => vec![
            Plan {
                corpus: "long lines",
                kind: Kind::Long,
                ..nginx(200_000, 1, 2)
            },
            Plan {
                corpus: "records of several lines",
                kind: Kind::Trace,
                ..nginx(600_000, 1, 2)
            },
        ],
    };
    for plan in &mut plans {
        plan.lines /= arguments.divide.max(1);
        if arguments.quick {
            plan.lines /= 25;
            plan.files = plan.files.min(100);
            plan.rounds = 1;
        }
    }
    plans
}

/// The broker's first gigabytes are slow: its code is interpreted until it is hot.
pub(crate) fn warm_up(arguments: &Arguments) -> anyhow::Result<()> {
    let is_small = arguments.quick || arguments.divide > 1;
    let plan = nginx(if is_small { 200_000 } else { 2_500_000 }, 1, 1);
    let input = input(arguments, &plan)?;
    for round in 0..2 {
        run(arguments, &plan, &input, Subject::Floor, 1_000 + round)?;
    }
    clear(&input)
}

pub(crate) fn measure(arguments: &Arguments, section: &str) -> anyhow::Result<Vec<Throughput>> {
    let mut tables = Vec::new();
    for plan in plans(section, arguments) {
        let input = input(arguments, &plan)?;
        let bytes = input.bytes;
        eprintln!(
            "{} lines in {} files, {bytes} bytes",
            plan.lines, plan.files
        );
        let mut runs = Vec::new();
        for round in 0..plan.rounds {
            for subject in Subject::all(plan.kind, plan.files) {
                let names = &arguments.subjects;
                if !names.is_empty() && !names.iter().any(|name| name == subject.name()) {
                    continue;
                }
                let run = run(arguments, &plan, &input, subject, round)
                    .with_context(|| format!("{} with {}", subject.name(), plan.compression))?;
                eprintln!(
                    "{}: {:.1} MB/s, {:.2} CPU-s/GB, {} MiB",
                    subject.name(),
                    bytes as f64 / 1e6 / run.seconds,
                    run.cost.cpu_ms as f64 / 1e3 / (bytes as f64 / 1e9),
                    run.cost.peak_rss_kib / 1024
                );
                runs.push(run);
            }
        }
        clear(&input)?;
        tables.push(Throughput {
            corpus: plan.corpus.to_owned(),
            compression: plan.compression.to_owned(),
            commit: arguments.commit.clone(),
            bytes,
            lines: plan.lines,
            files: plan.files,
            runs,
        });
    }
    Ok(tables)
}

fn input(arguments: &Arguments, plan: &Plan) -> anyhow::Result<Input> {
    let folder = arguments.work.join("corpus");
    remove(&folder)?;
    let corpus = Corpus {
        kind: plan.kind,
        lines: plan.lines,
        files: plan.files,
    };
    let bytes = corpus.write(&folder)?;
    let files: Vec<PathBuf> = (0..plan.files)
        .map(|index| folder.join(format!("{index:05}.log")))
        .collect();
    Ok(Input {
        corpus,
        folder,
        files,
        bytes,
    })
}

fn clear(input: &Input) -> anyhow::Result<()> {
    remove(&input.folder)
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn run(
    arguments: &Arguments,
    plan: &Plan,
    input: &Input,
    subject: Subject,
    round: usize,
) -> anyhow::Result<Run> {
    let topic = format!(
        "bench-{}-{}-{}-{round}-{}",
        subject.name().replace(' ', "-"),
        plan.files,
        plan.compression,
        std::process::id()
    );
    broker::create_topic(&arguments.bootstrap, &topic)?;
    let mut probe = broker::Probe::new(&arguments.bootstrap, &topic)?;
    let folder = arguments.work.join(&topic);
    std::fs::create_dir_all(&folder)?;
    let command = subject.command(arguments, input, &topic, plan.compression, &folder)?;
    let since = Instant::now();
    let mut process = watched::Watched::spawn(command, &folder.join("log"))?;
    let mut arrived = 0;
    while arrived < plan.lines {
        arrived = probe.high_watermark()?;
        process.must_go_on(arrived, plan.lines)?;
        anyhow::ensure!(
            since.elapsed() < DEADLINE,
            "{arrived} of {} lines after {} s; its log is {}",
            plan.lines,
            DEADLINE.as_secs(),
            folder.join("log").display()
        );
    }
    let seconds = since.elapsed().as_secs_f64();
    let cost = process.finish(subject.ends_by_itself())?;
    let tally = broker::read_back(&arguments.bootstrap, &topic, input.corpus)?;
    anyhow::ensure!(
        tally.lost() == 0 && tally.altered == 0,
        "{} lines lost, {} altered",
        tally.lost(),
        tally.altered
    );
    broker::delete_topic(&arguments.bootstrap, &topic)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(Run {
        subject: subject.name().to_owned(),
        seconds,
        cost,
        duplicated: tally.duplicated,
        out_of_order: tally.out_of_order,
    })
}
