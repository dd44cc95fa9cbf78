//! An agent's life in fast motion: files grow and rotate, the agent is killed and stopped, the broker
//! and the center go away and come back, the configuration changes. At the end every line is counted.
//!
//! `deploy/e2e/soak` builds everything and calls this. The last line printed is the verdict.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use e2e::agent::{HOST, config_key, entries};
use e2e::{
    Agent, AgentSetup, Center, DEADLINE, Delivery, Kafka, LineFormat, LineWriter, Verdict,
    binaries, broker, ports, wait_until,
};

const TICK: Duration = Duration::from_millis(50);
const QUIET: Duration = Duration::from_secs(2);
/// Rotated files of one log; the oldest is deleted when all of it has arrived.
const ROTATED_MAX: usize = 6;
/// The promise during an outage.
const RSS_MAX_KIB: u64 = 128 * 1024;
const DESCRIPTORS_MAX: usize = 200;
const REPORT_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Parser)]
#[command(about = "Runs an agent through random faults and counts its lines")]
struct Arguments {
    /// How long, without the time to settle at the end
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// In all files together
    #[arg(long, default_value_t = 500)]
    lines_per_s: u64,
    #[arg(long, default_value_t = 4)]
    files: usize,
    /// The mean pause between two events
    #[arg(long, default_value_t = 4)]
    pause_s: u64,
    /// The same seed gives the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides.max(1)
    }
}

/// One log and its rotated files.
struct Log {
    writer: LineWriter,
    /// Of each rotated file, newest first: how many lines were written up to its end.
    rotated: Vec<u64>,
}

impl Log {
    /// As logrotate: `.1` becomes `.2`, the log becomes `.1`. False when the oldest file is still
    /// wanted.
    fn rotate(&mut self, delivered: u64) -> anyhow::Result<bool> {
        let path = self.writer.path().to_owned();
        let name = |number: usize| PathBuf::from(format!("{}.{number}", path.display()));
        if self.rotated.len() == ROTATED_MAX {
            if self.rotated.last().is_some_and(|end| *end > delivered) {
                return Ok(false);
            }
            fs::remove_file(name(ROTATED_MAX))?;
            self.rotated.pop();
        }
        for number in (1..=self.rotated.len()).rev() {
            fs::rename(name(number), name(number + 1))?;
        }
        fs::rename(&path, name(1))?;
        // What a program writes before it has heard of the rotation.
        self.writer.write(3)?;
        self.writer.reopen()?;
        self.rotated.insert(0, self.writer.written());
        Ok(true)
    }
}

type Logs = Arc<Mutex<Vec<Log>>>;

