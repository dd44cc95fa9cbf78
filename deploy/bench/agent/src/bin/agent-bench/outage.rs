//! The broker is away for a minute while a gigabyte is written and the file rotates: memory, and how
//! long it takes to catch up.

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use bench_agent::corpus::{Corpus, Kind};

use crate::agent::{Gateway, Setup};
use crate::latency::remove;
use crate::results::Outage;
use crate::{Arguments, broker, watched};

const CHUNK_BYTES: usize = 1 << 20;
const ROTATIONS: u64 = 5;
const ARRIVAL: Duration = Duration::from_secs(300);

pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Outage> {
    let (lines, at_least) = if arguments.quick {
        (400_000, Duration::from_secs(5))
    } else {
        (5_000_000, Duration::from_secs(60))
    };
    let topic = format!("outage-{}", std::process::id());
    broker::create_topic(&arguments.bootstrap, &topic)?;
    let folder = arguments.work.join(&topic);
    let (logs, source) = (folder.join("logs"), folder.join("source"));
    std::fs::create_dir_all(&logs)?;
    let corpus = Corpus {
        kind: Kind::Access,
        lines,
        files: 1,
    };
    let bytes = corpus.write(&source)?;
    let path = logs.join("access.log");
    let mut log = File::create(&path)?;
    let setup = Setup {
        name: &topic,
        compression: "lz4",
        folder: &folder,
        allow: &logs,
    };
    let value = serde_json::json!([{ "path": path, "topic": topic }]).to_string();
    Gateway::connect(&arguments.etcd)?.put(&setup.config_key(), &value)?;
    let mut process = watched::Watched::spawn(setup.command(arguments)?, &folder.join("log"))?;
    let mut input = BufReader::with_capacity(CHUNK_BYTES, File::open(source.join("00000.log"))?);
    let mut chunk = vec![0; CHUNK_BYTES];
    // It knows the broker before the broker goes.
    let first = input.read(&mut chunk)?;
    log.write_all(&chunk[..first])?;
    let mut probe = broker::Probe::new(&arguments.bootstrap, &topic)?;
    probe.wait_for(1, ARRIVAL)?;
    drop(probe);

    kafka(arguments, &["stop"])?;
    let began = Instant::now();
    let (mut written, mut rotations) = (first as u64, 0);
    loop {
        let read = input.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        log.write_all(&chunk[..read])?;
        written += read as u64;
        let due = at_least.mul_f64(written as f64 / bytes as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        process.cost()?;
        if written * (ROTATIONS + 1) / bytes > rotations && rotations < ROTATIONS {
            rotations += 1;
            let name = |number: u64| logs.join(format!("access.log.{number}"));
            for number in (1..rotations).rev() {
                std::fs::rename(name(number), name(number + 1))?;
            }
            std::fs::rename(&path, name(1))?;
            log = File::create(&path)?;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let port = arguments.bootstrap.rsplit(':').next().context("a port")?;
    kafka(arguments, &["start", "--port", port])?;
    let back = Instant::now();
    let mut probe = broker::Probe::new(&arguments.bootstrap, &topic)?;
    while probe.high_watermark()? < lines {
        process.must_go_on(0, lines)?;
        anyhow::ensure!(back.elapsed() < ARRIVAL, "it does not catch up");
    }
    let caught_up_s = back.elapsed().as_secs_f64();
    let cost = process.cost()?;
    drop(process);
    let tally = broker::read_back(&arguments.bootstrap, &topic, corpus)?;
    anyhow::ensure!(
        tally.lost() == 0 && tally.altered == 0,
        "{} lines lost, {} altered",
        tally.lost(),
        tally.altered
    );
    broker::delete_topic(&arguments.bootstrap, &topic)?;
    remove(&folder)?;
    let outage = Outage {
        commit: arguments.commit.clone(),
        seconds,
        bytes,
        rotations,
        peak_rss_kib: cost.peak_rss_kib,
        caught_up_s,
        duplicated: tally.duplicated,
        out_of_order: tally.out_of_order,
    };
    eprintln!("{outage:?}");
    Ok(outage)
}

fn kafka(arguments: &Arguments, command: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(&arguments.kafka_script)
        .args(command)
        .arg("--dir")
        .arg(&arguments.kafka_dir)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "kafka.sh {command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
