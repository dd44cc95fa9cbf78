//! Twenty times kill -9 of the agent under load: no line is missing, and sent again is only what
//! no checkpoint knew at the kill.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use e2e::agent::{HOST, config_key, entries};
use e2e::{
    Agent, AgentSetup, Center, DEADLINE, Delivery, Kafka, LineFormat, LineWriter, Verdict,
    wait_until,
};

const KILLS: usize = 20;
/// Lines that each life of the agent must deliver before it is killed. Short lives: most end
/// before a checkpoint by the clock would have been written.
const LINES_PER_LIFE: u64 = 300;
/// Nothing new for this long after the last line: a duplicate would have come by then.
const QUIET: Duration = Duration::from_millis(800);
/// logrotate's `rotate`, more than happens here.
const ROTATIONS_KEPT: usize = 12;

/// What happens to the file while the agent is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rotation {
    None,
    /// `access.log.N` with a number that grows with time.
    NextNumber,
    /// `access.log.1` becomes `.2`, and so on.
    Logrotate,
}

fn rotated(path: &Path, number: usize) -> PathBuf {
    PathBuf::from(format!("{}.{number}", path.display()))
}

/// Renames the file, writes a little more through the old descriptor, opens the new one.
fn rotate(writer: &mut LineWriter, rotation: Rotation, turn: usize) -> anyhow::Result<()> {
    let path = writer.path().to_owned();
    let target = match rotation {
        Rotation::None => return Ok(()),
        Rotation::NextNumber => rotated(&path, turn),
        Rotation::Logrotate => {
            for number in (1..ROTATIONS_KEPT).rev() {
                if rotated(&path, number).exists() {
                    fs::rename(rotated(&path, number), rotated(&path, number + 1))?;
                }
            }
            rotated(&path, 1)
        }
    };
    fs::rename(&path, target)?;
    writer.write(5)?;
    writer.reopen()?;
    writer.write(5)
}

/// How many lines the checkpoint on disk counts as acknowledged.
fn durable_lines(agent: &Agent, format: &LineFormat) -> anyhow::Result<u64> {
    let read = |name: &str| fs::read(agent.data_dir.join(name));
    // Between the two renames of a write only the previous one is there.
    let Ok(document) = read("checkpoint").or_else(|_| read("checkpoint.previous")) else {
        return Ok(0);
    };
    let body = document.iter().position(|byte| *byte == b'\n');
    let body = body.context("the checkpoint has a header line")? + 1;
    let entries: serde_json::Value = serde_json::from_slice(&document[body..])?;
    let rows = entries.as_array().into_iter().flatten();
    let files = rows.flat_map(|entry| entry["files"].as_array().into_iter().flatten());
    let mut acked_bytes: u64 = files.filter_map(|file| file["acked_offset"].as_u64()).sum();
    let mut lines = 0;
    loop {
        let line_bytes = format.line(lines).len() as u64 + 1;
        if line_bytes > acked_bytes {
            return Ok(lines);
        }
        acked_bytes -= line_bytes;
        lines += 1;
    }
}

/// The verdict, and how many duplicates the kills account for.
fn kill_under_load(rotation: Rotation) -> anyhow::Result<(Verdict, u64)> {
    let work = tempfile::tempdir()?;
    let kafka = Kafka::mock()?;
    kafka.create_topic("nginx_log", 1)?;
    let format = LineFormat::access("access.log");
    let delivery = Delivery::start(&kafka, &["nginx_log"], std::slice::from_ref(&format))?;
    let center = Center::start(work.path())?;
    let path = work.path().join("access.log");
    let writer = Arc::new(Mutex::new(LineWriter::create(&path, format.clone())?));
    center
        .store()?
        .put(&config_key(HOST), entries(&[(&path, "nginx_log")]))?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = thread::spawn({
        let (writer, stop) = (Arc::clone(&writer), Arc::clone(&stop));
        move || -> anyhow::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                writer
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .write(10)?;
                thread::sleep(Duration::from_millis(4));
            }
            Ok(())
        }
    });
    let setup = AgentSetup::new(&center.url(), kafka.bootstrap(), work.path());
    let mut agent = Agent::start(work.path(), &setup)?;
    let mut in_flight = 0;
    for kill in 0..KILLS {
        let goal = delivery.tally().distinct("access.log") + LINES_PER_LIFE;
        delivery.wait_for("access.log", goal, DEADLINE)?;
        if kill % 3 == 2 {
            // Every third life sees a checkpoint before it ends, whatever the others do.
            wait_until("a checkpoint of what arrived", DEADLINE, || {
                (durable_lines(&agent, &format).unwrap_or(0) >= goal).then_some(())
            })?;
        }
        let lock = || writer.lock().unwrap_or_else(PoisonError::into_inner);
        if kill % 5 == 2 {
            // Nobody knows whether the agent has seen this one.
            rotate(&mut lock(), rotation, kill * 10)?;
        }
        agent.process.kill9()?;
        in_flight += lock().written() - durable_lines(&agent, &format)?;
        if kill % 5 == 4 {
            rotate(&mut lock(), rotation, kill * 10)?;
        }
        if kill % 10 == 9 {
            rotate(&mut lock(), rotation, kill * 10 + 1)?;
        }
        agent.respawn()?;
    }
    stop.store(true, Ordering::Relaxed);
    load.join().expect("the writer does not panic")?;
    let written = writer
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .written();
    delivery
        .wait_for("access.log", written, DEADLINE)
        .with_context(|| agent.process.log_text())?;
    delivery.wait_quiet(QUIET)?;
    let verdict = delivery.tally().verdict("access.log", written);
    Ok((verdict, in_flight))
}

fn check(rotation: Rotation) -> anyhow::Result<()> {
    let (verdict, in_flight) = kill_under_load(rotation)?;
    println!("after {KILLS} kills, {rotation:?}: {verdict}; in flight at the kills: {in_flight}");
    assert!(verdict.is_complete(), "{verdict}");
    assert!(
        verdict.duplicated <= in_flight,
        "{verdict}; in flight at the kills: {in_flight}"
    );
    Ok(())
}

#[test]
fn lines_survive_kills_of_the_agent() -> anyhow::Result<()> {
    check(Rotation::None)
}

#[test]
fn lines_survive_kills_and_rotations_to_the_next_number() -> anyhow::Result<()> {
    check(Rotation::NextNumber)
}

#[test]
fn lines_survive_kills_and_rotations_by_logrotate() -> anyhow::Result<()> {
    check(Rotation::Logrotate)
}
