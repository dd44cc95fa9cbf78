//! A million keys: what they cost in memory and on disk, and how long a restart takes.

use std::time::{Duration, Instant};

use bench_kv::cost;

use crate::Arguments;
use crate::results::{Cell, Round};
use crate::rows::{fill, program};
use crate::store::{STORES, Store};

const KEYS: u64 = 1_000_000;
const QUICK_KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 256;
/// A server is at rest when it used less than this in one second.
const AT_REST_CPU_MS: u64 = 50;
const REST: Duration = Duration::from_secs(30);

/// One store at a time, so that the memory of one is never the page cache of another.
pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Cell>> {
    let keys = if arguments.quick { QUICK_KEYS } else { KEYS };
    let mut cells = Vec::new();
    for kind in STORES {
        let mut store = Store::start(kind, program(arguments, kind), &arguments.work)?;
        let outcome = fill(arguments, store.first().endpoint, keys, VALUE_BYTES)?;
        let pid = store.pids()[0];
        wait_for_rest(pid)?;
        let (rss_kib, peak_kib) = cost::rss_kib(pid)?;
        let disk = cost::disk_bytes(&store.first().data_dir)?;
        let restart = store.restart()?;
        let pid = store.pids()[0];
        wait_for_rest(pid)?;
        let (after_kib, _) = cost::rss_kib(pid)?;
        let mib = |kib: u64| kib as f64 / 1024.0;
        let values = [
            ("RSS MiB after the load", mib(rss_kib)),
            ("highest RSS MiB", mib(peak_kib)),
            ("disk MiB", disk as f64 / f64::from(1 << 20)),
            ("restart s", restart.as_secs_f64()),
            ("RSS MiB after the restart", mib(after_kib)),
            ("keys loaded per s", outcome.ops as f64 / outcome.seconds),
        ];
        eprintln!("{}: {values:?}", kind.name());
        cells.push(Cell {
            row: format!("{keys} keys of {VALUE_BYTES} B"),
            server: kind.name().to_owned(),
            rounds: vec![Round {
                outcome,
                fsyncs: None,
            }],
            values: values.map(|(name, value)| (name.to_owned(), value)).into(),
        });
    }
    Ok(cells)
}

fn wait_for_rest(pid: u32) -> anyhow::Result<()> {
    let since = Instant::now();
    while since.elapsed() < REST {
        let before = cost::cpu_ms(pid)?;
        std::thread::sleep(Duration::from_secs(1));
        if cost::cpu_ms(pid)? - before < AT_REST_CPU_MS {
            break;
        }
    }
    Ok(())
}
