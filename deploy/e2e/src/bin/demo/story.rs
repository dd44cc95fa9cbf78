//! What the demo does, in order; each step waits for its effect and tells how long it took.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::agent::{HOST, config_key, entries};
use e2e::{
    Agent, AgentSetup, Center, DEADLINE, Delivery, Kafka, LineFormat, LineWriter, Store, binaries,
    ports,
};

use crate::Arguments;
use crate::report::{Report, thousands, verdict_row};
use crate::traffic::Traffic;

/// How long lines flow between two steps.
const FLOW: Duration = Duration::from_millis(2_000);
/// How long the center stays dead.
const OUTAGE: Duration = Duration::from_millis(1_500);
/// How long nginx goes on writing to a renamed file before it opens the new one.
const ROTATION_LAG: Duration = Duration::from_millis(300);
/// Nothing new for this long after the last line: duplicates would show by then.
const QUIET: Duration = Duration::from_millis(800);

const FILES: [&str; 2] = ["access.log", "error.log"];
const ACCESS: usize = 0;
const ERROR: usize = 1;

/// Topics in the order in which the story uses them.
const TOPICS: [&str; 4] = ["nginx_log", "nginx_access", "nginx_error", "nginx_alerts"];

/// The parts of a running demo. Fields are dropped in order: the agent before its Kafka.
struct Scene<'a> {
    report: &'a Report,
    agent: Agent,
    center: Center,
    store: Store,
    traffic: Traffic,
    delivery: Delivery,
    topics: Vec<String>,
    paths: [std::path::PathBuf; 2],
    kafka: Kafka,
}

pub(crate) fn tell(arguments: &Arguments, report: &Report, work: &Path) -> anyhow::Result<()> {
    let mut scene = open(arguments, report, work)?;
    scene.first_put()?;
    scene.second_put()?;
    scene.rotate()?;
    scene.kill_the_center()?;
    if arguments.stay {
        scene.settle_while_writing()?;
        return scene.stay();
    }
    scene.traffic.stop()?;
    scene.settle()?;
    scene.shut_down()
}

/// Starts everything and waits until the agent reports itself.
fn open<'a>(arguments: &Arguments, report: &'a Report, work: &Path) -> anyhow::Result<Scene<'a>> {
    let kafka = match &arguments.kafka {
        Some(address) => Kafka::at(address),
        None => Kafka::mock()?,
    };
    let kind = if kafka.is_mock() {
        "embedded mock cluster"
    } else {
        "broker"
    };
    report.step("kafka", &format!("{kind} at {}", kafka.bootstrap()));
    // Topics on somebody's real broker may hold older lines: take names of our own there.
    let suffix = if kafka.is_mock() {
        String::new()
    } else {
        format!("-demo{}", std::process::id())
    };
    let topics: Vec<_> = TOPICS
        .iter()
        .map(|topic| format!("{topic}{suffix}"))
        .collect();
    for topic in &topics {
        kafka.create_topic(topic, 1)?;
    }

    let started = Instant::now();
    let port = match ports::is_free(2379) {
        true => 2379,
        false => ports::free_port(),
    };
    report.step(
        "center",
        &format!("config-center at http://127.0.0.1:{port}"),
    );
    if port != 2379 {
        report.note("port 2379 is taken by another program: using a free one");
    }
    let center = Center::start_on(work, port)?;
    report.result("healthy", started.elapsed());
    let store = center.store()?;

    let logs = work.join("nginx");
    fs::create_dir(&logs)?;
    let rate = arguments.lines_per_second;
    let formats = [
        LineFormat::access(FILES[ACCESS]),
        LineFormat::error(FILES[ERROR]),
    ]
    .map(|format| format.starting_now(rate));
    let paths = FILES.map(|file| logs.join(file));
    let started = Instant::now();
    report.step(
        "agent",
        &format!("logagent for host {HOST}, reading below {}", logs.display()),
    );
    let agent = Agent::start(
        work,
        &AgentSetup::new(&center.url(), kafka.bootstrap(), &logs),
    )?;
    agent.wait_status(&store, "the host's name", |status| status.host == HOST)?;
    report.result("reports itself under its status key", started.elapsed());

    let names: Vec<_> = topics.iter().map(String::as_str).collect();
    let delivery = Delivery::start(&kafka, &names, &formats)?;
    let mut writers = Vec::new();
    for (path, format) in paths.iter().zip(formats) {
        writers.push(LineWriter::create(path, format)?);
    }
    let traffic = Traffic::start(writers, rate);
    report.step(
        "writer",
        &format!("{} lines/s into each of {}", rate, FILES.join(" and ")),
    );
    Ok(Scene {
        report,
        agent,
        center,
        store,
        traffic,
        delivery,
        topics,
        paths,
        kafka,
    })
}

