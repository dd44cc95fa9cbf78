//! Nothing that is put under an agent's key can stop it: the last good configuration runs on, and
//! the status key says what is wrong.

use std::path::Path;
use std::time::Duration;

use e2e::agent::{HOST, config_key, entries};
use e2e::{Agent, AgentSetup, Center, DEADLINE, Delivery, Kafka, LineFormat, LineWriter, Store};
use schemas::fleet::{AgentStatus, AttemptResult, ConfigSource, EntryState};

/// A center, an agent that collects one file, and the mock Kafka that it goes to.
struct Bench {
    agent: Agent,
    center: Center,
    store: Store,
    writer: LineWriter,
    delivery: Delivery,
    good: String,
    // Held: the cluster ends with it.
    kafka: Kafka,
    work: tempfile::TempDir,
}

const TOPIC: &str = "nginx_log";

impl Bench {
    fn start() -> anyhow::Result<Self> {
        let work = tempfile::tempdir()?;
        let kafka = Kafka::mock()?;
        kafka.create_topic(TOPIC, 1)?;
        let format = LineFormat::access("access.log");
        let delivery = Delivery::start(&kafka, &[TOPIC], std::slice::from_ref(&format))?;
        let center = Center::start(work.path())?;
        let store = center.store()?;
        let logs = work.path().join("logs");
        std::fs::create_dir(&logs)?;
        let path = logs.join("access.log");
        let writer = LineWriter::create(&path, format)?;
        let good = entries(&[(&path, TOPIC)]);
        let setup = AgentSetup::new(&center.url(), kafka.bootstrap(), &logs);
        let agent = Agent::start(work.path(), &setup)?;
        let mut bench = Self {
            agent,
            center,
            store,
            writer,
            delivery,
            good,
            kafka,
            work,
        };
        bench.put_good()?;
        Ok(bench)
    }

    /// Puts the good configuration and waits until it runs.
    fn put_good(&mut self) -> anyhow::Result<i64> {
        let revision = self.store.put(&config_key(HOST), &self.good)?;
        self.agent.wait_applied(&self.store, revision)?;
        Ok(revision)
    }

    /// Waits until the agent reports its attempt at this revision.
    fn wait_attempt(&self, revision: i64) -> anyhow::Result<AgentStatus> {
        self.agent.wait_status(
            &self.store,
            &format!("an attempt at revision {revision}"),
            |s| {
                s.last_attempt
                    .as_ref()
                    .is_some_and(|attempt| attempt.revision == revision)
            },
        )
    }

    /// Writes some lines and waits until they are in Kafka.
    fn lines_flow(&mut self) -> anyhow::Result<()> {
        self.writer.write(20)?;
        self.delivery
            .wait_for("access.log", self.writer.written(), DEADLINE)
    }

    /// Puts a value that must be refused whole; the good configuration must go on.
    fn refused(&mut self, value: impl AsRef<[u8]>, word: &str) -> anyhow::Result<()> {
        let shown = String::from_utf8_lossy(value.as_ref())
            .chars()
            .take(40)
            .collect::<String>();
        let good = self.put_good()?;
        let revision = self.store.put(&config_key(HOST), value)?;
        let status = self.wait_attempt(revision)?;
        let attempt = status.last_attempt.clone().unwrap_or_default();
        assert_eq!(
            attempt.result,
            AttemptResult::Rejected,
            "{shown}: {status:#?}"
        );
        let messages: Vec<_> = attempt.errors.iter().map(|e| e.message.as_str()).collect();
        assert!(!messages.is_empty(), "{shown}: an error is reported");
        let text = messages.join("\n").to_lowercase();
        assert!(
            text.contains(word),
            "{shown}: {word:?} is named in {text:?}"
        );
        let running = status.running.clone().unwrap_or_default();
        assert_eq!(running.revision, good, "{shown}: the last good one runs");
        let desired = status.desired_seen.clone().unwrap_or_default();
        assert_eq!(
            desired.revision, revision,
            "{shown}: what was received is told"
        );
        self.lines_flow()
    }

    /// Puts the good entry together with a bad one: the good one runs, the bad one is reported.
    fn partly(&mut self, bad_entry: &str, field: Option<&str>, word: &str) -> anyhow::Result<()> {
        self.put_good()?;
        let good = self.good.trim_end_matches(']');
        let revision = self
            .store
            .put(&config_key(HOST), format!("{good},{bad_entry}]"))?;
        let status = self.wait_attempt(revision)?;
        let attempt = status.last_attempt.clone().unwrap_or_default();
        assert_eq!(
            attempt.result,
            AttemptResult::PartlyApplied,
            "{bad_entry}: {status:#?}"
        );
        let running = status.running.clone().unwrap_or_default();
        assert_eq!(
            running.revision, revision,
            "{bad_entry}: the good entry runs at it"
        );
        let problem = attempt
            .errors
            .iter()
            .find(|problem| problem.index == Some(1));
        let problem = problem.unwrap_or_else(|| panic!("{bad_entry}: no error at 1: {status:#?}"));
        assert_eq!(problem.field.as_deref(), field, "{bad_entry}: {problem:?}");
        let message = problem.message.to_lowercase();
        assert!(
            message.contains(word),
            "{bad_entry}: {word:?} is named in {message:?}"
        );
        self.lines_flow()
    }

