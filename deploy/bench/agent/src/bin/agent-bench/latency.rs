//! From the write of a line to its place in the broker's log, by the broker's own clock.
//!
//! The topic stamps records when they are appended; writer and broker share the machine's clock, so
//! the difference is the way of the line. The stamp has whole milliseconds.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bench_agent::corpus::{Corpus, Kind, number_of};

use crate::results::{Latency, LatencyRow, Quantiles};
use crate::subject::{Input, Subject};
use crate::{Arguments, broker, watched};

const LINES_PER_S: u64 = 1_000;
const QUIET_PAUSE: Duration = Duration::from_millis(700);
/// So that a program has settled on a file before it is measured.
const SETTLE: Duration = Duration::from_secs(3);
const ARRIVAL: Duration = Duration::from_secs(60);

pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Latency> {
    let (busy_lines, quiet_lines) = if arguments.quick {
        (2_000, 5)
    } else {
        (30_000, 60)
    };
    let mut rows = Vec::new();
    for subject in Subject::TAILING {
        let mut row = LatencyRow {
            subject: subject.name().to_owned(),
            busy: Quantiles::default(),
            quiet: Quantiles::default(),
        };
        row.busy = one(arguments, subject, busy_lines, |number, began: Instant| {
            began + Duration::from_nanos(number * 1_000_000_000 / LINES_PER_S)
        })?;
        row.quiet = one(arguments, subject, quiet_lines, |number, began| {
            began + QUIET_PAUSE * u32::try_from(number).unwrap_or(u32::MAX)
        })?;
        eprintln!("{row:?}");
        rows.push(row);
    }
    Ok(Latency {
        commit: arguments.commit.clone(),
        rows,
    })
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64() * 1_000.0)
}

fn one(
    arguments: &Arguments,
    subject: Subject,
    lines: u64,
    due: impl Fn(u64, Instant) -> Instant,
) -> anyhow::Result<Quantiles> {
    let topic = format!("latency-{}-{lines}-{}", subject.name(), std::process::id());
    broker::create_stamping_topic(&arguments.bootstrap, &topic)?;
    let folder = arguments.work.join(&topic);
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs)?;
    let path = logs.join("00000.log");
    let mut file = File::create(&path)?;
    let input = Input {
        corpus: Corpus {
            kind: Kind::Access,
            lines: lines + 1,
            files: 1,
        },
        folder: logs,
        files: vec![path],
        bytes: 0,
    };
    let command = subject.command(arguments, &input, &topic, "lz4", &folder)?;
    let process = watched::Watched::spawn(command, &folder.join("log"))?;
    // Line 0 shows that the program has the file, and is not measured.
    write_line(&mut file, 0)?;
    let mut probe = broker::Probe::new(&arguments.bootstrap, &topic)?;
    probe.wait_for(1, ARRIVAL)?;
    std::thread::sleep(SETTLE);
    let began = Instant::now();
    let mut written_ms = vec![0.0; lines as usize + 1];
    for number in 1..=lines {
        let until = due(number, began);
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        written_ms[number as usize] = now_ms();
        write_line(&mut file, number)?;
    }
    probe.wait_for(lines + 1, ARRIVAL)?;
    drop(process);
    let mut scratch = Vec::new();
    let mut values = Vec::new();
    for (line, stamp_ms) in broker::stamped(&arguments.bootstrap, &topic)? {
        let number = number_of(Kind::Access, &line, &mut scratch)
            .ok_or_else(|| anyhow::anyhow!("an altered line"))?;
        if number > 0 {
            values.push((stamp_ms - written_ms[number as usize]).max(0.0));
        }
    }
    broker::delete_topic(&arguments.bootstrap, &topic)?;
    remove(&folder)?;
    Ok(Quantiles::of(values))
}

fn write_line(file: &mut File, number: u64) -> anyhow::Result<()> {
    let mut line = Vec::new();
    Kind::Access.append_line(number, &mut line);
    line.push(b'\n');
    Ok(file.write_all(&line)?)
}

pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    Ok(std::fs::remove_dir_all(folder)?)
}