impl Scene<'_> {
    fn first_put(&mut self) -> anyhow::Result<()> {
        thread::sleep(FLOW / 4);
        self.put(&[(ACCESS, 0)])?;
        thread::sleep(FLOW);
        Ok(())
    }

    fn second_put(&mut self) -> anyhow::Result<()> {
        self.put(&[(ACCESS, 1), (ERROR, 2)])?;
        thread::sleep(FLOW);
        Ok(())
    }

    /// Puts an array of (file, topic), and waits until it is applied and each topic has a line.
    fn put(&mut self, wanted: &[(usize, usize)]) -> anyhow::Result<()> {
        let shown: Vec<_> = wanted
            .iter()
            .map(|&(file, topic)| format!("{} -> {}", FILES[file], self.topics[topic]))
            .collect();
        let pairs: Vec<_> = wanted
            .iter()
            .map(|&(file, topic)| (self.paths[file].as_path(), self.topics[topic].as_str()))
            .collect();
        self.report.step("put", &shown.join(", "));
        let started = Instant::now();
        let revision = self.store.put(&config_key(HOST), entries(&pairs))?;
        self.report
            .result(&format!("stored as revision {revision}"), started.elapsed());
        self.agent.wait_applied(&self.store, revision)?;
        self.report
            .result("applied, says the agent's status key", started.elapsed());
        for &(file, topic) in wanted {
            let topic = &self.topics[topic];
            let arrived = self.delivery.wait_first(topic, FILES[file])?;
            // An entry that was there before the put has its lines already.
            if arrived > started {
                let what = format!("first line of {} in {topic}", FILES[file]);
                self.report.result(&what, arrived - started);
            }
        }
        Ok(())
    }

    /// Renames access.log while nginx still writes to it, then opens the new one.
    fn rotate(&mut self) -> anyhow::Result<()> {
        self.report.step(
            "rotate",
            "mv access.log access.log.1, written on for 0.3 s, then reopened",
        );
        self.traffic.hold()[ACCESS].rename()?;
        thread::sleep(ROTATION_LAG);
        let (last_old, reopened) = {
            let mut writers = self.traffic.hold();
            writers[ACCESS].reopen()?;
            (writers[ACCESS].written(), Instant::now())
        };
        let what = "a line of the new file in Kafka";
        self.delivery
            .wait_for(FILES[ACCESS], last_old + 1, DEADLINE)?;
        self.report.result(what, reopened.elapsed());
        thread::sleep(FLOW / 2);
        Ok(())
    }

    /// Kills the center; lines must go on, and a later put must reach the agent.
    fn kill_the_center(&mut self) -> anyhow::Result<()> {
        self.report.step(
            "kill -9",
            "config-center; the agent goes on with what it has",
        );
        self.center.process.kill9()?;
        let before = self.delivery.tally().distinct(FILES[ACCESS]);
        thread::sleep(OUTAGE);
        let during = self.delivery.tally().distinct(FILES[ACCESS]) - before;
        anyhow::ensure!(during > 0, "no line arrived while the center was down");
        self.report.note(&format!(
            "{} lines of access.log meanwhile",
            thousands(during)
        ));
        let started = Instant::now();
        self.report
            .step("restart", "config-center on the same data folder");
        self.center.restart()?;
        self.report.result("healthy", started.elapsed());
        self.put(&[(ACCESS, 1), (ERROR, 3)])?;
        thread::sleep(FLOW / 2);
        Ok(())
    }

    /// Waits for the last line and judges.
    fn settle(&mut self) -> anyhow::Result<()> {
        self.report
            .step("count", "the writer has stopped; waiting for the last line");
        for (index, file) in FILES.iter().enumerate() {
            self.delivery
                .wait_for(file, self.traffic.written(index), DEADLINE)?;
        }
        self.delivery.wait_quiet(QUIET)?;
        self.judge([self.traffic.written(ACCESS), self.traffic.written(ERROR)])
    }

    /// With `--stay` the writer goes on: judges the lines up to now.
    fn settle_while_writing(&mut self) -> anyhow::Result<()> {
        self.traffic.stop()?;
        self.settle()?;
        let writers = std::mem::take(&mut *self.traffic.hold());
        let lines_per_s = writers[ACCESS].format().lines_per_s;
        self.traffic = Traffic::start(writers, lines_per_s);
        Ok(())
    }

    fn judge(&self, written: [u64; 2]) -> anyhow::Result<()> {
        let tally = self.delivery.tally();
        let mut rows = Vec::new();
        for topic in &self.topics {
            for file in FILES {
                let Some((first, last)) = tally.bounds(topic, file) else {
                    continue;
                };
                let spanned = last + 1 - first;
                let records = tally.records(topic, file);
                rows.push(vec![
                    topic.clone(),
                    file.to_owned(),
                    thousands(first),
                    thousands(last),
                    thousands(spanned),
                    thousands(records),
                ]);
                anyhow::ensure!(
                    spanned == records,
                    "{topic} holds {records} records of {file} for {spanned} lines"
                );
            }
        }
        let head = [
            "topic",
            "file",
            "first line",
            "last line",
            "written",
            "delivered",
        ];
        self.report.table(&head, &rows);
        let verdicts: Vec<_> = FILES
            .iter()
            .zip(written)
            .map(|(file, written)| tally.verdict(file, written))
            .collect();
        let rows: Vec<_> = FILES
            .iter()
            .zip(&verdicts)
            .map(|(file, verdict)| verdict_row(file, verdict))
            .collect();
        let head = [
            "file",
            "written",
            "delivered",
            "lost",
            "duplicated",
            "reordered",
        ];
        self.report.table(&head, &rows);
        for (file, verdict) in FILES.iter().zip(&verdicts) {
            anyhow::ensure!(verdict.is_exact(), "{file}: {verdict}");
        }
        let total: u64 = written.iter().sum();
        self.report.success(&format!(
            "{} lines written, {} delivered, lost 0, duplicated 0",
            thousands(total),
            thousands(verdicts.iter().map(|verdict| verdict.delivered).sum()),
        ));
        Ok(())
    }

    fn shut_down(mut self) -> anyhow::Result<()> {
        let agent = self.agent.process.terminate()?;
        anyhow::ensure!(agent.success(), "logagent ended with {agent} after SIGTERM");
        let center = self.center.process.terminate()?;
        anyhow::ensure!(
            center.success(),
            "config-center ended with {center} after SIGTERM"
        );
        Ok(())
    }

    /// Stays up until Ctrl-C, or until one of the programs ends.
    fn stay(mut self) -> anyhow::Result<()> {
        let url = self.center.url();
        let endpoint = url.trim_start_matches("http://");
        let configctl = binaries::existing("configctl")?;
        let folder = self.paths[ACCESS]
            .parent()
            .context("a log file lies in a folder")?;
        println!("  center    {url}");
        println!("  kafka     {}", self.kafka.bootstrap());
        println!("  log files {}", folder.display());
        println!();
        self.report.commands(&[
            (
                "what the agent is told and what it reports, with any etcd client",
                format!(
                    "ETCDCTL_API=3 etcdctl --endpoints {endpoint} get --prefix \
                     /ningxin/backend/logagent/"
                ),
            ),
            (
                "collect one more file and wait until the agent runs it",
                format!(
                    "{} --endpoints {endpoint} push {} --topic {} --host {HOST} --wait",
                    configctl.display(),
                    folder.join("shop.log").display(),
                    self.topics[0],
                ),
            ),
            ("is the center well?", format!("curl {url}/health")),
        ]);
        println!("\nCtrl-C ends everything and removes its files.");
        loop {
            if let Some(status) = self.center.process.exit_status() {
                anyhow::bail!("config-center ended with {status}");
            }
            if let Some(status) = self.agent.process.exit_status() {
                anyhow::bail!("logagent ended with {status}");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}
