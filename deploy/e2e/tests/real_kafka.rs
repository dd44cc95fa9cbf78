//! The main job on a real Apache Kafka: from a put by etcdctl to lines that arrive exactly once.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::agent::{HOST, config_key, entries};
use e2e::tools::run_etcdctl;
use e2e::{
    Agent, AgentSetup, Center, DEADLINE, Delivery, Kafka, LineFormat, LineWriter, broker, ports,
    wait_until,
};
use schemas::fleet::EntryState;

/// Nothing new for this long after the last line: a duplicate would have come by then.
const QUIET: Duration = Duration::from_millis(800);

/// Whether the process holds a descriptor of the file.
fn has_open(pid: u32, path: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == path))
}

#[test]
fn the_main_job() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let kafka = Kafka::real()?;
    let [first, second, errors] =
        ["nginx_log", "nginx_access", "nginx_error"].map(|stem| kafka.fresh_topic(stem));
    let (first, second, errors) = (first?, second?, errors?);
    let formats = [
        LineFormat::access("access.log"),
        LineFormat::error("error.log"),
    ];
    let delivery = Delivery::start(&kafka, &[&first, &second, &errors], &formats)?;
    let center = Center::start(work.path())?;
    let store = center.store()?;
    let [access_path, error_path] = ["access.log", "error.log"].map(|f| work.path().join(f));
    let mut access = LineWriter::create(&access_path, formats[0].clone())?;
    let mut error = LineWriter::create(&error_path, formats[1].clone())?;
    access.write(500)?;
    let setup = AgentSetup::new(&center.url(), kafka.bootstrap(), work.path());
    let mut agent = Agent::start(work.path(), &setup)?;

    // The first put, by somebody else's client, collects what was there and what comes.
    let value = entries(&[(&access_path, &first)]);
    let printed = run_etcdctl(center.client_port, &["put", &config_key(HOST), &value], "")?;
    assert_eq!(printed.ok()?, "OK\n");
    let revision = store
        .get(&config_key(HOST))?
        .expect("just put")
        .mod_revision;
    let status = agent.wait_applied(&store, revision)?;
    assert_eq!(status.entries.len(), 1, "{status:#?}");
    access.write(500)?;
    delivery.wait_for("access.log", 1_000, DEADLINE)?;
    assert_eq!(delivery.tally().records(&first, "access.log"), 1_000);

    // The second put adds a file and moves the other to a new topic while lines are written.
    access.write(200)?;
    let value = entries(&[(&access_path, &second), (&error_path, &errors)]);
    let revision = store.put(&config_key(HOST), value)?;
    for _ in 0..40 {
        access.write(20)?;
        error.write(10)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    agent.wait_applied(&store, revision)?;
    access.write(100)?;
    delivery.wait_for("access.log", access.written(), DEADLINE)?;
    delivery.wait_for("error.log", error.written(), DEADLINE)?;
    delivery.wait_quiet(QUIET)?;
    {
        let tally = delivery.tally();
        for file in [&access, &error] {
            let verdict = tally.verdict(&file.format().name, file.written());
            assert!(verdict.is_exact(), "{}: {verdict}", file.format().name);
        }
        // One cut: everything before it went to the first topic, everything after to the second.
        let (_, last_of_first) = tally.bounds(&first, "access.log").expect("has lines");
        let (first_of_second, _) = tally.bounds(&second, "access.log").expect("has lines");
        assert_eq!(last_of_first + 1, first_of_second);
        assert_eq!(tally.records(&errors, "error.log"), error.written());
    }

    // A rename rotation: the old file is drained through its descriptor, then comes the new one.
    access.rename()?;
    access.write(300)?;
    access.reopen()?;
    access.write(300)?;
    delivery.wait_for("access.log", access.written(), DEADLINE)?;

    // Removal closes the file and sends nothing more of it; the other entry goes on.
    let revision = store.put(&config_key(HOST), entries(&[(&error_path, &errors)]))?;
    agent.wait_applied(&store, revision)?;
    let pid = agent.process.pid();
    wait_until("access.log to be closed", DEADLINE, || {
        (!has_open(pid, &access_path)).then_some(())
    })?;
    assert!(
        has_open(pid, &error_path),
        "the entry that stays keeps its file open"
    );
    let before = access.written();
    access.write(100)?;
    error.write(100)?;
    delivery.wait_for("error.log", error.written(), DEADLINE)?;
    delivery.wait_quiet(QUIET)?;
    assert_eq!(delivery.tally().distinct("access.log"), before);

    // Added again, it continues where it was acknowledged.
    let value = entries(&[(&access_path, &second), (&error_path, &errors)]);
    let revision = store.put(&config_key(HOST), value)?;
    agent.wait_applied(&store, revision)?;
    delivery.wait_for("access.log", access.written(), DEADLINE)?;

    // Truncation: what is written afterwards is read from the start.
    access.truncate()?;
    access.write(50)?;
    delivery.wait_for("access.log", access.written(), DEADLINE)?;
    delivery.wait_quiet(QUIET)?;
    for file in [&access, &error] {
        let verdict = delivery
            .tally()
            .verdict(&file.format().name, file.written());
        assert!(verdict.is_exact(), "{}: {verdict}", file.format().name);
    }

    // A deleted key collects nothing, and the agent says so.
    let revision = store.delete(&config_key(HOST))?;
    agent.wait_applied(&store, revision)?;
    wait_until("error.log to be closed", DEADLINE, || {
        (!has_open(pid, &error_path)).then_some(())
    })?;
    assert!(agent.process.terminate()?.success());
    Ok(())
}

