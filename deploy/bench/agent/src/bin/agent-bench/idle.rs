//! What many files cost in which nothing happens, and how soon a new line in one of them is noticed.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::agent::{Gateway, Setup};
use crate::latency::{now_ms, remove};
use crate::results::{Idle, IdleRow, Quantiles};
use crate::{Arguments, broker, watched};

const ARRIVAL: Duration = Duration::from_secs(240);
/// Below the number of files, so that they cannot all be held open.
const DESCRIPTOR_LIMIT: u64 = 1_024;
const FOLDERS: u64 = 20;
/// Between two new lines.
const PAUSE: Duration = Duration::from_millis(130);

pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Idle> {
    let (counts, settle, watch, samples): (&[u64], _, _, u64) = if arguments.quick {
        (&[500, 2_000], 5, 5, 10)
    } else {
        (&[2_000, 20_000], 60, 60, 200)
    };
    let mut rows = Vec::new();
    for &files in counts {
        let (settle, watch) = (Duration::from_secs(settle), Duration::from_secs(watch));
        let row = one(arguments, files, settle, watch, samples)?;
        eprintln!("{row:?}");
        rows.push(row);
    }
    Ok(Idle {
        commit: arguments.commit.clone(),
        rows,
    })
}

fn one(
    arguments: &Arguments,
    files: u64,
    settle: Duration,
    watch: Duration,
    samples: u64,
) -> anyhow::Result<IdleRow> {
    let topic = format!("idle-{files}-{}", std::process::id());
    broker::create_stamping_topic(&arguments.bootstrap, &topic)?;
    let folder = arguments.work.join(&topic);
    let logs = folder.join("logs");
    let path = |number: u64| logs.join(format!("{}/{number}.log", number % FOLDERS));
    for number in 0..FOLDERS {
        std::fs::create_dir_all(logs.join(number.to_string()))?;
    }
    for number in 0..files {
        std::fs::write(path(number), format!("first {number}\n"))?;
    }
    let setup = Setup {
        name: &topic,
        compression: "lz4",
        folder: &folder,
        allow: &logs,
    };
    let value = serde_json::json!([{ "path": logs.join("*/*.log"), "topic": topic }]);
    Gateway::connect(&arguments.etcd)?.put(&setup.config_key(), &value.to_string())?;
    let command = setup.limited_command(arguments, DESCRIPTOR_LIMIT)?;
    let mut process = watched::Watched::spawn(command, &folder.join("log"))?;
    let mut probe = broker::Probe::new(&arguments.bootstrap, &topic)?;
    probe.wait_for(files, ARRIVAL)?;
    std::thread::sleep(settle);
    let before = process.cost()?;
    let began = Instant::now();
    std::thread::sleep(watch);
    let after = process.cost()?;
    let seconds = began.elapsed().as_secs_f64();
    let (rss_kib, descriptors) = process.holds()?;
    let mut written_ms = Vec::new();
    for sample in 0..samples {
        // Spread over all files.
        let number = sample * 7_919 % files;
        let mut file = File::options().append(true).open(path(number))?;
        written_ms.push(now_ms());
        file.write_all(format!("sample {sample}\n").as_bytes())?;
        std::thread::sleep(PAUSE);
    }
    probe.wait_for(files + samples, ARRIVAL)?;
    drop(process);
    let mut values = Vec::new();
    for (line, stamp_ms) in broker::stamped(&arguments.bootstrap, &topic)? {
        let line = std::str::from_utf8(&line)?;
        if let Some(sample) = line.strip_prefix("sample ") {
            let sample: usize = sample.parse()?;
            values.push((stamp_ms - written_ms[sample]).max(0.0));
        }
    }
    broker::delete_topic(&arguments.bootstrap, &topic)?;
    remove(&folder)?;
    Ok(IdleRow {
        files,
        descriptor_limit: DESCRIPTOR_LIMIT,
        seconds,
        cpu_percent: (after.cpu_ms - before.cpu_ms) as f64 / 10.0 / seconds,
        rss_kib,
        descriptors,
        new_line: Quantiles::of(values),
    })
}
