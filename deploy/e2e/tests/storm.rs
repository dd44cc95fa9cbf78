//! kill -9 of the agent, again and again, while two files grow by 20,000 lines a second in all.
//!
//! `E2E_KILLS` sets how often; the default fits a run of all tests.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::agent::{HOST, config_key, entries};
use e2e::{Agent, AgentSetup, Center, DEADLINE, Delivery, Kafka, LineFormat, LineWriter, binaries};

const KILLS: usize = 4;
const LINES_PER_S: u64 = 20_000;
const TICK: Duration = Duration::from_millis(20);
/// Of one file, in one life of the agent.
const LINES_PER_LIFE: u64 = 2_500;
const QUIET: Duration = Duration::from_millis(800);

/// What the checkpoint says of one file, in lines.
struct Durable {
    path: PathBuf,
    bytes: u64,
    lines: u64,
}

impl Durable {
    /// The newlines between the last answer and this one; offsets only grow.
    fn advance(&mut self, acked_bytes: u64) -> anyhow::Result<u64> {
        anyhow::ensure!(
            acked_bytes >= self.bytes,
            "{}: the checkpoint went back from {} to {acked_bytes}",
            self.path.display(),
            self.bytes
        );
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.bytes))?;
        let mut new = vec![0; usize::try_from(acked_bytes - self.bytes)?];
        file.read_exact(&mut new)?;
        anyhow::ensure!(
            new.is_empty() || new.ends_with(b"\n"),
            "an offset within a line"
        );
        self.lines += new.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.bytes = acked_bytes;
        Ok(self.lines)
    }
}

/// `logagent offsets list` reads the checkpoint as the agent does: a damaged one is an exit code.
fn acked_bytes(agent: &Agent, path: &std::path::Path) -> anyhow::Result<u64> {
    let output = Command::new(binaries::program("logagent")?)
        .args(["offsets", "list", "-o", "json", "--config"])
        .arg(&agent.yaml)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "the checkpoint cannot be read after a kill: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let offsets: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let of_path = |row: &&serde_json::Value| row["path"].as_str() == path.to_str();
    let rows = offsets.as_array().context("a list")?.iter();
    Ok(rows
        .filter(of_path)
        .filter_map(|row| row["acked_offset"].as_u64())
        .sum())
}

#[test]
fn a_storm_of_kills_loses_nothing() -> anyhow::Result<()> {
    let kills: usize = match std::env::var("E2E_KILLS") {
        Ok(text) => text.parse()?,
        Err(_) => KILLS,
    };
    let work = tempfile::tempdir()?;
    let kafka = Kafka::real()?;
    let topic = kafka.fresh_topic("storm")?;
    let formats = ["one.log", "two.log"].map(LineFormat::access);
    let delivery = Delivery::start(&kafka, &[&topic], &formats)?;
    let center = Center::start(work.path())?;
    let paths = formats
        .each_ref()
        .map(|format| work.path().join(&format.name));
    let mut writers = Vec::new();
    for (path, format) in paths.iter().zip(&formats) {
        writers.push(LineWriter::create(path, format.clone())?);
    }
    let writers = Arc::new(Mutex::new(writers));
    let pairs = paths
        .each_ref()
        .map(|path| (path.as_path(), topic.as_str()));
    center.store()?.put(&config_key(HOST), entries(&pairs))?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = thread::spawn({
        let (writers, stop) = (Arc::clone(&writers), Arc::clone(&stop));
        move || -> anyhow::Result<f64> {
            let (began, mut written) = (Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(TICK);
                // What a busy machine made late is caught up with, as real writers do.
                let due = (began.elapsed().as_secs_f64() * LINES_PER_S as f64) as u64;
                let mut writers = writers.lock().unwrap_or_else(PoisonError::into_inner);
                let each = (due - written) / writers.len() as u64;
                for writer in writers.iter_mut() {
                    writer.write(each)?;
                    written += each;
                }
            }
            Ok(written as f64 / began.elapsed().as_secs_f64())
        }
    });
    let setup = AgentSetup::new(&center.url(), kafka.bootstrap(), work.path());
    let mut agent = Agent::start(work.path(), &setup)?;
    let mut durable = paths.each_ref().map(|path| Durable {
        path: path.clone(),
        bytes: 0,
        lines: 0,
    });
    let (mut unconfirmed, mut most) = (0, 0);
    for _ in 0..kills {
        for format in &formats {
            let goal = delivery.tally().distinct(&format.name) + LINES_PER_LIFE;
            delivery.wait_for(&format.name, goal, DEADLINE)?;
        }
        agent.process.kill9()?;
        // All that the agent can have sent, less what its checkpoint knows of.
        let written: u64 = {
            let writers = writers.lock().unwrap_or_else(PoisonError::into_inner);
            writers.iter().map(LineWriter::written).sum()
        };
        let mut known = 0;
        for file in &mut durable {
            known += file.advance(acked_bytes(&agent, &file.path.clone())?)?;
        }
        unconfirmed += written - known;
        most = most.max(written - known);
        agent.respawn()?;
    }
    stop.store(true, Ordering::Relaxed);
    let lines_per_s = load.join().expect("the writer does not panic")?;
    let written = writers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(LineWriter::written)
        .collect::<Vec<_>>();
    let mut duplicated = 0;
    for (format, written) in formats.iter().zip(&written) {
        delivery
            .wait_for(&format.name, *written, DEADLINE * 4)
            .with_context(|| agent.process.log_text())?;
    }
    delivery.wait_quiet(QUIET)?;
    for (format, written) in formats.iter().zip(&written) {
        let verdict = delivery.tally().verdict(&format.name, *written);
        println!("{}: {verdict}", format.name);
        assert!(verdict.is_complete(), "{verdict}");
        duplicated += verdict.duplicated;
    }
    println!(
        "{kills} kills under {lines_per_s:.0} lines/s: {duplicated} duplicated, {} per kill; written \
         and in no checkpoint at the kills: {unconfirmed}, at most {most}",
        duplicated / kills as u64
    );
    assert!(duplicated <= unconfirmed);
    Ok(())
}
