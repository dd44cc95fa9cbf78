//! What a figure depends on beside the programs: processor, memory, kernel, disk.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Synced appends from which the disk's figure is taken.
const SYNCS: usize = 200;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// Median and 99th percentile of appending 4 KiB and waiting for the disk.
    pub(crate) fdatasync_us: (u64, u64),
}

pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_secs())
}

pub(crate) fn of_machine(work: &Path) -> anyhow::Result<Facts> {
    let field = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|rest| rest.trim_matches([' ', '\t', ':']).to_owned())
            .unwrap_or_default()
    };
    let memory = field(&fs::read_to_string("/proc/meminfo")?, "MemTotal");
    let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    Ok(Facts {
        cpu: field(&fs::read_to_string("/proc/cpuinfo")?, "model name"),
        cores: std::thread::available_parallelism()?.get(),
        memory_gib: memory_kib.div_ceil(1 << 20),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
        fdatasync_us: fdatasync_us(work)?,
    })
}

fn fdatasync_us(work: &Path) -> anyhow::Result<(u64, u64)> {
    let path = work.join("fdatasync");
    let mut file = File::create(&path)?;
    let mut micros = Vec::new();
    for _ in 0..SYNCS {
        file.write_all(&[7; 4096])?;
        let since = Instant::now();
        file.sync_data()?;
        micros.push(u64::try_from(since.elapsed().as_micros())?);
    }
    fs::remove_file(path)?;
    micros.sort_unstable();
    Ok((micros[SYNCS / 2], micros[SYNCS * 99 / 100]))
}