fn lock(logs: &Logs) -> MutexGuard<'_, Vec<Log>> {
    logs.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Stand {
    center: Center,
    agent: Agent,
    logs: Logs,
    topics: Vec<String>,
    delivery: Delivery,
    kafka_folder: PathBuf,
    kafka_port: u16,
    /// The entry that is left out of the configuration now.
    left_out: Option<usize>,
    counts: BTreeMap<&'static str, u64>,
    highest_rss_kib: u64,
    most_descriptors: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match soak(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("soak: FAIL: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn soak(arguments: &Arguments) -> anyhow::Result<bool> {
    let work = tempfile::tempdir()?;
    let mut stand = Stand::start(work.path(), arguments.files)?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = thread::spawn({
        let (logs, stop, lines_per_s) = (
            Arc::clone(&stand.logs),
            Arc::clone(&stop),
            arguments.lines_per_s,
        );
        move || write_lines(&logs, lines_per_s, &stop)
    });
    let mut dice = Dice(arguments.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let began = Instant::now();
    let end = Duration::from_secs(arguments.seconds);
    let mut next_report = REPORT_EVERY;
    while began.elapsed() < end {
        let pause_ms = dice.roll(arguments.pause_s * 2_000);
        let left = end.saturating_sub(began.elapsed());
        thread::sleep(Duration::from_millis(pause_ms).min(left));
        stand.event(&mut dice)?;
        stand.measure();
        if began.elapsed() >= next_report {
            next_report += REPORT_EVERY;
            println!("after {} s: {}", began.elapsed().as_secs(), stand.summary());
        }
    }
    stop.store(true, Ordering::Relaxed);
    load.join().expect("the writer does not panic")?;
    stand.judge()
}

fn write_lines(logs: &Logs, lines_per_s: u64, stop: &AtomicBool) -> anyhow::Result<()> {
    let (began, mut written) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(TICK);
        let due = (began.elapsed().as_secs_f64() * lines_per_s as f64) as u64;
        let mut logs = lock(logs);
        let each = (due - written) / logs.len() as u64;
        for log in logs.iter_mut() {
            log.writer.write(each)?;
            written += each;
        }
    }
    Ok(())
}

impl Stand {
    fn start(work: &Path, files: usize) -> anyhow::Result<Self> {
        let kafka_folder = work.join("kafka");
        let address = broker::start_real(&kafka_folder, ports::free_port())?;
        let kafka_port = address.rsplit(':').next().context("a port")?.parse()?;
        let kafka = Kafka::at(&address);
        let formats: Vec<_> = (0..files)
            .map(|number| LineFormat::access(&format!("log{number}")))
            .collect();
        let mut topics = Vec::new();
        for _ in &formats {
            topics.push(kafka.fresh_topic("soak")?);
        }
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let delivery = Delivery::start(&kafka, &names, &formats)?;
        let center = Center::start(work)?;
        let folder = work.join("logs");
        fs::create_dir(&folder)?;
        let mut logs = Vec::new();
        for format in formats {
            let path = folder.join(&format.name);
            logs.push(Log {
                writer: LineWriter::create(&path, format)?,
                rotated: Vec::new(),
            });
        }
        let setup = AgentSetup::new(&center.url(), &address, &folder);
        let agent = Agent::start(work, &setup)?;
        let stand = Self {
            center,
            agent,
            logs: Arc::new(Mutex::new(logs)),
            topics,
            delivery,
            kafka_folder,
            kafka_port,
            left_out: None,
            counts: BTreeMap::new(),
            highest_rss_kib: 0,
            most_descriptors: 0,
        };
        stand.put_config()?;
        Ok(stand)
    }

    fn event(&mut self, dice: &mut Dice) -> anyhow::Result<()> {
        let what = match dice.roll(10) {
            0..4 => {
                let mut logs = lock(&self.logs);
                let at = dice.roll(logs.len() as u64) as usize;
                let log = &mut logs[at];
                let name = log.writer.format().name.clone();
                let delivered = self.delivery.tally().distinct(&name);
                if log.rotate(delivered)? {
                    "rotations"
                } else {
                    "rotations put off"
                }
            }
            4 | 5 => {
                self.agent.process.kill9()?;
                self.agent.respawn()?;
                "kills of the agent"
            }
            6 => {
                let status = self.agent.process.terminate()?;
                anyhow::ensure!(status.success(), "SIGTERM ended the agent with {status}");
                self.agent.respawn()?;
                "restarts of the agent"
            }
            7 => {
                self.stop_broker()?;
                thread::sleep(Duration::from_millis(dice.roll(4_000)));
                broker::start_real(&self.kafka_folder, self.kafka_port)?;
                "outages of the broker"
            }
            8 => {
                self.center.process.kill9()?;
                thread::sleep(Duration::from_millis(dice.roll(2_000)));
                self.center.restart()?;
                "kills of the center"
            }
            _ => {
                self.left_out = match self.left_out {
                    Some(_) => None,
                    None => Some(dice.roll(self.topics.len() as u64) as usize),
                };
                self.put_config()?;
                "changes of the configuration"
            }
        };
        *self.counts.entry(what).or_default() += 1;
        Ok(())
    }

    fn stop_broker(&self) -> anyhow::Result<()> {
        let script = binaries::repository().join("deploy/peers/kafka/kafka.sh");
        let output = Command::new(script)
            .args(["stop", "--dir"])
            .arg(&self.kafka_folder)
            .output()?;
        anyhow::ensure!(output.status.success(), "kafka.sh stop");
        Ok(())
    }

    fn put_config(&self) -> anyhow::Result<()> {
        let logs = lock(&self.logs);
        let pairs: Vec<_> = logs
            .iter()
            .zip(&self.topics)
            .enumerate()
            .filter(|(at, _)| self.left_out != Some(*at))
            .map(|(_, (log, topic))| (log.writer.path(), topic.as_str()))
            .collect();
        let value = entries(&pairs);
        let store = self.center.store()?;
        wait_until("the center to take a configuration", DEADLINE, || {
            store.put(&config_key(HOST), &value).ok()
        })?;
        Ok(())
    }

    fn measure(&mut self) {
        let pid = self.agent.process.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss_kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or(0);
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.highest_rss_kib = self.highest_rss_kib.max(rss_kib);
        self.most_descriptors = self.most_descriptors.max(descriptors);
    }

    fn written(&self) -> Vec<(String, u64)> {
        lock(&self.logs)
            .iter()
            .map(|log| (log.writer.format().name.clone(), log.writer.written()))
            .collect()
    }

    fn summary(&self) -> String {
        let written: u64 = self.written().iter().map(|(_, lines)| lines).sum();
        let events: Vec<_> = self
            .counts
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        format!(
            "{written} lines, {}; highest RSS {} MiB, {} descriptors",
            events.join(", "),
            self.highest_rss_kib / 1024,
            self.most_descriptors
        )
    }

    /// Everything runs again; then nothing may be missing.
    fn judge(mut self) -> anyhow::Result<bool> {
        self.left_out = None;
        self.put_config()?;
        anyhow::ensure!(self.agent.process.is_running(), "the agent has ended");
        let written = self.written();
        for (name, lines) in &written {
            // What is lost never comes: the verdict below tells how much that is.
            if self.delivery.wait_for(name, *lines, DEADLINE * 2).is_err() {
                println!("{name}: not everything has arrived in time");
            }
        }
        self.delivery.wait_quiet(QUIET)?;
        self.measure();
        let mut good =
            self.highest_rss_kib <= RSS_MAX_KIB && self.most_descriptors <= DESCRIPTORS_MAX;
        for (name, lines) in &written {
            let verdict: Verdict = self.delivery.tally().verdict(name, *lines);
            println!("{name}: {verdict}");
            good &= verdict.is_complete();
        }
        let end = self.agent.process.terminate()?;
        good &= end.success();
        println!(
            "soak: {}: {}",
            if good { "PASS" } else { "FAIL" },
            self.summary()
        );
        Ok(good)
    }
}