    /// Puts the good entry together with one that the host does not allow: the good one runs, the
    /// other is rejected by index and field, with the remedy.
    fn outside(&mut self, entry: &str) -> anyhow::Result<()> {
        self.put_good()?;
        let good = self.good.trim_end_matches(']');
        let revision = self
            .store
            .put(&config_key(HOST), format!("{good},{entry}]"))?;
        let status = self.agent.wait_applied(&self.store, revision)?;
        let attempt = status.last_attempt.clone().expect("an attempt was made");
        assert_eq!(attempt.result, AttemptResult::PartlyApplied, "{status:#?}");
        let [problem] = attempt.errors.as_slice() else {
            panic!("one entry is rejected: {status:#?}");
        };
        assert_eq!(
            (problem.index, problem.field.as_deref()),
            (Some(1), Some("path"))
        );
        assert!(problem.message.contains("allow"), "the remedy is named");
        let rejected = status
            .entries
            .iter()
            .filter(|entry| entry.state == EntryState::Rejected);
        let rejected: Vec<_> = rejected.map(|entry| entry.path.as_str()).collect();
        assert_eq!(rejected, ["/etc/passwd"], "{status:#?}");
        assert!(
            status.files.iter().all(|f| f.path != "/etc/passwd"),
            "nothing is read: {status:#?}"
        );
        self.lines_flow()
    }

    /// Puts or deletes something that means "collect nothing".
    fn nothing(
        &mut self,
        change: impl FnOnce(&Store) -> anyhow::Result<i64>,
    ) -> anyhow::Result<()> {
        self.put_good()?;
        self.lines_flow()?;
        let revision = change(&self.store)?;
        let status = self.agent.wait_applied(&self.store, revision)?;
        assert!(status.entries.is_empty(), "{status:#?}");
        assert!(status.files.is_empty(), "{status:#?}");
        let before = self.writer.written();
        self.writer.write(20)?;
        self.delivery.wait_quiet(Duration::from_millis(500))?;
        assert_eq!(self.delivery.tally().distinct("access.log"), before);
        // Offsets are kept: the lines come when the entry is back.
        self.put_good()?;
        self.lines_flow()
    }
}

#[test]
fn every_bad_value_is_survived_and_reported() -> anyhow::Result<()> {
    let mut bench = Bench::start()?;
    bench.lines_flow()?;
    bench.refused("sample_value", "json")?;
    bench.refused("{", "json")?;
    bench.refused("{\"path\":\"x\"}", "array")?;
    bench.refused([0xff, 0xfe, 0x00], "json")?;
    let endless = format!("[{}", " ".repeat(1_200_000));
    bench.refused(endless, "")?;

    bench.partly("null", None, "")?;
    bench.partly("{\"path\":\"/a\"}", Some("topic"), "topic")?;
    bench.partly("{\"topic\":\"t\"}", Some("path"), "path")?;
    let logs = bench.writer.path().with_file_name("other.log");
    let spaced = entries(&[(&logs, "nginx log")]);
    bench.partly(spaced.trim_matches(['[', ']']), Some("topic"), "nginx log")?;
    let outside = entries(&[(Path::new("/etc/passwd"), TOPIC)]);
    bench.outside(outside.trim_matches(['[', ']']))?;
    let dotted = entries(&[(&logs.join("../../../../etc/passwd"), TOPIC)]);
    bench.partly(dotted.trim_matches(['[', ']']), Some("path"), "..")?;
    bench.partly(
        "{\"path\":\"relative.log\",\"topic\":\"t\"}",
        Some("path"),
        "absolute",
    )?;

    bench.nothing(|store| Ok(store.put(&config_key(HOST), "[]")?))?;
    bench.nothing(|store| Ok(store.put(&config_key(HOST), "")?))?;
    bench.nothing(|store| Ok(store.delete(&config_key(HOST))?))?;

    // Only bad entries: nothing of it can run, so the last good one goes on or nothing runs, but
    // the agent lives and says which entries are bad.
    for only_bad in ["[null]", "[{\"path\":\"/a\"}]"] {
        bench.put_good()?;
        let revision = bench.store.put(&config_key(HOST), only_bad)?;
        let status = bench.wait_attempt(revision)?;
        let attempt = status.last_attempt.unwrap_or_default();
        assert_ne!(attempt.result, AttemptResult::Applied, "{only_bad}");
        assert_eq!(
            attempt.errors.first().and_then(|e| e.index),
            Some(0),
            "{only_bad}"
        );
    }

    bench.put_good()?;
    bench.lines_flow()?;
    bench.delivery.wait_quiet(Duration::from_millis(500))?;
    let verdict = bench
        .delivery
        .tally()
        .verdict("access.log", bench.writer.written());
    assert!(verdict.is_exact(), "{verdict}");
    assert!(bench.agent.process.is_running());
    Ok(())
}

