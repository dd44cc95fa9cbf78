//! Real nginx, rotated by real logrotate, into a real Kafka: every line once and in order.

use std::fs;
use std::path::Path;
use std::time::Duration;

use e2e::agent::{HOST, config_key, entries};
use e2e::nginx::Nginx;
use e2e::tools::run;
use e2e::{Agent, AgentSetup, Center, DEADLINE, Delivery, Kafka, LineFormat, wait_until};

/// Nothing new for this long after the last line: a duplicate would have come by then.
const QUIET: Duration = Duration::from_millis(800);

fn has_sibling(log: &Path, suffix: &str) -> bool {
    let name = format!("{}{suffix}", log.display());
    fs::exists(name).unwrap_or(false)
}

/// Rotates while the agent runs, while it is stopped, and after a kill.
fn rotated_by(directives: &str, leaves: &[&str]) -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let kafka = Kafka::real()?;
    let topic = kafka.fresh_topic("rotated")?;
    let format = LineFormat::access("access.log");
    let delivery = Delivery::start(&kafka, &[&topic], std::slice::from_ref(&format))?;
    let center = Center::start(work.path())?;
    let store = center.store()?;
    let mut nginx = Nginx::start(&work.path().join("access.log"), format)?;
    store.put(&config_key(HOST), entries(&[(&nginx.log, &topic)]))?;
    let setup = AgentSetup::new(&center.url(), kafka.bootstrap(), work.path());
    let mut agent = Agent::start(work.path(), &setup)?;
    for _ in 0..3 {
        nginx.serve(1_000)?;
        if directives.contains("copytruncate") {
            // What comes between the copy and the cut is lost, whoever reads.
            delivery.wait_for("access.log", nginx.written(), DEADLINE)?;
        }
        nginx.rotate(directives)?;
        nginx.serve(300)?;
    }
    delivery.wait_for("access.log", nginx.written(), DEADLINE)?;
    // Twice while nobody looks, with lines before, between and after.
    assert!(agent.process.terminate()?.success());
    nginx.serve(500)?;
    nginx.rotate(directives)?;
    nginx.serve(500)?;
    nginx.rotate(directives)?;
    nginx.serve(500)?;
    agent.respawn()?;
    delivery.wait_for("access.log", nginx.written(), DEADLINE)?;
    delivery.wait_quiet(QUIET)?;
    for suffix in leaves {
        assert!(has_sibling(&nginx.log, suffix), "no {suffix}");
    }
    {
        let verdict = delivery.tally().verdict("access.log", nginx.written());
        assert!(verdict.is_exact(), "{directives}: {verdict}");
    }
    // After a kill only what was in flight may come twice.
    nginx.serve(2_000)?;
    agent.process.kill9()?;
    nginx.serve(500)?;
    nginx.rotate(directives)?;
    nginx.serve(500)?;
    agent.respawn()?;
    delivery.wait_for("access.log", nginx.written(), DEADLINE)?;
    delivery.wait_quiet(QUIET)?;
    let verdict = delivery.tally().verdict("access.log", nginx.written());
    assert!(verdict.is_complete(), "{directives}: {verdict}");
    Ok(())
}

#[test]
fn renamed_and_created() -> anyhow::Result<()> {
    rotated_by("create 0644", &[".1", ".5"])
}

#[test]
fn copied_and_truncated() -> anyhow::Result<()> {
    rotated_by("copytruncate", &[".1", ".5"])
}

#[test]
fn compressed_a_rotation_later() -> anyhow::Result<()> {
    rotated_by(
        "create 0644\ncompress\ndelaycompress",
        &[".1", ".2.gz", ".5.gz"],
    )
}

#[test]
fn compressed_at_once() -> anyhow::Result<()> {
    // nginx goes on writing to the old file until it is told, so logrotate compresses after that.
    rotated_by("create 0644\ncompress", &[".1.gz", ".5.gz"])
}

/// Everything that a topic holds, as kcat prints it: one record a line of JSON.
fn values(kafka: &Kafka, topic: &str) -> anyhow::Result<Vec<String>> {
    let mut command = std::process::Command::new("kcat");
    command.args(["-C", "-e", "-q", "-J", "-o", "beginning", "-t", topic, "-b"]);
    command.arg(kafka.bootstrap());
    let printed = run(&mut command, "")?.ok()?;
    let mut values = Vec::new();
    for line in printed.lines() {
        let record: serde_json::Value = serde_json::from_str(line)?;
        values.push(record["payload"].as_str().unwrap_or_default().to_owned());
    }
    Ok(values)
}

#[test]
fn joined_lines_and_other_encodings() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let kafka = Kafka::real()?;
    let (joined, gbk) = (kafka.fresh_topic("joined")?, kafka.fresh_topic("gbk")?);
    let center = Center::start(work.path())?;
    let store = center.store()?;
    let [java, chinese] = ["java.log", "gbk.log"].map(|name| work.path().join(name));
    let mut text = String::new();
    let mut want = Vec::new();
    for number in 0..200 {
        let trace = format!("2026-11-24 {number} java.lang.Error: x\n\tat a.B.c\n\tat d.E.f");
        text.push_str(&trace);
        text.push('\n');
        want.push(trace);
    }
    fs::write(&java, text)?;
    // "中文 日志" in GBK.
    let word = b"\xd6\xd0\xce\xc4 \xc8\xd5\xd6\xbe";
    fs::write(
        &chinese,
        [&word[..], b"\r\n", &word[..], b" end\n"].concat(),
    )?;
    let value = serde_json::json!([
        { "path": java, "topic": joined, "multiline": { "start": r"^\d{4}-", "timeout_ms": 200 } },
        { "path": chinese, "topic": gbk, "encoding": "gbk" },
    ]);
    store.put(&config_key(HOST), value.to_string())?;
    let setup = AgentSetup::new(&center.url(), kafka.bootstrap(), work.path());
    let mut agent = Agent::start(work.path(), &setup)?;
    let status = agent.wait_status(&store, "all records", |s| s.totals.lines_acked == 202)?;
    assert_eq!(status.totals.lost_bytes, 0);
    assert_eq!(values(&kafka, &joined)?, want);
    assert_eq!(values(&kafka, &gbk)?, ["中文 日志\r", "中文 日志 end"]);
    wait_until("no lag", DEADLINE, || {
        let status = agent.wait_status(&store, "a status", |_| true).ok()?;
        status
            .files
            .iter()
            .all(|file| file.lag_bytes == 0)
            .then_some(())
    })?;
    assert!(agent.process.terminate()?.success());
    Ok(())
}