#[test]
fn sigterm_and_start_sends_nothing_twice() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let kafka = Kafka::real()?;
    let topic = kafka.fresh_topic("sigterm")?;
    let format = LineFormat::access("access.log");
    let delivery = Delivery::start(&kafka, &[&topic], std::slice::from_ref(&format))?;
    let center = Center::start(work.path())?;
    let store = center.store()?;
    let path = work.path().join("access.log");
    let mut writer = LineWriter::create(&path, format)?;
    store.put(&config_key(HOST), entries(&[(&path, &topic)]))?;
    let setup = AgentSetup::new(&center.url(), kafka.bootstrap(), work.path());
    let mut agent = Agent::start(work.path(), &setup)?;
    for _ in 0..4 {
        let before = delivery.tally().distinct("access.log");
        writer.write(20_000)?;
        // The signal comes while lines are in flight.
        delivery.wait_for("access.log", before + 100, DEADLINE)?;
        let status = agent.process.terminate()?;
        assert!(status.success(), "{status}: {}", agent.process.log_text());
        writer.write(100)?;
        agent.respawn()?;
    }
    delivery.wait_for("access.log", writer.written(), DEADLINE)?;
    delivery.wait_quiet(QUIET)?;
    let verdict = delivery.tally().verdict("access.log", writer.written());
    assert!(verdict.is_exact(), "{verdict}");
    Ok(())
}

/// `E2E_LINES` sets the size; the default fits a run of all tests.
#[test]
fn a_kill_in_the_middle_of_many_lines_loses_none() -> anyhow::Result<()> {
    let lines: u64 = match std::env::var("E2E_LINES") {
        Ok(text) => text.parse()?,
        Err(_) => 200_000,
    };
    let work = tempfile::tempdir()?;
    let kafka = Kafka::real()?;
    let topic = kafka.fresh_topic("volume")?;
    let format = LineFormat::access("access.log");
    let delivery = Delivery::start(&kafka, &[&topic], std::slice::from_ref(&format))?;
    let center = Center::start(work.path())?;
    let store = center.store()?;
    let path = work.path().join("access.log");
    let mut writer = LineWriter::create(&path, format)?;
    store.put(&config_key(HOST), entries(&[(&path, &topic)]))?;
    let setup = AgentSetup::new(&center.url(), kafka.bootstrap(), work.path());
    let mut agent = Agent::start(work.path(), &setup)?;
    // A writer much faster than nginx, so that a lot is in flight at the kill.
    let mut killed = false;
    while writer.written() < lines {
        writer.write((lines - writer.written()).min(5_000))?;
        if !killed && writer.written() >= lines / 2 {
            delivery.wait_for("access.log", lines / 4, DEADLINE * 3)?;
            agent.process.kill9()?;
            agent.respawn()?;
            killed = true;
        }
    }
    assert!(killed, "the agent was killed on the way");
    // Half a million lines per deadline is far below what any machine here does.
    let deadline = DEADLINE * (2 + u32::try_from(lines / 500_000)?);
    delivery.wait_for("access.log", lines, deadline)?;
    delivery.wait_quiet(QUIET)?;
    let verdict = delivery.tally().verdict("access.log", lines);
    assert!(verdict.is_complete(), "{verdict}");
    println!("after one kill -9: {verdict}");
    Ok(())
}

#[test]
fn a_broker_that_comes_late_gets_everything() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let center = Center::start(work.path())?;
    let store = center.store()?;
    let format = LineFormat::access("access.log");
    let path = work.path().join("access.log");
    let mut writer = LineWriter::create(&path, format.clone())?;
    let topic = "late";
    let revision = store.put(&config_key(HOST), entries(&[(&path, topic)]))?;
    let port = ports::free_port();
    let address = format!("127.0.0.1:{port}");
    let setup = AgentSetup::new(&center.url(), &address, work.path());
    let mut agent = Agent::start(work.path(), &setup)?;
    writer.write(1_000)?;
    // The configuration is applied and the agent alive without any broker.
    let status = agent.wait_applied(&store, revision)?;
    assert_eq!(status.totals.lines_acked, 0, "{status:#?}");
    // The file rotates meanwhile.
    writer.rename()?;
    writer.reopen()?;
    writer.write(1_000)?;
    assert!(agent.process.is_running());
    let started = Instant::now();
    let folder = work.path().join("kafka");
    assert_eq!(broker::start_real(&folder, port)?, address);
    let kafka = Kafka::at(&address);
    kafka.create_topic(topic, 1)?;
    let delivery = Delivery::start(&kafka, &[topic], &[format])?;
    writer.write(1_000)?;
    delivery.wait_for("access.log", 3_000, DEADLINE)?;
    println!(
        "all lines {} ms after the broker's start",
        started.elapsed().as_millis()
    );
    delivery.wait_quiet(QUIET)?;
    let verdict = delivery.tally().verdict("access.log", 3_000);
    assert!(verdict.is_exact(), "{verdict}");
    let status = agent.wait_status(&store, "no line waiting", |s| s.totals.lines_acked == 3_000)?;
    assert_eq!(status.entries[0].state, EntryState::Running, "{status:#?}");
    Ok(())
}