#[test]
fn five_megabytes_are_refused_by_the_store_with_etcds_words() -> anyhow::Result<()> {
    let bench = Bench::start()?;
    let above_request_limit = vec![b'x'; 1_700_000];
    let refusal = bench
        .store
        .put(&config_key(HOST), above_request_limit)
        .expect_err("too large");
    assert_eq!(refusal.code(), tonic::Code::InvalidArgument, "{refusal:?}");
    assert_eq!(refusal.message(), "etcdserver: request is too large");
    let five_megabytes = vec![b'x'; 5_000_000];
    let refusal = bench
        .store
        .put(&config_key(HOST), five_megabytes)
        .expect_err("too large");
    assert_eq!(
        refusal.code(),
        tonic::Code::ResourceExhausted,
        "{refusal:?}"
    );
    let text = refusal.message();
    assert!(
        text.starts_with("grpc: received message larger than max ("),
        "{text}"
    );
    assert!(text.ends_with(" vs. 2097152)"), "{text}");
    // The configuration is untouched.
    let value = bench
        .store
        .get(&config_key(HOST))?
        .expect("still there")
        .value;
    assert_eq!(value, bench.good.as_bytes());
    Ok(())
}

#[test]
fn the_agent_starts_from_its_cache_when_the_center_is_down() -> anyhow::Result<()> {
    let mut bench = Bench::start()?;
    bench.lines_flow()?;
    bench.agent.process.terminate()?;
    bench.center.process.kill9()?;
    bench.writer.write(50)?;
    bench.agent.respawn()?;
    bench.lines_flow()?;
    // The center comes back: the agent reports itself, and what it runs came from the cache or,
    // as soon as it has asked, from the center.
    bench.center.restart()?;
    let what = "the center as its source again";
    let status = bench.agent.wait_status(&bench.store, what, |status| {
        status.config_source == ConfigSource::Center
    })?;
    assert_eq!(status.entries.len(), 1, "{status:#?}");
    assert_eq!(status.entries[0].state, EntryState::Running, "{status:#?}");
    bench.put_good()?;
    bench.lines_flow()?;
    let verdict = bench
        .delivery
        .tally()
        .verdict("access.log", bench.writer.written());
    assert!(verdict.is_exact(), "{verdict}");
    Ok(())
}

#[test]
fn the_agent_waits_for_a_center_that_it_has_never_seen() -> anyhow::Result<()> {
    let mut bench = Bench::start()?;
    bench.agent.process.terminate()?;
    bench.center.process.kill9()?;
    // A second agent without a cache.
    let folder = bench.work.path().join("fresh");
    std::fs::create_dir(&folder)?;
    let logs = bench.work.path().join("logs");
    let setup = AgentSetup::new(&bench.center.url(), bench.kafka.bootstrap(), &logs);
    let mut agent = Agent::start(&folder, &setup)?;
    bench.writer.write(30)?;
    bench.delivery.wait_quiet(Duration::from_millis(1_000))?;
    assert!(agent.process.is_running(), "{}", agent.process.log_text());
    assert_eq!(bench.delivery.tally().distinct("access.log"), 0);
    bench.center.restart()?;
    bench.delivery.wait_for("access.log", 30, DEADLINE)?;
    Ok(())
}

#[test]
fn the_main_job_in_short() -> anyhow::Result<()> {
    let mut bench = Bench::start()?;
    bench.writer.write(500)?;
    bench.lines_flow()?;
    bench.writer.rename()?;
    bench.writer.write(100)?;
    bench.writer.reopen()?;
    bench.lines_flow()?;
    bench.delivery.wait_quiet(Duration::from_millis(500))?;
    let verdict = bench
        .delivery
        .tally()
        .verdict("access.log", bench.writer.written());
    assert!(verdict.is_exact(), "{verdict}");
    // A dead agent disappears: SIGTERM revokes its lease.
    assert!(bench.agent.process.terminate()?.success());
    let gone = bench.store.agent_status(&bench.agent.status_key());
    assert!(gone.is_none(), "{gone:#?}");
    Ok(())
}
