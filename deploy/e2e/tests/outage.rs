//! The broker goes away for a long time while files grow and rotate: reading pauses, memory stays
//! flat, and everything arrives in order afterwards.
//!
//! `E2E_OUTAGE_MB` and `E2E_OUTAGE_S` set how much is written and how long it takes at least; the
//! defaults fit a run of all tests.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::agent::{HOST, config_key, entries};
use e2e::{
    Agent, AgentSetup, Center, DEADLINE, Delivery, Kafka, LineFormat, LineWriter, binaries, broker,
    ports, wait_until,
};

const OUTAGE_MB: u64 = 60;
const OUTAGE_S: u64 = 8;
/// One write call.
const CHUNK_LINES: u64 = 2_000;
/// How often a file is rotated during the outage.
const ROTATIONS: u64 = 5;
/// The promise; the build of the tests is not optimised, which memory hardly feels.
const RSS_MAX_KIB: u64 = 128 * 1024;
const QUIET: Duration = Duration::from_millis(800);

fn setting(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

fn memory_kib(pid: u32, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .with_context(|| format!("{field} of {pid}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn broker_command(folder: &Path, command: &str) -> anyhow::Result<()> {
    let script = binaries::repository().join("deploy/peers/kafka/kafka.sh");
    let output = Command::new(script)
        .arg(command)
        .arg("--dir")
        .arg(folder)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "kafka.sh {command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn a_long_outage_of_the_broker() -> anyhow::Result<()> {
    let bytes = setting("E2E_OUTAGE_MB", OUTAGE_MB)? * 1_000_000;
    let at_least = Duration::from_secs(setting("E2E_OUTAGE_S", OUTAGE_S)?);
    let work = tempfile::tempdir()?;
    let folder = work.path().join("kafka");
    let address = broker::start_real(&folder, ports::free_port())?;
    let port = address.rsplit(':').next().context("a port")?.parse()?;
    let kafka = Kafka::at(&address);
    let topic = kafka.fresh_topic("outage")?;
    let format = LineFormat::access("access.log");
    let center = Center::start(work.path())?;
    let store = center.store()?;
    let logs = work.path().join("log");
    fs::create_dir(&logs)?;
    let path = logs.join("access.log");
    let mut writer = LineWriter::create(&path, format.clone())?;
    store.put(&config_key(HOST), entries(&[(&path, &topic)]))?;
    let setup = AgentSetup::new(&center.url(), &address, &logs);
    let mut agent = Agent::start(work.path(), &setup)?;
    writer.write(CHUNK_LINES)?;
    agent.wait_status(&store, "the first lines", |status| {
        status.totals.lines_acked == CHUNK_LINES
    })?;
    let pid = agent.process.pid();

    broker_command(&folder, "stop")?;
    let began = Instant::now();
    let line_bytes = format.line(0).len() as u64 + 1;
    let lines = bytes / line_bytes;
    let before = writer.written();
    let mut highest_kib = 0;
    let mut rotations = 0;
    while writer.written() - before < lines {
        let done = writer.written() - before;
        if done * ROTATIONS / lines > rotations {
            rotations += 1;
            let name = |number: u64| logs.join(format!("access.log.{number}"));
            for number in (1..rotations).rev() {
                fs::rename(name(number), name(number + 1))?;
            }
            fs::rename(&path, name(1))?;
            writer.write(10)?;
            writer.reopen()?;
        }
        writer.write(CHUNK_LINES.min(lines - done))?;
        highest_kib = highest_kib.max(memory_kib(pid, "VmRSS:")?);
        // Spread over the time of the outage.
        let due = at_least.mul_f64((done as f64 / lines as f64).min(1.0));
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    let status = agent.wait_status(&store, "reading paused", |status| {
        status.in_flight.paused_files > 0
    })?;
    assert!(
        status.in_flight.bytes <= status.in_flight.max_bytes + 8 * 1024 * 1024,
        "{status:#?}"
    );
    assert!(status.totals.lines_read < writer.written(), "{status:#?}");
    assert!(agent.process.is_running());
    let outage = began.elapsed();

    assert_eq!(broker::start_real(&folder, port)?, address);
    let delivery = Delivery::start(&kafka, &[&topic], std::slice::from_ref(&format))?;
    let back = Instant::now();
    let mut last = 0;
    wait_until("every line", DEADLINE * 10, || {
        if let Ok(kib) = memory_kib(pid, "VmRSS:") {
            highest_kib = highest_kib.max(kib);
        }
        std::thread::sleep(Duration::from_millis(100));
        last = delivery.tally().distinct("access.log");
        (last >= writer.written()).then_some(())
    })
    .with_context(|| format!("{last} of {} lines", writer.written()))?;
    let caught_up = back.elapsed();
    delivery.wait_quiet(QUIET)?;
    let verdict = delivery.tally().verdict("access.log", writer.written());
    println!(
        "outage of {:.0} s, {} MB and {rotations} rotations meanwhile, caught up in {:.1} s: {verdict}; \
         highest RSS {} MiB",
        outage.as_secs_f64(),
        bytes / 1_000_000,
        caught_up.as_secs_f64(),
        highest_kib / 1024
    );
    assert!(verdict.is_exact(), "{verdict}");
    assert!(highest_kib <= RSS_MAX_KIB, "{highest_kib} KiB");
    assert!(agent.process.terminate()?.success());
    broker_command(&folder, "wipe")
}
